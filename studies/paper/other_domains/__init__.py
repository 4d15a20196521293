"""Calibration by learned noise on data that are no images: text, sequences with padding, and tables."""
