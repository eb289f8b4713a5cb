"""What tests of model packages share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from medseg.errors import MedsegError


def refusal(
    kind: type[MedsegError], reason: str, call: Callable[..., Any], *args: Any, **options: Any
) -> Any:
    """The error with which a call is refused."""
    with pytest.raises(kind) as refused:
        call(*args, **options)
    assert refused.value.reason == reason
    return refused.value
