"""Turns CT and MR scans into checked segmentation masks. Research use only.

>>> import medseg
>>> mask = medseg.segment("chest.nii.gz")  # doctest: +SKIP
>>> mask.volumes_ml()                      # doctest: +SKIP
{'right_lung': 2271.8, 'left_lung': 1759.3}
>>> mask.save("lungs.nii.gz")              # doctest: +SKIP

Importing medseg is cheap: each public name is imported from its module on first use, and torch and
MONAI only for segmentation and training.
"""

from __future__ import annotations

# Nothing is imported here: every command begins with this file, and until medseg.cli.main() runs, Ctrl-C
# prints a traceback. Type checkers take this name for true.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from medseg.batch_processing.annotation_order import RankedCase, rank_cases
    from medseg.batch_processing.container_job import JobSettings, run_job
    from medseg.batch_processing.launcher import batch
    from medseg.batch_processing.settings import BatchMonitor, BatchOptions, BatchResources, RayCluster
    from medseg.batch_processing.summary import BatchSummary, merge_batch
    from medseg.cross_validation.runner import CrossValidation, Folds, cross_validate
    from medseg.datasets.manifest import Case, Manifest
    from medseg.datasets.manifest_builder import make_manifest, split_manifest
    from medseg.datasets.validation import CheckReport, check
    from medseg.errors import InputRefused, InputWarning, MedsegError, ModelRefused, ResourceError, UsageError
    from medseg.evaluation.comparison import Comparison, compare
    from medseg.evaluation.evaluation_files import read_evaluation
    from medseg.evaluation.model_evaluation import Evaluation, evaluate
    from medseg.evaluation.scoring import Score, score
    from medseg.images.grid import Grid
    from medseg.images.intensity_stats import describe
    from medseg.images.label import Label
    from medseg.images.volume import Mask, Source, Volume
    from medseg.inference.bundle_export import export_bundle
    from medseg.inference.ensemble_model import ensemble
    from medseg.inference.model import Model, load_model
    from medseg.inference.model_list import ListedModel, list_models
    from medseg.inference.model_package import ModelPackage
    from medseg.inference.network_export import export_network
    from medseg.inference.package_export import export_model
    from medseg.inference.package_self_test import SelfTest, check_package
    from medseg.inference.pipeline_schema import package_schema
    from medseg.inference.prediction import Prediction
    from medseg.inference.registry import load_segmenter
    from medseg.inference.segmentation import Runtime, SegmentedFile, segment, segment_file
    from medseg.inference.segmenter import Segmenter
    from medseg.io.conversion import convert, convert_mask
    from medseg.io.dicom.series_reader import list_series
    from medseg.io.dicom.series_writer import write_dicom_series
    from medseg.io.foreign_images import as_mask, as_volume
    from medseg.io.label_files import write_label_files
    from medseg.io.picture.masks import MaskCoding
    from medseg.io.read_options import ReadOptions
    from medseg.io.scan_info import info
    from medseg.io.scans_and_masks import list_segments, read, read_mask, write
    from medseg.measurement.lesion_growth import measure_growth
    from medseg.measurement.lesions import Growth, growth
    from medseg.measurement.measure_picture import draw_measures
    from medseg.measurement.measurement_table import Measurement
    from medseg.measurement.methods_section import methods_text
    from medseg.measurement.pair_measurement import measure_pair
    from medseg.measurement.radiomics import measure_radiomics
    from medseg.measurement.scan_measurement import measure
    from medseg.model_import.model_import import import_model
    from medseg.phantom.demo import DemoResult, make_phantom, phantom_grid, run_demo
    from medseg.phantom.thorax import Thorax
    from medseg.planning.fingerprint import Fingerprint
    from medseg.planning.planner import Plan, PlanOptions, plan
    from medseg.recipe import Recipe, describe_recipes, list_recipes
    from medseg.reporting.folder_report import report
    from medseg.system.notices import Notice, collect_notices
    from medseg.training.augmentation_preview import preview_augmentation
    from medseg.training.checkpoint_files import import_weights
    from medseg.training.hardware import Hardware
    from medseg.training.options import TrainingOptions
    from medseg.training.session import rerun, train
    from medseg.tuning.results import TuningResult
    from medseg.tuning.search_space import SearchSpace
    from medseg.tuning.tuner import TrialEvent, TuningOptions, tune
    from medseg.visualization.labelled_masks import read_named
    from medseg.visualization.mask_preview import preview
    from medseg.visualization.thumbnails import html_card
    from medseg.visualization.viewer.browser import serve_viewer
    from medseg.visualization.viewer.widget import view

__all__ = [
    "BatchMonitor",
    "BatchOptions",
    "BatchResources",
    "BatchSummary",
    "Case",
    "CheckReport",
    "Comparison",
    "CrossValidation",
    "DemoResult",
    "Evaluation",
    "Fingerprint",
    "Folds",
    "Grid",
    "Growth",
    "Hardware",
    "InputRefused",
    "InputWarning",
    "JobSettings",
    "Label",
    "ListedModel",
    "Manifest",
    "Mask",
    "MaskCoding",
    "Measurement",
    "MedsegError",
    "Model",
    "ModelPackage",
    "ModelRefused",
    "Notice",
    "Plan",
    "PlanOptions",
    "Prediction",
    "RankedCase",
    "RayCluster",
    "ReadOptions",
    "Recipe",
    "ResourceError",
    "Runtime",
    "Score",
    "SearchSpace",
    "SegmentedFile",
    "Segmenter",
    "SelfTest",
    "Source",
    "Thorax",
    "TrainingOptions",
    "TrialEvent",
    "TuningOptions",
    "TuningResult",
    "UsageError",
    "Volume",
    "as_mask",
    "as_volume",
    "batch",
    "check",
    "check_package",
    "collect_notices",
    "compare",
    "convert",
    "convert_mask",
    "cross_validate",
    "describe",
    "describe_recipes",
    "draw_measures",
    "ensemble",
    "evaluate",
    "export_bundle",
    "export_model",
    "export_network",
    "growth",
    "html_card",
    "import_model",
    "import_weights",
    "info",
    "list_models",
    "list_recipes",
    "list_segments",
    "list_series",
    "load_model",
    "load_segmenter",
    "make_manifest",
    "make_phantom",
    "measure",
    "measure_growth",
    "measure_pair",
    "measure_radiomics",
    "merge_batch",
    "methods_text",
    "package_schema",
    "phantom_grid",
    "plan",
    "preview",
    "preview_augmentation",
    "rank_cases",
    "read",
    "read_evaluation",
    "read_mask",
    "read_named",
    "report",
    "rerun",
    "run_demo",
    "run_job",
    "score",
    "segment",
    "segment_file",
    "serve_viewer",
    "split_manifest",
    "train",
    "tune",
    "view",
    "write",
    "write_dicom_series",
    "write_label_files",
]

_HOME = {
    "BatchMonitor": "medseg.batch_processing.settings",
    "BatchOptions": "medseg.batch_processing.settings",
    "BatchResources": "medseg.batch_processing.settings",
    "BatchSummary": "medseg.batch_processing.summary",
    "Case": "medseg.datasets.manifest",
    "CheckReport": "medseg.datasets.validation",
    "Comparison": "medseg.evaluation.comparison",
    "CrossValidation": "medseg.cross_validation.runner",
    "DemoResult": "medseg.phantom.demo",
    "Evaluation": "medseg.evaluation.model_evaluation",
    "Fingerprint": "medseg.planning.fingerprint",
    "Folds": "medseg.cross_validation.runner",
    "Grid": "medseg.images.grid",
    "Growth": "medseg.measurement.lesions",
    "Hardware": "medseg.training.hardware",
    "InputRefused": "medseg.errors",
    "InputWarning": "medseg.errors",
    "JobSettings": "medseg.batch_processing.container_job",
    "Label": "medseg.images.label",
    "ListedModel": "medseg.inference.model_list",
    "Manifest": "medseg.datasets.manifest",
    "Mask": "medseg.images.volume",
    "MaskCoding": "medseg.io.picture.masks",
    "Measurement": "medseg.measurement.measurement_table",
    "MedsegError": "medseg.errors",
    "Model": "medseg.inference.model",
    "ModelPackage": "medseg.inference.model_package",
    "ModelRefused": "medseg.errors",
    "Notice": "medseg.system.notices",
    "Plan": "medseg.planning.planner",
    "PlanOptions": "medseg.planning.planner",
    "Prediction": "medseg.inference.prediction",
    "RankedCase": "medseg.batch_processing.annotation_order",
    "RayCluster": "medseg.batch_processing.settings",
    "ReadOptions": "medseg.io.read_options",
    "Recipe": "medseg.recipe",
    "ResourceError": "medseg.errors",
    "Runtime": "medseg.inference.segmentation",
    "Score": "medseg.evaluation.scoring",
    "SearchSpace": "medseg.tuning.search_space",
    "SegmentedFile": "medseg.inference.segmentation",
    "Segmenter": "medseg.inference.segmenter",
    "SelfTest": "medseg.inference.package_self_test",
    "Source": "medseg.images.volume",
    "Thorax": "medseg.phantom.thorax",
    "TrainingOptions": "medseg.training.options",
    "TrialEvent": "medseg.tuning.tuner",
    "TuningOptions": "medseg.tuning.tuner",
    "TuningResult": "medseg.tuning.results",
    "UsageError": "medseg.errors",
    "Volume": "medseg.images.volume",
    "as_mask": "medseg.io.foreign_images",
    "as_volume": "medseg.io.foreign_images",
    "batch": "medseg.batch_processing.launcher",
    "check": "medseg.datasets.validation",
    "check_package": "medseg.inference.package_self_test",
    "collect_notices": "medseg.system.notices",
    "compare": "medseg.evaluation.comparison",
    "convert": "medseg.io.conversion",
    "convert_mask": "medseg.io.conversion",
    "cross_validate": "medseg.cross_validation.runner",
    "describe": "medseg.images.intensity_stats",
    "describe_recipes": "medseg.recipe",
    "draw_measures": "medseg.measurement.measure_picture",
    "ensemble": "medseg.inference.ensemble_model",
    "evaluate": "medseg.evaluation.model_evaluation",
    "export_bundle": "medseg.inference.bundle_export",
    "export_model": "medseg.inference.package_export",
    "export_network": "medseg.inference.network_export",
    "growth": "medseg.measurement.lesions",
    "html_card": "medseg.visualization.thumbnails",
    "import_model": "medseg.model_import.model_import",
    "import_weights": "medseg.training.checkpoint_files",
    "info": "medseg.io.scan_info",
    "list_models": "medseg.inference.model_list",
    "list_recipes": "medseg.recipe",
    "list_segments": "medseg.io.scans_and_masks",
    "list_series": "medseg.io.dicom.series_reader",
    "load_model": "medseg.inference.model",
    "load_segmenter": "medseg.inference.registry",
    "make_manifest": "medseg.datasets.manifest_builder",
    "make_phantom": "medseg.phantom.demo",
    "measure": "medseg.measurement.scan_measurement",
    "measure_growth": "medseg.measurement.lesion_growth",
    "measure_pair": "medseg.measurement.pair_measurement",
    "measure_radiomics": "medseg.measurement.radiomics",
    "merge_batch": "medseg.batch_processing.summary",
    "methods_text": "medseg.measurement.methods_section",
    "package_schema": "medseg.inference.pipeline_schema",
    "phantom_grid": "medseg.phantom.demo",
    "plan": "medseg.planning.planner",
    "preview": "medseg.visualization.mask_preview",
    "preview_augmentation": "medseg.training.augmentation_preview",
    "rank_cases": "medseg.batch_processing.annotation_order",
    "read": "medseg.io.scans_and_masks",
    "read_evaluation": "medseg.evaluation.evaluation_files",
    "read_mask": "medseg.io.scans_and_masks",
    "read_named": "medseg.visualization.labelled_masks",
    "report": "medseg.reporting.folder_report",
    "rerun": "medseg.training.session",
    "run_demo": "medseg.phantom.demo",
    "run_job": "medseg.batch_processing.container_job",
    "score": "medseg.evaluation.scoring",
    "segment": "medseg.inference.segmentation",
    "segment_file": "medseg.inference.segmentation",
    "serve_viewer": "medseg.visualization.viewer.browser",
    "split_manifest": "medseg.datasets.manifest_builder",
    "train": "medseg.training.session",
    "tune": "medseg.tuning.tuner",
    "view": "medseg.visualization.viewer.widget",
    "write": "medseg.io.scans_and_masks",
    "write_dicom_series": "medseg.io.dicom.series_writer",
    "write_label_files": "medseg.io.label_files",
}
"""Module of each public name."""


def __getattr__(name: str) -> object:
    from medseg.system.lazy_attributes import lazy_attribute

    return lazy_attribute(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
