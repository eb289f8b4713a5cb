from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from medseg.errors import UsageError
from medseg.images.palette import VERMILLION, rgb
from medseg.images.volume import Mask, Volume
from medseg.measurement.measure_picture import PARTS_SHOWN, draw_measures, lung_figure
from medseg.measurement.scan_measurement import measure
from medseg.phantom.thorax import LABELS, Thorax, default_grid, orientations
from medseg.visualization.lung_figure import attenuation_colours

GRID = default_grid((6.0, 7.0, 8.0), "LPS")
SCAN, TRUTH = Thorax().scan(GRID), Thorax().truth(GRID)
LUNGS = Mask(TRUTH.array, GRID, LABELS[:2])


def dark_columns(picture: bytes) -> np.ndarray:
    """Columns of the plane, 0 to 1 across the picture, with voxels below the threshold."""
    pixels = np.asarray(Image.open(BytesIO(picture)).convert("RGB")).astype(int)
    plane = pixels[:, : pixels.shape[1] * 3 // 10]
    return np.flatnonzero((np.abs(plane - rgb(VERMILLION)).max(axis=2) < 12).any(axis=0)) / plane.shape[1]


def with_emphysema_on_the_right() -> Volume:
    """The scan with -980 HU in the upper half of the right lung, and nothing below -900 HU elsewhere."""
    array = np.maximum(SCAN.array, -900)
    heights = GRID.world(np.argwhere(np.isin(TRUTH.array, (1, 3))))[:, 2]
    ill = np.isin(TRUTH.array, (1, 3))
    ill[ill] = heights > np.median(heights)
    array[ill] = -980
    return Volume(array, GRID)


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "SAR"])
def test_low_attenuation_of_the_right_lung_is_on_the_left_of_the_picture(axcodes):
    scan, mask = with_emphysema_on_the_right().oriented(axcodes), LUNGS.oriented(axcodes)
    columns = dark_columns(draw_measures(measure(scan, mask), scan, mask))
    assert len(columns) > 20
    assert columns.max() < 0.55
    assert not len(dark_columns(draw_measures(measure(scan, mask), Volume(scan.array * 0, scan.grid), mask)))


def test_the_picture_has_the_same_content_in_all_48_orders():
    expected = None
    for axcodes in orientations():
        turned = with_emphysema_on_the_right().oriented(axcodes), LUNGS.oriented(axcodes)
        scan = Volume(np.ascontiguousarray(turned[0].array), turned[0].grid)
        mask = Mask(np.ascontiguousarray(turned[1].array), turned[1].grid, LUNGS.labels)
        figure = lung_figure(measure(scan, mask), scan, mask)
        colours = attenuation_colours(figure)
        content = colours.tobytes(), figure.pixel_mm, figure.bars, figure.histograms
        expected = expected or content
        assert content[0] == expected[0], axcodes
        assert content[1] == pytest.approx(expected[1])
        assert content[3] == expected[3]
        for side, parts in figure.bars.items():
            assert parts == pytest.approx(expected[2][side]), (axcodes, side)
        # By the truth: only the upper half of the right lung, which is on the left and above.
        coloured = np.argwhere((colours == rgb(VERMILLION)).all(axis=2)) / colours.shape[:2]
        assert len(coloured) > 20
        assert coloured[:, 1].max() < 0.5
        assert coloured[:, 0].max() < 0.6
        assert set(figure.bars["left_lung"].values()) == {0.0}
        right = figure.bars["right_lung"]
        assert right["upper_third_by_volume"] == 100 > right["lower_third_by_volume"] == 0
        assert tuple(right) == PARTS_SHOWN


def test_the_picture_is_written_too(tmp_path):
    found = measure(SCAN, LUNGS)
    picture = draw_measures(found, SCAN, LUNGS, tmp_path / "measures.png")
    assert (tmp_path / "measures.png").read_bytes() == picture


@pytest.mark.parametrize(("width", "stacked"), [(420, True), (1280, False)])
def test_a_picture_has_the_width_that_was_asked_for(width, stacked):
    picture = draw_measures(measure(SCAN, LUNGS), SCAN, LUNGS, width_px=width)
    image = Image.open(BytesIO(picture))
    assert image.width == width
    assert (image.height > image.width) == stacked


def test_a_width_beyond_reason_is_refused():
    with pytest.raises(UsageError) as refused:
        draw_measures(measure(SCAN, LUNGS), SCAN, LUNGS, width_px=40)
    assert refused.value.reason == "measure"


def test_axes_have_units(monkeypatch):
    from matplotlib.figure import Figure

    pages: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda page, *a, **k: (pages.append(page), save(page, *a, **k))[1])
    draw_measures(measure(SCAN, LUNGS, rind_mm=12.0), SCAN, LUNGS)
    plane, histogram, bars = pages[0].axes
    assert [text.get_text() for text in plane.texts] == ["R", "L", "50 mm"]
    assert (histogram.get_xlabel(), histogram.get_ylabel()) == ("HU", "% of voxels per 10 HU")
    assert {"-950", "-910", "-856"} <= {text.get_text() for text in histogram.texts}
    assert bars.get_ylabel() == "% of voxels below -950 HU"
    assert "rind of 12 mm" in bars.get_xlabel()
    assert [text.get_text() for text in bars.get_legend().get_texts()] == ["right lung", "left lung"]


def test_without_lungs_there_is_nothing_to_draw():
    with pytest.raises(UsageError) as refused:
        draw_measures(measure(SCAN, LUNGS, kind="structures"), SCAN, LUNGS)
    assert refused.value.reason == "measure"
