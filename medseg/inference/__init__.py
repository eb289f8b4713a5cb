"""Segmentation of one scan: models, sliding windows, the mask on the scan's own grid."""
