"""Preparation of scans for the network, identical in training and inference, and augmentation."""
