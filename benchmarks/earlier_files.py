"""Shows that what an earlier version has written is read: models, killed trainings, stopped batches, caches.

    PYTHONPATH=BEFORE python benchmarks/earlier_files.py write FOLDER
    PYTHONPATH=AFTER python benchmarks/earlier_files.py read FOLDER     # as often as needed

``write`` leaves a model, a training killed in the middle, a stopped and a whole batch, evaluations, cached
graphs and prepared cases, and in ``expected.json`` how all that ends where nothing stops it. ``read`` goes on
in a copy of the folder, and compares.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from behaviour import Behaviour, phantoms, training

MODEL = "softmax_3d"
TRAIN = ("train", f"{MODEL}.yaml", "cases/manifest.csv", "-o", "killed", "--device", "cpu")
BATCH = ("batch", "cases/images", "--model", "phantom_lungs", "--workers", 1, "--json", "-o")
WEIGHTS = f"model: {MODEL}/model.safetensors of train {MODEL}"
TABLE = "table: batch/results.csv of batch"


def write(at: Behaviour) -> None:
    phantoms(at, 8)
    training(at, MODEL, epochs=8, steps_per_epoch=3)
    child = at.start(*TRAIN)
    history = at.folder / "killed" / "history.csv"
    while not (history.exists() and len(history.read_text().splitlines()) > 3):
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    at.run("batch", *BATCH, "batch", out="batch/results.csv")
    child, done = at.start(*BATCH, "stopped"), 0
    for line in child.stdout or ():
        done += json.loads(line)["event"] == "case"
        if done == 2:
            child.send_signal(signal.SIGINT)
    child.communicate()
    for model in ("phantom_lungs", f"{MODEL}/model.safetensors"):
        words = ("--split", "all", "--model", model, "-o", f"by_{model.split('/')[0]}")
        at.run(f"evaluate {model}", "evaluate", "cases/manifest.csv", *words)
    (at.folder / "expected.json").write_text(json.dumps(at.found, indent=1))


def read(at: Behaviour) -> bool:
    """Whether all goes on as it would have then."""
    expected = json.loads((at.folder / "expected.json").read_text())
    answers = []

    def say(what: str, right: bool) -> None:
        answers.append(right)
        print(f"{'ok' if right else 'NOT SO':6s}  {what}", flush=True)

    def same(name: str, then: str) -> bool:
        return name in at.found and at.found[name]["digest"] == expected[then]["digest"]

    def stand(folder: str, names: str = "*") -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in (at.folder / folder).rglob(names) if p.is_file()}

    graphs, prepared = stand("home/medseg"), stand("killed/cache")
    words = ("cases/images/phantom_006.nii.gz", "-o", "again.nii.gz", "--model", f"{MODEL}/model.safetensors")
    at.run("again", "segment", *words, "--json", out="again.nii.gz")
    mask = f"voxels: by_{MODEL}.nii.gz of segment by {MODEL}"
    say("the model gives the same mask", same("voxels: again.nii.gz of again", mask))
    say(f"{len(graphs)} cached graphs are used", bool(graphs) and stand("home/medseg") == graphs)

    epochs = len((at.folder / "killed" / "history.csv").read_text().splitlines()) - 1
    at.run("resume", *TRAIN, "--resume", out="killed")
    right = same("model: killed/model.safetensors of resume", WEIGHTS)
    say(f"a training killed after {epochs} of 8 epochs ends with the same weights", right)
    say(f"{len(prepared)} files of prepared cases are used", stand("killed/cache") == prepared)
    at.run("rerun", "train", "--rerun", MODEL, "-o", "rerun", "--device", "cpu", out="rerun")
    say(
        "the training, repeated, gives the same weights",
        same("model: rerun/model.safetensors of rerun", WEIGHTS),
    )

    for folder in ("stopped", "batch"):
        masks = stand(f"{folder}/masks", "*.gz")
        stdout = at.run(f"go on {folder}", *BATCH, folder, "--resume", out=f"{folder}/results.csv")
        end = json.loads(stdout.splitlines()[-1]) if stdout else {}
        kept = masks.items() <= stand(f"{folder}/masks", "*.gz").items()
        right = kept and (end.get("skipped"), end.get("done")) == (len(masks), 8 - len(masks))
        say(f"a batch with {len(masks)} of 8 masks goes on: {end}", right and bool(masks))
        say("its table is the same", same(f"table: {folder}/results.csv of go on {folder}", TABLE))

    pair = (f"by_{MODEL}/evaluation.csv", "by_phantom_lungs/evaluation.csv")
    at.run("compare", "compare", *pair, "-o", "compared")
    say("evaluations are compared", at.found["exit: compare"]["text"] == "0")
    for folder in ("by_phantom_lungs", "stopped", "batch"):
        at.run(f"report {folder}", "report", folder)
        say(f"a report is written on {folder}", at.found[f"exit: report {folder}"]["text"] == "0")
    return all(answers)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["write", "read"])
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    if asked.what == "write":
        asked.folder.mkdir(parents=True)
        write(Behaviour(asked.folder.resolve()))
        return
    with tempfile.TemporaryDirectory(prefix="earlier-") as made:
        folder = Path(made).resolve() / "copy"
        shutil.copytree(asked.folder, folder)
        sys.exit(not read(Behaviour(folder)))


if __name__ == "__main__":
    main()
