"""Series of a DICOMweb server: their addresses, copies of them in a folder, and masks stored beside them."""
