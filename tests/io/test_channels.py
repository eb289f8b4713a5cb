import numpy as np
import pytest
from support.nifti_files import AFFINE, NUMBERS, save

from medseg import io
from medseg.errors import InputRefused, UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Volume


class TestChannels:
    def test_one_path_per_channel_on_one_grid(self, tmp_path):
        paths = [save(tmp_path / "a.nii"), save(tmp_path / "b.nii", NUMBERS * 3)]
        one, two = io.read_channels(paths, channels=2)
        assert np.array_equal(two.array, one.array * 3)
        assert len(io.read_channels(paths[:1])) == 1

    def test_another_grid_is_refused_naming_both(self, tmp_path):
        moved = AFFINE.copy()
        moved[2, 3] += 0.6
        paths = [save(tmp_path / "a.nii"), save(tmp_path / "b.nii", affine=moved)]
        with pytest.raises(InputRefused, match=r"a\.nii") as caught:
            io.read_channels(paths, channels=2)
        assert caught.value.reason == "grid-mismatch"
        assert caught.value.where.endswith("b.nii")
        assert "0.6 mm apart" in caught.value.problem

    def test_channels_of_two_shapes_have_no_distance(self, tmp_path):
        paths = [save(tmp_path / "a.nii"), save(tmp_path / "b.nii", NUMBERS[:-1])]
        with pytest.raises(InputRefused, match="the shapes differ") as caught:
            io.read_channels(paths, channels=2)
        assert "mm apart" not in caught.value.problem

    def test_a_hundredth_of_a_millimetre_is_the_same_grid(self, tmp_path):
        moved = AFFINE.copy()
        moved[2, 3] += 0.005
        paths = [save(tmp_path / "a.nii"), save(tmp_path / "b.nii", affine=moved)]
        assert len(io.read_channels(paths, channels=2)) == 2

    def test_the_number_of_paths_must_fit(self, tmp_path):
        path = save(tmp_path / "a.nii")
        for paths, channels in (([path, path], 1), ([path, path], 3), ([], 1)):
            with pytest.raises(UsageError) as caught:
                io.read_channels(paths, channels=channels)
            assert caught.value.reason == "channel-count"

    def test_a_single_scan_is_not_several_channels(self, tmp_path):
        path = io.write(Volume(NUMBERS, Grid(NUMBERS.shape, AFFINE)), tmp_path / "a.mha")
        with pytest.raises(UsageError, match="1 path"):
            io.read_channels([path], channels=2)


class TestMasks:
    LABELS = (Label(name="x", values=(1,)), Label(name="y", values=(2,)))

    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64])
    def test_whole_numbers_in_any_dtype_are_a_mask(self, tmp_path, dtype):
        array = (NUMBERS % 3).astype(dtype)
        mask = io.read_mask(save(tmp_path / "m.nii.gz", array), self.LABELS)
        assert np.array_equal(mask.array, array)
        assert mask.array.dtype == np.uint8
        assert mask.labels == self.LABELS
        assert mask.source.format == "nifti"

    @pytest.mark.parametrize(
        ("value", "dtype", "reason"),
        [
            (0.5, np.float32, "mask-dtype"),
            (-1, np.int16, "mask-range"),
            (-1.0, np.float32, "mask-range"),
            (70000, np.int32, "mask-range"),
            (1e30, np.float32, "mask-range"),
        ],
    )
    def test_other_values_are_refused_with_the_file_named(self, tmp_path, value, dtype, reason):
        array = np.zeros((2, 3, 4), dtype)
        array[1, 1, 1] = value
        path = save(tmp_path / "m.nii", array)
        with pytest.raises(InputRefused) as caught:
            io.read_mask(path, self.LABELS)
        assert caught.value.reason == reason
        assert caught.value.where == str(path)
