"""Whether a reconstruction kernel is sharp, by its manufacturer's name for it.

Sharp kernels raise the noise of a voxel, and with it every share below a threshold. The lists are ours, from
the manufacturers' naming: of Siemens' families the number grows with sharpness (COPDGene's B31f is smooth,
its B46f sharp); GE, Philips and Canon name their lung and bone kernels.
"""

from __future__ import annotations

import re

_SIEMENS = re.compile(r"(?:B|H|I|BR|BL|BV|BF|HR|UB|QR|J)(\d\d)[A-Z]?")
_SIEMENS_SHARP = 45
_CANON = re.compile(r"FC(\d\d)")
_CANON_SHARP = (range(30, 40), range(50, 60), range(80, 90))
_SHARP = {"LUNG", "BONE", "BONEPLUS", "EDGE", "ULTRA", "D", "E", "L", "YC", "YD"}
_SMOOTH = {"STANDARD", "SOFT", "DETAIL", "A", "B", "C", "YA", "YB"}


def is_sharp(kernel: str) -> bool | None:
    """Whether the kernel is sharp; None if its name is unknown.

    >>> is_sharp("B31f"), is_sharp("BONEPLUS"), is_sharp("house brand")
    (False, True, None)
    """
    name = (kernel.split() or [""])[0].upper()
    if name in _SHARP | _SMOOTH:
        return name in _SHARP
    siemens, canon = _SIEMENS.fullmatch(name), _CANON.fullmatch(name)
    if siemens:
        return int(siemens[1]) >= _SIEMENS_SHARP
    if canon:
        return any(int(canon[1]) in part for part in _CANON_SHARP)
    return None
