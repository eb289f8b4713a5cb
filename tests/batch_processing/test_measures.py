"""Batches that also measure the lungs."""

import csv

import pytest
from support.batches import chest, config_for, run, table

from medseg.batch_processing.case_discovery import items
from medseg.batch_processing.case_pipeline import CasePipeline
from medseg.batch_processing.messages import BatchConfig
from medseg.errors import UsageError
from medseg.images.label import Label
from medseg.inference.case_result import CaseResult
from medseg.measurement.scan_measurement import measure
from medseg.reporting.content import gather
from medseg.visualization.labelled_masks import read_named
from medseg.visualization.lung_record import read_lung_record
from medseg.visualization.thumbnails import places


@pytest.fixture
def measured(scans, tmp_path):
    out = tmp_path / "out"
    run(items(scans / "cases.csv"), config_for(out, measure="lung"))
    return out


def test_the_table_has_the_measures_of_both_lungs(measured):
    # The boxes of the chest: 4 x 12 x 6 voxels of -800 HU and 6 x 12 x 6 of -700 HU, of 2.88 ml each.
    found = table(measured)
    assert found["both_lungs_ml"].tolist() == pytest.approx([720 * 2.88] * 6)
    assert found["both_lungs_mean_hu"].tolist() == pytest.approx([-740.0] * 6)
    assert found["right_lung_laa856_percent"].tolist() == [0.0] * 6
    assert set(found["measure_flags"]) == {"lung-thick-slices lung-expiration"}
    assert found["warnings"].notna().sum() == 0


def test_each_case_has_a_table_of_all_parts(measured, scans):
    with (measured / "measures" / "c0.csv").open(newline="") as file:
        rows = {(row["structure"], row["region"]): row for row in csv.DictReader(file)}
    mask = read_named(measured / "masks" / "c0.nii.gz", chest(0))
    expected = measure(chest(0), mask)
    part = rows["both_lungs", "upper_third_by_height"]
    volume_ml = expected.of("both_lungs", "upper_third_by_height")["volume_ml"]
    assert float(part["volume_ml"]) == round(volume_ml, 4)


def test_results_with_measures_survive_the_journal_and_the_table(measured):
    with (measured / "results.csv").open(newline="") as file:
        row = CaseResult.from_row(next(csv.DictReader(file)))
    assert sorted(row.volumes_ml) == ["both_lungs", "left_lung", "right_lung"]
    assert gather(measured).rows[0].numbers["both lungs laa950 percent"] == 0.0
    result = CaseResult("c", "m", "done", measures={"both_lungs": {"mean_hu": -840.5, "laa950_d": None}})
    assert CaseResult.from_json(result.to_json()) == result


def test_measuring_afterwards_does_the_cases_again(scans, tmp_path):
    out = tmp_path / "out"
    run(items(scans / "cases.csv"), config_for(out))
    assert run(items(scans / "cases.csv"), config_for(out, measure="lung"), resume=True).done == 6
    assert run(items(scans / "cases.csv"), config_for(out, measure="lung"), resume=True).skipped == 6


def test_the_digest_of_options_without_measures_stays_what_it_was():
    assert "measure" not in BatchConfig(("threshold",), "", "").decisive
    assert BatchConfig(("threshold",), "", "", measure="lung").decisive["measure"] == "lung"


def test_a_model_without_lungs_is_refused_at_once(monkeypatch, tmp_path):
    from medseg.batch_processing import case_pipeline

    class Liver:
        name, digest, engine, labels = "liver", "", "", (Label(name="liver", values=(1,)),)

    monkeypatch.setattr(case_pipeline, "load_segmenter", lambda *_, **__: Liver())
    with pytest.raises(UsageError) as refused:
        CasePipeline(config_for(tmp_path, measure="lung"))
    assert refused.value.reason == "measure"


def test_pictures_of_measured_lungs_are_drawn_again_if_they_were_lost(measured, scans):
    log = measured / "thumbnails.jsonl"
    expected = {key: read_lung_record(place) for key, place in places([log]).items()}
    assert len(expected) == 6
    assert all(record and record["bars"]["left_lung"]["core"] == 0.0 for record in expected.values())
    assert all("by the model threshold (SHA-256 " in record["methods"] for record in expected.values())
    log.unlink()
    assert run(items(scans / "cases.csv"), config_for(measured, measure="lung"), resume=True).skipped == 6
    assert {key: read_lung_record(place) for key, place in places([log]).items()} == expected


def test_without_measures_there_is_no_picture_of_them(scans, tmp_path):
    run(items(scans / "cases.csv"), config_for(tmp_path / "out"))
    log = tmp_path / "out" / "thumbnails.jsonl"
    assert {read_lung_record(place) for place in places([log]).values()} == {None}
