from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.commands import invoke
from support.foreign_models import (
    DATASET,
    checkpoint,
    configuration,
    lungmask_weights,
    network_of,
    old_configuration,
    training_folder,
    zipped,
)

import medseg
from medseg.errors import ModelRefused, UsageError
from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.inference.model import Model

DOUBLE = torch.ones(3, dtype=torch.float64)


def test_folds_become_one_file_with_all_that_decides_the_masks(tmp_path):
    folder = training_folder(tmp_path, folds=5)
    target = tmp_path / "m.safetensors"
    out, _ = invoke("import-model", folder, "-o", target)
    model = Model.load(target)
    assert model.digest[:12] in out
    assert "5 folds, 2 labels" in out
    assert "Research use only" in out
    assert (model.recipe.name, model.recipe.modality) == ("dataset999_tiny_3d_fullres", "CT")
    assert [label.name for label in model.recipe.labels] == ["lung", "lesion"]
    assert model.recipe.pipeline.configurations[0].mirror_axes == (0, 1, 2)
    facts = model.provenance["imported_from"]["parts"][0]
    assert (facts["trainer"], facts["folds"]) == ("nnUNetTrainer", ["0", "1", "2", "3", "4"])
    assert len(set(facts["sha256"])) == 5
    # Every fold is its own network, and no weight is stored twice.
    for fold, weights in enumerate(model.folds):
        torch.manual_seed(fold)
        expected = network_of(configuration(), 1, 3).state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    # The momentum of the optimizer and the copies of the weights stay behind.
    assert target.stat().st_size < 5 * (folder / "fold_0" / "checkpoint_final.pth").stat().st_size / 1.5


def test_logits_are_those_of_the_network_that_was_trained(tmp_path):
    folder = training_folder(tmp_path)
    (network,) = medseg.import_model(folder).networks()
    torch.manual_seed(0)
    trained, image = network_of(configuration(), 1, 3).eval(), torch.randn(1, 1, 8, 16, 16)
    assert torch.equal(network(image), trained(image))


def test_the_same_source_gives_the_same_bytes(tmp_path):
    folder = training_folder(tmp_path)
    assert medseg.import_model(folder).to_bytes() == medseg.import_model(folder).to_bytes()
    packed = zipped(folder, tmp_path / "m.zip")
    assert medseg.import_model(packed).digest == medseg.import_model(folder).digest


def test_folds_are_chosen_by_name(tmp_path):
    folder = training_folder(tmp_path, folds=3)
    model = medseg.import_model(folder, folds=[2, "0"], name="mine", step=0.8)
    assert model.provenance["imported_from"]["parts"][0]["folds"] == ["2", "0"]
    assert (model.recipe.name, model.recipe.pipeline.step) == ("mine", 0.8)
    (folder / "fold_0").rename(folder / "fold_all")
    assert len(medseg.import_model(folder).folds) == 2
    assert len(medseg.import_model(folder, folds=["all"]).folds) == 1
    for wrong in (["7"], [1, 1]):
        with pytest.raises(UsageError) as caught:
            medseg.import_model(folder, folds=wrong)
        assert caught.value.reason == "import-fold"


@pytest.mark.parametrize(
    ("dims", "found", "name", "kind"),
    [
        (3, configuration(residual=True), "3d_fullres", "residual_encoder_unet"),
        (3, old_configuration(), "3d_fullres", "plain_conv_unet"),
        (2, configuration(2), "2d", "plain_conv_unet"),
        (2, configuration(2, residual=True), "2d", "residual_encoder_unet"),
    ],
)
def test_every_kind_of_network_is_imported(tmp_path, dims, found, name, kind):
    model = medseg.import_model(training_folder(tmp_path, found=found, name=name))
    assert model.recipe.spatial_dims == dims
    assert model.recipe.network.kind == kind


def test_regions_and_several_channels_are_imported(tmp_path):
    dataset = {
        "channel_names": {"0": "FLAIR", "1": "T1", "2": "noNorm"},
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        "regions_class_order": [1, 2],
        "file_ending": ".nii.gz",
    }
    schemes = ["ZScoreNormalization", "RescaleTo01Normalization", "NoNormalization"]
    found = configuration(normalization_schemes=schemes, use_mask_for_norm=[True, False, False])
    recipe = medseg.import_model(training_folder(tmp_path, found=found, dataset=dataset, outputs=2)).recipe
    assert (recipe.modality, recipe.exclusive, recipe.ignore_value) == ("MR", False, 3)
    assert (recipe.in_channels, recipe.out_channels) == (3, 2)
    assert [label.values for label in recipe.labels] == [(1, 2), (2,)]


def test_a_cascade_takes_the_low_resolution_beside_it(tmp_path):
    training_folder(tmp_path / "Dataset999_Tiny", name="3d_lowres")
    cascade = configuration(previous_stage="3d_lowres")
    folder = tmp_path / "Dataset999_Tiny"
    alone = training_folder(folder, name="3d_cascade_fullres", found=cascade)
    # Its network sees the labels of the low resolution, too.
    network = network_of(cascade, 3, 3)
    torch.save(
        checkpoint(network.state_dict(), "3d_cascade_fullres"), alone / "fold_0" / "checkpoint_final.pth"
    )
    model = medseg.import_model(folder, configuration="3d_cascade_fullres")
    assert model.recipe.pipeline.combine == "cascade"
    assert [each.name for each in model.recipe.pipeline.configurations] == ["3d_lowres", "3d_cascade_fullres"]
    assert all(
        torch.equal(model.folds[0][f"networks.1.{name}"], tensor)
        for name, tensor in network.state_dict().items()
    )
    with pytest.raises(UsageError, match="needs the masks of 3d_lowres") as caught:
        medseg.import_model(alone)
    assert caught.value.reason == "import-configuration"


def test_configurations_are_chosen_or_averaged(tmp_path):
    folder = tmp_path / "Dataset999_Tiny"
    training_folder(folder)
    training_folder(folder, name="2d", found=configuration(2))
    with pytest.raises(UsageError, match=r"2 training folders(.|\n)*2d, 3d_fullres") as caught:
        medseg.import_model(folder)
    assert caught.value.reason == "import-configuration"
    assert medseg.import_model(folder, configuration="2d").recipe.spatial_dims == 2
    both = medseg.import_model(folder, configuration="2d,3d_fullres").recipe
    assert (both.pipeline.combine, len(both.pipeline.configurations)) == ("mean", 2)
    with pytest.raises(UsageError, match="3d_lowres"):
        medseg.import_model(folder, configuration="3d_lowres")


def test_the_parts_of_a_task_are_put_together_by_the_names_of_labels(tmp_path):
    for number, names in ((291, ("spleen", "liver")), (292, ("heart", "liver"))):
        labels = {"background": 0} | {name: value for value, name in enumerate(names, 1)}
        training_folder(
            tmp_path / "task" / f"Dataset{number}_part",
            dataset={**DATASET, "labels": labels},
            trainer="nnUNetTrainerNoMirroring",
        )
    model = medseg.import_model(tmp_path / "task", step=0.8, name="total")
    assert [(label.name, label.value) for label in model.recipe.labels] == [
        ("spleen", 1), ("liver", 2), ("heart", 3)
    ]  # fmt: skip
    pipeline = model.recipe.pipeline
    assert pipeline.combine == "parts"
    assert [each.labels for each in pipeline.configurations] == [("spleen", "liver"), ("heart", "liver")]


@pytest.mark.filterwarnings("ignore::medseg.InputWarning")
def test_a_task_of_parts_segments_what_its_parts_do_one_by_one(tmp_path):
    parts = {"Dataset291_a": ("spleen", "liver"), "Dataset292_b": ("heart", "liver")}
    values = np.random.default_rng(5).integers(-1000, 300, (20, 24, 14))
    scan = Volume(values.astype(np.int16), Grid.from_spacing((20, 24, 14), (1.5, 2.0, 5.0)))
    painted = np.zeros(scan.grid.shape, np.uint8)
    numbers = {"spleen": 1, "liver": 2, "heart": 3}
    for number, (name, names) in enumerate(parts.items()):
        labels = {"background": 0} | {each: value for value, each in enumerate(names, 1)}
        folder = training_folder(tmp_path / "task" / name, dataset={**DATASET, "labels": labels})
        weights = perturbed(network_of(configuration(), 1, 3), number).state_dict()
        torch.save(checkpoint(weights), folder / "fold_0" / "checkpoint_final.pth")
        medseg.import_model(folder, output=tmp_path / f"{name}.safetensors", mirror=False)
        alone = medseg.segment(scan, model=tmp_path / f"{name}.safetensors", engine="torch").array
        for value, each in enumerate(names, 1):
            painted[alone == value] = numbers[each]
    medseg.import_model(tmp_path / "task", output=tmp_path / "task.safetensors", mirror=False)
    mask = medseg.segment(scan, model=tmp_path / "task.safetensors", engine="torch")
    assert [label.name for label in mask.labels] == list(numbers)
    assert np.array_equal(mask.array, painted)
    assert set(numbers.values()) <= set(np.unique(painted).tolist())


def perturbed(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """The network with other biases and scales, so that all of its labels occur."""
    torch.manual_seed(100 + seed)
    for weights in network.parameters():
        if weights.ndim == 1:
            torch.nn.init.normal_(weights, std=0.3)
    return network


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(("classes", "labels"), [(3, 2), (6, 5)])
def test_weights_of_lungmask_are_imported(tmp_path, old, classes, labels):
    path = lungmask_weights(tmp_path / "unet.pth", classes, old=old)
    model = medseg.import_model(path, output=tmp_path / "m.safetensors")
    assert (model.recipe.pipeline.kind, len(model.recipe.labels)) == ("lungmask", labels)
    assert not any("residual" in name for name in model.folds[0])
    expected = torch.load(path, weights_only=True)["last.weight"]
    assert torch.equal(Model.load(tmp_path / "m.safetensors").folds[0]["last.weight"], expected)


@pytest.mark.parametrize(
    "option", [{"folds": [0]}, {"configuration": "3d_fullres"}, {"step": 0.8}, {"mirror": False}]
)
def test_options_of_nnunet_are_refused_for_lungmask(tmp_path, option):
    path = lungmask_weights(tmp_path / "unet.pth", 3)
    with pytest.raises(UsageError, match="are for models of nnU-Net"):
        medseg.import_model(path, **option)


def test_the_fused_mode_of_lungmask_has_two_networks(tmp_path):
    lobes, lungs = (lungmask_weights(tmp_path / f"{n}.pth", n, old=n == 3) for n in (6, 3))
    invoke("import-model", lobes, "--fill", lungs, "-o", tmp_path / "m.safetensors")
    model = Model.load(tmp_path / "m.safetensors")
    assert (model.recipe.name, model.recipe.pipeline.fill_labels) == ("lungmask_ltrclobes_r231", 2)
    for number, path in enumerate((lobes, lungs)):
        expected = torch.load(path, weights_only=True)["last.weight"]
        assert torch.equal(model.folds[0][f"networks.{number}.last.weight"], expected)
    with pytest.raises(UsageError, match="fill"):
        medseg.import_model(training_folder(tmp_path), fill=lungs)
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(ModelRefused, match="not a weights file of lungmask"):
        medseg.import_model(lobes, fill=tmp_path / "w.pth")


def test_sources_that_are_no_model_are_refused_with_the_way_to_go(tmp_path):
    folder = training_folder(tmp_path)
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    for source, message in (
        (folder / "fold_0" / "checkpoint_final.pth", "without its plans"),
        (tmp_path / "w.pth", "import-weights"),
        (tmp_path / "gone", "no such"),
        (folder / "fold_0", "no training folder"),
    ):
        with pytest.raises(ModelRefused, match=message) as caught:
            medseg.import_model(source)
        assert caught.value.reason == "import-source"
    with pytest.raises(ModelRefused, match="4 classes"):
        medseg.import_model(lungmask_weights(tmp_path / "l.pth", 4))
    with pytest.raises(UsageError) as wrong:
        medseg.import_model(folder, name="Über")
    assert wrong.value.reason == "import-name"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.pop("network_weights"), "checkpoint-content"),
        (lambda c: c.update(network_weights={"a": [1]}), "checkpoint-content"),
        (lambda c: c.update(inference_allowed_mirroring_axes=5), "checkpoint-content"),
        (lambda c: c.update(inference_allowed_mirroring_axes=(0, 3)), "import-plans"),
        (lambda c: c["network_weights"].pop("decoder.seg_layers.1.bias"), "weights"),
        (lambda c: c["network_weights"].update(more=torch.ones(1)), "weights"),
        (lambda c: c["network_weights"].update({"decoder.seg_layers.1.bias": torch.ones(4)}), "weights"),
        (lambda c: c["network_weights"].update({"decoder.seg_layers.1.bias": DOUBLE}), "weights"),
        (lambda c: c["network_weights"].update({"decoder.seg_layers.1.bias": torch.ones(3) / 0}), "weights"),
        (lambda c: c.update(trainer_name="nnUNetTrainerBN"), "import-plans"),
        (lambda c: c["init_args"].update(configuration="2d"), "import-configuration"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_does_not_fit_its_plans_is_refused(tmp_path, change, reason):
    folder = training_folder(tmp_path)
    torch.manual_seed(0)
    content = checkpoint(network_of(configuration(), 1, 3).state_dict())
    for name in [n for n in content["network_weights"] if n.startswith("decoder.encoder.")]:
        del content["network_weights"][name]
    change(content)
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    _, err = invoke("import-model", folder, "-o", tmp_path / "m.safetensors", code=4)
    assert "Traceback" not in err
    assert not (tmp_path / "m.safetensors").exists()
    with pytest.raises(ModelRefused) as caught:
        medseg.import_model(folder)
    assert caught.value.reason == reason
    assert caught.value.remedy


def test_half_precision_and_names_of_parallel_training_are_accepted(tmp_path):
    folder = training_folder(tmp_path)
    weights = {f"module.{n}": t.half() for n, t in network_of(configuration(), 1, 3).state_dict().items()}
    torch.save(checkpoint(weights), folder / "fold_0" / "checkpoint_final.pth")
    assert {t.dtype for t in medseg.import_model(folder).folds[0].values()} == {torch.float16}


def test_an_unknown_trainer_is_told(tmp_path):
    folder = training_folder(tmp_path, trainer="MyTrainer")
    with medseg.collect_notices() as notices:
        medseg.import_model(folder)
    assert [notice.reason for notice in notices] == ["import-trainer"]


def test_other_files_are_not_replaced(tmp_path):
    folder = training_folder(tmp_path)
    (tmp_path / "m.safetensors").write_bytes(b"mine")
    with pytest.raises(UsageError) as caught:
        medseg.import_model(folder, output=tmp_path / "m.safetensors")
    assert caught.value.reason == "foreign-file"
    (tmp_path / "m.safetensors").unlink()
    for _ in range(2):
        medseg.import_model(folder, output=tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="must end in"):
        medseg.import_model(folder, output=tmp_path / "m.pth")


def test_damaged_folders_are_refused_or_imported(tmp_path):
    """Two hundred damages of plans, dataset and checkpoint; anything but a refusal fails the test."""
    folder = training_folder(tmp_path)
    files = [folder / name for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth")]
    whole, rng, outcomes = [path.read_bytes() for path in files], np.random.default_rng(3), []
    for number in range(200):
        which = number % 3
        bent = bytearray(whole[which])
        for at in rng.integers(0, min(len(bent), 6000), size=1 + number % 2):
            bent[at] ^= 1 << rng.integers(7)
        files[which].write_bytes(bent)
        try:
            medseg.import_model(folder)
            outcomes.append("imported")
        except (ModelRefused, UsageError) as error:
            outcomes.append(error.reason if error.remedy else "no remedy")
        files[which].write_bytes(whole[which])
    assert {"imported", "import-plans"} <= set(outcomes)
    assert "no remedy" not in outcomes


def laughs():
    """A list of a few hundred entries that is 10 ** 12 words long when it is written out."""
    made = ["ha"] * 10
    for _ in range(11):
        made = [made] * 10
    return made


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer_name", laughs()),
        ("trainer_name", 7),
        ("trainer_name", None),
        ("inference_allowed_mirroring_axes", laughs()),
        ("inference_allowed_mirroring_axes", ("a", 1)),
        ("inference_allowed_mirroring_axes", ([1],)),
        ("inference_allowed_mirroring_axes", (1e300, 0)),
        ("inference_allowed_mirroring_axes", 3),
        ("network_weights", laughs()),
        ("network_weights", {"encoder": laughs()}),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_values_of_another_kind_in_a_checkpoint_are_refused_without_being_written_out(tmp_path, key, value):
    folder = training_folder(tmp_path)
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(path, weights_only=False), key: value}, path)
    with pytest.raises(ModelRefused) as caught:
        medseg.import_model(folder)
    assert caught.value.reason == "checkpoint-content"
    assert len(str(caught.value)) < 1000


def test_the_configuration_of_a_checkpoint_is_a_name_or_nothing(tmp_path):
    folder = training_folder(tmp_path)
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    for value in (laughs(), {"configuration": laughs()}):
        torch.save({**content, "init_args": value}, path)
        assert medseg.import_model(folder).recipe.pipeline.configurations[0].name == "3d_fullres"


def test_every_field_of_the_plans_may_be_of_another_type(tmp_path):
    folder = training_folder(tmp_path)
    whole = json.loads((folder / "plans.json").read_text())
    found = whole["configurations"]["3d_fullres"]
    tables = (whole, found, found["architecture"], found["architecture"]["arch_kwargs"])
    for table in tables:
        for name, value in list(table.items()):
            for other in (None, 5, "x", [[1]], {"a": 1e300}):
                table[name] = other
                (folder / "plans.json").write_text(json.dumps(whole))
                # Anything but a refusal fails the test.
                with contextlib.suppress(ModelRefused, UsageError):
                    medseg.import_model(folder)
            table[name] = value


def test_a_folder_of_the_source_may_not_hold_the_output(tmp_path: Path):
    folder = training_folder(tmp_path)
    medseg.import_model(folder, output=tmp_path / "m.safetensors")
    with pytest.raises(UsageError):
        medseg.import_model(folder, output=folder / "plans.safetensors" / "m.safetensors")
