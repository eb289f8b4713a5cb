"""``medseg models``."""

from __future__ import annotations

import json

from medseg.cli.options import AsJson
from medseg.inference.threshold_segmenter import ThresholdSegmenter


def models(as_json: AsJson = False) -> None:
    """List the models that can be named: shipped, and in ~/.cache/medseg/models. Nothing is downloaded."""
    from medseg.errors import MedsegError
    from medseg.inference.model import Model, find, names, shipped
    from medseg.inference.registry import DEFAULT

    rows: list[dict[str, object]] = []
    for name in names():
        path = find(name)
        row: dict[str, object] = {"name": name, "default": name == DEFAULT, "shipped": name in shipped()}
        row |= {"path": str(path), "megabytes": round(path.stat().st_size / 1e6, 2)}
        try:
            model = Model.load(path)
        except MedsegError as error:
            rows.append(row | {"refused": error.reason, "problem": error.problem})
            continue
        rows.append(
            row
            | {
                "modality": model.recipe.modality,
                "labels": {label.name: label.value for label in model.recipe.painted},
                "description": model.recipe.description,
                "licence": model.provenance.get("licence", "Apache-2.0" if row["shipped"] else "not said"),
                "sha256": model.digest,
            }
        )
    plain = ThresholdSegmenter()
    rows.append(
        {
            "name": plain.name,
            "default": False,
            "shipped": True,
            "modality": "CT",
            "labels": {label.name: label.value for label in plain.labels},
            "description": "Right and left lung by thresholds, without a network; fails on diseased lungs.",
            "licence": "Apache-2.0",
            "sha256": plain.digest,
        }
    )
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        told = f"{row['name']}{' (default)' if row['default'] else ''}"
        if "refused" in row:
            print(f"{told}\n  cannot be used: {row['problem']} ({row['path']})")
            continue
        labels = row["labels"]
        assert isinstance(labels, dict)
        size = f"{row['megabytes']} MB, " if "megabytes" in row else ""
        print(f"{told}\n  {row['description']}")
        print(f"  {row['modality']}: " + ", ".join(f"{value} {label}" for label, value in labels.items()))
        print(f"  {size}licence {row['licence']}, sha256 {str(row['sha256'])[:12]}")
