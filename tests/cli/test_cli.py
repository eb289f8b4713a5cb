from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from support.commands import invoke, output
from support.worlds import tiny, untrained

from medseg import Grid, Volume
from medseg.cli.options import seconds_of
from medseg.cli.progress import Progress
from medseg.errors import UsageError
from medseg.inference.model_files import shipped
from medseg.io import write_dicom_series
from medseg.io.sidecar import sidecar_path
from medseg.phantom.thorax import Thorax, default_grid

GRID = default_grid((8.0, 9.0, 12.0), "LPS")
RESEARCH = "Research use only"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A scan, a small model, a recipe and a manifest of three cases."""
    folder = tmp_path_factory.mktemp("world")
    rows = ["id,image,label,split"]
    for number, split in enumerate(("train", "val", "test")):
        patient = Thorax.random(number)
        patient.scan(GRID, seed=number).save(folder / f"{number}.nii.gz")
        patient.truth(GRID).save(folder / f"{number}_truth.nii.gz")
        rows.append(f"case_{number},{number}.nii.gz,{number}_truth.nii.gz,{split}")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    untrained(tiny()).save(folder / "model.safetensors")
    (folder / "recipe.yaml").write_text(tiny(train={"epochs": 2}).yaml())
    return folder


def test_segment_writes_mask_sidecar_and_statistics(world, tmp_path):
    mask, stats = tmp_path / "lungs.nii.gz", tmp_path / "stats.json"
    out, err = invoke(
        "segment", world / "0.nii.gz", "-o", mask, "--model", world / "model.safetensors", "--stats", stats
    )
    image = nib.load(mask)
    source = nib.load(world / "0.nii.gz")
    assert image.shape == source.shape
    np.testing.assert_array_equal(image.affine, source.affine)
    assert image.get_data_dtype() == np.uint8
    facts = json.loads((tmp_path / "lungs.json").read_text())
    assert facts["research_use_only"].startswith(RESEARCH)
    assert len(facts["model_sha256"]) == 64
    # Volumes by an independent count.
    voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
    array = np.asarray(image.dataobj)
    right = float(((array == 1) | (array == 3)).sum()) * voxel_ml
    assert facts["volumes_ml"]["right_lung"] == pytest.approx(right, abs=1e-3)
    assert json.loads(stats.read_text())["intensities"]["left_lung"]["voxels"] >= 0
    assert re.search(r"right_lung +[\d.]+ ml", out)
    assert RESEARCH in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lungs.json", "lungs.nii.gz", "stats.json"]


@pytest.mark.parametrize("folder", ["out/", "out/masks/"])
def test_statistics_may_lie_in_a_folder_that_segment_makes(world, tmp_path, folder):
    stats = tmp_path / "out/stats.json"
    invoke(
        "segment", world / "0.nii.gz", "-o", f"{tmp_path}/{folder}", "--model", "threshold", "--stats", stats
    )
    assert "intensities" in json.loads(stats.read_text())
    elsewhere = ("--stats", tmp_path / "none/stats.json")
    _, err = invoke(
        "segment", world / "0.nii.gz", "-o", f"{tmp_path}/new/", "--model", "threshold", *elsewhere, code=2
    )
    assert f"the folder {tmp_path / 'none'} does not exist" in err
    assert not (tmp_path / "new").exists()


def test_the_sidecar_holds_the_warnings_of_segment_without_the_path(world, tmp_path):
    water = Volume(np.zeros((20, 20, 20), dtype=np.int16), Grid.from_spacing((20, 20, 20), (5.0, 5.0, 5.0)))
    scan = water.save(tmp_path / "JOHN_DOE.nii.gz")
    _, err = invoke("segment", scan, "-o", tmp_path / "mask.nii.gz", "--model", "threshold")
    assert f"warning: {scan}: no lung was found" in err
    (message,) = json.loads((tmp_path / "mask.json").read_text())["warnings"]
    assert message.startswith("scan: no lung was found")


def test_segment_takes_dicom_and_the_fields_other_spellings(world, tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    write_dicom_series(Thorax().scan(GRID), series)
    model = ("--model", world / "model.safetensors")
    output("segment", "-i", series, "-o", tmp_path / "a.nii.gz", *model)
    output("segment", series, tmp_path / "b.nii.gz", *model)
    output("segment", next(series.iterdir()), "-o", tmp_path / "c.mha", *model)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert (tmp_path / "c.json").is_file()


def test_segment_writes_the_masks_of_several_scans_into_a_folder_and_goes_on_after_a_failure(world, tmp_path):
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(b"not an image")
    model = ("--model", world / "model.safetensors")
    scans = [world / "0.nii.gz", damaged, world / "1.nii.gz"]
    out, err = invoke("segment", *scans, "-o", f"{tmp_path}/masks/", *model, code=1)
    names = sorted(path.name for path in (tmp_path / "masks").iterdir())
    assert names == ["0.json", "0.nii.gz", "1.json", "1.nii.gz"]
    assert "1 of 3 scans failed" in err
    assert str(damaged) in err
    assert re.search(r"^1.nii.gz  right_lung +[\d.]+ ml", out, re.M)
    output("segment", world / "1.nii.gz", "-o", tmp_path / "alone.nii.gz", *model)
    assert (tmp_path / "alone.nii.gz").read_bytes() == (tmp_path / "masks" / "1.nii.gz").read_bytes()


@pytest.mark.slow
def test_train_evaluate_and_resume(world, tmp_path):
    folder = tmp_path / "run"
    train = ("train", world / "recipe.yaml", world / "cases.csv", "-o", folder, "--workers", "0")
    out, err = invoke(*train, "--max-time", "10m")
    assert "model.safetensors" in out
    assert err.count("epoch ") == 2
    assert " left · Dice 0." in err
    assert "right_lung 0." in err
    names = {p.name for p in folder.iterdir()}
    assert {
        "model.safetensors",
        "history.csv",
        "history.png",
        "summary.html",
        "recipe.yaml",
        "checkpoints",
        "tensorboard",
    } <= names
    page = (folder / "summary.html").read_text()
    assert "<b>2</b> of 2 epochs" in page
    assert page.count("data:image/png;base64,") == 1
    assert "widths" in page  # the recipe
    assert "already holds a training" in invoke(*train, code=2)[1]
    invoke(*train, "--resume")
    tables = tmp_path / "tables"
    model = ("--model", folder / "model.safetensors")
    out = output("evaluate", world / "cases.csv", *model, "-o", tables, "--split", "all")
    frame = pd.read_csv(tables / "evaluation.csv")
    assert list(frame["case"].unique()) == ["case_0", "case_1", "case_2"]
    assert {"dice", "iou", "volume_error_ml"} <= set(frame.columns)
    assert (tables / "summary.csv").is_file()
    assert "right_lung" in out
    again = tmp_path / "again"
    output(
        "evaluate",
        world / "cases.csv",
        "--masks",
        tables / "masks",
        "--recipe",
        world / "recipe.yaml",
        "-o",
        again,
    )
    same = pd.read_csv(again / "evaluation.csv")
    assert same["dice"].tolist() == pytest.approx(
        frame[frame["case"] == "case_2"]["dice"].tolist(), nan_ok=True
    )


def test_evaluate_continues_after_a_failed_case_and_exits_1(world, tmp_path):
    (tmp_path / "broken.nii.gz").write_bytes(b"no scan")
    rows = (
        (world / "cases.csv").read_text().replace("case_2,2.nii.gz", f"case_2,{tmp_path / 'broken.nii.gz'}")
    )
    manifest = world / "bad.csv"
    manifest.write_text(rows)
    model = ("--model", world / "model.safetensors")
    _, err = invoke("evaluate", manifest, *model, "-o", tmp_path / "out", "--split", "all", code=1)
    assert "failed: case_2" in err
    frame = pd.read_csv(tmp_path / "out" / "evaluation.csv")
    assert set(frame[frame["case"] != "case_2"]["status"]) == {"ok"}


def test_convert_keeps_voxels_and_grid(world, tmp_path):
    output("convert", world / "0.nii.gz", "-o", tmp_path / "a.nrrd")
    output("convert", "-i", tmp_path / "a.nrrd", "-o", tmp_path / "b.nii.gz")
    one, two = nib.load(world / "0.nii.gz"), nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(two.dataobj))
    np.testing.assert_allclose(one.affine, two.affine, atol=1e-5)


def test_info_as_text_and_json(world):
    facts = json.loads(output("info", world / "0.nii.gz", "--json"))
    assert facts["shape"] == list(GRID.shape)
    assert facts["orientation"] == "LPS"
    assert "LPS" in output("info", world / "0.nii.gz")


@pytest.mark.slow
def test_demo_finds_the_exact_truth(tmp_path):
    out = output("demo", "-o", tmp_path / "demo")
    dice = [float(line.split()[1]) for line in out.splitlines() if "_lung" in line]
    assert len(dice) == 2
    assert min(dice) > 0.95
    assert {p.name for p in (tmp_path / "demo").iterdir()} == {
        "ct",
        "lungs.nii.gz",
        "lungs.json",
        "lungs.png",
    }
    assert "already contains a demo" in invoke("demo", "-o", tmp_path / "demo", code=2)[1]


def test_phantom_writes_cases_a_manifest_reads(tmp_path):
    from medseg.datasets.manifest import Manifest

    output("phantom", tmp_path / "p", "--cases", "2", "--seed", "9")
    manifest = Manifest.read(tmp_path / "p" / "manifest.csv")
    assert [case.id for case in manifest.cases] == ["phantom_009", "phantom_010"]
    assert manifest.missing() == ()


def test_recipes_are_listed_shown_and_described():
    assert "lung_ct_2d" in output("recipe")
    assert "name: lung_ct_3d" in output("recipe", "lung_ct_3d")
    assert json.loads(output("recipe", "--schema"))["title"] == "Recipe"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["segment", "{w}/0.nii.gz"], 2, "0.nii.gz: -o is missing"),
        (["segment", "{w}/0.nii.gz", "-o", "{t}/m.nii.gz", "--model", "nope"], 2, "no such model"),
        (["segment", "{w}/0.nii.gz", "-o", "{t}/m.xyz", "--model", "{m}"], 2, "suffix"),
        (["segment", "{w}/0.nii.gz", "-o", "{t}/no/m.nii.gz", "--model", "{m}"], 2, "does not exist"),
        (["segment", "{w}/gone.nii.gz", "-o", "{t}/m.nii.gz", "--model", "{m}"], 3, "no such file"),
        (["segment", "{w}/cases.csv", "-o", "{t}/m.nii.gz", "--model", "{m}"], 3, "not supported"),
        (["segment", "{w}/0.nii.gz", "-o", "{t}/m.nii.gz", "--model", "{w}/cases.csv"], 4, "safetensors"),
        (["segment", "{w}/0.nii.gz", "-o", "{w}/0.nii.gz", "--model", "{m}"], 2, "would replace the input"),
        (
            ["segment", "{w}/0.nii.gz", "-i", "{w}/1.nii.gz", "-o", "{t}/m.nii", "--model", "{m}"],
            2,
            "named both",
        ),
        (["segment", "{w}/0.nii.gz", "-o", "{t}/m.nii", "--model", "{m}", "--device", "gpu"], 2, "no device"),
        (["convert", "{w}/0.nii.gz", "-o", "{w}/0.nii.gz"], 2, "would replace the input"),
        (["convert", "{w}/0.nii.gz", "{t}/a.nii", "-o", "{t}/b.nii"], 2, "twice"),
        (["convert", "{w}/0.nii.gz"], 2, "0.nii.gz: -o is missing"),
        (["info", "{w}/gone.nii.gz"], 3, "no such file"),
        (["train", "nope", "{w}/cases.csv", "-o", "{t}/run"], 2, "no such recipe"),
        (["train", "lung_ct_3d", "{w}/gone.csv", "-o", "{t}/run"], 2, "gone.csv"),
        (["train", "lung_ct_3d", "{w}/cases.csv", "-o", "{t}/run", "--max-time", "soon"], 2, "40m"),
        (["evaluate", "{w}/cases.csv", "-o", "{t}/out"], 2, "--model"),
        (["evaluate", "{w}/cases.csv", "-o", "{t}/out", "--model", "{m}", "--split", "nope"], 2, "split"),
        (["recipe", "nope"], 2, "no such recipe"),
        (["--nonsense"], 2, "nonsense"),
        (["info"], 2, "scan"),
        (["train", "a", "b", "-o", "c", "--workers", "-1"], 2, "--workers"),
    ],
)
def test_errors_name_the_cause_in_three_lines_and_leave_nothing(world, tmp_path, arguments, code, message):
    filled = [a.format(w=world, t=tmp_path, m=world / "model.safetensors") for a in arguments]
    _, err = invoke(*filled, code=code)
    assert message in err
    assert len(err.strip().splitlines()) <= 3
    assert "Traceback" not in err
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_mask_of_an_earlier_run_is_named_when_a_new_one_fails(world, tmp_path):
    for command, *options in (["convert"], ["segment", "--model", world / "model.safetensors"]):
        (tmp_path / "empty.nii").write_bytes(b"")
        output(command, world / "0.nii.gz", "-o", tmp_path / "old.nii.gz", *options)
        before = (tmp_path / "old.nii.gz").read_bytes()
        _, err = invoke(command, tmp_path / "empty.nii", "-o", tmp_path / "old.nii.gz", *options, code=3)
        assert "old.nii.gz is from an earlier run" in err
        assert (tmp_path / "old.nii.gz").read_bytes() == before
        (tmp_path / "old.nii.gz").unlink()
        assert (
            "earlier run"
            not in invoke(command, tmp_path / "empty.nii", "-o", tmp_path / "o.nii", *options, code=3)[1]
        )


def test_errors_are_one_object_with_json(world, tmp_path):
    (tmp_path / "empty.nii").write_bytes(b"")
    out, err = invoke("convert", tmp_path / "empty.nii", "-o", tmp_path / "o.nii", "--json", code=3)
    error = json.loads(out)["error"]
    assert (error["reason"], error["exit_code"]) == ("empty", 3)
    assert error["where"].endswith("empty.nii")
    assert error["problem"]
    assert error["remedy"]
    assert err == ""
    out, _ = invoke("convert", world / "0.nii.gz", "-o", tmp_path / "o.nii", "--json")
    assert json.loads(out)["shape"] == [49, 34, 28]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 5),
        (MemoryError(), 5),
        (OSError(28, "No space left on device"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_resources_and_interrupts_have_their_codes(monkeypatch, world, error, code):
    def raising(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("medseg.io.scan_info.read_channels", raising)
    assert "Traceback" not in invoke("info", world / "0.nii.gz", code=code)[1]


def test_a_command_names_the_next_one(tmp_path):
    folder = tmp_path / "my data"
    cases = folder / "manifest.csv"
    assert (
        f"Next: medseg check '{cases}' --recipe phantom_lungs\n" in invoke("phantom", folder, "--cases", 1)[1]
    )
    scan, label = (next((folder / name).iterdir()) for name in ("images", "labels"))
    made = invoke("manifest", folder, "-o", tmp_path / "m.csv")[1]
    assert made.endswith(f"Next: medseg check {tmp_path / 'm.csv'}\n")
    checked = invoke("check", cases, "--recipe", "phantom_lungs")[1]
    assert f"Next: medseg train phantom_lungs '{cases}' -o runs/first\n" in checked
    mask = tmp_path / "mask.nii.gz"
    seen = invoke("segment", scan, "-o", mask, "--model", "threshold")[1]
    assert seen.endswith(f"Next: medseg view '{scan}' {mask}\n")
    assert "Next" not in "".join(invoke("segment", scan, "-o", mask, "--model", "threshold", "--json"))
    assert "Next: medseg segment" in invoke("convert", scan, "-o", tmp_path / "a.nrrd")[1]
    assert "Next: medseg view SCAN" in invoke("convert", label, "-o", tmp_path / "b.nrrd", "--as-mask")[1]


def test_a_mistyped_option_names_the_help_of_its_command():
    _, err = invoke("segment", "--modle", "x", code=2)
    assert "--model" in err
    assert "medseg segment --help" in err


def test_the_version_is_printed():
    assert output("--version") == f"medseg {version('medseg')}\n"


def test_help_says_research_use_only_and_the_exit_codes():
    done = subprocess.run(
        [sys.executable, "-m", "medseg.cli", "--help"], capture_output=True, text=True, check=True
    )
    assert RESEARCH in done.stdout
    assert "3 input refused" in " ".join(done.stdout.split())


def test_times_are_read():
    seconds = seconds_of
    assert [seconds(t) for t in ("90s", "40m", "2h", "1.5m", "3", None)] == [90, 2400, 7200, 90, 180, None]
    for wrong in ("0m", "-3m", "1d", ""):
        with pytest.raises(UsageError):
            seconds(wrong)


def test_sidecars_stand_beside_their_masks():
    names = {"a.nii.gz": "a.json", "a.b.nrrd": "a.b.json", "m.mha": "m.json"}
    assert {n: sidecar_path(Path("x") / n).name for n in names} == names


def test_the_terminal_progress_has_a_bar(monkeypatch):
    from medseg.training.trainer import EpochEnd

    progress = Progress(4)
    with progress:
        progress.show(EpochEnd(1, 4, 0.5, {"right": 0.9, "left": 0.8}, 61))
    facts = progress.bar.tasks[0].fields["facts"]
    assert facts == "1:01 left · Dice 0.8500 · loss 0.5000 · right 0.9000 left 0.8000"  # (0.9 + 0.8) / 2
    narrow = Console(width=80, file=StringIO())
    narrow.print(progress.bar.make_tasks_table(progress.bar.tasks))
    (line,) = narrow.file.getvalue().splitlines()
    assert line.startswith("training 1/4 ")
    assert "1:01 left · Dice 0.8500" in line


def test_models_are_listed_with_labels_size_digest_and_licence(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "medseg" / "models"
    folder.mkdir(parents=True)
    untrained(tiny()).save(folder / "mine.safetensors")
    (folder / "broken.safetensors").write_bytes(b"no model")
    rows = {row["name"]: row for row in json.loads(output("models", "--json"))}
    assert set(rows) == {*shipped(), "mine", "broken", "threshold"}
    assert rows["mine"]["labels"] == {"right_lung": 1, "left_lung": 2}
    assert rows["mine"]["sha256"] == untrained(tiny()).digest
    assert rows["broken"]["refused"]
    assert rows["threshold"]["labels"] == {"right_lung": 1, "left_lung": 2}
    answer = output("models")
    assert "cannot be used" in answer
    assert f"sha256 {rows['mine']['sha256'][:12]}" in answer


def test_thresholds_segment_and_are_evaluated_as_a_model_is(tmp_path):
    grid = default_grid((4.0, 4.0, 5.0))
    Thorax().scan(grid).save(tmp_path / "ct.nii.gz")
    Thorax().truth(grid).save(tmp_path / "truth.nii.gz")
    mask = tmp_path / "mask.nii.gz"
    answer = json.loads(
        output("segment", tmp_path / "ct.nii.gz", "-o", mask, "--model", "threshold", "--json")
    )
    assert answer["recipe"] == "threshold"
    assert answer["volumes_ml"]["right_lung"] > 500
    (tmp_path / "cases.csv").write_text("id,image,label,split\na,ct.nii.gz,truth.nii.gz,test\n")
    output("evaluate", tmp_path / "cases.csv", "-o", tmp_path / "out", "--model", "threshold")
    assert "right_lung" in (tmp_path / "out" / "evaluation.csv").read_text()


def test_preview_draws_a_mask_with_the_names_of_its_sidecar(world, tmp_path):
    mask, picture = tmp_path / "lungs.nii.gz", tmp_path / "p.png"
    output("segment", world / "0.nii.gz", "-o", mask, "--model", "threshold")
    out, err = invoke("preview", world / "0.nii.gz", mask, "-o", picture)
    assert out.strip() == str(picture)
    assert RESEARCH in err
    whole = picture.read_bytes()
    output("preview", world / "0.nii.gz", mask, "-o", picture, "--window", "-160,240", "--slices", 0)
    assert picture.read_bytes() != whole
    output("preview", world / "0.nii.gz", mask, "-o", picture, "--recipe", "lung_ct")
    output("preview", world / "0.nii.gz", mask, "-o", picture, "--window", "3", code=2)
    (tmp_path / "lungs.json").unlink()
    output("preview", world / "0.nii.gz", mask, "-o", picture)


def test_report_of_an_evaluation_has_pictures(world, tmp_path):
    words = ("--model", "threshold", "--split", "test", "-o", tmp_path / "e")
    output("evaluate", world / "cases.csv", *words)
    out = output("report", tmp_path / "e")
    text = Path(out.strip()).read_text()
    details = json.loads(text.split('id="details">')[1].split("</script>")[0])
    assert base64.b64decode(details["0"]["image"])[8:12] == b"WEBP"
    output("report", tmp_path, code=2)
