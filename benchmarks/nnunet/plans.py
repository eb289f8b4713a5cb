"""Plans of nnU-Net itself for random data sets, as JSON: ``plans.py OUTPUT.json COUNT SEED``.

Runs in an environment with nnunetv2 (``make peers``). Each entry holds the fingerprint that was planned, and
the plans of the four planners.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

PLACE = Path(tempfile.mkdtemp())
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    (PLACE / name).mkdir()
    os.environ[name] = str(PLACE / name)

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (  # noqa: E402
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (  # noqa: E402
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
    nnUNetPlannerResEncXL,
)

PLANNERS = {
    "nnunet": ExperimentPlanner,
    "nnunet-resenc-m": nnUNetPlannerResEncM,
    "nnunet-resenc-l": nnUNetPlannerResEncL,
    "nnunet-resenc-xl": nnUNetPlannerResEncXL,
}
_STATISTICS = ("mean", "median", "std", "min", "max", "percentile_99_5", "percentile_00_5")


def random_task(rng: np.random.Generator) -> dict:
    """A fingerprint: isotropic or with long voxels along any axis, large or small, also flat."""
    cases, labels = int(rng.integers(1, 60)), int(rng.integers(1, 12))
    fine = float(np.exp(rng.uniform(np.log(0.3), np.log(3))))
    spacing = np.array([fine, fine, fine]) * rng.uniform(0.8, 1.25, 3)
    shape = np.exp(rng.uniform(np.log(24), np.log(600), 3))
    axis = int(rng.integers(0, 3))
    kind = rng.choice(["isotropic", "long", "very_long", "flat"], p=[0.35, 0.3, 0.3, 0.05])
    if kind in ("long", "very_long"):
        spacing[axis] *= rng.uniform(2, 12)
        shape[axis] = rng.uniform(10, 60) if kind == "very_long" else shape[axis]
    varied = rng.choice([0, 0.02, 0.4])
    spacings = (spacing * np.exp(rng.normal(0, varied, (cases, 3)))).tolist()
    shapes = np.maximum((shape * np.exp(rng.normal(0, 0.15, (cases, 3)))).round().astype(int), 8)
    if kind == "flat":
        shapes[:, 0] = 1
        spacings = [[999.0, *row[1:]] for row in spacings]
    return {"spacings": spacings, "shapes": shapes.tolist(), "labels": labels}


def plans(task: dict) -> dict:
    """The plans of the four planners, as nnU-Net writes them."""
    cases = range(len(task["shapes"]))
    raw, ready = (PLACE / name / "Dataset001_random" for name in ("nnUNet_raw", "nnUNet_preprocessed"))
    for folder in (raw / "imagesTr", raw / "labelsTr", ready):
        folder.mkdir(parents=True, exist_ok=True)
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{f"label_{n}": n for n in range(1, task["labels"] + 1)}},
        "numTraining": len(task["shapes"]),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
        "dataset": {
            f"case_{n}": {"images": [f"imagesTr/case_{n}_0000.nii.gz"], "label": f"labelsTr/case_{n}.nii.gz"}
            for n in cases
        },
    }
    (raw / "dataset.json").write_text(json.dumps(dataset))
    fingerprint = {
        "spacings": task["spacings"],
        "shapes_after_crop": task["shapes"],
        "foreground_intensity_properties_per_channel": {"0": dict.fromkeys(_STATISTICS, 1.0)},
        "median_relative_size_after_cropping": 1.0,
    }
    (ready / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    made = {}
    for name, planner in PLANNERS.items():
        with contextlib.redirect_stdout(io.StringIO()):
            made[name] = planner("Dataset001_random").plan_experiment()
        # Plans of an earlier task would be merged.
        for file in ready.glob("*Plans.json"):
            file.unlink()
    return made


def main() -> None:
    """Writes the plans of COUNT random tasks."""
    output, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        task = random_task(rng)
        try:
            rows.append({"task": task, "plans": plans(task)})
        except Exception as error:  # nnU-Net cannot plan it either
            rows.append({"task": task, "error": f"{type(error).__name__}: {error}"})
    output.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
