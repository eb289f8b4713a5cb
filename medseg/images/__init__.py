"""Scans and masks as values: grids, labels, volumes, and what is computed on them."""
