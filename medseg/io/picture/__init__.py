"""PNG, JPEG and TIFF: scans of one plane, in grey or colour, and masks as label values or colours."""
