from __future__ import annotations

import pytest

from medseg.measurement.kernels import is_sharp


@pytest.mark.parametrize(
    ("kernel", "sharp"),
    [
        ("B31f", False),
        ("B45f", True),
        ("B46f", True),
        ("Br38f 3", False),
        ("Bl57d", True),
        ("STANDARD", False),
        ("LUNG", True),
        ("BONEPLUS", True),
        ("B", False),
        ("D", True),
        ("FC13", False),
        ("FC51", True),
        ("FC30", True),
        ("", None),
        ("house brand", None),
    ],
)
def test_kernels_of_the_manufacturers(kernel, sharp):
    assert is_sharp(kernel) is sharp
