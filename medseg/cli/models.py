"""``medseg models``."""

from __future__ import annotations

import json

from medseg.cli.options import AsJson
from medseg.cli.output import print_next


def models(as_json: AsJson = False) -> None:
    """List the shipped models and those in ~/.cache/medseg/models. Nothing is downloaded."""
    from medseg.inference.model_list import list_models

    found = list_models()
    if as_json:
        print(json.dumps([model.to_json() for model in found]))
        return
    for model in found:
        print(f"{model.name}{' (default)' if model.default else ''}")
        if model.refused is not None:
            print(f"  cannot be used: {model.problem} ({model.path})")
            continue
        size = "" if model.megabytes is None else f"{model.megabytes} MB, "
        print(f"  {model.description}")
        print(f"  {model.modality}: " + ", ".join(f"{value} {name}" for name, value in model.labels.items()))
        print(f"  {size}licence {model.licence}, sha256 {model.sha256[:12]}")
    print_next("segment", "SCAN", "-o", "mask.nii.gz", "--model", "NAME")
