"""Names of a package that are imported on first use."""

import pytest

import medseg.io
from medseg.system.lazy_attributes import lazy_attribute


def test_a_name_is_taken_from_its_module_and_kept():
    from medseg.io.scans_and_masks import read

    vars(medseg.io).pop("read", None)
    assert medseg.io.read is read
    assert vars(medseg.io)["read"] is read


def test_an_unknown_name_is_an_attribute_error_with_the_package():
    with pytest.raises(AttributeError, match=r"module 'medseg\.io' has no attribute 'nothing'"):
        lazy_attribute("medseg.io", {"read": "medseg.io.scans_and_masks"}, "nothing")
