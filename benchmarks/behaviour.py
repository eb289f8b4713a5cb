"""Digests of what medseg does with some 200 inputs, to show that a change of the code changed nothing else.

    export PYTHONPATH=CHECKOUT      # of the code to run, absolute; without it the installed one
    python benchmarks/behaviour.py --data ../shared/data --corpus CORPUS -o before.json
    python benchmarks/behaviour.py --compare before.json after.json

Only the command line is called: on phantoms, on real scans (``--data``) and on hard inputs (``--corpus``, a
folder with expected.json). Every entry is named "kind: what". Its digest is of voxels, tensors, pixels, or of
text, which is kept beside it where it is short. Messages, remedies and warnings are entries of their own, of
kind "words", so that better English is not taken for another result. Seconds, dates, versions and paths are
left out. ``earlier_files.py`` reads what an earlier version has written.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - as everywhere
import yaml
from safetensors import safe_open

ROOT = Path(__file__).parents[1]
LONGEST = 100_000
"""Text of up to so many characters is kept beside its digest."""

WORDS = {"problem", "remedy", "where", "warnings", "message", "description", "title"}
"""Keys and columns that hold words for people."""
VARYING = {
    "seconds",
    "waiting",
    "time",
    "pid",
    "host",
    "medseg",
    "command",
    "stamp",
    "machine",
    "packages",
    "git",
}
"""Keys and columns that differ from run to run; ``seconds_...`` likewise."""
KINDS = {".csv": "table", ".md": "table", ".tex": "table", ".png": "picture", ".html": "words"}
KINDS |= {".gz": "voxels", ".nii": "voxels", ".nrrd": "voxels", ".mha": "voxels", ".npy": "voxels"}
KINDS |= {".safetensors": "model", ".dcm": "dicom"}
UNREAD = {"checkpoints", "tensorboard", ".lock", "history.png"}

TINY: dict[str, Any] = {
    "name": "tiny",
    "modality": "CT",
    "channels": ["CT"],
    "labels": [{"name": "right_lung", "values": [1, 3]}, {"name": "left_lung", "values": [2, 4]}],
    "prepare": {
        "spacing_mm": [8, 8, 10],
        "crop": {"above": -500, "margin_mm": 10},
        "intensity": {"kind": "window", "low_hu": -1024, "high_hu": 276},
    },
    "patch": {"size": [32, 32, 16]},
    "network": {"widths": [8, 16], "norm": "batch", "dropout": 0.1},
    "train": {"epochs": 2, "steps_per_epoch": 8, "batch_size": 2, "accumulate": 2, "validate_every": 1}
    | {"ema_decay": 0.8, "learning_rate": 0.02},
}
DIVIDE = [
    {"name": "right_lung", "values": [1], "side": "right"},
    {"name": "left_lung", "values": [2], "side": "left"},
]
RECIPES = {
    "softmax_3d": TINY | {"loss": {"kind": "dice_ce"}},
    "sigmoid_2d": TINY | {"patch": {"size": [32, 48], "neighbours": 1}, "loss": {"kind": "tversky"}},
    "divided_3d": TINY
    | {"labels": [{"name": "lungs", "values": [1, 2]}], "ignore_value": 5}
    | {"augment": {"rotate_degrees": 10, "elastic_mm": 4, "noise_sd": 0.1, "low_resolution": 0.3}}
    | {"postprocess": {"divide": DIVIDE, "keep_components": 1}},
}


class Behaviour:
    """Runs commands in a folder and notes what came of them in ``found``."""

    def __init__(self, folder: Path, **places: Path) -> None:
        self.folder, self.found = folder, dict[str, dict[str, str]]()
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "NO_COLOR": "1"}
        self.environment |= {"XDG_CACHE_HOME": str(folder / "home")}
        words = [sys.executable, "-c", "import medseg; print(medseg.__path__[0])"]
        code = subprocess.check_output(words, text=True, cwd=folder, env=self.environment).strip()
        print(f"medseg of {code}", file=sys.stderr)
        named = {"<here>": folder, "<code>": code, "<root>": ROOT} | {f"<{n}>": p for n, p in places.items()}
        self.places = sorted(((str(p), n) for n, p in named.items()), key=lambda pair: -len(pair[0]))

    def start(self, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "medseg.cli", *map(str, words)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=pipe, text=True
        )

    def run(self, name: str, *words: object, out: str | None = None) -> str:
        """Standard output of a command; its exit, words and output (file or folder) are noted."""
        began = time.monotonic()
        child = self.start(*words)
        stdout, stderr = child.communicate()
        facts, text = parted(stdout) if stdout.startswith(("{", "[")) else ("", stdout)
        reason = re.search(r'"error": \{\s*"reason": "([^"]+)"', stdout)
        self.note(f"exit: {name}", f"{child.returncode} {reason[1] if reason else ''}")
        self.note(f"facts: {name}", facts)
        self.note(f"words: {name}", "\n".join([text, *sorted(stderr.splitlines())]))
        for path in self.files(out) if out else ():
            within = path.relative_to(self.folder).as_posix()
            facts, text = content(path)
            self.note(f"{KINDS.get(path.suffix, 'facts')}: {within} of {name}", facts)
            self.note(f"words: {within} of {name}", text)
        print(
            f"{time.monotonic() - began:6.1f} s  exit {child.returncode}  {name}", file=sys.stderr, flush=True
        )
        return stdout

    def files(self, out: str) -> list[Path]:
        """All files of a folder; of a file also its sidecar and whatever has its stem."""
        path = self.folder / out
        found = path.rglob("*") if path.is_dir() else path.parent.glob(path.name.split(".")[0] + ".*")
        return sorted(each for each in found if each.is_file() and not set(each.parts) & UNREAD)

    def note(self, name: str, text: str) -> None:
        if text := self.plain(text):
            short = re.sub(r"[\w+/=]{1000,}", lambda picture: digest(picture[0].encode()), text)  # base 64
            kept = {"text": short} if len(short) <= LONGEST else {}
            self.found[self.plain(name)] = {"digest": digest(text.encode())} | kept

    def plain(self, text: str) -> str:
        """Without paths of this run, durations and commits."""
        for place, name in self.places:
            text = text.replace(place, name)
        text = re.sub(r"\d+:\d\d left|\d+(\.\d+)? ?s\b|\d+(\.\d+)? % of the training", "<time>", text)
        return re.sub(r"\b[0-9a-f]{40}\b", "<commit>", text).strip()


def digest(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()[:16]


def parted(stdout: str) -> tuple[str, str]:
    """What is fact and what is words for people in JSON, or in lines of JSON."""
    try:
        values = [json.loads(stdout)]
    except ValueError:
        values = [json.loads(line) for line in stdout.splitlines() if line]
    words: list[str] = []

    def facts(value: Any) -> Any:
        if isinstance(value, list):
            return [facts(each) for each in value]
        if not isinstance(value, dict):
            return value
        words.extend(
            f"{k}: {json.dumps(value[k], ensure_ascii=False)}" for k in value if k in WORDS and value[k]
        )
        left = (k for k in value if k not in WORDS | VARYING and not k.startswith("seconds_"))
        return {k: facts(value[k]) for k in left}

    return "\n".join(json.dumps(facts(value), indent=1) for value in values), "\n".join(words)


def content(path: Path) -> tuple[str, str]:
    """Facts and words of a file."""
    match path.suffix:
        case ".npy":
            return array(np.load(path)), ""
        case ".png":
            return array(plt.imread(path)), ""
        case ".gz" | ".nii":
            image = nib.load(path)
            return f"{array(np.asanyarray(image.dataobj))}\n{image.affine.tolist()}", ""
        case ".nrrd" | ".mha":
            image = sitk.ReadImage(path)
            place = f"{image.GetSpacing()} {image.GetOrigin()} {image.GetDirection()}"
            return f"{array(sitk.GetArrayFromImage(image))}\n{place}", ""
        case ".safetensors":
            with safe_open(path, "np") as file:
                meta = {k: plain_data(v) for k, v in (file.metadata() or {}).items()}
                tensors = [f"{k}: {array(file.get_tensor(k))}" for k in sorted(file.keys())]
            facts, words = parted(json.dumps(meta))
            return "\n".join([*tensors, facts]), words
        case ".dcm":
            return dicom(path), ""
    text = path.read_text(encoding="utf-8")
    match path.suffix:
        case ".json" | ".jsonl":
            return parted(text)
        case ".csv":
            rows = csv.DictReader(text.splitlines())
            return parted(json.dumps([{k: plain_data(v) for k, v in row.items()} for row in rows]))
        case ".html":
            seen = re.sub(r"<(style|script).*?</\1>|<[^>]*>", "\n", text, flags=re.DOTALL)
            return "", html.unescape(re.sub(r"\s*\n\s*", "\n", seen))
    return text, ""


def array(values: np.ndarray) -> str:
    return f"{values.dtype} {values.shape} {digest(np.ascontiguousarray(values).tobytes())}"


def dicom(path: Path) -> str:
    """All elements but identifiers, times and versions."""
    lines = []
    for element in pydicom.dcmread(path).iterall():
        if element.VR not in ("SQ", "UI", "DA", "TM", "DT") and element.keyword != "SoftwareVersions":
            value = str(element.value)
            lines.append(f"{element.keyword}: {value if len(value) < 100 else digest(value.encode())}")
    return "\n".join(lines)


def plain_data(text: str) -> Any:
    """What JSON or YAML inside a string means."""
    return yaml.safe_load(text) if text[:1] in ("{", "[") or "\n" in text else text


def everything(at: Behaviour, data: Path, corpus: Path) -> None:
    """All inputs and commands."""
    phantoms(at, 6)
    shutil.unpack_archive(data / "dicom" / "4DLung-113_ct_99slices.zip", at.folder / "unpacked")
    series = at.folder / "unpacked" / "4DLung-113" / "ct"
    chests = sorted(data.glob("lung_ct_2mm/*/ct.nii.gz"))
    scans = [
        *chests[::5],
        *sorted(data.glob("lung_ct_small/*/ct.nii.gz")),
        *sorted(data.glob("mri/*/*.nii.gz")),
    ]
    scans += [*sorted(data.glob("mri/hippocampus/images/*"))[:3], *sorted(data.glob("mri/sts_t1/*/*image*"))]
    scans += [series, data / "dicom" / "mr_t1post_22slices", data / "dicom" / "totalseg_ct_20slices"]
    for scan in scans:
        at.run(f"info {scan}", "info", scan, "--json")
    for number, scan in enumerate(scans[::4]):
        for suffix in ("nii.gz", "nrrd", "mha"):
            out = f"scan{number}_{suffix[:2]}.{suffix}"
            at.run(f"convert {scan} {suffix}", "convert", scan, "-o", out, "--json", out=out)
    reading(at, corpus)
    segmenting(at, data, chests, series)
    tables(at, data, series)
    for name in RECIPES:
        training(at, name)
    for line in at.run("recipes", "recipe").splitlines():
        at.run(f"recipe {line.split()[0]}", "recipe", line.split()[0])
    at.run("schema", "recipe", "--schema")
    at.run("models", "models", "--json")


def phantoms(at: Behaviour, count: int) -> None:
    """Phantom patients in ``cases``, the last of them of split val."""
    at.run("phantom", "phantom", "cases", "--cases", count, "--seed", 5, out="cases")
    manifest = at.folder / "cases" / "manifest.csv"
    manifest.write_text(re.sub("train$", "val", manifest.read_text().strip()) + "\n")


def reading(at: Behaviour, corpus: Path) -> None:
    """Hard inputs: every third converted, all scans in one batch, all manifests and models."""
    rows = ["id,image"]
    for number, entry in enumerate(json.loads((corpus / "expected.json").read_text())["entries"]):
        path, name = corpus / entry["path"], entry["name"]
        out = f"hard{number}.nii.gz"
        if entry["kind"] == "checkpoint":
            words = ("-o", out, "--model", path, "--json")
            at.run(f"model {name}", "segment", "cases/images/phantom_005.nii.gz", *words)
            words = ("--recipe", "phantom_lungs", "-o", "weights.safetensors")
            at.run(f"weights {name}", "import-weights", path, *words)
        elif entry["kind"] == "manifest":
            manifest = at.folder / f"{name}{path.suffix}"
            manifest.write_text(path.read_text().replace("{CORPUS}", str(corpus)))
            at.run(f"check {name}", "check", manifest, "--json")
            words = ("--model", "threshold", "--workers", 1, "--json", "-o", f"batch_{name}")
            at.run(f"batch {name}", "batch", manifest, *words, out=f"batch_{name}")
        else:
            rows.append(f'{name},"{path}"')
            as_mask = ["--as-mask"] if "seg" in name or "dtype" in name else []
            if as_mask or number % 3 == 0:
                at.run(f"convert {name}", "convert", path, "-o", out, "--json", *as_mask, out=out)
    (at.folder / "corpus.csv").write_text("\n".join(rows))
    words = ("--model", "threshold", "--workers", 1, "--any-modality", "-o", "batch_corpus")
    at.run("batch of the corpus", "batch", "corpus.csv", *words, out="batch_corpus")
    for number, (path, *options) in enumerate((
        ("nii_nib_functional_nii/functional.nii", "--volume", 2),
        ("g_n_all_nan/case.nii.gz", "--nonfinite", -1000),
        ("g_n_no_forms/case.nii", "--trust", "pixdim"),
        ("g_d_two_series", "--series", "1"),
    )):  # fmt: skip
        out = f"chosen{number}.nii.gz"
        words = (corpus / path, "-o", out, "--json", *options)
        at.run(f"convert {path} {options[0]}", "convert", *words, out=out)


def segmenting(at: Behaviour, data: Path, chests: list[Path], series: Path) -> None:
    """Masks of the shipped models in all formats and by all engines, one by one and in batches."""
    few = [path for path in chests if path.parent.name in ("LCTSC-000", "LIDC-IDRI-0314", "TCGA-E3-A3E5")]
    few += [data / "dicom" / "totalseg_ct_20slices", at.folder / "cases" / "images" / "phantom_006.nii.gz"]
    for model in ("lung_ct", "phantom_lungs", "threshold"):
        for number, scan in enumerate(few):
            out = f"{model}{number}.nii.gz"
            words = ("-o", out, "--model", model, "--stats", f"{model}{number}.stats.json", "--json")
            at.run(f"segment {scan} {model}", "segment", scan, *words, out=out)
    for engine in ("torch", "onnx", "openvino"):
        words = ("-o", f"{engine}.nii.gz", "--engine", engine, "--json")
        at.run(f"segment by {engine}", "segment", few[0], *words, out=f"{engine}.nii.gz")
    brain = data / "dicom" / "mr_t1post_22slices"
    at.run("segment MR", "segment", brain, "-o", "mr.nii.gz", "--json")
    at.run("segment two", "segment", "-i", few[0], "-i", few[1], "-o", "two.nii.gz", "--json")
    words = ("-o", "look.png", "--recipe", "lung_ct")
    at.run("preview", "preview", few[0], "lung_ct0.nii.gz", *words, out="look.png")
    at.run("demo", "demo", "-o", "demo", out="demo")
    for kind in ("dicom-seg", "rtstruct"):
        for name, scan in (("demo", at.folder / "demo" / "ct"), ("4DLung", series)):
            words = ("-o", f"{name}_{kind}.dcm", "--format", kind, "--json")
            at.run(f"segment {name} {kind}", "segment", scan, *words, out=f"{name}_{kind}.dcm")
            out = f"back_{name}_{kind}.nii.gz"
            words = ("-o", out, "--as-mask", "--reference", scan, "--json")
            at.run(f"read {name} {kind}", "convert", f"{name}_{kind}.dcm", *words, out=out)
    words = ("-o", "tumour.nii.gz", "--as-mask", "--reference", series, "--json")
    at.run("read tumour", "convert", series.parent / "rtstruct" / "RS.dcm", *words, out="tumour.nii.gz")
    (at.folder / "chests.csv").write_text("id,image\n" + "".join(f"{p.parent.name},{p}\n" for p in chests))
    words = ("-o", "batch_chests", "--model", "lung_ct", "--model", "threshold", "--workers", 1, "--json")
    at.run("batch of chests", "batch", "chests.csv", *words, out="batch_chests")
    at.run("report on a batch", "report", "batch_chests", out="batch_chests/report.html")
    words = (
        "--model",
        "phantom_lungs",
        "--workers",
        1,
        "--overlays",
        "--probabilities",
        "--dicom",
        "rtstruct",
    )
    at.run("batch of series", "batch", "demo", "-o", "batch_series", *words, out="batch_series")
    at.run("batch of phantoms", "batch", "cases/images", "-o", "batch_phantoms", *words, out="batch_phantoms")


def tables(at: Behaviour, data: Path, series: Path) -> None:
    """Manifests, checks, evaluations and comparisons; patches of shipped recipes."""
    for name, source, *options in (
        ("phantoms", "cases", "--folds", 2),
        ("hippocampus", data / "mri" / "hippocampus", "--val", 0.1, "--test", 0.2),
        ("dicom", series.parent),
        ("rtstruct", series.parent, "--layout", "dicom-rtstruct"),
    ):
        out = f"of_{name}.csv"
        at.run(f"manifest {name}", "manifest", source, "-o", out, *options, out=out)
    manifests = ROOT / "data_manifests"
    for name in ("lctsc_lungs", "brain_gbm", "prostate_mr", "lung_ct_small", "sarcoma_t1"):
        at.run(f"check {name}", "check", manifests / f"{name}.yaml", "--data-root", data, "--json")
    at.run("check phantoms", "check", "cases/manifest.csv", "--recipe", "phantom_lungs", "--json")
    masks = ("--masks", "by_threshold/masks", "--recipe", "phantom_lungs", "--nsd-tolerance-mm", 2)
    for name, *how in (
        ("threshold", "--model", "threshold"),
        ("phantom_lungs", "--model", "phantom_lungs", "--nsd-tolerance-mm", 2),
        ("masks", *masks),
    ):
        words = ("--split", "all", *how, "-o", f"by_{name}", "--json")
        at.run(f"evaluate {name}", "evaluate", "cases/manifest.csv", *words, out=f"by_{name}")
    words = ("-o", "compared", "--metric", "dice", "--metric", "hd95_mm", "--json")
    pair = ("by_phantom_lungs/evaluation.csv", "by_masks/evaluation.csv")
    at.run("compare", "compare", *pair, *words, out="compared")
    at.run("report on an evaluation", "report", "by_threshold", out="by_threshold/report.html")
    for recipe, manifest in (("lung_ct_3d", "lctsc_lungs"), ("sarcoma_mr_3d", "sarcoma_t1")):
        words = (recipe, manifests / f"{manifest}.yaml", "--data-root", data, "-o", f"{recipe}.png")
        at.run(f"augment {recipe}", "augment", *words, out=f"{recipe}.png")


def training(at: Behaviour, name: str, **train: Any) -> None:
    """A run of one of the recipes on phantoms, and a mask by its model."""
    recipe = at.folder / f"{name}.yaml"
    recipe.write_text(yaml.safe_dump(RECIPES[name] | {"train": TINY["train"] | train}))
    at.run(f"train {name}", "train", recipe, "cases/manifest.csv", "-o", name, "--device", "cpu", out=name)
    out = f"by_{name}.nii.gz"
    words = ("-o", out, "--model", f"{name}/model.safetensors", "--json")
    at.run(f"segment by {name}", "segment", "cases/images/phantom_006.nii.gz", *words, out=out)


def compare(before: Path, after: Path) -> int:
    """Prints all differences; how many there are."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    all_of, differing = Counter[str](), Counter[str]()
    for name in sorted(old | new):
        then, now = old.get(name, {}), new.get(name, {})
        all_of[name.partition(":")[0]] += 1
        if then.get("digest") != now.get("digest"):
            differing[name.partition(":")[0]] += 1
            print(f"== {name}" + ("" if then else " (only after)") + ("" if now else " (only before)"))
            texts = [each.get("text", each.get("digest", "")).splitlines() for each in (then, now)]
            print(*list(difflib.unified_diff(*texts, n=0, lineterm=""))[2:], sep="\n")
    for kind in sorted(all_of):
        print(f"{kind}: {differing[kind]} of {all_of[kind]} differ")
    return differing.total()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    asked = parser.parse_args()
    if asked.compare:
        sys.exit(compare(*asked.compare) > 0)
    if not (asked.data and asked.corpus and asked.output):
        parser.error("need --data, --corpus and -o, or --compare")
    with tempfile.TemporaryDirectory(prefix="behaviour-") as folder:
        data, corpus = asked.data.resolve(), asked.corpus.resolve()
        at = Behaviour(Path(folder).resolve(), data=data, corpus=corpus)
        everything(at, data, corpus)
    asked.output.write_text(json.dumps(at.found, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(at.found)} digests in {asked.output}")


if __name__ == "__main__":
    main()
