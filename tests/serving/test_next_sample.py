"""The order in which cases are handed out, by the entropies of a batch and of the server's own masks."""

from math import nan
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("python_multipart")

from medseg.batch_processing.annotation_order import RankedCase
from medseg.serving.data_folder import ServedImage
from medseg.serving.next_sample import NextSample

RANKED = (
    RankedCase("nothing", nan, "nothing found", "/data/nothing.nii.gz"),
    RankedCase("unsure", 0.6, "", "/data/unsure.nii.gz"),
    RankedCase("sure", 0.1, "", "/data/sure.nii.gz"),
    RankedCase("broken", nan, "failed: geometry", "/data/broken.nii.gz"),
)


def images(*names: str) -> list[ServedImage]:
    return [ServedImage(name, Path(f"/data/{name}.nii.gz"), name) for name in names]


@pytest.fixture
def order(monkeypatch) -> NextSample:
    monkeypatch.setattr("medseg.serving.next_sample.rank_cases", lambda folder: RANKED)
    return NextSample(Path("batch"))


def handed(order: NextSample, left: list[ServedImage], strategy: str = "least_certain") -> list[str]:
    """The cases in the order in which one reader gets them, who labels each."""
    names = []
    while (chosen := order.choose(left, strategy, "me")) is not None:
        names.append(chosen.id)
        left = [each for each in left if each.id != chosen.id]
    return names


def test_a_missed_structure_comes_first_then_the_least_certain_then_what_was_not_segmented(order):
    left = images("broken", "new", "sure", "unsure", "nothing")
    assert handed(order, left) == ["nothing", "unsure", "sure", "new", "broken"]


def test_a_mask_of_the_server_counts_more_than_the_batch(order):
    order.segmented("sure", 0.9)
    order.segmented("unsure", None)  # a method without probabilities says nothing
    assert handed(order, images("unsure", "sure")) == ["sure", "unsure"]


def test_cases_are_found_by_their_path_if_they_have_another_id(order):
    renamed = [
        ServedImage("x", Path("/data/sure.nii.gz"), "x"),
        ServedImage("y", Path("/data/unsure.nii.gz"), "y"),
    ]
    assert handed(order, renamed) == ["y", "x"]


def test_the_first_one_is_the_first_one(order):
    assert handed(order, images("sure", "nothing"), "first") == ["sure", "nothing"]


def test_a_case_of_another_reader_comes_last_and_is_given_again_after_an_hour(order, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("medseg.serving.next_sample.time.monotonic", lambda: now)
    both = images("unsure", "sure")
    assert order.choose(both, "least_certain", "me").id == "unsure"
    assert order.choose(both, "least_certain", "you").id == "sure"
    now += 3601
    assert order.choose(both, "least_certain", "you").id == "unsure"
