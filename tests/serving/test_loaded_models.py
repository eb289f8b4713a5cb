"""Models are loaded once, when the server starts; requests find them ready."""

from functools import partial

import pytest

pytest.importorskip("starlette")
pytest.importorskip("python_multipart")

from support.served import in_process, scans
from support.worlds import tiny, untrained

from medseg.inference import backends, segmenter


def test_the_second_mask_needs_no_loading_and_neither_does_the_first(tmp_path, monkeypatch):
    loads = []

    def counted(what, call, *args, **more):
        loads.append(what)
        return call(*args, **more)

    for name, kind in list(backends.REGISTRY.items()):
        monkeypatch.setitem(backends.REGISTRY, name, partial(counted, name, kind))
    monkeypatch.setattr(segmenter, "read_model", partial(counted, "file", segmenter.read_model))
    folder = scans(tmp_path / "data", "a", "b")
    model = str(untrained(tiny()).save(tmp_path / "own.safetensors"))
    settings = {"data": folder, "device": "cpu", "models": (model,), "engine": "torch"}
    with in_process(tmp_path / "t", **settings) as (client, _):
        assert loads == ["file", "torch"]
        volumes = []
        for image in ("a", "b", "a"):
            answer = client.post(f"/infer/own?image={image}&output=json")
            assert answer.status_code == 200, answer.text
            volumes.append(answer.json())
        assert volumes[0] == volumes[2] != volumes[1]
        assert loads == ["file", "torch"]
