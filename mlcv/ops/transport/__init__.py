"""Conditional transport between an image's patches and its labels."""
