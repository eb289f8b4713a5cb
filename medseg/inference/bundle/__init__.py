"""Models of MONAI's bundles, applied as MONAI does: ``windows`` and ``runtime``."""
