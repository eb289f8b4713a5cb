"""A network as an ONNX graph, exported once and cached on disk."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.onnx import OnnxExporterError

from medseg.errors import UsageError
from medseg.inference.backends import graph_cache
from medseg.inference.backends.decoder_fusion import shortened
from medseg.system.quiet_libraries import quiet

# The exporter keeps its state in global variables.
_EXPORTING = threading.Lock()


def graph(network: nn.Module, shape: tuple[int, ...], *, free: bool = False) -> bytes:
    """The ONNX file of ``network`` for inputs of ``shape``, from the cache if it is there.

    The cache is keyed by the weights themselves, so a graph is only ever used for the tensors it was exported
    from. Each of its files begins with the SHA-256 of the rest; a damaged one is exported again. A failed
    export is remembered too, because some networks take half a minute to fail. If the folder cannot be
    written, the network is exported each time.

    Args:
        network: The network in evaluation mode, on the CPU.
        shape: (N, C, ...).
        free: Accept inputs whose sides differ from ``shape``.

    Raises:
        UsageError: the network has an operation that ONNX lacks (``engine``).
    """
    path = graph_cache.folder() / cache_name(network, shape, free=free)
    kept = graph_cache.read(path)
    if kept is not None:
        return kept
    failure = path.with_suffix(".failed")
    reason = graph_cache.read(failure)
    if reason is None and find_spec("onnx") is None:  # not remembered: it may be installed later
        reason = b"the package onnx is not installed"
    elif reason is None:
        try:
            made = export(network, shape, free=free)
        except OnnxExporterError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200].encode()
            graph_cache.write(failure, reason)
        else:
            graph_cache.write(path, made)
            return made
    raise UsageError(
        f"the network cannot be exported to ONNX: {reason.decode(errors='replace')}",
        where="engine",
        remedy="use the engine auto or torch",
        reason="engine",
    )


def export(network: nn.Module, shape: tuple[int, ...], *, free: bool = False) -> bytes:
    """The network as an ONNX file with one input and one output of fixed shape, or with ``free`` sides.

    Raises:
        OnnxExporterError: the network has an operation that ONNX lacks.
    """
    plain = _with_explicit_scales(shortened(network)).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    file = io.BytesIO()
    names = {"input_names": ["windows"], "output_names": ["logits"]}
    sides = {number: f"side_{number}" for number in range(2, len(shape))}
    axes = {"dynamic_axes": {"windows": sides, "logits": sides}} if free else {}
    # The tracer warns about shapes, which are fixed here.
    with _EXPORTING, quiet(), _without_log():
        torch.onnx.export(plain, (torch.zeros(shape),), file, dynamo=False, **names, **axes)  # type: ignore[arg-type]  # a file is accepted, too
    return file.getvalue()


def cache_name(network: nn.Module, shape: tuple[int, ...], *, free: bool = False) -> str:
    """The file of a graph in the cache, named after all that decides it: versions, layers, weights, shape."""
    digest = hashlib.sha256(f"{graph_cache.versions()} {shape} {free} {network!r}".encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return f"{digest.hexdigest()}.onnx"


def _with_explicit_scales(network: nn.Module) -> nn.Module:
    """The network with scales of one and shifts of zero in instance norms that have none, changed in place.

    The exporter would have to know the number of channels to add them, which it loses track of behind the
    window partition of a transformer.
    """
    for layer in network.modules():
        if isinstance(layer, _InstanceNorm) and not layer.affine:
            layer.affine = True
            layer.weight = nn.Parameter(torch.ones(layer.num_features), requires_grad=False)
            layer.bias = nn.Parameter(torch.zeros(layer.num_features), requires_grad=False)
    return network


@contextmanager
def _without_log() -> Iterator[None]:
    """A block in which a failing export does not print the whole graph to stdout.

    The exporter switches its log on whatever the setting was, so the function that writes it is replaced.
    """
    enabled, write = torch._C._jit_is_onnx_log_enabled(), torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = write
        torch._C._jit_set_onnx_log_enabled(enabled)
