"""Some labels of an imported model: those of the whole mask, without work that cannot change them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from support.foreign_models import DATASET, training_folder

import medseg
from medseg.errors import UsageError
from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.inference import pipelines
from medseg.inference.nnunet.restoring import Tile
from medseg.inference.nnunet.runtime import NnunetRuntime
from medseg.inference.nnunet.windows import logit_planes, starts
from medseg.inference.pipelines import PreparedPipeline
from medseg.recipe import CleaningStep, Postprocess, Recipe

pytestmark = pytest.mark.filterwarnings("ignore::medseg.InputWarning")

NAMES = {"a": ("spleen", "liver"), "b": ("heart", "liver", "aorta"), "c": ("rib", "skull")}


def scan(shape=(44, 40, 26)) -> Volume:
    """Blocks of noise in HU, none of it 0, on unequal axes."""
    coarse = np.random.default_rng(11).integers(-1000, -1, [-(-n // 4) for n in shape])
    values = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)[: shape[0], : shape[1], : shape[2]]
    return Volume(values.astype(np.int16), Grid.from_spacing(shape, (1.2, 1.7, 3.1)))


def folder_of(place, labels, **changes):
    outputs = len(labels) - ("regions_class_order" in changes)
    return training_folder(place, dataset={**DATASET, "labels": labels, **changes}, outputs=outputs)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, medseg.Model]:
    place = tmp_path_factory.mktemp("models")
    for seed, (part, names) in enumerate(NAMES.items()):
        labels = {"background": 0} | {name: value for value, name in enumerate(names, 1)}
        folder_of(place / "task" / f"Dataset29{seed}_{part}", labels)
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    folder_of(place / "regions", regions, regions_class_order=[1, 2, 3])
    folder_of(place / "many", {"background": 0} | {f"organ_{n}": n for n in range(1, 20)})
    return {name: medseg.import_model(place / name, mirror=False) for name in ("task", "regions", "many")}


class Network:
    """A cheap network whose classes are about equally frequent: mixtures of a window and its neighbours."""

    def __init__(self, seed: int, heads: int) -> None:
        self.weights = np.random.default_rng(seed).normal(size=(heads, 4)).astype(np.float32)
        self.windows = 0

    def __call__(self, windows):
        self.windows += len(windows)
        seen = [windows[:, 0], *(np.roll(windows[:, 0], 2, axis) for axis in (1, 2, 3))]
        logits = np.einsum("hk,knabc->nhabc", self.weights, np.stack(seen))
        return (logits - self.weights.sum(1)[:, None, None, None] * windows.mean()).astype(np.float32)


class Pipeline:
    """The pipeline of a model with cheap networks, one of each part."""

    def __init__(self, model: medseg.Model) -> None:
        sizes = model.recipe.network_sizes()
        self.networks = [Network(seed, heads) for seed, (_, _, _, heads) in enumerate(sizes)]
        self.runtime = NnunetRuntime(model.recipe, [[each] for each in self.networks])

    def predict(self, volume, roi=(), *, probabilities=False):
        return PreparedPipeline(self.runtime, [volume], [], roi).predict(probabilities=probabilities)

    def windows(self, volume, roi=()):
        """How many windows each network runs."""
        for each in self.networks:
            each.windows = 0
        self.predict(volume, roi)
        return [each.windows for each in self.networks]


CHOICES = [
    ("task", "spleen"),  # later parts cover it
    ("task", "liver"),  # a label of two parts
    ("task", "heart,spleen"),
    ("task", "aorta"),
    ("task", "skull"),
    ("task", "spleen,rib"),
    ("many", "organ_2"),
    ("many", "organ_19,organ_5"),
    ("regions", "whole"),
    ("regions", "core"),
    ("regions", "enhancing"),
    ("regions", "enhancing,whole"),
]


@pytest.mark.parametrize(("model", "names"), CHOICES)
def test_labels_are_those_of_the_whole_mask(models, model, names):
    roi, pipeline = names.split(","), Pipeline(models[model])
    whole = pipeline.predict(scan(), probabilities=True).only(*roi)
    assert all(whole.mask.volumes_ml().values())
    made = pipeline.predict(scan(), roi, probabilities=True).only(*roi)
    np.testing.assert_array_equal(made.mask.array, whole.mask.array)
    assert made.mask.labels == whole.mask.labels
    assert made.entropy == whole.entropy
    assert made.probabilities.keys() == whole.probabilities.keys()
    for name, values in whole.probabilities.items():
        np.testing.assert_array_equal(made.probabilities[name], values)


@pytest.mark.parametrize("names", ["spleen", "heart", "liver,skull"])
def test_labels_are_those_of_the_whole_mask_in_an_orientation_with_zeros_around(models, names):
    grid = Grid.from_spacing((44, 40, 30), (1.2, 1.7, 3.1)).oriented("SLA")
    values = np.zeros(grid.shape, np.int16)
    values[3:-2, 2:-3, 4:-1] = scan((25, 39, 35)).array
    turned = Volume(values, grid)
    roi, pipeline = names.split(","), Pipeline(models["task"])
    whole = pipeline.predict(turned).mask.only(*roi)
    assert all(whole.volumes_ml().values())
    np.testing.assert_array_equal(pipeline.predict(turned, roi).mask.only(*roi).array, whole.array)


@pytest.mark.parametrize("names", ["skull", "skull,rib"])
def test_parts_before_the_labels_are_not_run(models, names):
    pipeline = Pipeline(models["task"])
    every = pipeline.windows(scan())
    assert min(every) > 10
    assert pipeline.windows(scan(), names.split(",")) == [0, 0, every[2]]
    assert pipeline.windows(scan(), ["aorta"])[:2] == [0, every[1]]


class Spot(Network):
    """A network that finds its first label in a few voxels of one of its windows only."""

    def __init__(self, window: int, heads: int) -> None:
        super().__init__(0, heads)
        self.spot = window

    def __call__(self, windows):
        logits = super().__call__(windows)
        logits[:, 1:] -= 50
        if self.windows == self.spot:
            logits[:, 1, 3:5, 6:9, 7:10] += 900
        return logits


@pytest.mark.parametrize("window", [3, 60, 110])
def test_parts_that_may_cover_a_label_run_only_around_it(models, window):
    pipeline, long = Pipeline(models["task"]), scan((300, 12, 26))
    every = pipeline.windows(long)
    pipeline.runtime.stages[0].networks[0] = pipeline.networks[0] = Spot(window, 3)
    whole = pipeline.predict(long).mask.only("spleen")
    found = pipeline.windows(long, ["spleen"])
    assert found[0] == every[0]
    assert 0 < found[1] == found[2] < every[1]
    pipeline.networks[0].windows = 0
    made = pipeline.predict(long, ["spleen"]).mask.only("spleen")
    np.testing.assert_array_equal(made.array, whole.array)


def test_nothing_else_is_run_if_no_label_was_found(models):
    pipeline = Pipeline(models["task"])
    pipeline.runtime.stages[0].networks[0] = pipeline.networks[0] = Spot(0, 3)
    assert not pipeline.predict(scan(), ["spleen"]).mask.only("spleen").array.any()
    assert pipeline.windows(scan(), ["spleen"])[1:] == [0, 0]


def test_fewer_classes_are_interpolated_for_one_label(models, monkeypatch):
    """The background beats the label everywhere, whatever the others do."""
    pipeline, counted, before = Pipeline(models["many"]), [], Tile.logits
    pipeline.networks[0].weights[3] = pipeline.networks[0].weights[0]
    monkeypatch.setattr(Tile, "logits", lambda self, head: (counted.append(head), before(self, head))[1])
    pipeline.predict(scan())
    every = len(counted)
    counted.clear()
    pipeline.predict(scan(), ["organ_3"])
    assert every >= 40
    assert len(counted) < 0.6 * every


def test_probabilities_need_memory_only_for_the_labels(models):
    made = Pipeline(models["many"]).predict(scan(), ["organ_3"], probabilities=True)
    assert list(made.probabilities) == ["organ_3"]


def test_steps_that_clean_the_mask_see_all_labels(models):
    """The largest component of two labels together may be without any voxel of one of them."""
    step = {"labels": ["spleen", "liver"], "keep_components": 1}
    data = models["task"].recipe.model_dump(mode="json") | {"postprocess": {"steps": [step]}}
    model = SimpleNamespace(recipe=Recipe.checked(data))
    pipeline = Pipeline(model)
    whole = pipeline.predict(scan()).mask.only("liver")
    np.testing.assert_array_equal(pipeline.predict(scan(), ["liver"]).mask.only("liver").array, whole.array)


def test_planes_of_a_part_are_those_of_the_whole():
    image = np.random.default_rng(3).normal(size=(1, 21, 30, 17)).astype(np.float32)

    def network(values):
        return np.concatenate([values * 2, np.cumsum(values, -1)], axis=1)

    options = {"window": (8, 12, 8), "heads": 2, "step": 0.5}
    whole = np.concatenate([v for _, v in logit_planes(image, [network], **options)], axis=1)
    for part in (np.s_[0:3, 0:30, 0:17], np.s_[9:10, 13:20, 16:17], np.s_[15:21, 28:30, 2:9]):
        found = list(logit_planes(image, [network], part=part, **options))
        assert found[0][0] == part[0].start
        np.testing.assert_array_equal(np.concatenate([v for _, v in found], axis=1), whole[:, *part])
    assert len(starts(21, 8, 0.5)) == 5


@pytest.mark.parametrize("steps", [(), (CleaningStep(labels=("spleen",), fill_holes=True),)])
def test_lobes_are_looked_at_by_the_labels_that_were_asked_for(models, monkeypatch, steps):
    """Also if the mask is cleaned, which needs all of its labels."""
    seen = []
    monkeypatch.setattr(
        pipelines, "lobe_findings", lambda mask: seen.append({label.name for label in mask.labels}) or ()
    )
    recipe = models["task"].recipe
    cleaned = recipe.model_copy(update={"postprocess": Postprocess(steps=steps)})
    pipeline = Pipeline(SimpleNamespace(recipe=cleaned))
    pipeline.predict(scan((20, 24, 10)), "spleen,liver")
    pipeline.predict(scan((20, 24, 10)), "spleen")
    pipeline.predict(scan((20, 24, 10)))
    assert seen == [{"spleen", "liver"}, {"spleen"}, {label.name for label in recipe.labels}]


@pytest.mark.parametrize("steps", [(), (CleaningStep(labels=("spleen",), fill_holes=True),)])
def test_an_unknown_label_is_refused_before_the_scan_is_prepared(models, steps):
    cleaned = models["task"].recipe.model_copy(update={"postprocess": Postprocess(steps=steps)})
    runtime = SimpleNamespace(recipe=cleaned)  # it can prepare nothing
    with pytest.raises(UsageError) as caught:
        PreparedPipeline(runtime, [scan((20, 24, 10))], [], ["spleen", "splen"])
    assert (caught.value.reason, caught.value.problem) == ("no-such-label", "no label 'splen'")


def test_segment_writes_the_voxels_of_the_whole_mask(models, tmp_path):
    scan((20, 24, 10)).save(tmp_path / "scan.nii.gz")
    runtime = medseg.Runtime(engine="torch", roi=("spleen", "aorta"))
    given = {"model": medseg.Segmenter(models["task"], engine="torch")}
    made = medseg.segment_file(tmp_path / "scan.nii.gz", tmp_path / "some.nii.gz", runtime=runtime, **given)
    whole = medseg.segment(tmp_path / "scan.nii.gz", **given).only("spleen", "aorta")
    np.testing.assert_array_equal(made.mask.array, whole.array)
    assert json.loads((tmp_path / "some.json").read_text())["labels"] == {"aorta": [4], "spleen": [1]}
