"""Coded terms: SNOMED CT codes of labels, as required in DICOM objects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from medseg.images.label import Label
from medseg.io.dicom.organ_codes import ORGANS

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(frozen=True)
class Term:
    """A code of a coding scheme, such as SNOMED CT (``SCT``) or DICOM's own (``DCM``)."""

    value: str
    meaning: str
    scheme: str = "SCT"

    @property
    def is_valid(self) -> bool:
        """Whether DICOM can hold the term: complete, at most as long as PS3.3 8.8 allows, printable."""
        texts = ((self.value, 64), (self.scheme, 16), (self.meaning, 64))
        return all(0 < len(text) <= most and text.isprintable() and "\\" not in text for text, most in texts)

    def item(self) -> Dataset:
        """The term as an item of a code sequence (PS3.3 8.8)."""
        from pydicom.dataset import Dataset

        ds = Dataset()
        setattr(ds, "CodeValue" if len(self.value) <= _SHORT else "LongCodeValue", self.value)
        ds.CodingSchemeDesignator, ds.CodeMeaning = self.scheme, self.meaning
        return ds


_SHORT = 16
"""The most characters of CodeValue (SH); longer codes are in LongCodeValue."""


# Codes and meanings as in PS3.16: CID 7150 (categories), CID 244 (laterality), CID 7162
# (algorithm families) and the anatomy of CID 7151's groups.
ANATOMY = Term("91723000", "Anatomical Structure")
ABNORMAL = Term("49755003", "Morphologically Abnormal Structure")
TISSUE = Term("85756007", "Tissue")
SIDES = {"right": Term("24028007", "Right"), "left": Term("7771000", "Left")}
BOTH_SIDES = Term("51440002", "Right and left")
PARTS = {"anterior": Term("255549009", "Anterior"), "posterior": Term("255551008", "Posterior")}
ARTIFICIAL_INTELLIGENCE = Term("123110", "Artificial Intelligence", "DCM")

_LUNG = (ANATOMY, Term("39607008", "Lung"))
_KIDNEY = (ANATOMY, Term("64033007", "Kidney"))
_SPINE = (ANATOMY, Term("421060004", "Spine"))
_ESOPHAGUS = (ANATOMY, Term("32849002", "Esophagus"))
_NODULE = (ABNORMAL, Term("27925004", "Nodule"))
_NEOPLASM = (ABNORMAL, Term("108369006", "Neoplasm"))
_LESION = (ABNORMAL, Term("52988006", "Lesion"))
_UPPER_LOBE = (ANATOMY, Term("45653009", "Upper lobe of lung"))
_MIDDLE_LOBE = (ANATOMY, Term("72481006", "Middle lobe of right lung"))
_LOWER_LOBE = (ANATOMY, Term("90572001", "Lower lobe of lung"))
TABLE: dict[str, tuple[Term, Term]] = {
    **{name: (ANATOMY, Term(*code)) for name, code in ORGANS.items()},
    **{f"rib_{number}": (ANATOMY, Term(*ORGANS["rib"])) for number in range(1, 13)},
    "lung": _LUNG,
    "lungs": _LUNG,
    "lobe_of_lung": (ANATOMY, Term("31094006", "Lobe of lung")),
    "upper_lobe": _UPPER_LOBE,
    "lung_upper_lobe": _UPPER_LOBE,
    "middle_lobe": _MIDDLE_LOBE,
    "lung_middle_lobe": _MIDDLE_LOBE,
    "lower_lobe": _LOWER_LOBE,
    "lung_lower_lobe": _LOWER_LOBE,
    "airway": (ANATOMY, Term("89187006", "Airway structure")),
    "trachea": (ANATOMY, Term("44567001", "Trachea")),
    "heart": (ANATOMY, Term("80891009", "Heart")),
    "spine": _SPINE,
    "vertebral_column": _SPINE,
    "spinal_cord": (ANATOMY, Term("2748008", "Spinal cord")),
    "esophagus": _ESOPHAGUS,
    "oesophagus": _ESOPHAGUS,
    "liver": (ANATOMY, Term("10200004", "Liver")),
    "spleen": (ANATOMY, Term("78961009", "Spleen")),
    "pancreas": (ANATOMY, Term("15776009", "Pancreas")),
    "kidney": _KIDNEY,
    "kidneys": _KIDNEY,
    "prostate": (ANATOMY, Term("41216001", "Prostate")),
    "brain": (ANATOMY, Term("12738006", "Brain")),
    "hippocampus": (ANATOMY, Term("5366008", "Hippocampus")),
    "nodule": _NODULE,
    "nodules": _NODULE,
    "tumor": _NEOPLASM,
    "tumour": _NEOPLASM,
    "lesion": _LESION,
    "lesions": _LESION,
}
_PAIRED = ("lungs", "kidneys")


@dataclass(frozen=True)
class Meaning:
    """The coded meaning of a label.

    Attributes:
        category: What kind of thing it is, such as an anatomical structure.
        type: What it is, such as a lung.
        modifiers: What the type is more closely: its side, its part.
        region: Where in the body it is, if that is another term than the type.
        region_modifiers: The side of the region.
    """

    category: Term
    type: Term
    modifiers: tuple[Term, ...] = ()
    region: Term | None = None
    region_modifiers: tuple[Term, ...] = ()


class CodedLabel(Label):
    """A label with the coded meaning that the file it was read from gives it.

    Attributes:
        meaning: The meaning; it is not part of the label's JSON.
    """

    meaning: Meaning = Field(exclude=True)


def coded(label: Label, given: Meaning | None) -> Label:
    """The label with the meaning that a file gives it, if that differs from the meaning of its name.

    A tissue that is not described more closely says nothing: 3D Slicer writes it where no term was chosen.
    """
    if given is None or given == meaning(label) or (given.region is None and given.type.value in _ANY_TISSUE):
        return label
    return CodedLabel(name=label.name, values=label.values, side=label.side, meaning=given)


_ANY_TISSUE = (TISSUE.value, "T-D0050")  # the second in SNOMED RT (``SRT``), which older files use


def meaning(label: Label) -> Meaning:
    """The coded meaning of a label: that of its file, or else of its name and side.

    A name that is not in the table is coded as a tissue; objects always hold the label's own
    name beside the code. The side comes from the label, or from a name such as ``left_lung``
    if the rest of it is in the table.
    """
    if isinstance(label, CodedLabel):
        return label.meaning
    words = plain(label.name).split("_")
    rest = "_".join(word for word in words if word not in SIDES and word not in PARTS)
    sides = [word for word in words if word in SIDES]
    category, kind = TABLE.get(rest, (TISSUE, TISSUE))
    side = label.side or (sides[0] if len(sides) == 1 and rest in TABLE else None)
    parts = [PARTS[word] for word in words if word in PARTS]
    if side is None and rest in _PAIRED:
        return Meaning(category, kind, (BOTH_SIDES,))
    part = (parts[0],) if len(parts) == 1 else ()
    return Meaning(category, kind, ((SIDES[side],) if side else ()) + part)


def uncoded(labels: Sequence[Label]) -> tuple[str, ...]:
    """Names of the labels whose meaning is not known, which DICOM objects call a tissue."""
    return tuple(label.name for label in labels if meaning(label).type == TISSUE)


def read_meaning(item: Dataset) -> Meaning | None:
    """The meaning of an item of SegmentSequence; None if it has no complete category and type."""
    categories = _terms(item, "SegmentedPropertyCategoryCodeSequence")
    kinds = _terms(item, "SegmentedPropertyTypeCodeSequence")
    if not (categories and kinds):
        return None
    modifiers = _terms(item.SegmentedPropertyTypeCodeSequence[0], "SegmentedPropertyTypeModifierCodeSequence")
    regions = _terms(item, "AnatomicRegionSequence")
    if not regions:
        return Meaning(categories[0], kinds[0], modifiers)
    sides = _terms(item.AnatomicRegionSequence[0], "AnatomicRegionModifierSequence")
    return Meaning(categories[0], kinds[0], modifiers, regions[0], sides)


def _terms(ds: Dataset, sequence: str) -> tuple[Term, ...]:
    """The terms of a code sequence; none if the first is not valid."""
    items: Sequence[Dataset] = ds.get(sequence) or ()
    terms = [
        Term(
            str(item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue") or ""),
            str(item.get("CodeMeaning") or ""),
            str(item.get("CodingSchemeDesignator") or ""),
        )
        for item in items
    ]
    return tuple(term for term in terms if term.is_valid) if terms and terms[0].is_valid else ()


def plain(name: str) -> str:
    """A name in lower case with its words joined by ``_``, for comparison."""
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_") or name
