"""Predictions averaged over noise draws: their scores, their calibration, and models exported for them."""
