"""The JSON schema of ``pipeline.json``, for programs that read packages without medseg."""

from __future__ import annotations

from typing import Any

from medseg.inference.model_package import FORMAT
from medseg.recipe import Recipe

_TEXT = {"type": "string"}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_FILE_NAME = {"pattern": r"^[^/\\]+$"}
_ALWAYS = (
    "format",
    "medseg",
    "model",
    "labels",
    "licence",
    "weights",
    "graphs",
    "uses",
    "self_test",
    "recipe",
)
_FILES = {"type": "object", "propertyNames": _FILE_NAME, "additionalProperties": _SHA256}


def package_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the ``pipeline.json`` of a package, with that of its recipe.

    Example:
        >>> medseg.package_schema()["properties"]["format"]
        {'const': 'medseg-package-1'}
    """
    recipe = Recipe.json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pipeline.json of a medseg package",
        "type": "object",
        "required": [*_ALWAYS],
        "properties": {
            "format": {"const": FORMAT},
            "medseg": {**_TEXT, "description": "Version of medseg that exported the model."},
            "model": _object(name=_TEXT, sha256=_SHA256, provenance={"type": "object"}),
            "labels": {
                "description": "The integer of each label in a mask.",
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"type": "integer", "minimum": 1},
            },
            "licence": {**_TEXT, "description": "Licence of the weights, or unknown."},
            "weights": {
                "description": "A digest of the weights of each fold.",
                "type": "array",
                "minItems": 1,
                "items": _SHA256,
            },
            "graphs": {"type": "array", "minItems": 1, "items": _graph()},
            "openvino": {**_FILES, "description": "The networks in OpenVINO's format, if asked for."},
            "uses": {**_FILES, "description": "SHA-256 of the other models that are used as well."},
            "includes": {**_FILES, "description": "SHA-256 of pipeline.json in the folder of such a model."},
            "self_test": {
                **_FILES,
                "description": "The scan of the self-test, one file per channel; its mask.",
            },
            "recipe": {"$ref": "#/$defs/Recipe"},
        },
        "$defs": {**recipe.pop("$defs", {}), "Recipe": recipe},
    }


def _graph() -> dict[str, Any]:
    shape = {
        "description": "(N, C, ...) of the input `windows`, float32.",
        "type": "array",
        "minItems": 4,
        "maxItems": 5,
        "items": {"type": "integer", "minimum": 1},
    }
    return _object(
        file={**_TEXT, **_FILE_NAME},
        key=_SHA256,
        sha256=_SHA256,
        stage={"type": ["string", "null"], "description": "Which network of a model with several."},
        shape=shape,
        free={"type": "boolean", "description": "Whether the sides of the input may differ."},
    )


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": [*properties], "properties": properties}
