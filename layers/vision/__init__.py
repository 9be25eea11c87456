"""Layers over images: convolution, pooling, and what changes the size of images."""
