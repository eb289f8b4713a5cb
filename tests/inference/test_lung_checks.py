"""What is said about masks of lungs that look wrong: boxes whose numbers can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.images.grid import Grid
from medseg.images.volume import Mask, Volume
from medseg.inference.lung_checks import qc_findings
from medseg.inference.threshold_segmenter import ThresholdSegmenter


def chest(heart: slice, middle: int) -> tuple[Mask, Volume]:
    """Two lungs, a voxel apart at ``middle``, with a heart between them; air lies around."""
    grid = Grid.from_spacing((60, 30, 40), (5.0, 5.0, 5.0))
    painted, hu = np.zeros(grid.shape, dtype=np.uint8), np.full(grid.shape, -1000, dtype=np.int16)
    painted[5 : middle - 1, 5:25, 5:35], painted[middle:55, 5:25, 5:35] = 2, 1
    hu[painted > 0] = -850
    painted[heart, 10:20], hu[heart, 10:20] = 0, 50
    return Mask(painted, grid, ThresholdSegmenter.labels), Volume(hu, grid)


def test_a_chest_whose_heart_lies_left_is_not_odd():
    mask, scan = chest(slice(20, 32), 28)
    assert qc_findings(mask, scan) == ()


@pytest.mark.parametrize("codes", ["RAS", "LPS", "IAR"])
def test_sides_that_may_be_exchanged_are_reported(codes):
    mask, scan = chest(slice(28, 40), 32)
    (found,) = qc_findings(mask.oriented(codes), scan.oriented(codes))
    # The heart's middle is voxel 33.5, the chest's 29.5: 4 voxels of 5 mm.
    assert (
        "right and left may be exchanged in the scan: its heart lies 20 mm right of the middle" in found.text
    )
    assert "the right lung, usually the larger one, has" in found.text
    assert "compare the sides with those in your PACS" in found.remedy


def test_soft_tissue_within_a_lung_is_reported():
    """A block of 8 x 9 x 12 voxels of 5 mm, of which all but the outermost layer counts: 6 x 7 x 10."""
    mask, scan = chest(slice(20, 32), 28)
    hu = np.array(scan.array)
    hu[42:50, 8:17, 10:22] = 50
    (found,) = qc_findings(mask, Volume(hu, scan.grid))
    # 420 voxels of 0.125 ml, of 27 x 20 x 30 - 4 x 10 x 30 of the right lung: 2.8 %.
    assert "52 ml of the right lung (3 %) are as dense as soft tissue" in found.text


def test_no_lung_and_a_missing_side_are_reported():
    mask, scan = chest(slice(20, 32), 28)
    one = Mask(np.where(mask.array == 2, 0, mask.array).astype(np.uint8), mask.grid, mask.labels)
    none = Mask(np.zeros(mask.grid.shape, dtype=np.uint8), mask.grid, mask.labels)
    assert "hardly any left lung" in qc_findings(one, scan)[0].text
    assert [each.reason for each in qc_findings(none, scan)] == ["no-lung"]
