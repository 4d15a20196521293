"""Accuracy: learned noise against none, against what is chosen out of a grid, and against a population."""
