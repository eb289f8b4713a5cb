from __future__ import annotations

import numpy as np
import pytest
import torch
from support.worlds import phantoms, tiny

from medseg.datasets.validation import measure
from medseg.datasets.validation.findings import finding
from medseg.errors import InputRefused, InputWarning, UsageError
from medseg.images.volume import Volume
from medseg.phantom.thorax import Thorax, default_grid
from medseg.preprocessing.label_classes import LabelClasses
from medseg.training import case_cache
from medseg.training.case_cache import CachedCase, cached, content_digest, report_warnings
from medseg.training.deep_supervision import label_channels
from medseg.training.patches import Patches, window


def channels(patch):
    """The labels of a patch, float32 (L, *patch)."""
    return label_channels(patch["label"][None], patch["table"][None])[0]


@pytest.fixture
def stored_by_an_earlier_version(monkeypatch):
    """Lets the keys of exclusive labels be those of entries whose counts were taken label by label."""
    key_of = case_cache.digest

    def set_earlier(earlier):
        monkeypatch.setattr(
            case_cache, "digest", (lambda facts: key_of(facts | {"exclusive": 1})) if earlier else key_of
        )

    return set_earlier


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Two training patients and one for validation."""
    return phantoms(tmp_path_factory.mktemp("cases"), "train", "train", "val")


def test_the_cache_is_keyed_by_content_and_recipe(cases, tmp_path):
    recipe = tiny()
    first = cached(cases[0], recipe, tmp_path)
    made = (first.folder / "image.npy").stat().st_mtime_ns
    assert cached(cases[0], tiny(train={"seed": 9}), tmp_path) == first
    assert (first.folder / "image.npy").stat().st_mtime_ns == made
    other = cached(cases[0], tiny(prepare={"spacing_mm": [9, 9, 9]}), tmp_path)
    assert other.folder != first.folder
    swapped = cases[0].model_copy(update={"label": cases[1].label})
    assert cached(swapped, recipe, tmp_path).folder != first.folder
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        {first.folder.name, other.folder.name, cached(swapped, recipe, tmp_path).folder.name}
    )


def test_unreadable_training_cases_are_named(cases, tmp_path):
    lost = cases[0].model_copy(update={"images": (tmp_path / "gone.nii.gz",)})
    with pytest.raises(InputRefused, match="no such file"):
        cached(lost, tiny(), tmp_path)
    with pytest.raises(UsageError, match="needs a label"):
        cached(cases[0].model_copy(update={"label": None}), tiny(), tmp_path)
    elsewhere = tmp_path / "coarser.nii.gz"
    Thorax().truth(default_grid((8.0, 9.0, 16.0))).save(elsewhere)
    with pytest.raises(InputRefused, match=r"case_0.*\n?.*not on the scan's grid"):
        cached(cases[0].model_copy(update={"label": elsewhere}), tiny(), tmp_path)


def test_the_digest_includes_the_file_with_the_voxels(tmp_path):
    Thorax().scan(default_grid((30.0, 30.0, 30.0))).save(tmp_path / "a.mhd")
    before = content_digest(tmp_path / "a.mhd")
    data = next(p for p in tmp_path.iterdir() if p.suffix != ".mhd")
    data.write_bytes(data.read_bytes()[::-1])
    assert content_digest(tmp_path / "a.mhd") != before


def test_a_data_file_of_another_name_counts(tmp_path):
    header = Thorax().scan(default_grid((30.0, 30.0, 30.0))).save(tmp_path / "a.mhd")
    data = next(p for p in tmp_path.iterdir() if p.suffix != ".mhd").rename(tmp_path / "voxels.zraw")
    text = [
        f"ElementDataFile = {data.name}" if "DataFile" in x else x for x in header.read_text().splitlines()
    ]
    header.write_text("\n".join(text) + "\n")
    before = content_digest(header)
    data.write_bytes(data.read_bytes() + b"x")
    assert content_digest(header) != before


def test_folders_have_a_content_digest_too(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "b").write_bytes(b"2")
    (folder / "a").write_bytes(b"1")
    before = content_digest(folder)
    (folder / "a").write_bytes(b"3")
    assert content_digest(folder) != before


@pytest.mark.parametrize("dims", [2, 3])
def test_patches_depend_on_seed_epoch_and_number_only(cases, tmp_path, dims):
    recipe = tiny(dims)
    prepared = [cached(case, recipe, tmp_path) for case in cases[:2]]
    a, b = Patches(prepared, recipe), Patches(prepared, recipe)
    a[0, 5], a[3, 1]  # what was drawn before must not matter
    for at in ((0, 0), (1, 3)):
        assert torch.equal(a[at]["image"], b[at]["image"])
        assert torch.equal(a[at]["label"], b[at]["label"])
        assert torch.equal(a[at]["table"], b[at]["table"])
    assert not torch.equal(a[0, 0]["image"], a[1, 0]["image"])
    assert a[0, 0]["image"].shape == (recipe.in_channels, *recipe.patch.size)
    assert a[0, 0]["label"].shape == (1, *recipe.patch.size)
    assert set(np.unique(channels(a[0, 0]).numpy())) <= {0.0, 1.0}


def test_foreground_patches_are_centred_on_a_label(cases, tmp_path):
    plain = {"rotate_degrees": 0, "scale": 0, "noise_sd": 0, "gamma": 0, "brightness": 0, "contrast": 0}
    recipe = tiny(train={"foreground_fraction": 1.0}, augment=plain, patch={"size": [8, 8, 8]})
    patches = Patches([cached(cases[0], recipe, tmp_path)], recipe)
    assert all(channels(patches[0, n]).any() for n in range(20))


def test_windows_by_hand():
    values = torch.arange(10.0)[None]
    low = torch.tensor([0.5])
    cut = lambda at, size: window(values, np.array([at]), (size,), fill=low)[0].tolist()  # noqa: E731
    assert cut(5, 4) == [3, 4, 5, 6]
    assert cut(0, 4) == [0, 1, 2, 3]  # moved inside
    assert cut(9, 4) == [6, 7, 8, 9]
    assert cut(5, 12) == [0.5, *range(10), 0.5]


def test_labels_that_are_not_annotated_are_unknown(cases, tmp_path):
    recipe = tiny()
    partial = cases[0].model_copy(update={"annotated": ("left_lung",)})
    place = cached(partial, recipe, tmp_path)
    assert place.folder != cached(cases[0], recipe, tmp_path).folder
    right, left = place.load().label
    assert (right == -1).all()
    assert set(np.unique(left).tolist()) == {0, 1}
    assert len(place.foreground(0)) == 0
    patches = [channels(Patches([place], recipe)[0, n]) for n in range(6)]
    assert all((p[0] == -1).all() for p in patches)
    assert all(set(p[1].unique().tolist()) <= {0, 1} for p in patches)


def test_slices_are_padded_with_the_minimum_of_the_scan_as_the_sliding_window_does(cases, tmp_path):
    plain = {"probability": 0}
    recipe = tiny(2, patch={"size": [96, 96], "neighbours": 1}, augment=plain, prepare={"crop": None})
    place = cached(cases[0], recipe, tmp_path)
    scan = place.load().image
    assert scan.shape[1] < 96
    image = Patches([place], recipe)[0, 0]["image"]
    assert (image[:, 0, 0] == scan.min()).all()


def test_errors_of_the_checks_are_refused_also_for_cases_in_the_cache(cases, tmp_path):
    shifted = tmp_path / "shifted.nii.gz"
    scan = Thorax.random(0).scan(default_grid((8.0, 9.0, 12.0)))
    wrong = Volume(scan.array + 1024, scan.grid)
    wrong.save(shifted)
    with pytest.raises(InputRefused, match="hu-shifted") as caught:
        cached(cases[0].model_copy(update={"images": (shifted,)}), tiny(), tmp_path)
    assert caught.value.reason == "data-errors"
    place = cached(cases[0], tiny(), tmp_path)
    # As if a later version found an error in what an earlier one had prepared.
    (place.folder / "facts.json").write_text(measure((wrong,), None).model_dump_json())
    (place.folder / "digests.json").unlink()
    with pytest.raises(InputRefused, match="hu-shifted"):
        cached(cases[0], tiny(), tmp_path)


def test_warnings_of_one_kind_share_a_line():
    found = [finding("label-empty", "nothing in it", case) for case in "abc"]
    errors = [finding("label-never", "never", None)]
    with pytest.warns(InputWarning) as caught:
        report_warnings([*found, *errors, finding("duplicate", "twice", "b")])
    texts = [str(each.message) for each in caught]
    assert len(texts) == 2
    assert texts[0].startswith("a: label-empty: nothing in it")
    assert texts[0].endswith("(and 2 more cases)")
    assert texts[1].startswith("b: duplicate")


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "image.npy").write_bytes((entry / "image.npy").read_bytes()[:-100]),
        lambda entry: (entry / "image.npy").write_bytes(b""),
        lambda entry: (entry / "facts.json").write_bytes(b""),
        lambda entry: (entry / "grid.json").unlink(),
        lambda entry: (entry / "grid.json").write_bytes(b""),
        lambda entry: (entry / "foreground_0.npy").unlink(),
        lambda entry: (entry / "digests.json").write_text("[1]"),
        lambda entry: (entry / "digests.json").write_text("{"),
        lambda entry: flip_last_byte(entry / "label.npy"),
    ],
)
def test_a_damaged_entry_is_made_again_with_a_warning(cases, tmp_path, damage):
    before = cached(cases[0], tiny(), tmp_path)
    whole = {path.name: path.read_bytes() for path in before.folder.iterdir()}
    damage(before.folder)
    with pytest.warns(InputWarning, match="is damaged and is made again"):
        again = cached(cases[0], tiny(), tmp_path)
    assert {path.name: path.read_bytes() for path in again.folder.iterdir()} == whole
    assert [path.name for path in tmp_path.iterdir()] == [again.folder.name]
    assert cached(cases[0], tiny(), tmp_path) == again  # without a warning


def flip_last_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_an_entry_of_an_earlier_version_is_completed(cases, tmp_path):
    held = cached(cases[0], tiny(), tmp_path)
    (held.folder / "digests.json").unlink()
    made = (held.folder / "image.npy").stat().st_mtime_ns
    assert cached(cases[0], tiny(), tmp_path) == held
    assert (held.folder / "digests.json").is_file()
    assert (held.folder / "image.npy").stat().st_mtime_ns == made
    (held.folder / "digests.json").unlink()
    (held.folder / "image.npy").write_bytes(b"")
    with pytest.warns(InputWarning, match="is made again"):
        cached(cases[0], tiny(), tmp_path)


def test_counts_of_exclusive_labels_of_an_earlier_version_are_not_used(
    cases, tmp_path, stored_by_an_earlier_version
):
    exclusive = tiny(loss={"kind": "dice_ce"})
    stored_by_an_earlier_version(True)
    old = cached(cases[0], exclusive, tmp_path)
    stored_by_an_earlier_version(False)
    new = cached(cases[0], exclusive, tmp_path)
    assert new.folder != old.folder
    made = (new.folder / "facts.json").stat().st_mtime_ns
    assert cached(cases[0], exclusive, tmp_path) == new
    assert (new.folder / "facts.json").stat().st_mtime_ns == made


@pytest.mark.parametrize("size", [(100, 100, 40), (100, 64, 50), (90, 120, 20)])
def test_kept_centres_spread_over_the_whole_label(tmp_path, size):
    # Every n-th voxel of a box 40 voxels high keeps a single z if n is 40.
    label = np.zeros((1, 120, 125, 60), np.int8)
    label[0, 5 : 5 + size[0], 5 : 5 + size[1], 7 : 7 + size[2]] = 1
    case_cache._save_foreground(LabelClasses.from_channels(label), tmp_path)
    voxels = np.load(tmp_path / "foreground_0.npy")
    assert len(voxels) == 10_000
    for axis, (first, length) in enumerate(zip((5, 5, 7), size, strict=True)):
        counts = np.bincount(voxels[:, axis], minlength=130)[first : first + length]
        assert counts.sum() == 10_000
        # Uniform counts have a mean of n = 10000 / length and a standard deviation of about sqrt(n).
        expected = 10_000 / length
        assert abs(counts - expected).max() < 5.5 * expected**0.5


@pytest.mark.parametrize(("labels", "present"), [(1, [0]), (10, [0, 5]), (10, [9]), (40, [3, 8, 12, 39])])
def test_the_share_of_foreground_patches_is_that_of_the_recipe(tmp_path, labels, present):
    label = np.zeros((labels, 30, 30, 30), np.int8)
    for number in present:
        label[number, number % 25, 10:12, 10:12] = 1
    classes = LabelClasses.from_channels(label)
    case_cache._save_foreground(classes, tmp_path)
    np.save(tmp_path / "table.npy", classes.table)
    recipe = tiny(
        labels=[{"name": f"part_{value}", "values": [value]} for value in range(1, labels + 1)],
        train={"foreground_fraction": 0.5},
    )
    case = CachedCase("a", tmp_path)
    patches = Patches([case], recipe)
    centres = [patches._centre(case, label.shape[1:], np.random.default_rng(n)) for n in range(1000)]
    hits = [sum(label[(number, *centre)] == 1 for centre in centres) for number in present]
    # 1000 draws with probability 1/2: a standard deviation of 16; elsewhere a hit is rare (4 of 27000).
    assert abs(sum(hits) - 500) < 80
    assert all(abs(each - 500 / len(present)) < 80 for each in hits)


def test_patches_of_a_case_without_labels_lie_anywhere(tmp_path):
    label = np.zeros((2, 8, 8, 8), np.int8)
    classes = LabelClasses.from_channels(label)
    case_cache._save_foreground(classes, tmp_path)
    np.save(tmp_path / "table.npy", classes.table)
    case = CachedCase("a", tmp_path)
    recipe = tiny(train={"foreground_fraction": 1.0})
    centres = [
        tuple(Patches([case], recipe)._centre(case, (8, 8, 8), np.random.default_rng(n))) for n in range(50)
    ]
    assert len(set(centres)) > 25
