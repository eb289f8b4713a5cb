"""DICOM SOP classes (PS3.4 B.5, PS3.6 A) that medseg distinguishes: scans, masks and derived objects."""

from __future__ import annotations

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
DETACHED_STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"
"""Retired, but RT structure sets still refer to their study by it (PS3.3 C.8.8.5)."""

SEG = (SEGMENTATION, LABEL_MAP_SEGMENTATION)
"""Segmentations in voxels: BINARY and FRACTIONAL, and LABELMAP since 2024."""

RTSTRUCT = (RT_STRUCTURE_SET,)
"""Segmentations in contours."""

MASKS = (*SEG, *RTSTRUCT)
"""Masks that `medseg.io.read_mask` reads on the grid of their scan."""

NOT_SCANS = (*MASKS, PARAMETRIC_MAP, RT_DOSE)
"""Objects derived from scans; some have rows and columns like a scan."""

NOT_VOLUMES = (
    *NOT_SCANS,
    "1.2.840.10008.5.1.4.1.1.481.1",  # RT image
    "1.2.840.10008.5.1.4.1.1.7",  # secondary capture
    "1.2.840.10008.5.1.4.1.1.7.1",  # its multi-frame kinds: bit, grey byte, grey word, true colour
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
    "1.2.840.10008.5.1.4.1.1.7.4",
    "1.2.840.10008.5.1.4.1.1.1",  # computed radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # digital X-ray, for presentation and for processing
    "1.2.840.10008.5.1.4.1.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.6.1",  # ultrasound
    "1.2.840.10008.5.1.4.1.1.3.1",  # ultrasound, several frames
    "1.2.840.10008.5.1.4.1.1.12.1",  # X-ray angiography
    "1.2.840.10008.5.1.4.1.1.12.2",  # X-ray fluoroscopy
)
"""Images beside a scan that never are a volume of CT, MR or PET slices."""
