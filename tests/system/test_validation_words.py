"""Broken rules in medseg's words."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medseg.system.validation_words import validation_words


class _Inner(BaseModel):
    x: int


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(default=1, ge=1)
    name: str = "a"
    kind: Literal["a", "b"] = "a"
    parts: list[int] = []
    inner: _Inner | None = None
    even: int = 2

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"size": 0}, "must be greater than or equal to 1"),
        ({"size": "x"}, "must be a whole number"),
        ({"name": 3}, "must be text"),
        ({"kind": "c"}, "must be 'a' or 'b'"),
        ({"parts": 3}, "must be a list"),
        ({"inner": 3}, "must be a section with fields"),
        ({"inner": {}}, "is missing"),
        ({"other": 3}, "there is no such field"),
        ({"even": 3}, "must be even"),
    ],
)
def test_rules_are_said_without_pydantic(data, words):
    with pytest.raises(ValidationError) as caught:
        _Section.model_validate(data)
    assert validation_words(caught.value.errors()[0]) == words
