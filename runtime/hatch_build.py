"""Puts medseg's code, without its models, into the distributions of medseg-runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LEFT_OUT = ("models", "__pycache__")


class MedsegCode(BuildHookInterface):
    """The hook that hatchling calls."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds ``medseg`` from the clone, or from the source distribution that was made of it."""
        root = Path(self.root)
        home = root.parent if (root.parent / "medseg" / "__init__.py").is_file() else root
        for each in sorted((home / "medseg").iterdir()):
            if each.name not in LEFT_OUT:
                build_data["force_include"][str(each)] = f"medseg/{each.name}"
        place = home / "LICENSE" if home != root else root / "medseg" / "LICENSE"
        build_data["force_include"][str(place)] = "medseg/LICENSE"
