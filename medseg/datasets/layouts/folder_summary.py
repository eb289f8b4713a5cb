"""What a folder holds, in one line, for messages about layouts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from medseg.io.formats import ending
from medseg.system.folder_walk import walk

_EXAMPLES = 4


def summary(folder: Path) -> str:
    """Such as ``3 .nii.gz, 1 .csv in scans, truth``: counts by suffix, and the names of subfolders."""
    files = walk(folder).files
    counts = Counter(ending(path) or path.suffix.lower() or "without a suffix" for path in files)
    kinds = [f"{number} {kind}" for kind, number in counts.most_common(_EXAMPLES)]
    inner = sorted({path.relative_to(folder).parts[0] for path in files if path.parent != folder})
    if not kinds:
        return "no file"
    more = f" and {len(inner) - _EXAMPLES} more folders" if len(inner) > _EXAMPLES else ""
    places = f" in {', '.join(inner[:_EXAMPLES])}{more}" if inner else ""
    return f"{', '.join(kinds)}{places}"
