"""Layers that put blobs together, take them apart, or reshape them, and Softmax."""
