"""Labels, channels and modality of a plan: what is in the data, under the names that the data set gives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.images.label import Label
from medseg.io.formats import picture_ending
from medseg.io.picture.reader import count_channels
from medseg.planning.dataset_description import Description
from medseg.planning.fingerprint import Fingerprint, Modality
from medseg.system.notices import collect_notices

_SIDES: dict[str, Literal["left", "right"]] = {"right": "right", "rt": "right", "left": "left", "lt": "left"}


@dataclass(frozen=True)
class Structures:
    """What a recipe segments.

    Attributes:
        labels: The labels.
        exclusive: Whether each voxel has at most one of them, and all cases show all of them.
        reason: Why, as a sentence.
        cautions: What the user should know, each as a sentence.
    """

    labels: tuple[Label, ...]
    exclusive: bool
    reason: str
    cautions: tuple[str, ...] = ()


def channel_names(
    cases: Sequence[Case], described: Description, modality: Modality | None
) -> tuple[str, ...]:
    """The names of the channels: those of the description, or ``CT``, ``MR`` or ``image`` with numbers.

    Raises:
        UsageError: cases have different numbers of images (``channel-count``).
    """
    counts = {len(case.images): case.id for case in cases if case.label is not None}
    if described.channels:
        wrong = [case for n, case in counts.items() if n not in (1, len(described.channels))]
        if not wrong:
            return described.channels
        counts[len(described.channels)] = "dataset.json"
    if len(counts) > 1:
        seen = ", ".join(f"{n} in {name}" for n, name in sorted(counts.items()))
        raise UsageError(
            f"cases have different numbers of channels: {seen}",
            where="images",
            remedy="give every case one image per channel, in the same order, or leave cases out",
            reason="channel-count",
        )
    (number,) = counts or {1: ""}
    if modality == "picture" and number == 1:
        return _channels_of_pictures(cases)
    plain = modality or "image"
    return (plain,) if number == 1 else tuple(f"{plain}_{each}" for each in range(1, number + 1))


def _channels_of_pictures(cases: Sequence[Case]) -> tuple[str, ...]:
    """``grey``, or ``red``, ``green`` and ``blue`` if any picture is in colour.

    Raises:
        UsageError: a picture has another number of channels (``channel-count``).
        InputRefused: a picture cannot be read.
    """
    counts = {}
    for case in cases:
        if case.label is not None and picture_ending(case.images[0]):
            with collect_notices():  # they are given when the case is measured
                counts[count_channels(case.images[0])] = case.id
    odd = set(counts) - {1, 3}
    if odd:
        raise UsageError(
            f"the picture of case {counts[min(odd)]} has {min(odd)} channels",
            where="images",
            remedy="save it as grey or RGB, or write the recipe by hand",
            reason="channel-count",
        )
    return ("red", "green", "blue") if 3 in counts else ("grey",)


def is_of_pictures(cases: Sequence[Case]) -> bool:
    """Whether the image of each labelled case is a picture (PNG, JPEG, TIFF)."""
    images = [case.images[0] for case in cases if case.label is not None]
    return bool(images) and all(picture_ending(image) for image in images)


def named_modality(described: Description) -> Modality | None:
    """The modality that the names of channels give; None without names."""
    if not described.channels:
        return None
    return (
        "CT" if all("ct" in re.findall(r"[a-z]+", each.casefold()) for each in described.channels) else "MR"
    )


def structures(found: Fingerprint, cases: Sequence[Case], described: Description) -> Structures:
    """The labels of a data set.

    Raises:
        UsageError: no label occurs in any label map (``plan-empty``).
    """
    seen = {each.value: each for each in found.labels}
    cautions = [
        f"Value {value} ({name}) is in no label map and is left out."
        for value, name in sorted(described.names.items())
        if value not in seen
    ]
    if described.regions:
        known = {value for region in described.regions for value in region.values}
        cautions += [
            f"Value {value} belongs to no region and becomes background."
            for value in seen
            if value not in known
        ]
        labels = tuple(each for each in described.regions if set(each.values) & set(seen))
        return Structures(labels, False, "The regions of dataset.json, which may overlap.", tuple(cautions))
    if described.names:
        cautions += [
            f"Value {value} has no name in dataset.json." for value in seen if value not in described.names
        ]
    labels = tuple(
        Label(name=name, values=(value,), side=_side(name))
        for value, name in ((value, described.names.get(value) or f"label_{value}") for value in sorted(seen))
    )
    if not described.names:
        cautions.append("The data set gives no names: rename label_1 and so on before training.")
    rare = [each for each in found.labels if each.cases * 10 < len(found.cases)]
    cautions += [
        f"Value {each.value} is in {each.cases} of {len(found.cases)} cases only: few to learn from."
        for each in rare
    ]
    partly = sum(case.annotated is not None for case in cases)
    if partly:
        return Structures(
            labels,
            False,
            f"{partly} cases are annotated for some labels only: others are unknown there and do not count.",
            tuple(cautions),
        )
    return Structures(
        labels,
        len(labels) > 1,
        "Every value of the label maps" + (", each voxel has one." if len(labels) > 1 else "."),
        tuple(cautions),
    )


def _side(name: str) -> Literal["left", "right"] | None:
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold())
    found = {_SIDES[word] for word in words if word in _SIDES}
    return found.pop() if len(found) == 1 else None
