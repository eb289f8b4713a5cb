import nibabel
import numpy as np
import pytest
from support.nifti_files import AFFINE, GOOD, NUMBERS, craft, reason_of, save, silent

from medseg import io
from medseg.errors import InputRefused, InputWarning
from medseg.images.grid import Grid
from medseg.io.nifti import orientation


def test_the_form_whose_code_is_set_counts(tmp_path):
    wrong = np.diag([1.0, 1, 1, 1])
    image = nibabel.Nifti1Image(NUMBERS, AFFINE, dtype=np.int16)
    for sform, qform in ((0, 1), (1, 0)):
        image.set_sform(AFFINE if sform else wrong, sform)
        image.set_qform(AFFINE if qform else wrong, qform)
        image.header["pixdim"][1:4] = (0.9, 1.2, 3)
        image.to_filename(tmp_path / "a.nii")
        assert np.allclose(io.read(tmp_path / "a.nii").affine, AFFINE, atol=1e-5)


def test_a_file_without_sform_and_qform_is_refused(tmp_path):
    assert reason_of(save(tmp_path / "a.nii", sform=0, qform=0)) == "no-geometry"


def test_contradicting_forms_are_refused_and_both_are_named(tmp_path):
    image = nibabel.Nifti1Image(NUMBERS, AFFINE, dtype=np.int16)
    image.set_sform(AFFINE, 1)
    shifted = AFFINE.copy()
    for shift, refused in ((0.05, False), (0.2, True)):
        shifted[0, 3] = 80 + shift
        image.set_qform(shifted, 1)
        image.to_filename(tmp_path / "a.nii")
        if refused:
            with pytest.raises(InputRefused, match=r"0\.2 mm apart") as caught:
                io.read(tmp_path / "a.nii")
            assert caught.value.reason == "form-conflict"
            assert "sform" in caught.value.problem
            assert "qform" in caught.value.problem
        else:
            io.read(tmp_path / "a.nii")


class TestForms:
    SHIFTED = (-0.9, 0, 0, 90, 0, -1.2, 0, 60, 0, 0, 3, -40)

    def test_trust_resolves_a_conflict(self, tmp_path):
        path = craft(tmp_path / "a.nii", srow=self.SHIFTED)
        with pytest.raises(InputRefused, match=r"sform .* and qform .* place voxels 10 mm apart") as caught:
            io.read(path)
        assert caught.value.reason == "form-conflict"
        assert "--trust" in caught.value.remedy
        assert silent(path, trust="sform").affine[0, 3] == 90
        assert silent(path, trust="qform").affine[0, 3] == 80
        assert reason_of(path, trust="pixdim") == "form-conflict"

    def test_trust_ignores_the_broken_form(self, tmp_path):
        path = craft(tmp_path / "a.nii", srow=(0.0,) * 12)
        assert np.allclose(silent(path, trust="qform").affine, AFFINE, atol=1e-6)
        path = craft(tmp_path / "b.nii", quatern=(9.0, 9.0, 9.0))
        assert np.allclose(silent(path, trust="sform").affine, AFFINE, atol=1e-6)

    def test_pixdim_is_trusted_only_on_request(self, tmp_path):
        path = craft(tmp_path / "a.nii", sform_code=0, qform_code=0)
        assert reason_of(path) == "no-geometry"
        assert reason_of(path, trust="sform") == "no-geometry"
        with pytest.warns(InputWarning, match="assumed to be R, A and S"):
            volume = io.read(path, trust="pixdim")
        assert np.allclose(volume.affine, np.diag([0.9, 1.2, 3, 1]))
        flat = craft(tmp_path / "b.nii", sform_code=0, qform_code=0, pixdim=(1, 0.9, 0, 3, 1, 1, 1, 1))
        assert reason_of(flat, trust="pixdim") == "geometry"

    @pytest.mark.parametrize("qfac", [-1.0, 0.0, 1.0])
    def test_the_qform_is_nibabels(self, tmp_path, qfac):
        path = craft(
            tmp_path / "a.nii",
            sform_code=0,
            quatern=(0.1, -0.3, 0.7),
            pixdim=(qfac, 0.9, 1.2, 3.0, 1, 1, 1, 1),
        )
        # nibabel takes only 1 and -1; 0 is 1 by nifti1.h.
        oracle = nibabel.Nifti1Header.from_fileobj(path.open("rb"), check=False)
        oracle["pixdim"][0] = qfac or 1.0
        assert np.allclose(silent(path).affine, oracle.get_qform(), atol=1e-6)

    def test_a_quaternion_a_little_too_long_is_rounding(self, tmp_path):
        path = craft(tmp_path / "a.nii", quatern=(0.0, 0.0, 1.000001), sform_code=0)
        assert np.allclose(silent(path).affine, AFFINE, atol=1e-6)

    def test_half_turns_do_not_conflict_for_lack_of_digits(self, tmp_path):
        # A scan stored from left to right and back to front is half a turn from RAS. A hair beside
        # it, the quaternion's first part is the root of a rounding error, and the forms that
        # nibabel writes are tenths of a millimetre apart.
        random = np.random.default_rng(0)
        apart = []
        for size in np.repeat((1e-4, 3e-4, 1e-3), 60):
            turn = np.eye(3)
            for axis, angle in enumerate((0.3, *(random.normal(size=2) * size))):
                i, j = (axis + 1) % 3, (axis + 2) % 3
                about = np.eye(3)
                about[[i, i, j, j], [i, j, i, j]] = (
                    np.cos(angle),
                    -np.sin(angle),
                    np.sin(angle),
                    np.cos(angle),
                )
                turn = about @ turn
            affine = np.eye(4)
            affine[:3, :3] = turn @ np.diag([-0.7, -0.7, 1.0])
            affine[:3, 3] = (180, 170, -300)
            header = nibabel.Nifti1Header()
            header.set_data_shape((512, 512, 300))
            header.set_sform(affine, 1)
            header.set_qform(affine, 1)
            forms = [Grid((512, 512, 300), form) for form in (affine, orientation._qform(header))]
            apart.append(forms[0].distance_mm(forms[1]))
            orientation._check_agreement({"sform": forms[0], "qform": forms[1]}, header)
        assert max(apart) > 0.11  # else this test would show nothing

    def test_an_sform_that_disagrees_with_pixdim_counts_with_a_warning(self, tmp_path):
        path = craft(tmp_path / "a.nii", qform_code=0, pixdim=(1.0, 1, 1, 1, 1, 1, 1, 1))
        with pytest.warns(InputWarning, match="the sform counts"):
            assert np.allclose(io.read(path).affine, AFFINE, atol=1e-6)

    def sheared(self, path, shear):
        """101 x 101 voxels of 1 mm, whose y axis leans towards x by ``shear`` mm per voxel.

        To first order, the polar decomposition turns either axis by half of it: a corner 50
        voxels from the centre along x and y moves by 50 x shear / 2 along both, which is
        sqrt(2) x 25 x shear mm.
        """
        return craft(
            path,
            dim=(3, 101, 101, 1, 1, 1, 1, 1),
            pixdim=(1.0,) * 8,
            data=bytes(101 * 101 * 2),
            qform_code=0,
            srow=(1, shear, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0),
        )

    def test_shear_within_rounding_stays(self, tmp_path):
        # sqrt(2) x 25 x 0.0002 = 0.007 mm
        path = self.sheared(tmp_path / "a.nii", 0.0002)
        assert silent(path).affine[0, 1] == pytest.approx(0.0002)

    def test_a_small_shear_is_squared_about_the_centre(self, tmp_path):
        # sqrt(2) x 25 x 0.002 = 0.071 mm
        path = self.sheared(tmp_path / "a.nii", 0.002)
        with pytest.warns(InputWarning, match=r"a.nii: .*squared, which moves voxels by up to 0\.071 mm"):
            grid = io.read(path).grid
        assert np.allclose(grid.direction.T @ grid.direction, np.eye(3), atol=1e-12)
        # The middle voxel is at x = 50 + 50 x 0.002, y = 50.
        assert np.allclose(grid.world((50, 50, 0)), (50.1, 50, 0), atol=1e-5)

    def test_more_shear_is_refused(self, tmp_path):
        # sqrt(2) x 25 x 0.01 = 0.354 mm
        path = self.sheared(tmp_path / "a.nii", 0.01)
        with pytest.raises(InputRefused, match=r"shear: its axes are not orthogonal, by 0\.35") as caught:
            io.read(path)
        assert caught.value.reason == "sheared"

    @pytest.mark.parametrize(
        ("scale", "message"),
        [(1e-4, "voxel spacing of 9e-05"), (5000.0, "voxel spacing of 4500")],
    )
    def test_sizes_no_scanner_makes_are_refused(self, tmp_path, scale, message):
        rows = tuple(scale * n for n in GOOD["srow"])
        sizes = (1.0, *(scale * n for n in GOOD["pixdim"][1:4]), 1, 1, 1, 1)
        with pytest.raises(InputRefused, match=message) as caught:
            io.read(craft(tmp_path / "a.nii", qform_code=0, srow=rows, pixdim=sizes))
        assert caught.value.reason == "geometry"

    def test_positions_where_no_patient_can_be_are_refused(self, tmp_path):
        rows = (-0.9, 0, 0, 1e30, *GOOD["srow"][4:])
        with pytest.raises(InputRefused, match="from the origin") as caught:
            io.read(craft(tmp_path / "a.nii", qform_code=0, srow=rows))
        assert caught.value.reason == "geometry"
