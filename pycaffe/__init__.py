"""Caffe's Python interface: so far what layers in Python need, which is what `import caffe` gives them."""

from imae.layers.python_layer import Blob, Layer
from imae.prototxt_like.schema import TEST, TRAIN

__all__ = ["TEST", "TRAIN", "Blob", "Layer"]
