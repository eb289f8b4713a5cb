"""One call of Lightning's training loop, with everything that takes part in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
)

from medseg.recipe import Recipe
from medseg.training import checkpointing
from medseg.training.dataloaders import patches, scans
from medseg.training.fine_tuning import FineTuning
from medseg.training.hardware import Hardware, is_started_by_srun
from medseg.training.history import EpochEnd, History
from medseg.training.interrupt import Interruption
from medseg.training.lightning_module import SegmentationModule
from medseg.training.patches import Patches
from medseg.training.training_data import TrainingData

_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


class LightningRun:
    """A Lightning trainer that is set up from a recipe and the hardware.

    Args:
        recipe: Recipe to train.
        folder: Folder of the training.
        hardware: Device and number of processes.
        keeper: Writes checkpoints, and ends the training early.
        trackers: Loggers of curves and images.
        on_epoch: Called after every epoch, in the first process.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        hardware: Hardware,
        keeper: checkpointing.CheckpointCallback,
        trackers: list[Logger],
        on_epoch: Callable[[EpochEnd], None],
    ) -> None:
        self.recipe, self.folder = recipe, folder
        self.hardware, self.keeper, self.on_epoch = hardware, keeper, on_epoch
        rules = recipe.train
        self.trainer = pl.Trainer(
            accelerator=hardware.kind,
            devices=hardware.devices if hardware.index is None else [hardware.index],
            num_nodes=hardware.nodes,
            strategy="ddp" if hardware.processes > 1 else "auto",
            use_distributed_sampler=False,
            sync_batchnorm=hardware.processes > 1 and hardware.kind == "gpu",
            precision=_PRECISION[rules.precision],
            deterministic=rules.deterministic or None,
            max_epochs=rules.epochs,
            check_val_every_n_epoch=rules.validate_every,
            num_sanity_val_steps=0,
            accumulate_grad_batches=rules.accumulate,
            gradient_clip_val=rules.gradient_clip,
            logger=trackers,
            default_root_dir=folder,
            plugins=[checkpointing.AtomicCheckpointIO(), *_cluster(hardware)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs."""
        return int(self.trainer.current_epoch)

    def fit(
        self,
        data: TrainingData,
        resume_point: checkpointing.ResumePoint | None,
        tuning: FineTuning | None = None,
    ) -> None:
        """Trains from the first epoch, or from a checkpoint.

        Args:
            data: Prepared cases.
            resume_point: Checkpoint to continue from.
            tuning: The model that the training starts from.

        Raises:
            UsageError: the checkpoint belongs to another recipe or other data (``resume-changed``), or
                the loss is not finite (``nan-loss``).
            KeyboardInterrupt: Ctrl-C was pressed, or SIGTERM received (:class:`Terminated`).
        """
        recipe, trainer = self.recipe, self.trainer
        part = {"rank": trainer.global_rank, "world_size": trainer.world_size}
        # A GPU also augments: two or three processors cannot keep up with it.
        on_device = self.hardware.kind == "gpu"
        loader = patches(
            data.train,
            recipe,
            workers=self.hardware.workers,
            first_epoch=resume_point.epochs_done if resume_point else 0,
            augmented=not on_device,
            **part,
        )
        augmenter = Patches(data.train, recipe) if on_device else None
        module = SegmentationModule(recipe, data.digest, augmenter, tuning)
        interruption = Interruption()
        trainer.callbacks += [
            History(self.folder / "history.csv", recipe, loader, self.on_epoch),
            self.keeper,
            interruption,
        ]
        try:
            with interruption.handled():
                trainer.fit(
                    module,
                    loader,
                    scans(data.val, **part) if data.val else None,
                    ckpt_path=str(resume_point.checkpoint) if resume_point else None,
                    weights_only=True,
                )
        except SystemExit:
            # Lightning turns KeyboardInterrupt into this, after it has made the process ignore Ctrl-C.
            raise interruption.error() from None
        except (RuntimeError, OSError, EOFError):
            if interruption.received is not None:  # a worker ended first, perhaps while it sent a batch
                raise interruption.error() from None
            raise
        finally:
            loader.close()

    def wait_for_all(self) -> None:
        """Returns once every process of the training has called it."""
        self.trainer.strategy.barrier()


@contextmanager
def torch_switches_restored() -> Iterator[None]:
    """Restores torch's global switches for deterministic algorithms when the block ends."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


def _cluster(hardware: Hardware) -> list[ClusterEnvironment]:
    """On SLURM, how processes find one another; see :func:`medseg.training.hardware.check_slurm`.

    Lightning takes any job with several tasks for one whose tasks are the processes of the training.
    """
    if not SLURMEnvironment.detect():
        return []
    if hardware.processes == 1 or not is_started_by_srun():
        return [LightningEnvironment()]
    # Lightning's own requeueing keeps checkpoints of another kind.
    return [SLURMEnvironment(auto_requeue=False)]
