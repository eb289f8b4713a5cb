"""A process that trains the trials it is given, one after the other.

``python -m medseg.tuning.worker`` reads requests from standard input, one line of JSON each, and answers with
lines of JSON: each validation, to which the other side replies whether to go on, and the result.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.recipe import Recipe
from medseg.system.error_conversion import as_medseg_error
from medseg.system.processes import ignore_signals, send, take_pipes

if TYPE_CHECKING:
    import pandas as pd

    from medseg.training.history import EpochEnd

_LOCK_SECONDS = 120.0


class Pruned(Exception):
    """The study has stopped this trial."""


def main() -> None:
    """Trains until standard input is closed; then exits at once, even in the middle of a training."""
    ignore_signals(signal.SIGINT, signal.SIGTERM)
    requests, answers = take_pipes(silence_stderr=False)
    arrived: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        for line in requests:
            arrived.put(json.loads(line))
        os._exit(0)  # checkpoints are written atomically

    threading.Thread(target=read, daemon=True).start()
    for request in iter(arrived.get, None):
        answer(request, arrived, answers)


def answer(request: dict[str, Any], arrived: queue.SimpleQueue[dict[str, Any]], answers: BinaryIO) -> None:
    """Trains one trial and sends its result.

    Args:
        request: ``recipe``, ``cases``, ``folder``, ``cache``, ``device``, ``slot``, ``threads`` and
            ``max_seconds``.
        arrived: Replies to validations.
        answers: Where messages go.
    """

    def validated(epoch: int, dice: float) -> None:
        send({"event": "epoch", "epoch": epoch, "dice": dice}, answers)
        if arrived.get()["stop"]:
            raise Pruned

    started = time.monotonic()
    try:
        told = trained(request, validated)
    except Pruned:
        told = {"event": "pruned"}
    except Exception as error:  # whatever it is, it is this trial's failure
        known = as_medseg_error(error)
        told = {"event": "failed", "reason": known.reason, "problem": known.problem, "where": known.where}
    folder = Path(request["folder"])
    send(told | {"seconds": round(time.monotonic() - started, 1), "epochs": _epochs(folder)}, answers)


def trained(request: dict[str, Any], validated: Callable[[int, float], None]) -> dict[str, Any]:
    """The result of a trial, which is trained, continued, or already there."""
    import torch

    from medseg.training import session
    from medseg.training.checkpointing import is_used
    from medseg.training.hardware import Hardware
    from medseg.training.options import TrainingOptions

    torch.set_num_threads(int(request["threads"]))
    recipe = Recipe.checked(request["recipe"])
    cases = [Case.model_validate(each) for each in request["cases"]]
    folder = Path(request["folder"])

    def ended(end: EpochEnd) -> None:
        known = [] if end.dice is None else [dice for dice in end.dice.values() if not math.isnan(dice)]
        if known:
            validated(end.epoch, sum(known) / len(known))

    device = _device(request["device"], int(request["slot"]))
    hardware = Hardware(device, workers=0 if device == "cpu" else 1)
    if not (folder / "evaluation.csv").is_file():
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                session.train(
                    recipe,
                    cases,
                    folder,
                    resume=is_used(folder),
                    hardware=hardware,
                    options=TrainingOptions(cache=Path(request["cache"]), max_seconds=request["max_seconds"]),
                    on_epoch=ended,
                    progress=False,
                )
                break
            except UsageError as error:
                # The worker of a command that was killed ends a moment after it.
                if error.reason != "in-use" or time.monotonic() > until:
                    raise
                time.sleep(0.2)
    scores = score(folder, recipe, [case for case in cases if case.split == "val"], device)
    dice = sum(dice for _, dice, _ in scores) / len(scores)
    return {"event": "finished", "dice": dice, "scores": scores}


def score(folder: Path, recipe: Recipe, cases: Sequence[Case], device: str) -> list[tuple[str, float, str]]:
    """Id, Dice (the mean over labels) and patient of each validation case, on the grid of its scan.

    The scores are also written as ``evaluation.csv``, which `medseg compare` reads.

    Raises:
        UsageError: a case fails, or no case has a label (``tune-scores``).
    """
    from medseg.evaluation import evaluator, summary_table
    from medseg.evaluation.evaluation_files import read_evaluation
    from medseg.inference.registry import load_segmenter
    from medseg.io import read_channels

    path = folder / "evaluation.csv"
    if path.is_file():
        table = read_evaluation(path)
    else:
        segment = load_segmenter(folder / "model.safetensors", device=device)
        channels = len(segment.channels)
        table = evaluator.evaluate_cases(
            cases,
            lambda case: segment(read_channels(case.images, channels=channels)),
            recipe.painted,
            ignore_value=recipe.ignore_value,
        )
    scores = case_dice(table)
    if not path.is_file():
        summary_table.write(table, folder)
    return scores


def case_dice(table: pd.DataFrame) -> list[tuple[str, float, str]]:
    """Id, mean Dice over labels, and patient of each case of an evaluation.

    Raises:
        UsageError: a case failed, or no case has a label (``tune-scores``).
    """
    failed = table[table["status"] == "failed"]
    if len(failed):
        first = failed.iloc[0]
        problem = f"{len(failed)} validation case(s) failed, the first is {first['case']}: {first['reason']}"
        raise UsageError(problem, where="validation", remedy="correct this case", reason="tune-scores")
    known = table.dropna(subset=["dice"])
    scores = [
        (str(case), float(part["dice"].mean()), str(part["patient"].iloc[0]))
        for case, part in known.groupby("case", sort=True)
    ]
    if not scores:
        raise UsageError(
            "no validation case has a label or got one, so that there is no Dice",
            where="validation",
            remedy="give cases with labels the split val",
            reason="tune-scores",
        )
    return scores


def _device(name: str, slot: int) -> str:
    """The device of a worker: several workers share out the GPUs of a machine."""
    from medseg.system.devices import cuda_devices, resolved

    device = resolved(name)
    return f"cuda:{slot % max(1, cuda_devices())}" if device == "cuda" else device


def _epochs(folder: Path) -> int:
    """Number of finished epochs."""
    try:
        return max(0, len((folder / "history.csv").read_text(encoding="utf-8").splitlines()) - 1)
    except OSError:
        return 0


if __name__ == "__main__":
    main()
