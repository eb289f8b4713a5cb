"""Reading a DICOM series as a volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg.errors import InputRefused
from medseg.images.volume import Source, Volume
from medseg.io.dicom.companions import continued
from medseg.io.dicom.discovery import scan
from medseg.io.dicom.mosaic import untiled
from medseg.io.dicom.pixels import check_kind, voxels
from medseg.io.dicom.series_listing import Series, chosen, listed, several
from medseg.io.dicom.slice import Slice
from medseg.io.dicom.slice_headers import slices
from medseg.io.dicom.stacking import stack, volumes
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.system.notices import notify

__all__ = ["Series", "list_series", "read"]


def list_series(path: str | Path) -> tuple[Series, ...]:
    """The image series in a folder and its subfolders, or beside a file; the largest first.

    Objects that are not scans (SEG, RTSTRUCT, reports, dose) are left out; a series whose
    slices differ in size or orientation is listed once for each kind.

    Raises:
        InputRefused: the path does not exist (``not-found``), or a file is damaged
            (``unreadable``).

    Example:
        >>> [series.modality for series in medseg.list_series("dicom_folder")]
        ['CT']
    """
    path = Path(path)
    if not path.exists():
        raise InputRefused("no such file or folder", where=path, remedy="check the path", reason="not-found")
    found = scan(path) if path.is_dir() else scan(path.parent, deep=False)
    return listed(_groups(found))


def read(path: Path, choices: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """The series at ``path`` as one volume, intensities rescaled (HU for CT), world RAS+ mm.

    Localizers (scouts) and images without a position, such as dose reports, beside one other
    series are skipped with a notice.

    Args:
        path: A folder, including its subfolders; a DICOMDIR, which stands for its folder; any
            file of a series, which stands for all files of that series in its folder and in
            the folders beside it (DIR000, DIR001 ...); or a multi-frame file.
        choices: ``series`` and ``volume``.

    Raises:
        InputRefused: nothing to read (``no-scan``), a choice to make (``several-series``,
            ``no-series``, ``several-volumes``, ``no-volume``), slices that do not belong
            together (``inconsistent``, ``mixed-series``) or do not form a regular volume (see
            `medseg.io.dicom.stacking.stack`), images that are not a scan (``localizer``,
            ``overlay``), an unsupported mosaic (``mosaic``), or unreadable pixels (see
            `medseg.io.dicom.pixels.voxels`).
    """
    try:
        found, wanted, place = _at(path, choices.series)
        group = _chosen(found, wanted, place)
        _check(group)
        ordered, grid = stack(_volume(untiled(group), choices.volume))
        files = tuple(dict.fromkeys(one.path for one in ordered))
        source = Source(path, "dicom", ordered[0].modality, files=files)
        _notify_oddities(ordered, path)
        return Volume(voxels(ordered), grid, source)
    except InputRefused as error:
        error.where = error.where or str(path)
        raise


def _at(path: Path, series: str | int | None) -> tuple[tuple[Slice, ...], str | int | None, Path]:
    """The slices to choose from, the series wanted, and their folder."""
    if path.is_dir():
        return scan(path), series, path
    own = slices(path)
    if not own:  # a DICOMDIR
        return scan(path.parent), series, path.parent
    if series is None:
        if not own[0].is_image:
            raise _no_scan(own, path)
        series = own[0].series
    if (own[0].frame is not None and own[0].parts == 1) or not series:
        return own, series, path.parent
    return continued(path, scan(path.parent, deep=False)), series, path.parent


def _groups(found: Sequence[Slice]) -> list[list[Slice]]:
    """The images in groups that can form a volume; the largest first, localizers and pictures last."""
    groups: list[list[Slice]] = []
    for one in found:
        if not one.is_image:
            continue
        alike = (g for g in groups if g[0].is_localizer == one.is_localizer)
        if not one.series:  # then patient, study and frame of reference tell series apart
            alike = (g for g in alike if g[0].subject == one.subject)
        home = next((g for g in alike if g[0].stacks_with(one)), None)
        if home is None:
            groups.append([one])
        else:
            home.append(one)
    return sorted(groups, key=lambda g: (_is_bystander(g), -len(g), g[0].series))


def _is_bystander(group: Sequence[Slice]) -> bool:
    """Whether these are localizers, or images without a position."""
    return group[0].is_localizer or (group[0].position_mm is None and group[0].cosines is None)


def _chosen(found: Sequence[Slice], wanted: str | int | None, folder: Path) -> list[Slice]:
    """The slices of the requested series, or of the only one."""
    groups = _groups(found)
    if not groups:
        raise _no_scan(found, folder)
    if wanted is None and len(groups) > 1:
        groups = _without_bystanders(groups, folder)
    if len(groups) == 1 and wanted is None:
        return groups[0]
    series = listed(groups)
    wanted_series = list(series) if wanted is None else chosen(series, wanted)
    if not wanted_series:
        raise several(series, f"no series has the number {wanted}, or a UID that ends in it", "no-series")
    numbers = {one.number for one in wanted_series}
    if len(numbers) > 1:
        what = "are in this folder" if wanted is None else f"have a UID that ends in {str(wanted)!r}"
        raise several(wanted_series, f"{len(numbers)} series {what}", "several-series")
    same = [group for group, one in zip(groups, series, strict=True) if one.number in numbers]
    matching = _without_localizers(same, folder)
    if len(matching) > 1:
        raise InputRefused(
            "the slices of one series differ in size, spacing or orientation: "
            + "; ".join(map(str, wanted_series)),
            reason="inconsistent",
            remedy="move the differing slices out of the folder",
        )
    return matching[0]


def _without_localizers(groups: list[list[Slice]], folder: Path) -> list[list[Slice]]:
    """The groups of a series without its localizers, which some scanners store under the UID of the scan."""
    rest = [group for group in groups if not group[0].is_localizer]
    if not rest or len(rest) == len(groups):
        return groups
    names = _names(group for group in groups if group[0].is_localizer)
    notify("localizer-skipped", f"skipped a localizer of the same series: {names}", path=folder)
    return rest


def _without_bystanders(groups: list[list[Slice]], folder: Path) -> list[list[Slice]]:
    """The groups without bystanders: series of localizers, or of images without a position.

    All groups are returned if nothing else would remain.
    """
    skipped = {g[0].series for g in groups if _is_bystander(g)}
    skipped -= {g[0].series for g in groups if not _is_bystander(g)}
    rest = [g for g in groups if g[0].series not in skipped]
    if not rest or not skipped:
        return groups
    names = _names(g for g in groups if g[0].series in skipped)
    notify("localizer-skipped", f"skipped a localizer or picture: {names}", path=folder)
    return rest


def _notify_oddities(group: Sequence[Slice], path: Path) -> None:
    """Sends notices about elements that are not written as DICOM prescribes."""
    odd = sorted({name for one in group for name in one.oddities})
    read = [name for name in odd if name != "InstanceNumber"]
    if read:
        notify(
            "odd-numbers",
            f"{', '.join(read)} not written as DICOM prescribes, such as with a decimal comma; "
            "read as numbers",
            path=path,
        )
    if "InstanceNumber" in odd:
        notify(
            "odd-numbers", "InstanceNumber is not a number; slices are in order of their positions", path=path
        )


def _no_scan(found: Sequence[Slice], folder: Path) -> InputRefused:
    kinds = sorted({one.kind for one in found})
    if kinds:
        is_mask = any("Segmentation" in kind or "Structure Set" in kind for kind in kinds)
        return InputRefused(
            f"not an image: no scan here, only {', '.join(kinds)}",
            reason="no-scan",
            remedy="pass the image series that this object refers to"
            + ("; to read the object as a mask: medseg convert --as-mask --reference SERIES" * is_mask),
        )
    names = sorted(f.name for f in folder.iterdir() if not f.name.startswith("."))
    content = f"; it holds {', '.join(names[:3])}" if names else ", it is empty"
    return InputRefused(
        f"no DICOM slices in this folder{content}",
        reason="no-scan",
        remedy="pass a DICOM folder or a NIfTI, NRRD or MetaImage file; for many scans use medseg batch",
    )


def _names(groups: Iterable[Sequence[Slice]]) -> str:
    return "; ".join(map(str, listed(list(groups))))


def _check(group: Sequence[Slice]) -> None:
    """Refuses slices of several scans under one series UID, and images that are not part of a scan."""
    first = group[0]
    files = len({one.path for one in group})
    if first.parts > files:
        raise InputRefused(
            f"only {files} of the {first.parts} files of a multi-frame image are here: missing slices",
            reason="missing-slices",
            remedy="put all files of the series into the folder",
        )
    for name, _ in first.subject:
        seen = {dict(one.subject)[name] for one in group}
        if len(seen) > 1:
            raise InputRefused(
                f"one series UID, but its slices belong to {len(seen)} different values of {name}",
                reason="mixed-series",
                remedy="sort the files by patient and study, and pass one folder at a time",
            )
    for one in group:
        check_kind(one)
        if one.is_localizer and one.modality == "CT":
            raise InputRefused(
                "a localizer (scout): a projection, not a slice of a scan",
                where=one.path,
                reason="localizer",
                remedy="pass the series that was planned on it",
            )


def _volume(group: Sequence[Slice], number: int | None) -> Sequence[Slice]:
    """The requested volume of a series, or the only one."""
    parts = volumes(group)
    if number is None and len(parts) == 1:
        return parts[0][1]
    listed = "; ".join(f"{n}: {name}, {len(part)} slices" for n, (name, part) in enumerate(parts[:20], 1))
    if number is None:
        raise InputRefused(
            f"4D: {len(parts)} volumes (phases, echoes or time points) at the same place: {listed}",
            reason="several-volumes",
            remedy="choose one with --volume N",
        )
    if number > len(parts):
        raise InputRefused(
            f"there is no volume {number}, only {len(parts)}: {listed}",
            reason="no-volume",
            remedy="choose one of them with --volume N",
        )
    return parts[number - 1][1]
