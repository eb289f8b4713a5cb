"""Metrics of masks against their truth, summary tables and statistical comparison of models."""
