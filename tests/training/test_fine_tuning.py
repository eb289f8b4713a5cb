"""Trainings that start from another model: begun, resumed, repeated and refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from support.worlds import phantoms, tiny, untrained

from medseg.datasets.manifest import Case
from medseg.errors import InputWarning, UsageError
from medseg.inference.model import Model
from medseg.networks import build
from medseg.recipe import Recipe
from medseg.training import session
from medseg.training.fine_tuning import SOURCE, FineTuning, freeze, parameter_groups, summary_lines
from medseg.training.trainer import Hardware, TrainingOptions, train

CPU = Hardware(workers=0)
pytestmark = pytest.mark.filterwarnings("ignore:.*unknown-values:medseg.errors.InputWarning")


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return phantoms(tmp_path_factory.mktemp("cases"), "train", "train", "val")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return untrained(tiny()).save(tmp_path / "first.safetensors")


def one_lung(**parts: object) -> Recipe:
    """A recipe with the left lung alone, which the source model has as its second label."""
    return tiny(labels=[{"name": "left_lung", "values": [2, 4]}], **parts)


def tuned(
    cases: list[Case], folder: Path, source: object, recipe: Recipe | None = None, **more: object
) -> Model:
    options = TrainingOptions(source=source)  # type: ignore[arg-type]  # also what is refused
    return train(recipe or one_lung(), cases, folder, hardware=CPU, options=options, **more)  # type: ignore[arg-type]


def interrupted(cases: list[Case], folder: Path, source: object, epoch: int = 2) -> None:
    def stop(end: object) -> None:
        if end.epoch == epoch:  # type: ignore[attr-defined]
            raise Stop

    with pytest.raises(Stop):
        tuned(cases, folder, source, on_epoch=stop)


def same(a: Model, b: Model) -> bool:
    return all(torch.equal(a.folds[0][name], b.folds[0][name]) for name in a.folds[0])


def test_the_source_is_recorded_and_resuming_gives_the_same_bits(
    cases: list[Case], tmp_path: Path, source: Path
) -> None:
    whole = tuned(cases, tmp_path / "whole", source)
    for number in (1, 2):
        run = tmp_path / f"cut_{number}"
        interrupted(cases, run, source, epoch=number)
        again = train(one_lung(), cases, run, hardware=CPU, resume=True)  # the copy in the folder is used
        assert same(whole, again)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    recorded = json.loads((tmp_path / "whole" / "run.json").read_text())["source"]
    assert recorded == whole.provenance["source"]
    assert recorded["digest"] == digest
    assert recorded["labels_kept"] == ["left_lung"]
    assert recorded["labels_left_out"] == ["right_lung"]
    assert (tmp_path / "whole" / SOURCE).read_bytes() == source.read_bytes()
    assert "labels left out: right_lung" in summary_lines(recorded)


def test_a_repetition_needs_no_source_and_refuses_another(
    cases: list[Case], tmp_path: Path, source: Path
) -> None:
    first = tuned(cases, tmp_path / "run", source)
    source.unlink()
    assert (
        session.rerun(tmp_path / "run", tmp_path / "again", hardware=CPU, progress=False).digest
        == first.digest
    )
    other = TrainingOptions(source=untrained(tiny(), seed=1))
    with pytest.raises(UsageError, match="the training to repeat started from the model") as caught:
        session.rerun(tmp_path / "run", tmp_path / "third", hardware=CPU, options=other, progress=False)
    assert caught.value.reason == "rerun-source"


def test_a_resumed_training_refuses_another_source(cases: list[Case], tmp_path: Path, source: Path) -> None:
    interrupted(cases, tmp_path / "run", source)
    with pytest.raises(UsageError, match="began from another model") as caught:
        tuned(cases, tmp_path / "run", untrained(tiny(), seed=1), resume=True)
    assert caught.value.reason == "resume-changed"
    train(one_lung(), cases, tmp_path / "random", hardware=CPU)
    with pytest.raises(UsageError, match="began with random weights"):
        tuned(cases, tmp_path / "random", source, resume=True)


def test_frozen_stages_do_not_move_and_others_do(cases: list[Case], tmp_path: Path, source: Path) -> None:
    recipe = one_lung(fine_tune={"frozen": ["stem", "encoder"]})
    before, after = Model.load(source).folds[0], tuned(cases, tmp_path / "run", source, recipe).folds[0]
    frozen = [name for name in after if name.startswith(("stem.", "encoder."))]
    assert frozen
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not all(torch.equal(before[n], after[n]) for n in after if n.startswith("decoder."))


def test_weights_that_were_taken_have_the_lower_rate(source: Path) -> None:
    recipe = one_lung(fine_tune={"rate": 0.1}, train={"learning_rate": 0.01})
    network, tuning = build(recipe), FineTuning.of(source, recipe)
    slow, fast = parameter_groups(network, tuning, recipe)
    assert isinstance(slow, dict)
    assert isinstance(fast, dict)
    assert slow["lr"] == pytest.approx(0.001)
    assert "lr" not in fast
    names = {id(each): name for name, each in network.named_parameters()}
    assert [names[id(each)] for each in fast["params"]] == ["head.weight", "head.bias"]


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    network = build(tiny(network={"norm": "batch"})).train()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    freeze(network, ("stem",))
    network(torch.randn(2, 1, 16, 24, 16))
    changed = {name for name, each in network.state_dict().items() if not torch.equal(each, before[name])}
    assert changed
    assert not any(name.startswith("stem.") for name in changed)


def test_wrong_stages_and_a_missing_source_are_refused(
    cases: list[Case], tmp_path: Path, source: Path
) -> None:
    with pytest.raises(UsageError, match="'stern' is not in the network") as caught:
        FineTuning.of(source, one_lung(fine_tune={"frozen": ["stern"]}))
    assert caught.value.reason == "fine-tune-stage"
    with pytest.raises(UsageError, match="starts from no model") as caught:
        train(one_lung(fine_tune={"rate": 0.1}), cases, tmp_path / "run", hardware=CPU)
    assert caught.value.reason == "fine-tune-source"
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_source_that_saw_the_validation_cases_gives_a_notice(cases: list[Case], tmp_path: Path) -> None:
    leaky = Model(tiny(), untrained(tiny()).folds, {"train_cases": ["case_2"]})
    with pytest.warns(InputWarning, match="trained on 1 of the validation cases, the first is case_2"):
        tuned(cases, tmp_path / "run", leaky)


def test_a_foreign_file_in_the_folder_is_not_replaced(
    cases: list[Case], tmp_path: Path, source: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / SOURCE).write_bytes(b"mine")
    with pytest.raises(UsageError) as caught:
        tuned(cases, folder, source)
    assert caught.value.reason == "foreign-file"
    assert (folder / SOURCE).read_bytes() == b"mine"


def test_recipes_without_the_section_keep_their_text() -> None:
    assert "fine_tune" not in tiny().yaml()
    assert Recipe.parse(one_lung(fine_tune={"rate": 0.5}).yaml()).fine_tune is not None
