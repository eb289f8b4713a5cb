"""Segmentation of many scans by several processes, resumable at any moment."""
