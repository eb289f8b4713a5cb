import numpy as np
import pytest
import SimpleITK as sitk

from medseg import io
from medseg.errors import InputRefused
from medseg.grid import Grid
from medseg.volume import Volume

GRID = Grid.from_spacing((2, 3, 4), (0.5, 1, 2), origin_mm=(1, 2, 3))
VOLUME = Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), GRID)

NRRD = """NRRD0004
type: short
dimension: 3
space: {space}
sizes: 1 1 2
space directions: (2,0,0) (0,3,0) (0,0,4)
space origin: (10,20,30)
kinds: domain domain domain
endian: little
encoding: ascii

5 6
"""


def reason_of(path):
    with pytest.raises(InputRefused) as caught:
        io.read(path)
    assert caught.value.where
    assert len(str(caught.value).splitlines()) <= 3
    return caught.value.reason


@pytest.mark.parametrize(
    ("space", "world"),
    [
        # Index (0, 0, 1) is at (10, 20, 34) in the file's own space; RAS flips the L and P axes.
        ("left-posterior-superior", (-10, -20, 34)),
        ("LPS", (-10, -20, 34)),
        ("right-anterior-superior", (10, 20, 34)),
        ("left-anterior-superior", (-10, 20, 34)),
    ],
)
def test_nrrd_spaces_become_ras(tmp_path, space, world):
    (tmp_path / "a.nrrd").write_text(NRRD.format(space=space))
    volume = io.read(tmp_path / "a.nrrd")
    assert volume.grid.world((0, 0, 1)) == pytest.approx(world)
    assert volume.grid.spacing_mm == pytest.approx((2, 3, 4))
    assert volume.array.ravel().tolist() == [5, 6]
    assert volume.source.format == "nrrd"


def test_nrrd_without_an_anatomical_space_is_refused(tmp_path):
    (tmp_path / "a.nrrd").write_text(NRRD.format(space="scanner-xyz"))
    assert reason_of(tmp_path / "a.nrrd") == "no-geometry"
    lines = NRRD.format(space="x").splitlines(keepends=True)
    plain = [line for line in lines if "space" not in line]
    (tmp_path / "b.nrrd").write_text("".join(plain))
    assert reason_of(tmp_path / "b.nrrd") == "no-geometry"


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_several_channels_and_dimensions_are_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.Image([2, 3, 4], sitk.sitkVectorInt16, 2), str(path))
    assert reason_of(path) == "several-channels"
    sitk.WriteImage(sitk.Image([2, 3, 4, 2], sitk.sitkInt16), str(path))
    assert reason_of(path) == "several-channels"
    sitk.WriteImage(sitk.Image([2, 3], sitk.sitkInt16), str(path))
    assert reason_of(path) == "several-channels"


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_complex_and_not_finite_are_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    io.write(Volume(np.full((2, 3, 4), np.nan, np.float32), GRID), path)
    with pytest.raises(InputRefused, match="24 of 24"):
        io.read(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nhdr", ".mhd"])
def test_text_is_refused_in_one_line_of_the_library(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("not an image")
    assert reason_of(path) == "unreadable"


@pytest.mark.parametrize(("suffix", "data"), [(".nhdr", ".raw.gz"), (".mhd", ".zraw")])
def test_a_detached_header_names_its_data_and_needs_it(tmp_path, suffix, data):
    path = io.write(VOLUME, tmp_path / f"scan{suffix}")
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted([f"scan{suffix}", f"scan{data}"])
    (tmp_path / f"scan{data}").unlink()
    assert reason_of(path) == "unreadable"


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_memory_order_does_not_matter(tmp_path, suffix):
    turned = VOLUME.oriented("PSR")
    back = io.read(io.write(turned, tmp_path / f"a{suffix}"))
    assert np.array_equal(back.array, turned.array)
    assert back.grid.distance_mm(turned.grid) < 1e-9
