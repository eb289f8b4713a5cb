"""The colours of TotalSegmentator's structures, by name.

They stand, as ``DicomRGBColor``, in the table from its structures to SNOMED CT
(``resources/totalsegmentator_snomed_mapping.csv``, Apache-2.0).
"""

from __future__ import annotations

import re

_TABLE = """
adrenal_gland D2961E, adrenal_gland_left F1AC22, adrenal_gland_right B2801A, aorta D86C36,
atrial_appendage_left 44F83E, autochthon_left F17E39, autochthon_right B25E2A, body_extremities D8D036,
body_trunc D836B2, brachiocephalic_trunk BE0A0A, brachiocephalic_vein_left 005CF1,
brachiocephalic_vein_right 0044B2, brain D83695, carpal D836CD, clavicula_left FFECC9,
clavicula_right BFAE95, colon 9628AA, common_carotid_artery_left E61717,
common_carotid_artery_right AA1111, coronary_arteries C80000, costal_cartilages FADCBE, duodenum AA50BE,
esophagus BE5AAA, face C0D836, femur D83638, femur_left F8D43E, femur_right 2EB83C, fibula 36D843,
gallbladder 36D877, gluteus_maximus_left FD7322, gluteus_maximus_right BB551A, gluteus_medius_left FF7E2E,
gluteus_medius_right C45E22, gluteus_minimus_left FF8A39, gluteus_minimus_right CC662A, heart B40028,
heart_atrium_left B80045, heart_atrium_right 880033, heart_myocardium C80014, heart_ventricle_left A1005C,
heart_ventricle_right 770044, hip_implant 787878, hip_left E6F83E, hip_right B82EB8, humerus D86F36,
humerus_left 473EF8, humerus_right 732EB8, iliac_artery_left DA0000, iliac_artery_right A20000,
iliac_vena_left 005CE6, iliac_vena_right 0044AA, iliopsoas_left E6732E, iliopsoas_right AA5522,
inferior_vena_cava 0046C8, intracerebral_hemorrhage DC0000, kidney 2878A0, kidney_cyst_left 53AFDD,
kidney_cyst_right 478BAD, kidney_left 2E8AB8, kidney_right 226688, liver 288C28, liver_tumor FF00C8,
liver_vessels 3CA03C, lung_covid_infiltrate FF5A00, lung_lower_lobe_left 22C3CF,
lung_lower_lobe_right 1A9099, lung_middle_lobe_right 3FB5BE, lung_pleural 28C8D2,
lung_trachea_bronchia 25D9ED, lung_upper_lobe_left 47E8F4, lung_upper_lobe_right 64DAE3,
lung_vessels 0096BE, metacarpal D836D8, metatarsal D89736, pancreas 3C9650, patella E5FD5B,
pericardial_effusion 00C8FF, phalanges_feet 36C8D8, phalanges_hand 5336D8, pleural_effusion 00D2FF,
portal_vein_and_splenic_vein 005ADC, prostate 5BFD9C, pulmonary_artery B40000, pulmonary_vein 256BED,
radius A2D836, rib_left_1 D636D8, rib_left_10 3692D8, rib_left_11 9EFD5B, rib_left_12 D83656,
rib_left_2 B536D8, rib_left_3 D836A2, rib_left_4 3679D8, rib_left_5 36D892, rib_left_6 79D836,
rib_left_7 9536D8, rib_left_8 D85136, rib_left_9 D836A7, rib_right_1 5B9EFD, rib_right_10 D89F36,
rib_right_11 3687D8, rib_right_12 B5D836, rib_right_2 D3D836, rib_right_3 D8363B, rib_right_4 D83643,
rib_right_5 9DD836, rib_right_6 D836BD, rib_right_7 D83684, rib_right_8 D8CB36, rib_right_9 D8C536,
sacrum 64D836, scapula_left FDE6C3, scapula_right BBAA90, skeletal_muscle E68228, skull F5E1C8,
small_bowel A03CB4, spinal_cord FFD700, spleen 32AA3C, sternum D7C3A5, stomach B446A0,
subclavian_artery_left DA2222, subclavian_artery_right A21A1A, subcutaneous_fat FFF2B2,
superior_vena_cava 4A9012, tarsal C3D836, thyroid_gland FAD23C, tibia D83692, torso_fat FAEBA0,
trachea 00B4C8, ulna B236D8, urinary_bladder 365ED8, vertebrae_body BEA082, vertebrae_c1 F2D9B6,
vertebrae_c2 17FEDB, vertebrae_c3 3C2300, vertebrae_c4 614825, vertebrae_c5 866D4A, vertebrae_c6 AB926F,
vertebrae_c7 D0B794, vertebrae_l1 F5DCB9, vertebrae_l2 1A01DE, vertebrae_l3 3F2603, vertebrae_l4 644B28,
vertebrae_l5 89704D, vertebrae_s1 CDB491, vertebrae_t1 AE9572, vertebrae_t10 FBE2BF, vertebrae_t11 2007E4,
vertebrae_t12 452C09, vertebrae_t2 D3BA97, vertebrae_t3 F8DFBC, vertebrae_t4 1D04E1, vertebrae_t5 422906,
vertebrae_t6 674E2B, vertebrae_t7 8C7350, vertebrae_t8 B19875, vertebrae_t9 D6BD9A
"""


def _words(name: str) -> tuple[str, ...]:
    """The words of a name in alphabetical order: ``left kidney`` is ``kidney_left``; a lobe is the lung's."""
    words = re.findall(r"[^\W_]+", name.casefold())
    return tuple(sorted(word for word in words if word != "lung" or "lobe" not in words))


_COLOURS = {
    _words(name): f"#{colour}"
    for name, colour in (each.split() for each in _TABLE.split(",") if each.strip())
}


def structure_colour(name: str) -> str | None:
    """The colour, such as ``#D86C36``, of a structure that TotalSegmentator names; None for any other name.

    >>> structure_colour("aorta")
    '#D86C36'
    >>> structure_colour("left_lower_lobe") == structure_colour("lung_lower_lobe_left")
    True
    """
    return _COLOURS.get(_words(name))
