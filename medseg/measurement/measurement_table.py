"""The result of a measurement, and how it is written as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.errors import UsageError
from medseg.system.atomic_write import check_folder, replacing
from medseg.system.csv_cells import rounded, to_cell
from medseg.system.notices import RESEARCH, Notice
from medseg.system.own_version import own_version

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".json")
WHOLE = "whole"
BOTH = "both_lungs"
_FIRST = ("structure", "region")


@dataclass(frozen=True)
class StructureMeasures:
    """The measures of a structure or a part of it.

    Attributes:
        structure: ``right_lung``, ``left_lung``, ``both_lungs``, or the name of a label.
        region: ``whole``, or a part of :data:`medseg.measurement.regions.PARTS`.
        values: Numbers by column; None where a measure is not defined.
    """

    structure: str
    region: str
    values: Mapping[str, float | None]

    def to_row(self) -> dict[str, object]:
        """The measures as a row of a table."""
        return {"structure": self.structure, "region": self.region, **self.values}


@dataclass(frozen=True)
class Histogram:
    """Voxels by intensity.

    Attributes:
        low: Lower edge of the first bin.
        width: Width of a bin; a bin holds its lower edge.
        counts: Voxels in each bin.
    """

    low: float
    width: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Measurement:
    """The measures of a scan and its mask.

    Attributes:
        rows: One row for each structure and region.
        histograms: Of each whole lung and both together, by structure.
        settings: What was chosen: depth of the rind, threshold and fit of clusters, correction, grid.
        definitions: What each column means, with bounds.
        fitness: Facts on which the trust in lung measures depends: slice thickness, kernel, contrast, air
            in the trachea, soft tissue of the heart, cut lungs. See
            :class:`medseg.measurement.scan_fitness.ScanFitness`.
        notices: Reasons to doubt the numbers.

    Example:
        >>> found = medseg.measure("chest.nii.gz", "lungs.nii.gz")
        >>> round(found["both_lungs"]["volume_ml"])
        4163
        >>> found.save("measures.csv").name
        'measures.csv'
    """

    rows: tuple[StructureMeasures, ...]
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    definitions: Mapping[str, str] = field(default_factory=dict)
    fitness: Mapping[str, object] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()

    def __getitem__(self, structure: str) -> Mapping[str, float | None]:
        """The measures of a whole structure, by column."""
        return self.of(structure)

    def of(self, structure: str, region: str = WHOLE) -> Mapping[str, float | None]:
        """The measures of a structure or a part of it, by column.

        Raises:
            UsageError: it was not measured (``no-such-label``).
        """
        for row in self.rows:
            if (row.structure, row.region) == (structure, region):
                return row.values
        known = ", ".join(dict.fromkeys(row.structure for row in self.rows)) or "nothing"
        raise UsageError(
            f"no measures of {structure!r}, region {region!r}",
            remedy=f"measured were: {known}",
            reason="no-such-label",
        )

    def joined(self, other: Measurement) -> Measurement:
        """This measurement with the rows, definitions and settings of another of the same scan added."""
        return replace(
            self,
            rows=(*self.rows, *other.rows),
            settings={**other.settings, **self.settings},
            definitions={**self.definitions, **other.definitions},
        )

    def to_json(self) -> dict[str, Any]:
        """The measurement as a JSON object, with definitions, settings and notices."""
        return {
            "research_use_only": RESEARCH,
            "medseg": own_version(),
            "settings": dict(self.settings),
            "fitness": dict(self.fitness),
            "notices": [notice.to_json() for notice in self.notices],
            "measures": [row.to_row() for row in self.rows],
            "histograms": {
                name: {"low": each.low, "width": each.width, "counts": list(each.counts)}
                for name, each in self.histograms.items()
            },
            "definitions": dict(self.definitions),
        }

    def to_frame(self) -> pd.DataFrame:
        """The measures as a table of pandas, one row for each structure and region."""
        import pandas as pd

        return pd.DataFrame([row.to_row() for row in self.rows])

    def save(self, path: str | Path) -> Path:
        """Writes the measures and returns the path.

        Args:
            path: ``.csv`` for the table alone, one row for each structure and region, with the scan's fitness
                in columns ``scan_...`` and the reasons of notices in the column ``flags``, and numbers with
                four decimals or six digits; ``.json`` for everything, unrounded.

        Raises:
            UsageError: another suffix (``format``), or the folder is missing (``no-folder``).
            ResourceError: the disk refuses (``disk``).
        """
        path = Path(path)
        check_output(path)
        text = self._csv() if path.suffix.lower() == ".csv" else json.dumps(self.to_json(), indent=2) + "\n"
        with replacing(path) as fresh:
            fresh.write_text(text, encoding="utf-8", newline="")
        return path

    def _csv(self) -> str:
        facts = {f"scan_{name}": value for name, value in self.fitness.items()}
        facts["flags"] = " ".join(dict.fromkeys(notice.reason for notice in self.notices))
        columns = dict.fromkeys([*_FIRST, *(name for row in self.rows for name in row.values), *facts])
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        table.writeheader()
        for row in self.rows:
            cells = {**row.to_row(), **facts}
            table.writerow(
                {name: "" if cell is None else to_cell(rounded(cell)) for name, cell in cells.items()}
            )
        return text.getvalue()


def check_output(path: Path) -> None:
    """Raises UsageError if measures cannot be written there; call it before long work."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"no table has the suffix of {path.name!r}",
            where=path,
            remedy=f"use one of {', '.join(SUFFIXES)}",
            reason="format",
        )
    check_folder(path)


def is_own_table(path: Path) -> bool:
    """Whether a file is a table of measures, as CSV or JSON, that :meth:`Measurement.save` wrote."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".csv":
            return text.split("\n", 1)[0].split(",")[: len(_FIRST)] == list(_FIRST)
        content = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"measures", "definitions", "settings"} <= content.keys()
