"""Cases for training and evaluation: manifests, folder layouts, splits and checks of the data."""
