"""Packages of somebody who means harm, with digests that fit: refused, and no other file is read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.packages import refusal
from support.worlds import tiny, untrained

import medseg
from medseg.errors import MedsegError, ModelRefused
from medseg.inference.model_package import PIPELINE, ModelPackage, is_package
from medseg.inference.segmenter import Segmenter
from medseg.phantom.thorax import Thorax, default_grid


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    model = untrained(tiny()).save(folder / "model.safetensors")
    return medseg.export_model(model, folder / "package", engine="onnx").path


@pytest.fixture
def package(exported, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(exported, tmp_path / "package")


def edit(package: Path, change) -> Path:
    content = json.loads((package / PIPELINE).read_text())
    change(content)
    (package / PIPELINE).write_text(json.dumps(content))
    return package


def put_network(package: Path, network: bytes) -> Path:
    """Replaces the network, with the digest that belongs to it."""
    (package / "network-0.onnx").write_bytes(network)
    digest = hashlib.sha256(network).hexdigest()
    return edit(package, lambda content: content["graphs"][0].update(sha256=digest))


ELSEWHERE = ("../secret", "/etc/hostname", "sub/file", "..", ".", "", "a/../../secret")


@pytest.mark.parametrize("part", ["graphs", "self_test", "openvino", "includes"])
def test_names_that_lead_out_of_the_package_are_refused(package, part):
    for name in (*ELSEWHERE, *((7, None, ["x"]) if part == "graphs" else ())):

        def change(content, name=name):
            if part == "graphs":
                content["graphs"][0]["file"] = name
            else:
                content[part] = {name: "0" * 64}

        refusal(ModelRefused, "model-damaged", ModelPackage.read, edit(package, change))


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
@pytest.mark.parametrize("place", ["secret.bin", "../secret.bin", "/etc/hostname"])
def test_a_network_takes_no_weights_from_another_file(package, tmp_path, engine, place):
    network = onnx.load(package / "network-0.onnx")
    tensor = max(network.graph.initializer, key=lambda each: len(each.raw_data))
    (tmp_path / "secret.bin").write_bytes(tensor.raw_data)
    (tmp_path.parent / "secret.bin").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, place)
    tensor.ClearField("raw_data")
    put_network(package, network.SerializeToString())
    error = refusal(ModelRefused, "model-damaged", Segmenter, package, engine=engine)
    assert "another file" in str(error)
    refusal(ModelRefused, "model-damaged", medseg.check_package, package, engine=engine)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_a_file_that_is_no_network_is_an_error_of_medseg(package, engine):
    for content in (b"", b"no network" * 100):
        put_network(package, content)
        with pytest.raises(MedsegError) as refused:
            Segmenter(package, engine=engine)
        assert refused.value.reason != "unexpected"


def test_links_and_pipes_are_no_way_out(package, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("a-canary")
    (package / PIPELINE).unlink()
    (package / PIPELINE).symlink_to(secret)
    error = refusal(ModelRefused, "model-damaged", ModelPackage.read, package)
    assert "canary" not in str(error)
    (package / PIPELINE).unlink()
    os.mkfifo(package / PIPELINE)  # reading it would wait for ever
    assert not is_package(package)


def test_a_network_that_is_a_link_must_be_the_exported_one(package, tmp_path):
    network = package / "network-0.onnx"
    moved = network.rename(tmp_path / "moved.onnx")
    network.symlink_to(moved)
    scan = Thorax().scan(default_grid((8.0, 8.0, 10.0)))
    mask = Segmenter(package, engine="onnx")(scan)
    assert np.array_equal(mask.array, Segmenter(tmp_path / "package", engine="onnx")(scan).array)
    for target in ("/dev/zero", "/etc/hostname", network):
        network.unlink()
        network.symlink_to(target)
        refusal(ModelRefused, "model-damaged", Segmenter, package, engine="onnx")


def test_a_pipeline_without_end_or_bottom_is_refused(package):
    for text in ("[" * 200_000, '{"format":' * 200_000, '{"format": "' + "a" * (1 << 25)):
        (package / PIPELINE).write_text(text)
        refusal(ModelRefused, "model-damaged", ModelPackage.read, package)
