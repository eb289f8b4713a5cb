import pytest
from pydicom.sr._concepts_dict import concepts

from medseg.images.label import Label
from medseg.io.dicom.coded_terms import ANATOMY, SIDES, TABLE, TISSUE, meaning, uncoded
from medseg.io.dicom.organ_codes import ORGANS

KNOWN: dict[str, set[str]] = {}
for _codes in concepts["SCT"].values():
    for _code, (_meaning, _) in _codes.items():
        KNOWN.setdefault(_code, set()).add(_meaning.casefold())


def label(name, value=1):
    return Label(name=name, values=(value,))


@pytest.mark.parametrize("name", ORGANS)
def test_each_code_stands_in_dicoms_tables_with_its_meaning(name):
    code, text = ORGANS[name]
    meanings = {each.removesuffix(" structure (body structure)") for each in KNOWN[code]}
    assert text.casefold() in meanings
    assert TABLE[name][1].value == code


@pytest.mark.parametrize(
    ("name", "code", "side"),
    [
        ("lung_upper_lobe_left", "45653009", "left"),
        ("adrenal_gland_right", "23451007", "right"),
        ("iliac_vena_left", "244411005", "left"),
        ("vertebrae_T12", "23215003", None),
        ("rib_right_7", "113197003", "right"),
        ("urinary_bladder", "89837001", None),
    ],
)
def test_names_of_totalsegmentator_have_codes(name, code, side):
    found = meaning(label(name))
    assert (found.category, found.type.value) == (ANATOMY, code)
    assert found.modifiers == ((SIDES[side],) if side else ())


def test_labels_without_a_code_are_a_tissue_and_are_listed():
    labels = [label("hip_left"), label("spleen", 2), label("gluteus_maximus_right", 3)]
    assert meaning(labels[0]).type == TISSUE
    assert uncoded(labels) == ("hip_left", "gluteus_maximus_right")
