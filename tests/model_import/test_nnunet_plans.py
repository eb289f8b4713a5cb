from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from support.foreign_models import DATASET, architecture, configuration, old_configuration, plans

from medseg.errors import ModelRefused
from medseg.model_import.nnunet_plans import Plan, dataset_of, json_object, plan_of, supervision

WHERE = Path("plans.json")


def plan(found: dict[str, Any], *, channels: int = 1, **changes: Any) -> Plan:
    return plan_of(plans({"3d_fullres": found}, **changes), "3d_fullres", channels, WHERE)


def test_a_configuration_becomes_sections_of_a_recipe():
    found = plan(configuration(), transpose_forward=[2, 0, 1])
    assert found.settings.transpose == (2, 0, 1)
    assert found.settings.spacing_mm == (4.0, 2.0, 1.5)
    assert found.settings.intensity[0].model_dump() == {
        "kind": "ct", "low_hu": -1000.0, "high_hu": 250.0, "mean_hu": -300.5, "sd_hu": 350.25
    }  # fmt: skip
    assert (found.settings.order, found.settings.logits_order, found.orientation) == (3, 1, "stored")
    assert found.patch_size == (8, 16, 16)
    assert found.network == {
        "kind": "plain_conv_unet",
        "widths": [4, 8, 8],
        "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        "convolutions": [2, 2, 2],
        "decoder_convolutions": [2, 2],
        "bias": True,
        "deep_supervision": [1.0, 0.0],
        "eps": 1e-5,
        "slope": 0.01,
    }


def test_plans_before_22_give_the_same_network():
    old, new = plan(old_configuration()), plan(configuration())
    assert {"eps": 1e-5, "slope": 0.01, "bias": True, **old.network} == new.network
    assert old.settings == new.settings


def test_old_plans_name_intensities_by_modality():
    renamed = plans({"3d_fullres": old_configuration()})
    facts = renamed.pop("foreground_intensity_properties_per_channel")
    renamed["foreground_intensity_properties_by_modality"] = facts
    assert plan_of(renamed, "3d_fullres", 1, WHERE).settings == plan(configuration()).settings


def test_numbers_stand_for_all_stages_and_axes():
    single = architecture(features_per_stage=8, kernel_sizes=3, strides=1, n_conv_per_stage=2)
    single["arch_kwargs"]["n_conv_per_stage_decoder"] = 1
    network = plan(configuration(architecture=single)).network
    assert network["widths"] == [8, 8, 8]
    assert network["kernels"] == [[3, 3, 3]] * 3
    assert network["decoder_convolutions"] == [1, 1]


def test_a_configuration_inherits_what_it_does_not_say():
    several = plans(
        {
            "3d_fullres": configuration(),
            "3d_bs4": {"inherits_from": "3d_fullres", "batch_size": 4},
            "3d_wide": {"inherits_from": "3d_bs4", "patch_size": [8, 32, 32]},
        }
    )
    found = plan_of(several, "3d_wide", 1, WHERE)
    assert (found.batch_size, found.patch_size, found.settings.spacing_mm[0]) == (4, (8, 32, 32), 4.0)
    several["configurations"]["3d_fullres"]["inherits_from"] = "3d_wide"
    with pytest.raises(ModelRefused, match="inherits_from leads through more"):
        plan_of(several, "3d_wide", 1, WHERE)
    with pytest.raises(ModelRefused, match=r"no configuration '2d'(.|\n)*3d_fullres, 3d_bs4") as caught:
        plan_of(several, "2d", 1, WHERE)
    assert caught.value.reason == "import-configuration"


@pytest.mark.parametrize(
    ("scheme", "masked", "expected"),
    [
        ("ZScoreNormalization", True, {"kind": "zscore", "inside": True}),
        ("ZScoreNormalization", False, {"kind": "zscore", "inside": False}),
        ("NoNormalization", False, {"kind": "none"}),
        ("RescaleTo01Normalization", False, {"kind": "rescale_0_1"}),
        ("RGBTo01Normalization", False, {"kind": "rgb_0_1"}),
    ],
)
def test_every_normalisation_of_nnunet_is_known(scheme, masked, expected):
    schemes, masks = ["CTNormalization", scheme], [False, masked]
    found = plan(configuration(normalization_schemes=schemes, use_mask_for_norm=masks), channels=2)
    assert found.settings.intensity[0].kind == "ct"
    assert found.settings.intensity[1].model_dump() == expected


def test_2d_keeps_the_distance_of_slices():
    found = plan_of(plans({"2d": configuration(2)}), "2d", 1, WHERE)
    assert (found.settings.spacing_mm, found.patch_size, found.slice_mm) == ((2.0, 1.5), (16, 16), 4.0)


def changed(path: str, value: Any) -> dict[str, Any]:
    """A configuration with one field changed; the path has dots."""
    found = deepcopy(configuration())
    *way, last = path.split(".")
    inner = found
    for part in way:
        inner = inner[part]
    inner[last] = value
    return found


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("architecture.network_class_name", "a.Primus", "network 'Primus' is not supported"),
        ("architecture.arch_kwargs.norm_op", "torch.nn.BatchNorm3d", "norm_op 'BatchNorm3d'"),
        ("architecture.arch_kwargs.nonlin", "torch.nn.ReLU", "nonlin 'ReLU'"),
        ("architecture.arch_kwargs.conv_op", "torch.nn.Conv2d", "conv_op 'Conv2d'"),
        ("architecture.arch_kwargs.dropout_op", "torch.nn.Dropout3d", "'dropout_op'"),
        ("architecture.arch_kwargs.nonlin_first", True, "'nonlin_first'"),
        ("architecture.arch_kwargs.norm_op_kwargs", {"eps": 1e-5}, "must be affine"),
        ("architecture.arch_kwargs.nonlin_kwargs", {"upper": 1}, "'upper'"),
        ("preprocessor_name", "MyPreprocessor", "preprocessor_name 'MyPreprocessor'"),
        ("resampling_fn_data", "resample_torch_fornnunet", "'resample_torch_fornnunet'"),
        ("resampling_fn_probabilities_kwargs", {"force_separate_z": True}, "force_separate_z"),
        ("normalization_schemes", ["MyNormalization"], "'MyNormalization'"),
        ("normalization_schemes", ["CTNormalization"] * 2, "2 normalization_schemes"),
        ("patch_size", None, "is missing or not as nnU-Net writes it"),
        ("patch_size", [8.5, 1, 1], "not as nnU-Net writes it"),
        ("spacing", ["a"], "not as nnU-Net writes it"),
        ("spacing", [0.0, 1.0, 1.0], "spacing_mm"),
        ("architecture.arch_kwargs.n_stages", 10**9, "1000000000 stages"),
        ("resampling_fn_data_kwargs", {"order": 9}, "order"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(path, value, message):
    with pytest.raises(ModelRefused) as caught:
        plan(changed(path, value))
    assert caught.value.reason == "import-plans"
    assert "3d_fullres" in caught.value.problem
    assert message in caught.value.problem
    assert caught.value.remedy


@pytest.mark.parametrize(
    "field", ["patch_size", "spacing", "normalization_schemes", "use_mask_for_norm", "architecture"]
)
def test_a_missing_field_is_named(field):
    found = configuration()
    del found[field]
    with pytest.raises(ModelRefused, match=field):
        plan(found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_reader_writer": "NaturalImage2DIO"}, "image_reader_writer 'NaturalImage2DIO'"),
        ({"label_manager": "MyLabels"}, "label_manager 'MyLabels'"),
        ({"transpose_forward": [0, 0, 1]}, "transpose"),
        ({"foreground_intensity_properties_per_channel": {}}, "'0'"),
    ],
)
def test_plans_that_medseg_cannot_follow_are_refused(changes, message):
    with pytest.raises(ModelRefused, match=message):
        plan(configuration(), **changes)


def test_readers_decide_whether_scans_are_turned():
    assert plan(configuration(), image_reader_writer="NibabelIO").orientation == "stored"
    assert plan(configuration(), image_reader_writer="NibabelIOWithReorient").orientation == "RAS"


def labels(value: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**DATASET, "labels": value, **more}


def test_labels_are_in_the_order_of_the_networks_output():
    found = dataset_of(labels({"b": 2, "background": 0, "ignore": 3, "a": [1]}), WHERE)
    assert [(label.name, label.values) for label in found.labels] == [("a", (1,)), ("b", (2,))]
    assert (found.exclusive, found.ignore_value, found.channels) == (True, 3, ("CT",))


def test_regions_are_painted_in_their_order():
    # BraTS: tumour 1, 2, 3; core 2, 3; enhancing 3; painted 1, 2, 3.
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    found = dataset_of(labels(regions, regions_class_order=[1, 2, 3]), WHERE)
    assert [label.values for label in found.labels] == [(1, 2, 3), (2, 3), (3,)]
    assert not found.exclusive


def test_old_data_sets_name_channels_modality():
    old = {"modality": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "a": 1}}
    assert dataset_of(old, WHERE).channels == ("T1", "T2")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (labels({"a": 1}), "background"),
        (labels({"background": 0}), "labels"),
        (labels({"background": 1, "a": 2}), "labels"),
        (labels({"background": 0, "a": 2}), "not consecutive"),
        (labels({"background": 0, "a": "1"}), "labels"),
        (labels({"background": 0, "a": [1, 2]}), "regions_class_order"),
        (labels({"background": 0, "a": [1, 2]}, regions_class_order=[3]), "paints 3"),
        (labels({"background": 0, "a": [1, 2], "b": 1}, regions_class_order=[1, 1]), "two regions"),
        (labels({"background": 0, "a": [1, 2]}, regions_class_order=[1, 2]), "longer|shorter"),
        ({"labels": {"background": 0, "a": 1}}, "modality"),
        ({**DATASET, "channel_names": {"1": "CT"}}, "'0'"),
        ({**DATASET, "labels": ["background"]}, "not as nnU-Net writes it"),
    ],
)
def test_a_data_set_that_medseg_cannot_follow_is_refused(data, message):
    with pytest.raises(ModelRefused, match=message) as caught:
        dataset_of(data, WHERE)
    assert caught.value.reason == "import-plans"


def test_the_coarsest_output_has_no_weight():
    assert supervision(2) == [1.0]
    assert supervision(6) == [1.0, 0.5, 0.25, 0.125, 0.0]


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 1000])
def test_json_that_is_no_object_is_refused(tmp_path, text):
    (tmp_path / "plans.json").write_text(text)
    with pytest.raises(ModelRefused) as caught:
        json_object(tmp_path / "plans.json")
    assert caught.value.reason == "import-plans"
