"""What each type of layer becomes in an exported model, in words for the documents."""

import inspect
import re

from imae.layers.activation.neuron import Neuron
from imae.layers.data.data_layer import DataLayer
from imae.layers.data.input import Input
from imae.layers.layer import Layer
from imae.nets.deploy import inside


def onnx_form(layer: type[Layer]) -> str:
    """Return the first paragraph of its `to_onnx`, else the operators that this adds, or whose place the layer has."""
    if issubclass(layer, DataLayer | Input):
        return "an input of the model"
    if layer.to_onnx is Layer.to_onnx:
        return f"the {inside(layer)} inside it" if inside(layer) else "left out, with what is computed from it alone"
    if layer.to_onnx is Neuron.to_onnx:
        return layer.onnx_operator if issubclass(layer, Neuron) else ""
    if layer.to_onnx.__doc__:
        return " ".join(layer.to_onnx.__doc__.partition("\n\n")[0].split()).rstrip(".")
    source = inspect.getsource(layer.to_onnx)
    added = re.findall(r'graph\.(?:node|add|reduce)\(\s*"(\w+)"|graph\.(cast|reshape|squeeze|unsqueeze)\(', source)
    return ", ".join(dict.fromkeys(named or helper.capitalize() for named, helper in added))
