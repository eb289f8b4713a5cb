"""Data sets for training and evaluation: manifests, folder layouts, splits and data checks."""
