"""Python: a layer whose passes are Python code of the user's, written for pycaffe."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imae.layers.layer import Diffs, Layer, OnnxGraph, Saved, Shapes, Tensors
from imae.layers.python_layer import Blob, describe_error, load_layer, running_python
from imae.prototxt_like.schema import FillerParameter


class Python(Layer):
    """Class `layer` of `module`, a subclass of `caffe.Layer`, which the working directory, the net's folder or
    PYTHONPATH has; it runs only where the caller allows code.

    As in pycaffe, `setup(bottom, top)` is called once, `reshape(bottom, top)` before each pass, `forward(bottom, top)`
    and `backward(top, propagate_down, bottom)` read and write `data` and `diff` of the blobs, float32 arrays. What it
    writes into a bottom's data does not reach the net; a bottom's diff is 0 before backward. For ONNX it may have a
    method `to_onnx(graph, bottom, top)`, which adds nodes to an `OnnxGraph` between the values of these names.
    """

    type = "Python"
    bottoms = (0, None)
    tops = (0, None)

    def setup(self, bottoms: Shapes) -> None:
        """Load the module, and have the layer set itself up."""
        own: Any = self.param.python_param
        if not own.module or not own.layer:
            raise self.error("python_param needs module and layer, the class in it")
        if not self.context.allow_python:
            raise self.error(
                f'would run Python code, of the module "{own.module}", which has to be allowed: by --allow-python, or '
                "allow_python=True"
            )
        self._folders = list(self.context.folders)
        self._dtype = np.float64 if self.context.dtype == torch.float64 else np.float32
        cls = self._run(lambda: load_layer(own.module, own.layer, self._folders))
        self._layer = self._run(lambda: cls(self.param))
        self._layer.param_str, self._layer.phase = own.param_str, self.phase
        self._bottoms = [Blob(shape, self._dtype) for shape in bottoms]
        in_place = dict(zip(self.param.bottom, self._bottoms, strict=True))
        self._tops = [in_place.get(name) or Blob(None, self._dtype) for name in self.param.top]
        self._run(lambda: self._layer.setup(self._bottoms, self._tops))
        for blob in self._layer.blobs:
            added = self.add_blob(blob.shape, FillerParameter(type="constant"))
            added.data.copy_(torch.from_numpy(blob.data))

    def reshape(self, bottoms: Shapes) -> Shapes | None:
        """Have the layer give its tops their shapes; None where it does so only in `forward`."""
        for blob, shape in zip(self._bottoms, bottoms, strict=True):
            blob.reshape(*shape)
        self._call(lambda: self._layer.reshape(self._bottoms, self._tops))
        return [top.shape for top in self._tops] if all(top.is_shaped for top in self._tops) else None

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        self._fill(self._bottoms, bottoms)
        self._call(lambda: self._layer.reshape(self._bottoms, self._tops))
        self._call(lambda: self._layer.forward(self._bottoms, self._tops))
        return [self._tensor(top.data) for top in self._tops]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        self._fill(self._bottoms, bottoms)
        self._fill(self._tops, tops)
        for blob in self._bottoms:
            blob.diff.fill(0)
        for top, diff in zip(self._tops, top_diffs, strict=True):
            top.diff[...] = diff.detach().cpu()
        self._call(lambda: self._layer.backward(self._tops, list(needs), self._bottoms))
        return [self._tensor(blob.diff) if need else None for blob, need in zip(self._bottoms, needs, strict=True)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """The user's own nodes, from the class's `to_onnx`."""
        if not hasattr(self._layer, "to_onnx"):
            own = self.param.python_param
            raise self.error(
                f"has no ONNX form, as its class {own.layer} (module {own.module}) has no method to_onnx(self, graph, "
                "bottoms, tops) that adds its nodes"
            )
        nodes = len(graph.nodes)
        self._call(lambda: self._layer.to_onnx(graph, list(bottoms), list(tops)))
        made = {name for node in graph.nodes[nodes:] for name in node.output}
        if missing := [name for name in tops if name not in made]:
            raise self.error(f'its to_onnx added no node that makes its top "{missing[0]}"')

    def _fill(self, blobs: Sequence[Blob], values: Tensors) -> None:
        for blob, value in zip(blobs, values, strict=True):
            blob.reshape(*value.shape)
            blob.data[...] = value.detach().to("cpu", torch.from_numpy(blob.data).dtype).numpy()

    def _tensor(self, values: np.ndarray) -> Tensor:
        """A copy for the net, as the layer goes on writing into its own."""
        return torch.tensor(values, dtype=self.context.dtype, device=self.context.device)

    def _call(self, method: Callable[[], Any]) -> None:
        """Call a method that sees the learnable blobs as they are, and may write them."""
        shown = [(blob, blob.data.cpu(), blob.diff.cpu()) for blob in self.blobs]
        for own, (_, data, diff) in zip(self._layer.blobs, shown, strict=False):
            own.show(data.numpy(), diff.numpy())
        self._run(method)
        for blob, data, diff in shown:
            if blob.data.device.type != "cpu":
                blob.data.copy_(data)
                blob.diff.copy_(diff)

    def _run(self, code: Callable[[], Any]) -> Any:
        """Run code of the user's; what it raises becomes an InputError that names the layer, the file and the line."""
        try:
            with running_python(self._folders):
                return code()
        except (Exception, SystemExit) as error:
            raise self.error(describe_error(error)) from error
