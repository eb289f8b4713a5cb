import zipfile
from itertools import permutations, product

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import RLELossless, generate_uid
from support.series import NUMBERS, TURN, a_volume, edit, refusal

from medseg import io
from medseg.errors import InputRefused, InputWarning, UsageError
from medseg.images.grid import Grid

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def series(tmp_path):
    return io.write_dicom_series(a_volume(), tmp_path / "series")


def by_gdcm(folder, uid="") -> tuple[np.ndarray, Grid]:
    """Array (X, Y, Z) and RAS+ grid of a series as SimpleITK's GDCM reader gives them."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), uid))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, Grid(image.GetSize(), TO_RAS @ affine)


def assert_same_as_gdcm(folder, volume, uid=""):
    array, grid = by_gdcm(folder, uid)
    assert volume.grid.distance_mm(grid) < 1e-3
    assert np.array_equal(volume.array, array)


# --- round trips -------------------------------------------------------------------------


@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_every_orientation_survives_and_gdcm_agrees(tmp_path, signs):
    for number, order in enumerate(permutations(range(3))):
        volume = a_volume(direction=TURN @ (np.eye(3)[:, order] * signs))
        folder = io.write_dicom_series(volume, tmp_path / f"s{number}")
        back = io.read(folder)
        assert_same_as_gdcm(folder, back)
        # The slices may come back in the other order; each voxel must be where it was.
        indices = np.array(list(np.ndindex(volume.grid.shape)))
        there = back.grid.index(volume.grid.world(indices))
        assert np.allclose(there, np.rint(there), atol=1e-3)
        assert np.array_equal(back.array[tuple(np.rint(there).astype(int).T)], volume.array.reshape(-1))
        assert np.linalg.det(back.affine[:3, :3]) > 0  # row x column = normal, right-handed


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_written_series_state_modality_and_sop_class(tmp_path, modality):
    folder = io.write_dicom_series(a_volume(), tmp_path / "s", modality=modality)
    volume = io.read(folder)
    assert volume.source.modality == modality
    assert volume.source.format == "dicom"
    assert volume.array.dtype == np.int16
    ds = pydicom.dcmread(min(folder.iterdir()))
    assert ds.SOPClassUID.name == f"{modality} Image Storage"
    assert str(ds.PatientName) == "PHANTOM"
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID


def test_equal_volumes_give_equal_files_and_others_other_uids(tmp_path):
    one = io.write_dicom_series(a_volume(), tmp_path / "one")
    same = io.write_dicom_series(a_volume(), tmp_path / "same")
    other = io.write_dicom_series(a_volume(NUMBERS + np.int16(1)), tmp_path / "other")
    contents = [[f.read_bytes() for f in sorted(d.iterdir())] for d in (one, same, other)]
    assert contents[0] == contents[1]
    uids = {pydicom.dcmread(f).SOPInstanceUID for d in (one, other) for f in d.iterdir()}
    assert len(uids) == 10


@pytest.mark.parametrize(
    ("array", "dtype", "error"),
    [
        (NUMBERS.astype(np.float32), "int16", 0),
        (NUMBERS.astype(np.int32) * 1000, "float32", 60 * 37 * 1000 / 65534),
        (NUMBERS.astype(np.float32) / 3000, "float32", 60 * 37 / 3000 / 65534),
        (np.full((3, 4, 5), 0.25, np.float32), "float32", 0),
    ],
)
def test_intensities_beyond_int16_are_quantised(tmp_path, array, dtype, error):
    back = io.read(io.write_dicom_series(a_volume(array, np.eye(3)), tmp_path / "s"))
    assert back.array.dtype == dtype
    world = back.grid.index(a_volume(array, np.eye(3)).grid.world(list(np.ndindex(array.shape))))
    values = back.array[tuple(np.rint(world).astype(int).T)]
    assert np.abs(values.astype(float) - array.reshape(-1)).max() <= error / 2 + 1e-6 * np.abs(array).max()


def test_a_sheared_grid_cannot_be_a_series(tmp_path):
    sheared = np.eye(3)
    sheared[0, 2] = 0.1
    with pytest.raises(InputRefused, match="shear"):
        io.write_dicom_series(a_volume(direction=sheared), tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_must_be_new_or_empty(series, tmp_path):
    for folder in (series, tmp_path / "no" / "parent", min(series.iterdir())):
        with pytest.raises(UsageError):
            io.write_dicom_series(a_volume(), folder)
    (tmp_path / "empty").mkdir()
    assert len(list(io.write_dicom_series(a_volume(), tmp_path / "empty").iterdir())) == 5


# --- what is read ------------------------------------------------------------------------


def test_any_file_stands_for_its_series(series):
    whole = io.read(series)
    bare = min(series.iterdir()).rename(series / "no_suffix")
    misleading = (series / "slice0003.dcm").rename(series / "slice.img")
    for path in (bare, misleading):
        volume = io.read(path)
        assert volume.grid == whole.grid
        assert np.array_equal(volume.array, whole.array)
        assert volume.source.path == path


def test_files_without_a_preamble_are_dicom(series):
    expected = io.read(series)
    for path in series.iterdir():
        ds = pydicom.dcmread(path)
        ds.preamble, ds.file_meta = None, pydicom.dataset.FileMetaDataset()
        ds.save_as(path, implicit_vr=True, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
    volume = io.read(series)
    assert np.array_equal(volume.array, expected.array)
    assert np.array_equal(io.read(min(series.iterdir())).array, expected.array)


def test_other_files_in_the_folder_are_skipped(series):
    expected = io.read(series)
    (series / "notes.txt").write_text("hello")
    (series / "short").write_bytes(b"x")
    (series / "like").write_bytes(b"\x08\x00\x05\x00 but not DICOM")
    (series / "inner").mkdir()
    (series / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    report = pydicom.dcmread(min(series.glob("*.dcm")))
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.SeriesInstanceUID = generate_uid()
    del report.Rows, report.PixelData
    report.save_as(series / "report.dcm")
    assert np.array_equal(io.read(series).array, expected.array)
    assert len(io.list_series(series)) == 1
    with pytest.raises(InputRefused, match="Basic Text SR"):
        io.read(series / "report.dcm")


def test_file_names_and_instance_numbers_do_not_order_slices(series):
    expected = io.read(series)
    for name, path in zip("dbeac", sorted(series.iterdir()), strict=True):
        ds = pydicom.dcmread(path)
        ds.InstanceNumber = ord(name)
        ds.save_as(series / name)
        path.unlink()
    assert np.array_equal(io.read(series).array, expected.array)


def test_each_slice_has_its_own_rescale(series):
    stored = io.read(series).array.astype(np.int64)

    def change(ds, number):
        ds.RescaleSlope, ds.RescaleIntercept = number + 1, -10 * number

    edit(series, change)
    # File order may run against the order of the third axis; the slopes tell which.
    back = io.read(series).array
    factors = np.array([1, 2, 3, 4, 5])
    expected = [stored * f - 10 * (f - 1) for f in (factors, factors[::-1])]
    assert any(np.array_equal(back, e) for e in expected)
    assert back.dtype == np.int16
    assert_same_as_gdcm(series, io.read(series))


def test_a_fraction_in_one_slope_makes_floats(series):
    stored = io.read(series).array.astype(np.float32)
    edit(series, lambda ds, _: setattr(ds, "RescaleSlope", "0.5"), slice(0, 1))
    back = io.read(series).array
    assert back.dtype == np.float32
    halved = stored.copy()
    end = 0 if back[0, 0, 0] != stored[0, 0, 0] else -1
    halved[:, :, end] /= 2
    assert np.array_equal(back, halved)


def test_unsigned_16_bit_values_are_kept(tmp_path):
    folder = io.write_dicom_series(a_volume(), tmp_path / "s", modality="MR")

    def change(ds, number):
        ds.PixelRepresentation = 0
        ds.PixelData = np.full((4, 3), 40000 + number, "<u2").tobytes()
        del ds.RescaleSlope, ds.RescaleIntercept

    edit(folder, change)
    volume = io.read(folder)
    assert volume.array.dtype == np.uint16
    assert sorted(set(volume.array.ravel().tolist())) == [40000, 40001, 40002, 40003, 40004]


def test_a_mix_of_narrow_and_wide_slices_loses_nothing(tmp_path):
    folder = io.write_dicom_series(a_volume(NUMBERS * 0 + np.int16(30000)), tmp_path / "s")
    edit(folder, lambda ds, n: setattr(ds, "RescaleIntercept", str(40000 * n - 60000)))
    values = sorted(set(io.read(folder).array.ravel().tolist()))
    assert values == [-30000, 10000, 50000, 90000, 130000]


def test_compressed_pixels_are_decoded(series):
    expected = io.read(series).array
    edit(series, lambda ds, _: ds.compress(RLELossless))
    assert np.array_equal(io.read(series).array, expected)


def test_a_single_slice_takes_its_depth_from_the_header(tmp_path):
    folder = io.write_dicom_series(a_volume(NUMBERS[:, :, :1]), tmp_path / "s")
    assert io.read(folder).grid.spacing_mm == pytest.approx((0.8, 1.1, 2.5))
    edit(folder, lambda ds, _: (delattr(ds, "SpacingBetweenSlices"), setattr(ds, "SliceThickness", 4)))
    assert io.read(folder).grid.spacing_mm == pytest.approx((0.8, 1.1, 4))
    edit(folder, lambda ds, _: setattr(ds, "SliceThickness", None))
    assert refusal(folder).reason == "no-geometry"


def test_the_measured_distance_counts_and_not_the_nominal_one(series):
    edit(series, lambda ds, _: (setattr(ds, "SpacingBetweenSlices", 9), setattr(ds, "SliceThickness", 9)))
    assert io.read(series).grid.spacing_mm == pytest.approx((0.8, 1.1, 2.5))


# --- several series ----------------------------------------------------------------------


@pytest.fixture
def two_series(tmp_path):
    folder = tmp_path / "both"
    folder.mkdir()
    for name, array in (("a", NUMBERS), ("b", NUMBERS[:, :, :3])):
        made = io.write_dicom_series(a_volume(array), tmp_path / name)
        for file in made.iterdir():
            file.rename(folder / f"{name}{file.name}")
    return folder


def test_several_series_are_listed_and_one_must_be_chosen(two_series):
    big, small = io.list_series(two_series)
    assert (big.modality, big.slices, big.shape) == ("CT", 5, (3, 4, 5))
    assert (small.slices, small.shape, len(small.files)) == (3, (3, 4, 3), 3)
    error = refusal(two_series)
    assert error.reason == "several-series"
    assert error.problem == "2 series are in this folder"
    assert [line.split()[1] for line in error.details[1:]] == [big.uid[-4:], small.uid[-4:]]
    assert "--series" in error.remedy
    assert "PHANTOM" not in str(error)
    assert io.list_series(small.files[0]) == (big, small)


def test_a_series_is_chosen_by_its_uid_the_end_of_its_uid_or_a_file(two_series):
    for one in io.list_series(two_series):
        for wanted in (one.uid, one.uid[-6:]):
            assert io.read(two_series, series=wanted).array.shape == one.shape
        assert io.read(one.files[0]).array.shape == one.shape
        assert_same_as_gdcm(two_series, io.read(two_series, series=one.uid), one.uid)


def test_endings_that_fit_none_or_several_are_refused(two_series):
    assert refusal(two_series, series="x").reason == "no-series"
    assert "that ends in ''" in refusal(two_series, series="").problem


def test_channels_may_be_series(two_series, tmp_path):
    folder = io.write_dicom_series(a_volume(NUMBERS[::-1]), tmp_path / "other")
    one, two = io.read_channels([tmp_path / "both" / "aslice0001.dcm", folder], channels=2)
    assert np.array_equal(one.array, two.array[::-1])
    with pytest.raises(UsageError):
        io.read_channels([folder], channels=2)


# --- what is refused ---------------------------------------------------------------------


def test_a_missing_slice_is_refused_with_its_place(series):
    sorted(series.iterdir())[2].unlink()
    error = refusal(series)
    assert error.reason == "missing-slices"
    assert "from 2.5 to 5 mm" in error.problem
    assert "between (" in error.problem


def test_uneven_spacing_is_refused_beyond_a_tenth_of_a_millimetre(series):
    def move(ds, number, part):
        cosines = np.reshape(ds.ImageOrientationPatient, (2, 3)).astype(float)
        shift = np.cross(*cosines) * 2.5 * part * (number == 2)
        position = np.array(ds.ImagePositionPatient, float) + shift
        ds.ImagePositionPatient = [f"{p:.10g}" for p in position]

    edit(series, lambda ds, n: move(ds, n, 0.098 / 2.5))
    with pytest.warns(InputWarning, match="0.098 mm off even"):
        assert io.read(series).grid.spacing_mm[2] == pytest.approx(2.5)
    edit(series, lambda ds, n: move(ds, n, 0.004 / 2.5))
    assert refusal(series).reason == "missing-slices"


def test_two_slices_at_one_position_are_refused(series):
    first = min(series.iterdir())
    (series / "copy.dcm").write_bytes(first.read_bytes())
    error = refusal(series)
    assert error.reason == "duplicate-slices"
    assert "copy.dcm" in error.problem


def test_a_tilted_gantry_is_refused(series):
    def shift(ds, number):
        position = np.array(ds.ImagePositionPatient, float)
        position += np.array(ds.ImageOrientationPatient[3:], float) * 0.1 * number
        ds.ImagePositionPatient = [f"{p:.10g}" for p in position]

    edit(series, shift)
    error = refusal(series)
    assert error.reason == "tilted"
    assert "0.4 mm" in error.problem


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImageOrientationPatient", [1, 0, 0, 0, 1, 0]),
        ("PixelSpacing", [1, 1]),
        ("Modality", "PT"),
        ("ImageOrientationPatient", None),
    ],
)
def test_slices_that_differ_are_refused(series, keyword, value):
    edit(series, lambda ds, _: setattr(ds, keyword, value), slice(0, 1))
    assert refusal(series).reason == "inconsistent"
    assert len(io.list_series(series)) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ImagePositionPatient": None}, "no-geometry"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "no-geometry"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "no-geometry"),
        ({"PixelSpacing": None}, "no-geometry"),
        ({"PixelSpacing": [0, 0]}, "no-geometry"),
        ({"NumberOfFrames": 2}, "no-geometry"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "mosaic"),
        ({"SamplesPerPixel": 3}, "pixel-type"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "pixel-type"),
        ({"ModalityLUTSequence": [pydicom.Dataset()]}, "modality-lut"),
        ({"PixelData": b"\0\0"}, "unreadable"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "no-scan"),
    ],
)
def test_what_cannot_be_trusted_is_refused(series, changes, reason):
    def change(ds, _):
        for keyword, value in changes.items():
            setattr(ds, keyword, value)

    edit(series, change)
    assert refusal(series).reason == reason


def test_one_image_type_is_enough(series):
    edit(series, lambda ds, _: setattr(ds, "ImageType", "ORIGINAL"))
    assert io.read(series).array.shape == (3, 4, 5)


@pytest.mark.filterwarnings("ignore:.*without RescaleIntercept:medseg.errors.InputWarning")
def test_every_truncation_is_refused_or_whole(tmp_path):
    folder = io.write_dicom_series(a_volume(NUMBERS[:, :, :1]), tmp_path / "s")
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    for length in range(132, len(whole), 13):
        path.write_bytes(whole[:length])
        error = refusal(folder)
        assert error.reason in ("unreadable", "no-geometry", "pixel-type", "inconsistent"), length


def test_a_damaged_slice_at_the_end_of_the_stack_is_not_skipped(series):
    for path in (min(series.iterdir()), max(series.iterdir())):
        whole = path.read_bytes()
        for length in (132, 200, 400, 600):
            path.write_bytes(whole[:length])
            assert refusal(series).reason in ("unreadable", "inconsistent", "no-geometry"), length
        path.write_bytes(whole)


def test_folders_without_scans_are_refused_with_a_hint(tmp_path):
    error = refusal(tmp_path)
    assert error.reason == "no-scan"
    (tmp_path / "CT1").mkdir()
    assert "CT1" in refusal(tmp_path).problem
    with pytest.raises(InputRefused) as caught:
        io.list_series(tmp_path / "missing")
    assert caught.value.reason == "not-found"
    assert io.list_series(tmp_path) == ()


# --- real scans --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mr_t1post_22slices", "totalseg_ct_20slices"])
def test_real_series_are_read_as_gdcm_reads_them(shared_data, name):
    folder = shared_data / "dicom" / name
    volume = io.read(folder)
    assert_same_as_gdcm(folder, volume)
    assert volume.array.dtype == np.int16
    assert volume.source.modality == ("MR" if name.startswith("mr") else "CT")


def test_a_ct_beside_its_rtstruct_is_read_as_gdcm_reads_it(shared_data, tmp_path):
    with zipfile.ZipFile(shared_data / "dicom" / "4DLung-113_ct_99slices.zip") as packed:
        packed.extractall(tmp_path)
    folder = tmp_path / "4DLung-113" / "ct"
    (tmp_path / "4DLung-113" / "rtstruct" / "RS.dcm").rename(folder / "RS.dcm")
    (one,) = io.list_series(folder)
    assert (one.modality, one.shape) == ("CT", (512, 512, 99))
    assert_same_as_gdcm(folder, io.read(folder), one.uid)
    with pytest.raises(InputRefused, match="RT Structure Set"):
        io.read(folder / "RS.dcm")
