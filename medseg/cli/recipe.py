"""``medseg recipe``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass


def recipe(
    name: Annotated[str | None, typer.Argument(help="Recipe to show; without it, their names.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="The JSON schema of recipes.")] = False,
) -> None:
    """Show a recipe as YAML, list the shipped ones, or export the JSON schema."""
    from medseg.recipe import Recipe, list_recipes

    if schema:
        print(json.dumps(Recipe.json_schema(), indent=2))
    elif name:
        print(Recipe.read(name).yaml(), end="")
    else:
        for each in list_recipes():
            print(f"{each:20s} {Recipe.read(each).description}")
