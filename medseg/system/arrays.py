"""One piece of code for numpy arrays and torch tensors, without importing torch.

Both libraries have most functions of the array API standard (https://data-apis.org/array-api) under the same
names, and arrays of both know their device.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", npt.NDArray[np.float32], "torch.Tensor")
"""A numpy array, or a torch tensor on any device."""


def namespace(array: npt.NDArray[Any] | torch.Tensor) -> Any:
    """The module with the functions for an array: numpy, or torch for a tensor."""
    return np if isinstance(array, np.ndarray) else sys.modules["torch"]
