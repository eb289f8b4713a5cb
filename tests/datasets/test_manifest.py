"""Manifests: every format in, errors that name the place, splits by patient."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from support.people import patients, people

from medseg.datasets.manifest import Case, Manifest
from medseg.errors import InputWarning, UsageError

SHIPPED = sorted((Path(__file__).parents[2] / "data_manifests").glob("*.yaml"))


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        Manifest.read(path)
    assert caught.value.remedy
    assert caught.value.reason.startswith("manifest-")
    return str(caught.value)


# ---- formats ----------------------------------------------------------------------------------


def test_csv_paths_are_relative_to_its_folder(tmp_path: Path) -> None:
    text = "id,image,image_2,label,group,split\n001,a/t1.nii.gz,/abs/t2.nii.gz,a/l.nii.gz,siemens,train\n"
    manifest = Manifest.read(written(tmp_path, "site.csv", text))
    assert manifest.name == "site"
    assert manifest.cases == (
        Case(
            id="001",
            patient="001",
            images=(tmp_path / "a/t1.nii.gz", Path("/abs/t2.nii.gz")),
            label=tmp_path / "a/l.nii.gz",
            group="siemens",
            split="train",
        ),
    )


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfid;image;split\r\n007;x, y.nii;test\r\n;;\r\n\r\n",  # Excel in much of Europe
        b"id\timage\tsplit\n007\tx, y.nii\ttest\n",
        b'\nid,image,split\n 007 ,"x, y.nii", test\n',
    ],
)
def test_csv_dialects_agree(tmp_path: Path, text: bytes) -> None:
    (case,) = Manifest.read(written(tmp_path, "m.csv", text)).cases
    assert (case.id, case.images, case.split, case.label) == ("007", (tmp_path / "x, y.nii",), "test", None)


@pytest.mark.parametrize(
    "text",
    [
        "ID,Image,Mask,Split\na,x/s.nii,x/m.nii,Training\n",
        "id,image,label,split,,\na,x/s.nii,x/m.nii,train,,\n",  # as spreadsheets write empty columns
        "id,image,label,split\na,x/s.nii,x/m.nii,train,\n",
        "Case ID,scan,segmentation,split\na,x\\s.nii,x\\m.nii,TRAIN\n",
    ],
)
def test_other_spellings_of_columns_splits_and_paths_are_taken(tmp_path: Path, text: str) -> None:
    (case,) = Manifest.read(written(tmp_path, "m.csv", text)).cases
    assert (case.id, case.split) == ("a", "train")
    assert (case.images, case.label) == ((tmp_path / "x" / "s.nii",), tmp_path / "x" / "m.nii")


def test_a_file_whose_name_has_a_backslash_is_kept(tmp_path: Path) -> None:
    (tmp_path / "x\\y.nii").touch()
    (case,) = Manifest.read(written(tmp_path, "m.csv", "id,image\na,x\\y.nii\n")).cases
    assert case.images == (tmp_path / "x\\y.nii",)


def test_csv_cases_may_have_fewer_channels_but_no_gap(tmp_path: Path) -> None:
    head = "id,image_3,image,image_2\n"  # the order of columns is free
    one, three = Manifest.read(written(tmp_path, "m.csv", head + "a,,1,\nb,3,1,2\n")).cases
    assert [p.name for p in one.images] == ["1"]
    assert [p.name for p in three.images] == ["1", "2", "3"]
    assert "row 2" in refusal(written(tmp_path, "m.csv", head + "a,3,1,\n"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("id,image,sex\na,x,f\n", ["unknown column 'sex'", "patient", "image_2"]),
        ("id,image,id\na,x,a\n", ["'id'", "repeated"]),
        ("id,image_2\na,x\n", ["'image' is missing"]),
        ("id,image,image_3\na,x,y\n", ["'image_2' is missing"]),
        ("image\nx\n", ["'id' is missing"]),
        ("", ["empty"]),
        ("id,image\n", ["no case"]),
        ("id,image\n\na,x,y\n", ["row 3", "3 cells", "2"]),
        ("id,image\n,x\n", ["row 2", "id is missing"]),
        ("id,image\na,\n", ["row 2", "image is missing"]),
        ("id,image,split\na,x,trainign\n", ["row 2", "split 'trainign'", "train, val, test, or empty"]),
        ("id,image\na,D:\\x.nii\n", ["row 2", "Windows drive", "relative to the manifest"]),
        ("ID,image,id\na,x,a\n", ["'id'", "repeated"]),
        ("id,image\na,x\n\nb,y\na,z\n", ["'a'", "row 5", "row 2"]),
        ("id,image\na,x\nA,y\n", ["'A'", "row 3", "row 2"]),
        ('id,image\na,"x\n', ["not CSV"]),
        ("id,patient,image,split\na,p,x,train\nb,p,y,test\n", ["'p'", "train", "test", "row 3"]),
        (b"id,image\n\xfc,x\n", ["not UTF-8 at byte 9", "save it as UTF-8"]),
    ],
)
def test_errors_in_csv_name_place_and_value(tmp_path: Path, text: str | bytes, parts: list[str]) -> None:
    message = refusal(written(tmp_path, "m.csv", text))
    assert "m.csv" in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    "id_", ["a/b", "a\\b", "..", ".hidden", "a\nb", " a", "", "a:b", "x" * 201, "a\u202eb"]
)
def test_ids_must_be_file_names(id_: str) -> None:
    with pytest.raises(ValidationError):
        Case(id=id_, images=(Path("x"),))


def test_yaml_scalars_stay_text(tmp_path: Path) -> None:
    text = """
        name: 2024-01-01
        root: ../scans
        cases:
          - {id: 001, image: no, group: no, label: null}
          - {id: 1e-4, image: [1, 2], patient: 017, split: val, label: ~}
    """
    (tmp_path / "lists").mkdir()
    manifest = Manifest.read(written(tmp_path / "lists", "m.yaml", text))
    root = tmp_path / "lists" / "../scans"
    assert (manifest.name, manifest.root) == ("2024-01-01", root)
    first, second = manifest.cases
    assert (first.id, first.group, first.images, first.label) == ("001", "no", (root / "no",), None)
    assert (second.id, second.patient, second.images) == ("1e-4", "017", (root / "1", root / "2"))


def test_a_given_root_replaces_that_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "m.yml", "root: elsewhere\ncases: [{id: a, image: x}]")
    assert Manifest.read(path).cases[0].images == (tmp_path / "elsewhere/x",)
    assert Manifest.read(path, root="/data").cases[0].images == (Path("/data/x"),)


def test_json_whole_numbers_may_be_ids(tmp_path: Path) -> None:
    data = {"cases": [{"id": 7, "patient": 3, "image": "x"}]}
    (case,) = Manifest.read(written(tmp_path, "m.json", json.dumps(data))).cases
    assert (case.id, case.patient) == ("7", "3")


@pytest.mark.parametrize("name", ["m.json", "m.yaml"])
def test_a_list_of_cases_is_a_manifest(tmp_path: Path, name: str) -> None:
    data = [
        {"id": "a", "image": "one.nii.gz", "label": "m.nii.gz", "patient": "p", "split": "train"},
        {"id": "b", "image": ["t1.nii", "t2.nii"], "group": "mri"},
    ]
    first, second = Manifest.read(written(tmp_path, name, json.dumps(data))).cases
    assert (first.id, first.images, first.split) == ("a", (tmp_path / "one.nii.gz",), "train")
    assert (second.id, len(second.images), second.group) == ("b", 2, "mri")


@pytest.mark.parametrize(
    ("images", "ids"),
    [
        (["scans/one.nii.gz", "scans/two.mha"], ["one", "two"]),
        (["p1/ct.nii.gz", "p2/ct.nii.gz"], ["p1", "p2"]),
        (["a/p1/ct.nii.gz", "b/p1/ct.nii.gz"], ["a_p1_ct", "b_p1_ct"]),
    ],
)
def test_cases_without_ids_in_a_list_are_named_after_their_images(tmp_path: Path, images, ids) -> None:
    file = written(tmp_path, "m.json", json.dumps([{"image": image, "label": "m.nii"} for image in images]))
    assert [case.id for case in Manifest.read(file).cases] == ids


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("m.json", '{"cases": [{"id": 1.5, "image": "x"}]}', ["case 1", "id is 1.5", "quotes"]),
        ("m.json", '{"cases": [{"id": true, "image": "x"}]}', ["id is True"]),
        ("m.json", '{"cases": [{"id": "a", "image": ["x", null]}]}', ["empty channel"]),
        ("m.json", '{"cases": [{"id": "a", "image": "x", "sex": "f"}]}', ["'sex'", "known"]),
        ("m.json", '{"cases": [{"id": "a", "image": "x", "image": "y"}]}', ["'image' appears twice"]),
        ("m.json", '{"cases": ["a"]}', ["cases is not a list"]),
        ("m.json", '{"case": []}', ["unknown key 'case'", "cases"]),
        ("m.json", "7", ["neither a mapping nor a list"]),
        ("m.json", "[]", ["no case"]),
        ("m.json", '["a.nii.gz"]', ["cases is not a list of mappings"]),
        ("m.json", '[{"id": "a", "image": "x", "sex": "f"}]', ["'sex'", "known"]),
        ("m.json", '[{"id": "a", "image": "x"}, {"image": "y"}]', ["case 2", "id"]),
        ("m.json", "{", ["not valid json"]),
        ("m.json", "[" * 100_000, ["not valid json"]),
        ("m.yaml", "cases: [", ["not valid yaml"]),
        ("m.yaml", "cases: []", ["no case"]),
        ("m.yaml", "cases: [{id: a, image: x, label: y, label: z}]", ["'label' appears twice"]),
        ("m.yaml", "cases: !!python/object/apply:os.getcwd []", ["not valid yaml"]),
        ("m.txt", "id,image", ["'.txt'", ".csv"]),
    ],
)
def test_bad_json_and_yaml_is_refused(tmp_path: Path, name: str, text: str, parts: list[str]) -> None:
    message = refusal(written(tmp_path, name, text))
    for part in parts:
        assert part in message


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "no.csv")
    assert "cannot be read" in refusal(tmp_path / "no-folder")
    assert "dataset.json" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["m.csv", "m.json", "m.yaml", "m.yml"])
def test_written_manifests_are_read_back_unchanged(tmp_path: Path, name: str) -> None:
    root = tmp_path / "data"
    cases = (
        Case(
            id="001", images=(root / "ü, x.nii", root / "b.nii"), label=root / "no", group="no", split="val"
        ),
        Case(id="null", patient="1e-4", images=(Path("/elsewhere/c.nii"),)),
    )
    manifest = Manifest("some; name", cases, root, "what it is")
    path = manifest.write(tmp_path / name)
    back = Manifest.read(path)
    assert back.cases == cases
    assert str(tmp_path) not in path.read_text(encoding="utf-8")  # relative, so that it can be moved
    if name != "m.csv":
        assert back == manifest
    with pytest.raises(UsageError):
        manifest.write(tmp_path / "m.txt")


def test_the_layout_of_msd(tmp_path: Path) -> None:
    data = {
        "name": "Hippocampus",
        "description": "Left and right",
        "modality": {"0": "MRI"},
        "numTraining": 1,
        "training": [{"image": "./imagesTr/h_001.nii.gz", "label": "./labelsTr/h_001.nii.gz"}],
        "test": ["./imagesTs/h_002.nii.gz", {"image": "./imagesTs/h.003.nii"}],
    }
    file = written(tmp_path, "dataset.json", json.dumps(data))
    manifest = Manifest.read(tmp_path)
    assert manifest == Manifest.read(file)
    assert manifest.name == "Hippocampus"
    (train,) = manifest.split("train")
    assert (train.id, train.images) == ("h_001", (tmp_path / "imagesTr/h_001.nii.gz",))
    assert train.label == tmp_path / "labelsTr/h_001.nii.gz"
    assert [(case.id, case.label) for case in manifest.split("test")] == [("h_002", None), ("h.003", None)]


def nnunet(folder: Path, *, training: int = 2) -> Path:
    data = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": training,
        "file_ending": ".nii.gz",
    }
    written(folder, "dataset.json", json.dumps(data))
    train = ["imagesTr/b_0000", "imagesTr/b_0001", "imagesTr/a_0000", "imagesTr/._a_0000"]
    test = ["imagesTs/c_0000", "imagesTs/c_0001", "imagesTs/d_0000"]
    for name in (*train, *test, "labelsTr/a", "labelsTr/b", "labelsTs/c"):
        path = folder / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return folder


def datalist(folder: Path, **lists: object) -> Path:
    return written(folder, "dataset.json", json.dumps(lists))


def pairs(*names: object, **more: object) -> list[dict[str, object]]:
    return [{"image": f"im/{name}.nii.gz", "label": f"lb/{name}.nii.gz", **more} for name in names]


def test_lists_of_a_monai_datalist_are_splits(tmp_path: Path) -> None:
    """The key names are those of BTCV's file (validation, test) and of Auto3DSeg's (testing)."""
    test = [{"image": "im/t.nii.gz"}, {"image": "im/u.nii.gz", "label": "lb/u.nii.gz"}]
    manifest = Manifest.read(datalist(tmp_path, training=pairs(1, 2), validation=pairs(3), testing=test))
    assert [(case.id, case.split) for case in manifest.cases] == [
        ("1", "train"), ("2", "train"), ("3", "val"), ("t", "test"), ("u", "test"),
    ]  # fmt: skip
    assert [case.label is None for case in manifest.cases] == [False, False, False, True, False]
    plain = Manifest.read(datalist(tmp_path, training=pairs(1), test=["im/x.nii.gz"]))
    assert [(case.id, case.split) for case in plain.cases] == [("1", "train"), ("x", "test")]


def test_the_first_fold_of_a_datalist_is_for_validation(tmp_path: Path) -> None:
    folded = [*pairs("a", "d", fold=1), *pairs("b", fold=0), *pairs("c", fold=2)]
    with pytest.warns(InputWarning, match="fold 0 of the folds 0, 1, 2 is split val"):
        manifest = Manifest.read(datalist(tmp_path, training=folded))
    assert {case.id: case.split for case in manifest.cases} == {
        "a": "train",
        "d": "train",
        "b": "val",
        "c": "train",
    }
    # One fold alone divides nothing, and an explicit list of validation cases decides.
    single = Manifest.read(datalist(tmp_path, training=pairs("a", "b", fold=0)))
    assert {case.split for case in single.cases} == {"train"}
    listed = Manifest.read(datalist(tmp_path, training=folded, validation=pairs("v")))
    assert [case.id for case in listed.split("val")] == ["v"]


def test_unknown_lists_of_cases_are_refused(tmp_path: Path) -> None:
    message = refusal(datalist(tmp_path, training=pairs(1), valid=pairs(2)))
    assert "unknown list of cases 'valid'" in message
    # channel_names make it look like a folder of nnU-Net, in which no case would be found.
    names = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    message = refusal(datalist(tmp_path, Training=pairs(1), **names))
    assert "unknown list of cases 'Training'" in message
    Manifest.read(datalist(tmp_path, training=pairs(1), labels={"1": "a"}, reference=["x"]))


def test_images_of_one_name_in_folders_have_distinct_ids(tmp_path: Path) -> None:
    cases = [
        {"image": [f"p{n}/flair.nii.gz", f"p{n}/t1.nii.gz"], "label": f"p{n}/seg.nii.gz"} for n in (1, 2)
    ]
    manifest = Manifest.read(datalist(tmp_path, training=cases))
    assert [case.id for case in manifest.cases] == ["p1", "p2"]
    assert [len(case.images) for case in manifest.cases] == [2, 2]
    deeper = [{"image": f"./{n}/ct/scan.nii.gz", "label": "x"} for n in "ab"]
    assert [case.id for case in Manifest.read(datalist(tmp_path, training=deeper)).cases] == [
        "a_ct_scan",
        "b_ct_scan",
    ]


def test_the_layout_of_nnunet(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset001_Tumour"
    folder.mkdir()
    manifest = Manifest.read(nnunet(folder))
    assert manifest.name == "Dataset001_Tumour"
    assert [(c.id, c.split, c.label and c.label.name) for c in manifest.cases] == [
        ("a", "train", "a.nii.gz"),
        ("b", "train", "b.nii.gz"),
        ("c", "test", "c.nii.gz"),
        ("d", "test", None),
    ]
    assert [p.name for p in manifest.cases[1].images] == ["b_0000.nii.gz", "b_0001.nii.gz"]
    assert [p.name for p in manifest.missing()] == ["a_0001.nii.gz", "d_0001.nii.gz"]


def test_an_incomplete_nnunet_folder_is_refused(tmp_path: Path) -> None:
    assert "numTraining is 3, but imagesTr has 2" in refusal(nnunet(tmp_path, training=3))
    written(tmp_path, "dataset.json", '{"channel_names": {}}')
    assert "channel_names" in refusal(tmp_path)


def test_missing_lists_each_file_once(tmp_path: Path) -> None:
    here = written(tmp_path, "here.nii", "")
    gone = tmp_path / "gone.nii"
    cases = (Case(id="a", images=(here, gone), label=gone), Case(id="b", images=(gone,), label=here))
    assert Manifest("m", cases).missing() == (gone,)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown split 'valid'"):
        people(1).split("valid")


# ---- the shipped manifests --------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_manifests_are_consistent(path: Path) -> None:
    manifest = Manifest.read(path)
    assert manifest.name == path.stem
    assert all(case.split and case.label for case in manifest.cases)
    listed = [line.split("  ", 1)[1] for line in path.with_suffix(".sha256").read_text().splitlines()]
    named = [str(p.relative_to(manifest.root)) for c in manifest.cases for p in (*c.images, c.label) if p]
    assert listed == named
    card = path.with_suffix(".md").read_text()
    assert all(part in card for part in ("Licence", "## Cite", "## Splits", "how to get it"))


def test_shipped_splits_follow_their_cards() -> None:
    folder = Path(__file__).parents[2] / "data_manifests"
    lungs = Manifest.read(folder / "lctsc_lungs.yaml")
    assert patients(lungs, "train") | patients(lungs, "val") == {f"LCTSC-{n:03d}" for n in (0, 1, 3, 4, 6)}
    assert patients(lungs, "test") == {f"LCTSC-{n:03d}" for n in (2, 7, 8)}
    cases = Manifest.read(folder / "hippocampus.yaml").cases
    assert [case.id for case in cases] == sorted(case.id for case in cases)
    assert all((case.split == "test") == (number % 5 == 4) for number, case in enumerate(cases))
    rest = [case for case in cases if case.split != "test"]
    assert all((case.split == "val") == (number % 10 == 9) for number, case in enumerate(rest))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_available_data_matches_the_manifests(path: Path, shared_data: Path) -> None:
    manifest = Manifest.read(path, root=shared_data)
    assert manifest.missing() == ()
    for line in path.with_suffix(".sha256").read_text().splitlines():
        digest, name = line.split("  ", 1)
        assert hashlib.sha256((shared_data / name).read_bytes()).hexdigest() == digest, name


def test_names_in_a_csv_do_not_become_formulas_and_are_read_back(tmp_path: Path) -> None:
    case = Case(id="=1+1", patient="@p", images=(tmp_path / "x.nii.gz",), group="+g", annotated=("-a", "b"))
    path = Manifest("m", (case,)).write(tmp_path / "m.csv")
    assert "'=1+1,'@p,x.nii.gz" in path.read_text()
    assert Manifest.read(path).cases == (case,)


def test_annotated_labels_survive_every_format(tmp_path: Path) -> None:
    cases = (
        Case(id="a", images=(tmp_path / "a.nii.gz",), annotated=("lung", "left heart")),
        Case(id="b", images=(tmp_path / "b.nii.gz",)),
    )
    for name in ("m.csv", "m.json", "m.yaml"):
        back = Manifest.read(Manifest("m", cases, tmp_path).write(tmp_path / name)).cases
        assert [case.annotated for case in back] == [("lung", "left heart"), None]
    plain = Manifest("m", cases[1:], tmp_path).write(tmp_path / "plain.csv")
    assert "annotated" not in plain.read_text()


@pytest.mark.parametrize("name", ["m.csv", "m.json", "m.yaml"])
def test_the_study_of_a_case_survives_every_format(tmp_path: Path, name: str) -> None:
    cases = (
        Case(id="a1", patient="a", study="2020-03-01", images=(tmp_path / "1.nii",)),
        Case(id="a2", patient="a", images=(tmp_path / "2.nii",)),
    )
    written = Manifest("m", cases, root=tmp_path).write(tmp_path / name)
    assert [(case.patient, case.study) for case in Manifest.read(written).cases] == [
        ("a", "2020-03-01"),
        ("a", None),
    ]


def test_a_manifest_without_studies_is_written_as_before(tmp_path: Path) -> None:
    cases = (Case(id="a1", patient="a", images=(tmp_path / "1.nii",)),)
    written = Manifest("m", cases, root=tmp_path).write(tmp_path / "m.csv")
    assert written.read_text() == "id,patient,image,label,group,split\na1,a,1.nii,,,\n"


@pytest.mark.parametrize("text", ["lung;;heart", "lung;lung", ";"])
def test_annotated_labels_must_be_distinct(tmp_path: Path, text: str) -> None:
    assert "annotated" in refusal(written(tmp_path, "m.csv", f"id,image,annotated\na,a.nii.gz,{text}\n"))
