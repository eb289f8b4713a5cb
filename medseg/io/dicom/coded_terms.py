"""Coded terms: SNOMED CT codes of labels, as required in DICOM objects."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom.dataset import Dataset

from medseg.images.label import Label


@dataclass(frozen=True)
class Term:
    """A code of a coding scheme: SNOMED CT (``SCT``) or DICOM's own (``DCM``)."""

    value: str
    meaning: str
    scheme: str = "SCT"

    def item(self) -> Dataset:
        """The term as an item of a code sequence (PS3.3 8.8)."""
        ds = Dataset()
        ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = self.value, self.scheme, self.meaning
        return ds


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
    """The coded meaning of a label: category, type, and side and part if it has any."""

    category: Term
    type: Term
    side: Term | None
    part: Term | None = None

    @property
    def modifiers(self) -> tuple[Term, ...]:
        """Side and part, if any, for SegmentedPropertyTypeModifierCodeSequence."""
        return tuple(term for term in (self.side, self.part) if term)


def meaning(label: Label) -> Meaning:
    """The coded meaning of a label, from its name and side.

    A name that is not in the table is coded as a tissue; objects always hold the label's own
    name beside the code. The side comes from the label, or from a name such as ``left_lung``
    if the rest of it is in the table.
    """
    words = plain(label.name).split("_")
    rest = "_".join(word for word in words if word not in SIDES and word not in PARTS)
    sides = [word for word in words if word in SIDES]
    category, kind = TABLE.get(rest, (TISSUE, TISSUE))
    side = label.side or (sides[0] if len(sides) == 1 and rest in TABLE else None)
    parts = [PARTS[word] for word in words if word in PARTS]
    if side is None and rest in _PAIRED:
        return Meaning(category, kind, BOTH_SIDES)
    return Meaning(category, kind, SIDES[side] if side else None, parts[0] if len(parts) == 1 else None)


def plain(name: str) -> str:
    """A name in lower case with its words joined by ``_``, for comparison."""
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_") or name
