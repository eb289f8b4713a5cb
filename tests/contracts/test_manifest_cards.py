"""Every card in data_manifests has what a user of the data needs to know, and its commands are valid."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from support.commands import invoke
from support.layouts import GRID, LUNGS, TRUTH, masked, msd, put, reading, series

from medseg.cli.app import app
from medseg.datasets.layouts.totalsegmentator import LUNGS as LUNGS_OF_TOTALSEGMENTATOR
from medseg.datasets.manifest import Manifest
from medseg.images.volume import Mask
from medseg.io import read, read_mask

FOLDER = Path(__file__).parents[2] / "data_manifests"
CARDS = sorted(FOLDER.glob("*.md"))
PROMISED = {
    "msd_task06_lung", "msd_task04_hippocampus", "lctsc", "lidc_idri", "nsclc_radiomics", "covid19_ct_seg",
    "totalsegmentator_v2", "hippocampus", "lctsc_lungs", "lidc_nodules", "4dlung_tumour", "sarcoma_t1",
    "brain_gbm", "prostate_mr", "lung_ct_small",
}  # fmt: skip


def test_the_promised_sets_have_a_card():
    assert {card.stem for card in CARDS} >= PROMISED


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_a_card_says_source_licence_citation_and_layout(card):
    text = card.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\w+) \| (.+) \|$", text, re.MULTILINE))
    assert {"Manifest", "Content", "Truth", "Source", "Licence"} <= set(rows)
    assert all(f"\n## {head}\n" in text for head in ("Cite", "Splits", "Layout and how to get it"))
    assert card.with_suffix(".yaml").is_file() or "\nmedseg manifest " in text


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_its_commands_are_understood(card):
    commands = typer.main.get_command(app).commands
    for line in re.findall(r"^medseg (.+)$", card.read_text(encoding="utf-8"), re.MULTILINE):
        name, *arguments = shlex.split(line)
        commands[name].make_context(name, arguments)  # parses, and runs nothing


# ---- the command of every card, run on a small copy of the official layout -----------------------


def _tcia(patients: tuple[str, ...], *kinds: str) -> None:
    for seed, patient in enumerate(patients):
        for kind in kinds:
            masked(Path(patient) / "study", seed, format_=kind, again=kind != kinds[0])


def _lidc() -> None:
    for seed, number in enumerate(("0001", "0002", "0003")):
        scan = series(Path("LIDC-IDRI") / f"LIDC-IDRI-{number}" / "study" / "series", seed)
        text = reading(scan, [[(2, "TRUE", [(4, 6), (8, 6), (8, 10), (4, 10)])]] * 2)
        place = Path("LIDC-IDRI", "tcia-lidc-xml", "157")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.xml").write_text(text)


def _covid() -> None:
    names = [f"coronacases_{number:03d}.nii.gz" for number in (1, 2, 3)] + ["radiopaedia_4_85506_1.nii.gz"]
    put(Path("COVID-19-CT-Seg_20cases"), *names)
    for kind in ("Lung_Mask", "Infection_Mask", "Lung_and_Infection_Mask"):
        put(Path(kind), *names, label=True)


def _organs() -> None:
    names = (*LUNGS_OF_TOTALSEGMENTATOR, "kidney_right", "kidney_left", "heart")
    for case in ("s0000", "s0001", "s0002"):
        folder = Path("Totalsegmentator_dataset_v201") / case
        put(folder, "ct.nii.gz")
        (folder / "segmentations").mkdir()
        for number, name in enumerate(names):
            array = np.zeros(GRID.shape, np.uint8)
            array[number] = 1
            Mask(array, GRID, ()).save(folder / "segmentations" / f"{name}.nii.gz")


# Of each card: how its layout is made, the ids of the cases, and the voxels of each value in a label map.
_TRUTH = {int(v): int((TRUTH.array == v).sum()) for v in np.unique(TRUTH.array) if v}
_MSD = (["c1", "c2", "c3", "c4"], _TRUTH)
_SLICE = GRID.shape[1] * GRID.shape[2]
OFFICIAL: dict[str, tuple[Callable[[], object], list[str], dict[int, int] | None]] = {
    "msd_task06_lung": (lambda: msd(Path("Task06_Lung")), *_MSD),
    "msd_task04_hippocampus": (lambda: msd(Path("Task04_Hippocampus")), *_MSD),
    "lctsc": (
        lambda: _tcia(tuple(f"LCTSC/LCTSC-Train-S1-00{n}" for n in (1, 2, 3)), "rtstruct"),
        [f"LCTSC-Train-S1-00{n}" for n in (1, 2, 3)],
        None,
    ),
    "nsclc_radiomics": (
        lambda: _tcia(tuple(f"NSCLC-Radiomics/LUNG1-00{n}" for n in (1, 2, 3)), "rtstruct", "dicom-seg"),
        [f"LUNG1-00{n}" for n in (1, 2, 3)],
        None,
    ),
    "lidc_idri": (_lidc, [f"LIDC-IDRI-000{n}" for n in (1, 2, 3)], {2: 9}),
    "covid19_ct_seg": (_covid, [f"coronacases_00{n}" for n in (1, 2, 3)], _TRUTH),
    # One plane of voxels an organ: three lobes are right, two left; each kidney is one.
    "totalsegmentator_v2": (_organs, ["s0000", "s0001", "s0002"], {1: 3 * _SLICE, 2: 2 * _SLICE}),
}


def test_every_card_without_a_manifest_is_run():
    assert set(OFFICIAL) == {card.stem for card in CARDS if not card.with_suffix(".yaml").is_file()}


@pytest.mark.parametrize("stem", OFFICIAL)
def test_its_command_makes_a_manifest_of_the_official_layout(stem, tmp_path, monkeypatch):
    build, ids, voxels = OFFICIAL[stem]
    monkeypatch.chdir(tmp_path)
    build()
    commands = re.findall(r"^medseg (manifest .+)$", (FOLDER / f"{stem}.md").read_text(), re.MULTILINE)
    for command in commands:
        invoke(*shlex.split(command))
    manifest = Manifest.read(tmp_path / f"{stem}.csv")
    assert [case.id for case in manifest.cases] == ids
    assert manifest.missing() == ()
    labelled = [case for case in manifest.cases if case.label is not None]
    assert {case.split for case in labelled} == {"train", "val", "test"}
    for case in labelled:
        scan = read(case.images[0])
        mask = read_mask(case.label, LUNGS if voxels is None else (), scan)
        assert mask.grid.distance_mm(scan.grid) < 0.01
        if voxels is not None:
            values, counts = np.unique(mask.array[mask.array > 0], return_counts=True)
            assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == voxels
        else:
            assert {label.name for label in LUNGS if mask.of(label.name).any()} == {"right_lung", "left_lung"}
