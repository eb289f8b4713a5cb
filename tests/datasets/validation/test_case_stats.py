"""Measures of a case: counts, percentiles and digests."""

from __future__ import annotations

import numpy as np
import pytest
from support.check_cases import RECIPE, changed, with_

from medseg.datasets import validation as checking
from medseg.datasets.validation import (
    Entry,
    Facts,
    check,
    compare,
    examine,
    measure,
)
from medseg.datasets.validation.case_stats import Place
from medseg.images.grid import Grid
from medseg.images.volume import Mask, Volume
from medseg.phantom.thorax import Thorax, default_grid, orientations


@pytest.mark.parametrize("codes", orientations()[::7])
def test_the_digest_is_independent_of_the_order_of_axes(codes):
    scan = Thorax().scan(default_grid((16.0, 18.0, 30.0)))
    turned = Volume(np.asarray(scan.oriented(codes).array, np.float32), scan.grid.oriented(codes))
    (plain,), (other,) = measure([scan], None).channels, measure([turned], None).channels
    assert plain.digest == other.digest
    assert plain.hu == other.hu
    mirrored = measure([Volume(scan.array[::-1], scan.grid)], None).channels[0]
    assert mirrored.digest != plain.digest


def test_negative_zero_equals_zero():
    grid = Grid.from_spacing((1, 1, 2))
    plus, minus = (measure([Volume(np.array([[[x, 1.0]]], np.float32), grid)], None) for x in (0.0, -0.0))
    assert plus == minus


def test_measures_agree_with_numpys(monkeypatch):
    monkeypatch.setattr(checking.case_stats, "_AT_ONCE", 700)  # several slabs and pieces
    rng = np.random.default_rng(3)
    array = rng.normal(-300, 700, (20, 17, 31)).astype(np.float32)
    array[0] = -2000
    labels = rng.integers(0, 300, array.shape).astype(np.uint16)
    grid = Grid.from_spacing(array.shape)
    facts = measure([Volume(array, grid)], Mask(labels, grid, ()))
    (channel,) = facts.channels
    assert (channel.minimum, channel.maximum) == (array.min(), array.max())
    kept = np.rint(array[np.rint(array) >= -1500])
    assert channel.hu.low == np.percentile(kept, 1, method="inverted_cdf")
    for share, low, high in (("soft", -200, 300), ("none", -900, -100), ("dense", 850, 1250)):
        assert getattr(channel.hu, share) == pytest.approx(((kept >= low) & (kept <= high)).mean())
    values, counts = np.unique(labels, return_counts=True)
    assert facts.values == tuple(zip(values.tolist(), counts.tolist(), strict=True))
    assert facts.voxels((5, 7)) == int(np.isin(labels, (5, 7)).sum())


def test_a_scan_of_padding_alone_is_measured():
    array = np.array([[[-3000, -2000]]], np.int16)
    (channel,) = measure([Volume(array, Grid.from_spacing((1, 1, 2)))], None).channels
    assert (channel.hu.soft, channel.hu.dense) == (0, 0)


def test_facts_survive_a_round_trip_through_a_file(cases):
    examined = examine(cases[0], RECIPE)
    again = Facts.model_validate_json(examined.facts.model_dump_json())
    assert again == examined.facts
    assert again.channels[0].place.grid == examined.volumes[0].grid
    assert examined.truth is not None
    assert again.truth == Place.of(examined.truth.grid)
    # The names of the case and of the labels are not part of them: cached facts are found by content.
    assert "case_0" not in again.model_dump_json()
    assert "lung" not in again.model_dump_json()


def test_cached_facts_give_the_findings_of_reading_again(cases):
    """What training does: the facts come from its cache, and only the judging is done anew."""
    changed(cases[0], lambda array: array + 1024)
    copy = with_(cases[2], images=cases[1].images, label=cases[1].label)
    everything = [*cases[:2], copy]
    kept = [Facts.model_validate_json(examine(c, RECIPE).facts.model_dump_json()) for c in everything]
    alone = [
        f
        for case, facts in zip(everything, kept, strict=True)
        for f in checking.apply_case_rules(case, facts, RECIPE)
    ]
    together = compare([Entry(c, f) for c, f in zip(everything, kept, strict=True)], RECIPE)
    assert set(check(everything, RECIPE).findings) == {*alone, *together}
