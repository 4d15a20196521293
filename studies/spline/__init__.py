"""Smoothing splines, against generalized cross-validation."""
