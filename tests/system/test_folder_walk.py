from medseg.system.folder_walk import walk


def test_links_to_folders_are_followed_once_and_dangling_ones_named(tmp_path):
    store, view = tmp_path / "store", tmp_path / "view"
    (store / "p0" / ".hidden").mkdir(parents=True)
    (store / "p0" / "ct").write_text("1")
    (store / "p0" / ".hidden" / "no").write_text("1")
    (store / "p0" / "up").symlink_to(store)
    view.mkdir()
    (view / "a").symlink_to(store / "p0")
    (view / "gone").symlink_to(store / "p1")
    (view / "gone.nii.gz").symlink_to(store / "p1.nii.gz")
    found = walk(view)
    assert [path.relative_to(view).as_posix() for path in found.files] == ["a/ct"]
    assert found.skipped == tuple(
        f"{view / name} (a link that leads nowhere)" for name in ("gone", "gone.nii.gz")
    )
