"""The Dockerfiles (no root, no shell form, copied files exist and are sent to the build) and the guide."""

import json
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import pytest
from support.batches import chest
from support.commands import invoke

import medseg

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "guides" / "containers.md").read_text(encoding="utf-8")
FILES = ("Dockerfile", "Dockerfile.gpu")


def instructions(name):
    """The instructions with their arguments; lines that end with a backslash are joined."""
    text = re.sub(r"\\\n", " ", (ROOT / name).read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(None, 1)) for line in lines]


@pytest.mark.parametrize("name", FILES)
def test_the_last_stage_does_not_run_as_root_and_starts_medseg(name):
    found = instructions(name)
    last = max(number for number, (word, _) in enumerate(found) if word == "FROM")
    final = dict(found[last:])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", final["USER"])  # by number, as Kubernetes checks it
    assert final["ENTRYPOINT"] == '["medseg"]'
    assert final["CMD"] == '["job"]'
    assert "RUN" not in final
    assert "EXPOSE" not in final


@pytest.mark.parametrize("name", FILES)
def test_base_images_are_named_by_version_and_nothing_is_fetched_but_packages(name):
    for word, rest in instructions(name):
        assert word in ("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT", "CMD")
        if word == "FROM":
            assert re.match(r"python:3\.\d+-slim-\w+( AS build)?$", rest)
        if word == "RUN":
            assert not re.search(r"curl|wget|git |apt|http", rest)
            assert "--no-cache-dir" in rest


@pytest.mark.parametrize("name", FILES)
def test_copied_files_exist_and_are_not_ignored(name):
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for word, rest in instructions(name):
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert any(fnmatch(source, pattern) for pattern in allowed)
        if word == "RUN":
            for requirements in re.findall(r"-r (\S+)", rest):
                assert (ROOT / requirements).exists()


def test_what_the_guide_runs_in_a_container_runs(tmp_path):
    """The words after the image's name, with the mounted folders; `docker` itself is not here."""
    medseg.write_dicom_series(chest(), tmp_path / "in")
    chest().save(tmp_path / "chest.nii.gz")
    (tmp_path / "out").mkdir()
    places = {"/in": tmp_path / "in", "/out": tmp_path / "out", "/data": tmp_path}
    (settings,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    ran = []
    for command in re.findall(r"^(?:docker run|apptainer run) .*", GUIDE, re.MULTILINE):
        words = shlex.split(command)
        image = next(number for number, word in enumerate(words) if word in ("medseg", "medseg.sif"))
        words = [
            re.sub(r"^/(in|out|data)\b", lambda at: str(places[at[0]]), word) for word in words[image + 1 :]
        ]
        task = json.loads(settings)
        task["medseg"]["model"] = "threshold"  # a quicker one
        (tmp_path / "in" / "task.json").write_text(json.dumps({"process": {"settings": task}}))
        invoke(*words, *(["--model", "threshold"] if words[0] == "segment" else []))
        ran.append(words[0])
    assert ran == ["job", "segment", "job"]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    (series,) = result["series"]
    assert series["measures"]["both_lungs"]["mean_hu"] < -700
    assert (tmp_path / "lungs.nii.gz").is_file()
