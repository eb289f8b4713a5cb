"""nnU-Net v2's predictor without mirroring: reader, preprocessing, sliding window, export, writer."""

from __future__ import annotations

import os

from peer import OVERLAP, SPACING_MM, WINDOW, Stages, arguments, network

given, stages = arguments(), Stages()
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, "/tmp")
os.environ.setdefault("nnUNet_def_n_proc", "2")

import torch  # noqa: E402
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO  # noqa: E402
from nnunetv2.inference.export_prediction import (  # noqa: E402
    convert_predicted_logits_to_segmentation_with_correct_shape as exported,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: E402

stages.done("import")
net = network(given.model)
PLANS = {
    "dataset_name": "Dataset001_Speed",
    "plans_name": "nnUNetPlans",
    "original_median_spacing_after_transp": [1.0, 0.7, 0.7],
    "original_median_shape_after_transp": [300, 512, 512],
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "experiment_planner_used": "ExperimentPlanner",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {
        # CTNormalization: clipped to the two percentiles, minus the mean, by the SD: here to 0..1.
        "0": {"mean": -1024.0, "std": 1300.0, "percentile_00_5": -1024.0, "percentile_99_5": 276.0}
    },
    "configurations": {
        "3d_fullres": {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": list(WINDOW),
            "median_image_size_in_voxels": [200, 239, 239],
            "spacing": list(SPACING_MM),
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [False],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": {
                "is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None,
            },
            "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": {
                "is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None,
            },
            "batch_dice": False,
            "architecture": {"network_class_name": "none", "arch_kwargs": {}, "_kw_requires_import": []},
        }
    },
}  # fmt: skip
DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "right": 1, "left": 2},
    "file_ending": ".nii.gz",
}


class Upright(torch.nn.Module):
    """Applies the network to arrays in (Z, Y, X) order and LPS orientation, as nnU-Net reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        turned = image.permute(0, 1, 4, 3, 2).flip((2, 3))
        back: torch.Tensor = self.net(turned).flip((2, 3)).permute(0, 1, 4, 3, 2)
        return back


plans = PlansManager(PLANS)
configuration = plans.get_configuration("3d_fullres")
predictor = nnUNetPredictor(
    tile_step_size=1 - OVERLAP,
    use_gaussian=True,
    use_mirroring=False,
    perform_everything_on_device=given.device != "cpu",
    device=torch.device(given.device),
    verbose=False,
    allow_tqdm=False,
)
whole = Upright()
predictor.manual_initialization(
    whole, plans, configuration, [whole.state_dict()], DATASET, "nnUNetTrainer", None
)
stages.done("model")
array, properties = SimpleITKIO().read_images([str(given.scan)])
stages.done("read")
prepared = configuration.preprocessor_class(verbose=False).run_case_npy(
    array, None, properties, plans, configuration, DATASET
)
stages.done("prepare")
data, properties = prepared[0], prepared[-1]
logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
stages.done("network")
labels = exported(logits, plans, configuration, predictor.label_manager, properties)
stages.done("restore")
SimpleITKIO().write_seg(labels, str(given.mask), properties)
stages.done("write")
stages.tell()
