"""Which scan of a command line becomes which mask file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import UsageError, listed
from medseg.io import formats
from medseg.io.dicomweb.address import is_address


@dataclass(frozen=True)
class MaskTarget:
    """A mask to write.

    Attributes:
        channels: Files of the scan, one for each channel.
        mask: Path of the mask.
    """

    channels: tuple[Path, ...]
    mask: Path


def mask_targets(
    scans: Sequence[Path], channels: Sequence[Path], output: str | None, form: str | None
) -> list[MaskTarget]:
    """The masks that the arguments ask for, in order.

    Args:
        scans: Scans of one channel; without ``output`` the last one is the mask.
        channels: Channels of one scan (``-i``).
        output: A mask file, or a folder: an existing one, or a path that ends with a slash. Masks in a folder
            are named after their scans; of an address, by its last UID.
        form: Format of a DICOM mask; None for NIfTI in folders, or PNG if the scan is a picture.

    Raises:
        UsageError: arguments are missing or contradict each other (``usage``), or two scans would have the
            same mask (``same-mask``).
    """
    if scans and channels:
        raise UsageError(
            f"the scan is named both as SCAN ({listed(map(str, scans))}) and with -i "
            f"({listed(map(str, channels))})",
            remedy="leave out one of them; for a scan of several channels give -i once for each, and no SCAN",
            reason="usage",
        )
    if output is None and len(scans) == 2:
        scans, output = scans[:1], str(scans[1])
    if output is None or not (scans or channels):
        raise UsageError(
            _missing(scans, channels),
            remedy="use: medseg segment SCAN -o MASK, or medseg segment SCAN SCAN ... -o FOLDER/",
            reason="usage",
        )
    jobs = [tuple(channels)] if channels else [(scan,) for scan in scans]
    if not is_folder(output):
        if len(jobs) > 1:
            raise UsageError(
                f"{len(jobs)} scans for one mask file",
                where=output,
                remedy=f"give a folder: -o {formats.stem(Path(output))}/",
                reason="usage",
            )
        return [MaskTarget(jobs[0], Path(output))]
    names = [_name(job[0]) for job in jobs]
    endings = [formats.mask_ending(job[0]) if form is None else formats.DICOM[0] for job in jobs]
    targets = [
        MaskTarget(job, Path(output) / f"{name}{ending}")
        for job, name, ending in zip(jobs, names, endings, strict=True)
    ]
    twice = [path for path, count in Counter(target.mask for target in targets).items() if count > 1]
    if twice:
        raise UsageError(
            "two scans have this mask",
            where=twice[0],
            remedy="rename one of them, or use medseg batch with a manifest",
            reason="same-mask",
        )
    return targets


def _missing(scans: Sequence[Path], channels: Sequence[Path]) -> str:
    if not (scans or channels):
        return "no scan is named"
    given = [*scans, *channels]
    return f"no mask to write is named for {listed(map(str, given))}: -o is missing"


def _name(scan: Path) -> str:
    return scan.name if is_address(scan) else formats.stem(scan.absolute())


def is_folder(output: str) -> bool:
    """Whether an output is a folder: an existing one, or a path that ends with a slash."""
    return output.endswith(("/", os.sep)) or os.path.isdir(output)  # noqa: PTH112 (Path raises for long names)
