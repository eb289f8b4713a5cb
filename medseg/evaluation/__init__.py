"""Metrics, tables and statistical comparison of masks with their truth."""
