"""A network as an ONNX graph, made once and kept on disk."""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from medseg.errors import MedsegError
from medseg.inference.backends.decoder_fusion import shortened
from medseg.system import user_folders
from medseg.system.atomic_write import replacing
from medseg.system.quiet_libraries import quiet

_DIGEST_BYTES = hashlib.sha256().digest_size


def graph(network: nn.Module, shape: tuple[int, ...], digest: str, *, free: bool = False) -> bytes:
    """The ONNX file of ``network`` for inputs of ``shape``, from the cache where it is there.

    Each file of the cache begins with the SHA-256 of the rest: one that is damaged is made again. A folder
    that cannot be written costs the making each time.

    Args:
        network: In evaluation mode, on the CPU.
        shape: (N, C, ...).
        digest: Of the weights: equal digests are equal networks.
        free: Take inputs of any sides.
    """
    made_by = f"{version('medseg')} {version('torch')} shortened {digest} {shape} {free}"
    path = folder() / f"{hashlib.sha256(made_by.encode()).hexdigest()}.onnx"
    held = b""
    with suppress(OSError):
        held = path.read_bytes()
    if hashlib.sha256(held[_DIGEST_BYTES:]).digest() == held[:_DIGEST_BYTES]:
        return held[_DIGEST_BYTES:]
    made = export(network, shape, free=free)
    with suppress(OSError, MedsegError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(hashlib.sha256(made).digest() + made)
    return made


def folder() -> Path:
    """Where graphs are kept; it can be deleted at any time."""
    return user_folders.cache() / "graphs"


def export(network: nn.Module, shape: tuple[int, ...], *, free: bool = False) -> bytes:
    """The network as an ONNX file with one input and one output of fixed shape, or with ``free`` sides.

    Raises:
        RuntimeError: the network has an operation that ONNX has not.
    """
    plain = shortened(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    file = io.BytesIO()
    with quiet():  # the tracer warns of shapes, which are fixed here
        names = {"input_names": ["windows"], "output_names": ["logits"]}
        sides = {number: f"side_{number}" for number in range(2, len(shape))}
        axes = {"dynamic_axes": {"windows": sides, "logits": sides}} if free else {}
        torch.onnx.export(plain, (torch.zeros(shape),), file, dynamo=False, **names, **axes)  # type: ignore[arg-type]  # a file is taken, too
    return file.getvalue()
