"""Nets: the graph of layers, its execution plan, its weights, the paper's architectures and ONNX export."""
