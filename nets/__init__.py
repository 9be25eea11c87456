"""Nets: the graph of layers, its execution plan, its weights, the paper's architectures and ONNX export."""

import imae.layers  # noqa: F401  first: it says how threads wait, which must be said before torch is loaded
