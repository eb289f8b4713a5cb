"""Segmentation of a single scan: models, sliding windows, and the mask on the scan's own grid."""
