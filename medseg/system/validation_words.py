"""What is wrong with a field, in medseg's words instead of those of pydantic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TEXTS = {
    "missing": "is missing",
    "extra_forbidden": "there is no such field",
    "model_type": "must be a section with fields",
    "model_attributes_type": "must be a section with fields",
    "dict_type": "must be a section with fields",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "none_required": "must be empty",
    "finite_number": "must be a finite number",
}


def validation_words(error: Mapping[str, Any]) -> str:
    """The rule that an entry of a ``ValidationError.errors()`` breaks, such as ``must be a list``."""
    kind, text = str(error["type"]), str(error["msg"])
    if kind in _TEXTS:
        return _TEXTS[kind]
    if kind == "union_tag_invalid":
        context = error.get("ctx", {})
        return f"kind must be one of {context.get('expected_tags', 'the known ones')}"
    text = text.removeprefix("Value error, ")
    text = re.sub(r"^Input should be (a valid |an? )?", "must be ", text)
    return re.sub(r"^(\w+) should have", r"must have", text)
