"""``medseg recipe``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from medseg.cli.output import print_next


def recipe(
    name: Annotated[
        str | None, typer.Argument(help="Recipe to show; without it, list the shipped recipes.")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipes.")] = False,
) -> None:
    """List the shipped recipes, show one as YAML, or print the JSON schema."""
    from medseg.recipe import Recipe, describe_recipes

    if schema:
        print(json.dumps(Recipe.json_schema(), indent=2))
    elif name:
        print(Recipe.read(name).yaml(), end="")
        print_next("check", "MANIFEST", "--recipe", name)
    else:
        for each, description in describe_recipes().items():
            print(f"{each:20s} {description}")
        print_next("recipe", "NAME")
