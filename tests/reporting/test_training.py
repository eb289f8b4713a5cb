"""The page beside a trained model: data, recipe and provenance, all of it as text."""

import json
from html.parser import HTMLParser

import pytest
from support.worlds import phantoms, tiny

from medseg.errors import UsageError
from medseg.reporting.training import summary
from medseg.training import provenance

EVIL = """"></pre><script>alert(1)</script><img src=x onerror='alert(2)'>"""


@pytest.fixture
def run(tmp_path):
    """The folder of a training, with hostile free texts."""
    folder = tmp_path / "<script>alert(3)<"
    folder.mkdir()
    cases = phantoms(tmp_path, "train", "train", "val")
    provenance.write(folder, tiny(description=EVIL), cases, options={EVIL: EVIL}, data={})
    provenance.ended(folder, 2)
    return folder


def test_the_page_shows_the_splits_and_the_recipe(run):
    text = summary(run).read_text()
    assert "<li><b>2</b> train</li><li><b>1</b> val</li>" in text
    assert "<b>2</b> of 2 epochs" in text
    assert "name: tiny_3d" in text
    assert f"recipe<dd>SHA-256 {provenance.read(run).recipe.digest}" in text
    assert "<img" not in text, "there is no history.png"


def test_curves_are_embedded_in_the_page(run):
    (run / "history.png").write_bytes(b"\x89PNG")
    assert 'src="data:image/png;base64,iVBORw=="' in summary(run).read_text()  # printf '\x89PNG' | base64


def test_free_texts_are_text(run):
    facts = json.loads((run / "run.json").read_text())
    facts |= {
        "packages": {EVIL: EVIL},
        "epochs_done": EVIL,
        "git": {"medseg": {"commit": EVIL, "changed": 1}},
    }
    (run / "run.json").write_text(json.dumps(facts))
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed(summary(run).read_text())
    assert not {"script", "img"} & set(tags)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(UsageError) as refused:
        summary(tmp_path)
    assert refused.value.reason == "no-record"
