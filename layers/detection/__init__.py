"""Layers of detectors: default boxes, regions of interest, and what is left of them."""
