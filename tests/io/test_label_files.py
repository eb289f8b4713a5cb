"""A file for each label of a small label map; the voxels of each are known from paper and pencil."""

import json

import nibabel
import numpy as np
import pytest

import medseg
from medseg.datasets.layouts.totalsegmentator import together
from medseg.errors import UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.io.label_files import check_label_files, label_paths, write_label_files

LUNG, LESION = Label(name="lung", values=(1, 2)), Label(name="lesion", values=(2,))
SPLEEN, HEART = Label(name="spleen", values=(9,)), Label(name="heart", values=(7,))
LINE = Grid.from_spacing((6, 1, 1), (10.0, 10.0, 10.0))  # 1 ml a voxel


def line(*labels):
    return Mask(np.array([0, 1, 2, 7, 7, 0], np.uint8).reshape(6, 1, 1), LINE, labels)


def voxels(path):
    return np.asarray(nibabel.load(path).dataobj).ravel().tolist()


def test_each_label_has_a_binary_file_with_a_sidecar(tmp_path):
    facts = {"recipe": "tiny", "airless_ml": {"lung": 0.5}, "files": {"m.nii.gz": "0"}, "labels": {}}
    folder = tmp_path / "a" / "segmentations"
    paths = write_label_files(line(LUNG, LESION, SPLEEN, HEART), folder, facts)
    assert [path.name for path in paths] == [f"{n}.nii.gz" for n in ("lung", "lesion", "spleen", "heart")]
    assert [voxels(path) for path in paths] == [
        [0, 1, 1, 0, 0, 0],  # the lesion is part of the lung
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 0],
    ]
    assert nibabel.load(paths[0]).get_data_dtype() == np.uint8
    np.testing.assert_array_equal(nibabel.load(paths[0]).affine, LINE.affine)
    lung, heart = (json.loads((folder / f"{name}.json").read_text()) for name in ("lung", "heart"))
    assert (lung["recipe"], lung["labels"], lung["airless_ml"]) == ("tiny", {"lung": [1]}, {"lung": 0.5})
    assert lung["volumes_ml"] == {"lung": 2.0}
    assert list(lung["files"]) == ["lung.nii.gz"]
    assert "airless_ml" not in heart


def test_the_reader_of_such_folders_puts_them_together_again(tmp_path):
    paths = dict(zip(("spleen", "heart"), write_label_files(line(SPLEEN, HEART), tmp_path), strict=True))
    merged = together(paths, {"spleen": 9, "heart": 7})
    assert merged.array.ravel().tolist() == [0, 0, 0, 7, 7, 0]


def test_names_are_safe_and_differ_on_every_file_system(tmp_path):
    names = ("../GTV", "Heart", "heart", "HEART", "lung.v2")
    labels = tuple(Label(name=name, values=(value,)) for value, name in enumerate(names, 1))
    paths = label_paths(tmp_path, labels)
    assert {path.parent for path in paths.values()} == {tmp_path}
    assert len({path.name.casefold() for path in paths.values()}) == 5
    assert paths["Heart"].name == "Heart.nii.gz"
    assert paths["heart"].name == "heart_3.nii.gz"
    write_label_files(line(*labels), tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 5


def test_own_files_are_replaced_and_others_never(tmp_path):
    mask = line(LUNG, HEART)
    write_label_files(mask, tmp_path)
    write_label_files(mask, tmp_path)
    for name in ("heart.nii.gz", "heart.json"):
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(b"edited by hand")
        with pytest.raises(UsageError) as refused:
            check_label_files(tmp_path, mask.labels)
        assert refused.value.reason == "foreign-file"
        with pytest.raises(UsageError):
            write_label_files(mask, tmp_path)
        assert (tmp_path / name).read_bytes() == b"edited by hand"
        (tmp_path / name).write_bytes(kept)


def test_inputs_are_not_replaced_and_a_file_is_no_folder(tmp_path):
    scan = tmp_path / "heart.nii.gz"
    medseg.Volume(np.zeros(LINE.shape, np.int16), LINE).save(scan)
    with pytest.raises(UsageError) as refused:
        check_label_files(tmp_path, [HEART], [scan])
    assert refused.value.reason == "overwrites-input"
    with pytest.raises(UsageError) as refused:
        check_label_files(scan, [HEART])
    assert refused.value.reason == "no-folder"
