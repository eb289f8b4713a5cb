"""What a data set's ``dataset.json`` or ``colours.yaml`` says about channels and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import UsageError
from medseg.images.label import Label
from medseg.io.picture.colours import BACKGROUND, IGNORE, colour_table
from medseg.io.picture.masks import MaskCoding
from medseg.system.safe_parsing import json_data, text_of, yaml_data

COLOURS = "colours.yaml"
_MOST_BYTES = 64 << 20
_SHOWN = '"labels": {"background": 0, "liver": 1}'


@dataclass(frozen=True)
class Description:
    """Names of channels and labels; everything empty if the data set has no ``dataset.json``.

    Attributes:
        channels: Names of the channels, in order.
        names: Name of each integer of the label maps.
        regions: Names of regions of several integers (nnU-Net), with these integers; the first is painted.
        ignore_value: The integer of unknown voxels, or None.
        colours: Colour of each name in mask pictures (``colours.yaml``), and of background and ignore.
    """

    channels: tuple[str, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    regions: tuple[Label, ...] = ()
    ignore_value: int | None = None
    colours: Mapping[str, str] = field(default_factory=dict)

    @property
    def coding(self) -> MaskCoding:
        """What pixels of mask pictures stand for."""
        return MaskCoding(self.colours, self.ignore_value)


def describe_dataset(source: Path) -> Description:
    """The description in ``dataset.json``: the file itself, or the one in a folder.

    A folder of pictures may have a ``colours.yaml`` instead, with the colour of each label in its masks
    (``nucleus: '#ff0000'``); it may also lie beside a manifest. Labels are numbered in its order.

    Raises:
        UsageError: the file cannot be read, or its channels or labels are not as MSD or nnU-Net write them
            (``plan-dataset``), or a colour is none (``colours``).
    """
    table = (source if source.is_dir() else source.parent) / COLOURS
    if table.is_file():
        return _coloured(table)
    file = source / "dataset.json" if source.is_dir() else source
    if file.name != "dataset.json" or not file.is_file():
        return Description()
    try:
        data = json_data(text_of(file, most_bytes=_MOST_BYTES))
    except (OSError, ValueError) as error:
        raise _wrong(f"not valid JSON: {error}", file, "correct the syntax") from None
    if not isinstance(data, dict):
        raise _wrong("it is not a JSON object", file, "see the format of MSD or nnU-Net")
    labels, found = data.get("labels"), data.get("channel_names", data.get("modality"))
    if not isinstance(labels, dict) or not labels:
        raise _wrong("labels is missing", file, f"add it, such as {_SHOWN}")
    if not isinstance(found, dict) or any(str(number) not in found for number in range(len(found))):
        missing = "channel_names (nnU-Net) or modality (MSD)"
        raise _wrong(f"{missing} is missing or not numbered from 0", file, 'add it, such as {"0": "CT"}')
    channels = tuple(str(found[str(number)]) for number in range(len(found)))
    return _described(labels, data.get("regions_class_order"), channels, file)


def _coloured(file: Path) -> Description:
    try:
        data = yaml_data(text_of(file, most_bytes=_MOST_BYTES))
    except (OSError, ValueError) as error:
        raise _wrong(f"not valid YAML: {error}", file, "correct the syntax") from None
    if not isinstance(data, dict) or not data:
        raise _wrong("it is not a table of colours", file, "write lines such as nucleus: '#ff0000'")
    colours = {str(name): str(colour) for name, colour in data.items()}
    labels = [Label(name=name, values=(1,)) for name in colours if name not in (BACKGROUND, IGNORE)]
    names = {number: label.name for number, label in enumerate(labels, start=1)}
    ignored = len(names) + 1 if IGNORE in colours else None
    colour_table(colours, labels, ignored)
    return Description(names=names, ignore_value=ignored, colours=colours)


def _described(
    labels: dict[str, object], order: object, channels: tuple[str, ...], file: Path
) -> Description:
    values: dict[str, tuple[int, ...]] = {}
    for key, value in labels.items():
        # MSD maps integers (as text) to names, nnU-Net names to integers.
        name, number = (str(value), key) if isinstance(value, str) and key.isdigit() else (key, value)
        inside = tuple(number) if isinstance(number, list) else (number,)
        if not all(isinstance(n, int) or (isinstance(n, str) and n.isdigit()) for n in inside) or not inside:
            raise _wrong(f"label {name!r} has the value {number!r:.60}", file, f"give integers: {_SHOWN}")
        values[name] = tuple(int(n) for n in inside)
    ignored = values.pop("ignore", (None,))[0]
    values = {name: inside for name, inside in values.items() if inside != (0,)}
    if all(len(inside) == 1 for inside in values.values()):
        return Description(channels, {inside[0]: name for name, inside in values.items()}, (), ignored)
    if not isinstance(order, list) or len(order) != len(values):
        raise _wrong(
            "labels has regions of several values, but regions_class_order is missing or of another length",
            file,
            "add regions_class_order with one value for each region",
        )
    painted = zip(values.items(), order, strict=True)
    regions = tuple(
        Label(name=name, values=(first, *sorted(n for n in inside if n != first)))
        for (name, inside), first in painted
        if first in inside
    )
    if len(regions) < len(values):
        raise _wrong("regions_class_order names a value that is not in its region", file, "correct it")
    return Description(channels, {}, regions, ignored)


def _wrong(problem: str, where: Path, remedy: str) -> UsageError:
    return UsageError(problem, where=where, remedy=remedy, reason="plan-dataset")
