"""Hostile scans and models by chance: whole files are damaged, read, and must be read or refused.

    python tests/support/fuzzing.py --count 2000             # what `make fuzz` runs; prints a table
    python tests/support/fuzzing.py --only 17 --keep folder  # one mutant again, its files kept

A mutant is known by its seed and number. They run in a child process with limits on time and
memory; if it dies, the mutant is named and the next child continues after it.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from support.mutations import Files, mutant  # noqa: E402 - found by the lines above

SECONDS = 20
MEMORY_BYTES = 1 << 30
FINE = ("accepted", "refused")


# --- the whole files -------------------------------------------------------------------------


def originals(folder: Path) -> dict[str, tuple[Files, str]]:
    """For each format: its whole files by name, and the name to read ("." is the folder)."""
    import medseg
    from medseg.io import write_dicom_series
    from medseg.phantom.thorax import Thorax, default_grid

    scan = Thorax().scan(default_grid((24.0, 26.0, 40.0), "LPS"))
    found: dict[str, tuple[Files, str]] = {}
    for suffix in (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr"):
        place = folder / suffix[1:]
        place.mkdir()
        medseg.write(scan, place / f"scan{suffix}")
        found[suffix[1:]] = contents(place), f"scan{suffix}"
    place = folder / "dicom"
    write_dicom_series(scan, place)
    found["dicom"] = contents(place), "."
    for name in ("rle", "jpegls", "j2k"):
        found[f"dicom {name}"] = {n: recoded(c, name, folder) for n, c in contents(place).items()}, "."
    found["dicom enhanced"] = {"enhanced.dcm": enhanced(contents(place))}, "."
    return found | models(folder)


def models(folder: Path) -> dict[str, tuple[Files, str]]:
    """A model file, a checkpoint, a recipe and manifests."""
    import torch
    from support.worlds import tiny, untrained

    model = untrained(tiny(network={"widths": [2, 2]}))
    model.save(folder / "m.safetensors")
    torch.save(model.folds[0], folder / "w.pth")
    cases = [{"id": f"c{n}", "image": f"{n}.nii.gz", "label": f"{n}_l.nii.gz"} for n in range(5)]
    rows = ["id,image,label", *(",".join(case.values()) for case in cases)]
    recipe = tiny().yaml().encode()
    return {
        "model": ({"m.safetensors": (folder / "m.safetensors").read_bytes()}, "m.safetensors"),
        "checkpoint": ({"w.pth": (folder / "w.pth").read_bytes()}, "w.pth"),
        "recipe": ({"r.yaml": recipe}, "r.yaml"),
        "manifest csv": ({"m.csv": "\n".join(rows).encode()}, "m.csv"),
        "manifest json": ({"m.json": json.dumps({"cases": cases}, indent=1).encode()}, "m.json"),
        "manifest yaml": (
            {"m.yaml": b"cases:\n- {id: a, image: a.nii}\n- {id: b, image: b}\n"},
            "m.yaml",
        ),
    }


def contents(folder: Path) -> Files:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def recoded(content: bytes, name: str, folder: Path) -> bytes:
    """A DICOM file in another transfer syntax, by GDCM."""
    import gdcm

    syntaxes = {
        "rle": gdcm.TransferSyntax.RLELossless,
        "jpegls": gdcm.TransferSyntax.JPEGLSLossless,
        "j2k": gdcm.TransferSyntax.JPEG2000Lossless,
    }
    source, target = folder / "from.dcm", folder / "to.dcm"
    source.write_bytes(content)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntaxes[name]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target.read_bytes()


def enhanced(slices: Files) -> bytes:
    """The slices as one enhanced CT file: geometry in functional groups (PS3.3 C.7.6.16)."""
    from pydicom import dcmread
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    from pydicom.uid import EnhancedCTImageStorage

    parts = sorted(
        (dcmread(io.BytesIO(content)) for content in slices.values()), key=lambda d: int(d.InstanceNumber)
    )
    ds = dcmread(io.BytesIO(next(iter(slices.values()))))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.NumberOfFrames = len(parts)
    ds.PixelData = b"".join(part.PixelData for part in parts)
    orientation, measures, rescale = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = parts[0].ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = parts[0].PixelSpacing, parts[0].SliceThickness
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = "1", "0", "HU"
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PixelValueTransformationSequence = Sequence([rescale])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for part in parts:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = part.ImagePositionPatient
        frame.PlanePositionSequence = Sequence([position])
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    for name in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "InstanceNumber"):
        delattr(ds, name)
    for name in ("RescaleSlope", "RescaleIntercept", "SliceThickness", "SpacingBetweenSlices"):
        if name in ds:
            delattr(ds, name)
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


# --- the child: one mutant after the other -----------------------------------------------------


def child(seed: int, first: int, last: int, keep: Path | None) -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    base = Path(os.environ["TMPDIR"])
    made = base / "originals"
    made.mkdir()
    whole = originals(made)
    shutil.rmtree(made)
    report({"ready": sorted(whole)})
    kinds = sorted(whole)
    for number in range(first, last):
        rng = np.random.default_rng([seed, number])
        kind = kinds[number % len(kinds)]
        files, name = whole[kind]
        place, target = base / "in", base / "out"
        place.mkdir()
        target.mkdir()
        for file, content in mutant(files, kind, rng).items():
            (place / file).write_bytes(content)
        if keep is not None:
            shutil.copytree(place, keep, dirs_exist_ok=True)
        forget_peaks()
        report({"start": number, "kind": kind})
        started = time.monotonic()
        outcome, detail = judged(kind, place / name if name != "." else place, target)
        seconds = time.monotonic() - started
        peak = max_peak_bytes()
        if outcome in FINE:
            left = [str(p.relative_to(base)) for p in base.rglob("*") if p.parent not in (place,)]
            if sorted(left) != ["in", "out"]:
                outcome, detail = "LEFTOVER", str(left)
            if seconds > SECONDS:
                outcome, detail = "SLOW", f"{seconds:.1f} s, {detail}"
            if peak > MEMORY_BYTES:
                outcome, detail = "MEMORY", f"{peak >> 20} MB, {detail}"
        shutil.rmtree(place)
        shutil.rmtree(target)
        report({"number": number, "kind": kind, "outcome": outcome, "detail": detail, "seconds": seconds})


def report(facts: dict[str, Any]) -> None:
    os.write(int(os.environ["FUZZ_PIPE"]), json.dumps(facts).encode() + b"\n")


def judged(kind: str, path: Path, target: Path) -> tuple[str, str]:
    from medseg.errors import MedsegError

    try:
        use(kind, path, target)
    except MedsegError as error:
        return refusal_of(error, path)
    except Exception as error:
        import traceback

        frame = traceback.extract_tb(error.__traceback__)[-1]
        return (
            "TRACEBACK",
            f"{type(error).__name__}: {error!s:.200} ({Path(frame.filename).name}:{frame.lineno})",
        )
    return "accepted", ""


def refusal_of(error: Any, path: Path) -> tuple[str, str]:
    """A refusal, when its message is one a user can read."""
    faults = []
    for part in (error.problem, error.remedy or ""):
        if not part.replace(str(path), "").isprintable():
            faults.append(f"control characters: {part!a:.200}")
    if error.reason == "error":
        faults.append(f"no reason code: {error.problem!a:.200}")
    if len(str(error)) > 1000:
        faults.append(f"{len(str(error))} characters: {error.problem!a:.200}")
    if not error.remedy:
        faults.append(f"no remedy: {error.problem!a:.200}")
    return ("MESSAGE", "; ".join(faults)) if faults else ("refused", error.reason)


def use(kind: str, path: Path, target: Path) -> None:
    """Reads what was damaged; a scan that is accepted is written and read again."""
    if kind == "model":
        from medseg.inference.model import Model

        Model.load(path).save(target / "m.safetensors")
        (target / "m.safetensors").unlink()
    elif kind == "checkpoint":
        from support.worlds import tiny

        from medseg.training.checkpoint_files import import_weights

        import_weights(path, tiny(network={"widths": [2, 2]}))
    elif kind == "recipe":
        from medseg.recipe import Recipe

        assert Recipe.parse(Recipe.read(path).yaml())
    elif kind.startswith("manifest"):
        from medseg.datasets.manifest import Manifest

        Manifest.read(path)
    else:
        import medseg

        scan = medseg.read(path)
        assert np.isfinite(scan.grid.affine).all()
        assert np.isfinite(scan.array).all()
        medseg.write(scan, target / "again.nii.gz")
        again = medseg.read(target / "again.nii.gz")
        assert np.array_equal(again.array, scan.array), "another array comes back"
        (target / "again.nii.gz").unlink()


def family() -> Iterator[Path]:
    """/proc folders of this process and of its children, such as a decoder."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            yield from (Path("/proc") / pid for pid in (task / "children").read_text().split())
    yield Path("/proc/self")


def forget_peaks() -> None:
    for process in family():
        try:
            (process / "clear_refs").write_text("5")  # resets the peak, proc(5)
        except OSError:
            return


def max_peak_bytes() -> int:
    peaks = [0]
    for process in family():
        try:
            found = re.search(r"VmHWM:\s+(\d+)", (process / "status").read_text())
        except OSError:
            continue
        peaks.append(int(found[1]) << 10 if found else 0)
    return max(peaks)


# --- the parent ------------------------------------------------------------------------------


def run(count: int, *, seed: int = 0, first: int = 0, keep: Path | None = None) -> list[dict[str, Any]]:
    """The outcome of each mutant, in order."""
    results: list[dict[str, Any]] = []
    at, stop = first, first + count
    while at < stop:
        with tempfile.TemporaryDirectory(prefix="medseg-fuzz-") as folder:
            found = one_child(seed, at, stop, keep, Path(folder))
        results += found
        at = found[-1]["number"] + 1
    return results


def one_child(seed: int, first: int, stop: int, keep: Path | None, folder: Path) -> list[dict[str, Any]]:
    """The outcomes until the end, or until the child died or hung; the last one says so."""
    back, forth = os.pipe()
    arguments = ["--child", "--seed", str(seed), "--first", str(first), "--count", str(stop - first)]
    search_path = os.pathsep.join([*sys.path, str(TESTS)])  # `support.worlds` is found in the child too
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed below, after the child
    process = subprocess.Popen(
        [sys.executable, __file__, *arguments, *(["--keep", str(keep)] if keep else [])],
        env=os.environ | {"TMPDIR": str(folder), "FUZZ_PIPE": str(forth), "PYTHONPATH": search_path},
        pass_fds=[forth],
        stdout=errors,
        stderr=errors,
        start_new_session=True,
    )
    os.close(forth)
    results: list[dict[str, Any]] = []
    begun: dict[str, Any] = {"start": first, "kind": "start"}
    outcome, ready_to_read = None, False
    limit = 120.0  # for imports
    buffer = b""
    while outcome is None:
        ready, _, _ = select.select([back], [], [], limit)
        chunk = os.read(back, 1 << 16) if ready else b""
        if not chunk:
            outcome = "CRASH" if ready else "HANG"
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            facts = json.loads(line)
            ready_to_read |= "ready" in facts
            begun = facts if "start" in facts else begun
            results += [facts] if "number" in facts else []
            limit = SECONDS + 5.0
        if results and results[-1]["number"] == stop - 1:
            break
    os.close(back)
    if outcome == "HANG":
        process.send_signal(signal.SIGABRT)  # faulthandler writes where it hangs
        time.sleep(0.5)
    if outcome:
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    errors.seek(0)
    if outcome and not ready_to_read:
        raise RuntimeError(
            f"the child ended before its first mutant, exit {code}: {errors.read().decode()[-1500:]}"
        )
    if outcome:
        trace = errors.read().decode(errors="replace")[-1500:]
        detail = f"exit {code}: {trace}"
        results.append(
            {"number": begun["start"], "kind": begun["kind"], "outcome": outcome, "detail": detail}
        )
    errors.close()
    return results


def table(results: list[dict[str, Any]]) -> str:
    """Outcomes by format: how many were accepted, refused for which reason, or failed."""
    lines = []
    for kind in sorted({result["kind"] for result in results}):
        rows = [result for result in results if result["kind"] == kind]
        outcomes = Counter(r["detail"] if r["outcome"] == "refused" else r["outcome"] for r in rows)
        slowest = max(r.get("seconds", 0.0) for r in rows)
        reasons = ", ".join(f"{name} {times}" for name, times in outcomes.most_common())
        lines.append(f"{kind:15s} {len(rows):5d}  slowest {slowest:4.1f} s  {reasons}")
    return "\n".join(lines)


def failures(results: list[dict[str, Any]], seed: int) -> list[str]:
    return [
        f"{r['outcome']} {r['kind']}, seed {seed} number {r['number']}: {r['detail']}"
        for r in results
        if r["outcome"] not in FINE
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of one mutant")
    parser.add_argument("--keep", type=Path, help="copy the mutants' files here")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only is not None:
        given.first, given.count = given.only, 1
    if given.child:
        child(given.seed, given.first, given.first + given.count, given.keep)
        return
    results = run(given.count, seed=given.seed, first=given.first, keep=given.keep)
    print(table(results))
    bad = failures(results, given.seed)
    print(f"{len(results)} mutants, {len(bad)} failures")
    alike: dict[str, list[str]] = {}
    for failure in bad:
        alike.setdefault(re.sub(r"\d+", "", failure.partition(": ")[2])[:60], []).append(failure)
    for group in alike.values():
        print(f"{group[0]}{f' (and {len(group) - 1} alike)' if len(group) > 1 else ''}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
