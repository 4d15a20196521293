"""Regression with L1, against the exact path and `LassoCV`."""
