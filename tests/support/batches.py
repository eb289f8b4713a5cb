"""Small batches for tests."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from medseg import Grid, Volume
from medseg.batch_processing import runner
from medseg.batch_processing.case_discovery import Item
from medseg.batch_processing.case_pipeline import CasePipeline
from medseg.batch_processing.messages import BatchConfig, CaseJob, StopRequest
from medseg.batch_processing.settings import BatchMonitor, BatchResources
from medseg.batch_processing.summary import BatchSummary
from medseg.inference.case_result import CaseResult, ModelIdentity

GRID = Grid((24, 24, 10), np.diag([12.0, 12.0, 20.0, 1.0]))


def chest(number: int = 0) -> Volume:
    """Boxes of -800 and -700 HU in a grey one in air: 4 x 12 x 6 voxels where x is low (left), 6 x 12 x 6."""
    array = np.full(GRID.shape, -1000, np.int16)
    array[2:-2, 2:-2] = 40 + number
    array[4:8, 6:18, 2:8] = -800
    array[14:20, 6:18, 2:8] = -700
    return Volume(array, GRID)


def config_for(folder: Path, **changes: object) -> BatchConfig:
    return BatchConfig(**{"models": ("threshold",), "folder": str(folder), "scratch": "", **changes})


class WorkersHere:
    """The workers of a batch in the process of the test, where all libraries are loaded already.

    Configuration and answers pass through JSON as they do between a batch and its worker processes.
    """

    def __init__(self, config: BatchConfig, cases: int) -> None:
        self.pipeline = CasePipeline(BatchConfig.of(json.loads(json.dumps(config.plain()))))

    def models(self) -> list[ModelIdentity]:
        answer = json.dumps([each.to_json() for each in self.pipeline.models()])
        return [ModelIdentity.from_json(each) for each in json.loads(answer)]

    def run(
        self, jobs: Sequence[CaseJob], report: Callable[[list[CaseResult]], None], stop: StopRequest
    ) -> None:
        for job in jobs:
            if stop.asked:
                return
            answer = json.dumps([each.to_json() for each in self.pipeline.finish(self.pipeline.load(job))])
            report([CaseResult.from_json(each) for each in json.loads(answer)])

    def end(self) -> None:
        """There is nothing to end."""


def run(
    found: list[Item],
    config: BatchConfig,
    *,
    workers: int | None = None,
    memory: int | None = None,
    case_minutes: float = 120.0,
    shard: str | None = None,
    **options: object,
) -> BatchSummary:
    """A batch in this process, or in worker processes if their number is given: each takes seconds to start.

    The rest as for `runner.run`; fields of the monitor (``show``, ``stop``) may be given directly.
    """
    if workers is None:
        options.setdefault("start", WorkersHere)
    resources = BatchResources(workers, memory, case_minutes, shard)
    monitor = BatchMonitor(**{name: options.pop(name) for name in ("show", "stop") if name in options})
    return runner.run(found, config, resources=resources, monitor=monitor, **options)


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "results.csv").set_index("case")


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def medseg(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "medseg.cli", *map(str, arguments)]


SPOILED = """
import os, signal, time
from pathlib import Path
import medseg.inference.threshold_segmenter
before = medseg.inference.threshold_segmenter.ThresholdSegmenter.prepare
def prepare(self, scan, roi=()):
    (volume,) = scan
    if volume.source.path.name.startswith("3"):
        {what}
    return before(self, scan, roi)
medseg.inference.threshold_segmenter.ThresholdSegmenter.prepare = prepare
"""
