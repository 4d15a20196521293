"""Learned augmentation, and two ways to go wrong."""
