"""Errors of Python, torch and ONNX Runtime become errors of medseg; the messages are those libraries' own."""

import errno

import numpy as np
import pytest

from medseg.errors import InputRefused, MedsegError, ResourceError
from medseg.system.error_conversion import as_medseg_error, is_out_of_memory


def of_onnxruntime(text: str) -> Exception:
    """As `onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException`, which is not a RuntimeError."""
    kind = type(
        "RuntimeException", (Exception,), {"__module__": "onnxruntime.capi.onnxruntime_pybind11_state"}
    )
    return kind(text)


MEMORY = [
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype(float)),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("Exception from src/inference/src/cpp/core.cpp:109: std::bad_alloc"),
    of_onnxruntime("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 4096"),
]


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: str(error)[:40])
def test_out_of_memory_errors_of_each_library_are_recognised(error):
    assert is_out_of_memory(error)
    ours = as_medseg_error(error)
    assert (type(ours), ours.reason, ours.exit_code) == (ResourceError, "memory", 5)


OTHER = [
    (OSError(errno.ENOSPC, "No space left on device"), "disk"),
    (PermissionError(errno.EACCES, "Permission denied"), "disk"),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "unexpected"),
    (ValueError("out of memory is only a text here"), "unexpected"),
    (of_onnxruntime("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT"), "unexpected"),
]


@pytest.mark.parametrize(("error", "reason"), OTHER)
def test_other_errors_do_not_count_as_out_of_memory(error, reason):
    assert not is_out_of_memory(error)
    assert as_medseg_error(error).reason == reason


def test_own_errors_are_unchanged_and_others_keep_their_type_name():
    refused = InputRefused("out of memory", reason="too-large")
    assert as_medseg_error(refused) is refused
    assert not is_out_of_memory(refused)
    unexpected = as_medseg_error(KeyError("a\nb"))
    assert type(unexpected) is MedsegError
    assert unexpected.problem == r"KeyError: 'a\nb'"


def test_torchs_own_error_is_recognised():
    torch = pytest.importorskip("torch")
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_a_package_that_is_not_installed_is_named():
    for module, remedy in (("PIL.Image", "pip install Pillow"), ("SimpleITK", "pip install SimpleITK")):
        error = as_medseg_error(ModuleNotFoundError(f"No module named {module!r}", name=module))
        assert isinstance(error, ResourceError)
        assert (error.reason, error.remedy) == ("missing-extra", remedy)
    ours = as_medseg_error(ModuleNotFoundError("No module named 'medseg.x'", name="medseg.x"))
    assert ours.reason == as_medseg_error(ModuleNotFoundError("x")).reason == "unexpected"
