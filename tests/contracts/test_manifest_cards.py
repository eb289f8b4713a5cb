"""Every card in data_manifests says what a user of the data has to know, and its commands are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from medseg.cli import app

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
