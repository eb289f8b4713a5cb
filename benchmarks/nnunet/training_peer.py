"""What ``training.py`` runs with the Python of nnU-Net: plan and preprocess, train for a time, segment.

python training_peer.py plan FOLDER BATCH     0: the batch of nnU-Net's plan
python training_peer.py train FOLDER SECONDS
python training_peer.py segment FOLDER        the scans of raw/*/imagesTs, to FOLDER/masks
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
    preprocess,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

DATASET, CONFIGURATION = "Dataset001_Cases", "3d_fullres"
CPU = torch.device("cpu")


class TimeBoxed(nnUNetTrainer):
    """nnU-Net's trainer with 20 epochs of as many iterations as end with their shares of the time."""

    seconds: float

    def on_epoch_start(self) -> None:
        super().on_epoch_start()
        self.now = time.monotonic()
        if self.current_epoch == 0:
            self.began, self.num_iterations_per_epoch = self.now, 1
            return
        besides = self.now - self.trained  # validation, checkpoint and plot
        end = self.began + self.seconds * (self.current_epoch + 1) / self.num_epochs
        self.num_iterations_per_epoch = max(1, int((end - self.now - besides) / self.iteration_s))

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        super().on_train_epoch_end(train_outputs)
        self.trained = time.monotonic()
        self.iteration_s = (self.trained - self.now) / len(train_outputs)
        self.print_to_log_file(f"{len(train_outputs)} iterations of {self.iteration_s:.2f} s")


TimeBoxed.__name__ = nnUNetTrainer.__name__  # nnU-Net's predictor looks for the class by this name


def plan(folder: Path, batch: int) -> None:
    """Writes plan and preprocessed cases."""
    extract_fingerprints([1], num_processes=1)
    plan_experiments([1])
    place = folder / "preprocessed" / DATASET
    if batch:
        path = place / "nnUNetPlans.json"
        made = json.loads(path.read_text())
        made["configurations"][CONFIGURATION]["batch_size"] = batch
        path.write_text(json.dumps(made))
    preprocess([1], configurations=(CONFIGURATION,), num_processes=(1,))
    shutil.copy(folder / "split.json", place / "splits_final.json")


def train(folder: Path, seconds: float) -> None:
    """Trains fold 0 for a time."""
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 - its planner takes only 1 or more
    plans, dataset = (
        json.loads((folder / "preprocessed" / DATASET / name).read_text())
        for name in ("nnUNetPlans.json", "dataset.json")
    )
    trainer = TimeBoxed(plans | {"continue_training": False}, CONFIGURATION, 0, dataset, device=CPU)
    trainer.seconds, trainer.num_epochs, trainer.num_val_iterations_per_epoch = seconds, 20, 1
    trainer.run_training()


def segment(folder: Path) -> None:
    """Writes masks by nnU-Net's predictor with its defaults."""
    predictor = nnUNetPredictor(perform_everything_on_device=False, device=CPU, allow_tqdm=False)
    model = folder / "results" / DATASET / f"nnUNetTrainer__nnUNetPlans__{CONFIGURATION}"
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    masks = folder / "masks"
    masks.mkdir(exist_ok=True)
    predictor.predict_from_files_sequential(str(folder / "raw" / DATASET / "imagesTs"), str(masks))


if __name__ == "__main__":
    command, place, *given = sys.argv[1:]
    if command == "plan":
        plan(Path(place), int(given[0]))
    elif command == "train":
        train(Path(place), float(given[0]))
    else:
        segment(Path(place))
