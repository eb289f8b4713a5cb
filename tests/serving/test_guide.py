"""The guide of the server: each of its commands starts a server, and its Python is what the client does."""

import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

from support.commands import invoke
from support.served import scans

from medseg.inference.model_files import find
from medseg.serving import loaded_models, server

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "serve.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", GUIDE, re.DOTALL)
COMMANDS = [
    line.partition("#")[0].strip() for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()
]


@pytest.mark.slow
def test_every_command_of_the_guide_loads_its_models_and_scans(tmp_path, monkeypatch):
    """All but the wait for requests, which other tests do with one server."""
    scans(tmp_path / "scans", "a", "b")
    shutil.copy(find("phantom_lungs"), tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    services = []

    def run(settings, temporary, listener, on_ready):
        services.append(server.service_of(settings, temporary))
        on_ready(settings.url(listener.getsockname()[1]))

    monkeypatch.setattr(server, "_run", run)
    monkeypatch.setattr(loaded_models, "load_segmenter", cache(loaded_models.load_segmenter))
    inline = re.findall(r"`(medseg serve [^`]*--host [^`]*)`", GUIDE)
    ours = [command for command in COMMANDS if command.startswith("medseg ")] + inline
    assert [command for command in COMMANDS if command not in ours] == ["pip install 'medseg[serve]'"]
    for command in ours:
        words = shlex.split(command)[1:]
        out, _ = invoke(*words, *(["--port", "0"] if words[0] == "serve" else []))
        if words[0] == "serve":
            assert out.startswith("http://127.0.0.1:") == ("--host" not in words)
            assert len(services[-1].data.ids()) == (2 if "scans" in words else 0)
    named = [list(each.models.all()) for each in services]
    default = ["lung_ct_context"]
    assert named == [default, ["mine", "lung_ct"], default, ["mine"], default]
    assert services[3].order.choose([services[3].data.image(name) for name in "ab"], "least_certain", "me")
