"""Files about the package agree with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_citation_names_the_packages_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_the_conda_environment_installs_known_extras_on_a_supported_python() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, _, packages = environment["dependencies"]
    assert f">={python.removeprefix('python=')}" == PROJECT["requires-python"]
    (own,) = packages["pip"]
    extras = re.fullmatch(r"\.\[(.*)\]", own)
    assert extras
    assert set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])
