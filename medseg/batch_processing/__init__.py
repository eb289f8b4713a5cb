"""Segmentation of many scans by several processes; it can be resumed after an interruption at any moment."""
