"""Metrics, intervals, calibration and leak checks on numpy arrays; never imports torch."""
