"""Net: layers wired by blob names, run forward and backward."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imae.layers.data.data_layer import DataLayer
from imae.layers.data.input import Input
from imae.layers.data.memory_data import MemoryData
from imae.layers.layer import TEST, Blob, Context, Layer, Shape, Shapes, Tensors, describe
from imae.layers.pass_counter import PassCounter
from imae.layers.registry import create_layer
from imae.layers.values import as_tensor
from imae.nets.blobs import NamedBlobs
from imae.nets.precision import set_gpu_arithmetic
from imae.nets.rules import fused_plan
from imae.nets.state import filter_layers, left_out, set_state
from imae.nets.step import Observer, Step, plan_liveness, values_made
from imae.nets.storage import Storage, as_array, copy_array
from imae.prototxt_like.binary import array_to_blob
from imae.prototxt_like.blobs import Stored
from imae.prototxt_like.errors import InputError, counted
from imae.prototxt_like.limits import check_message
from imae.prototxt_like.provenance import of_net
from imae.prototxt_like.schema import BlobProto, ImaeProvenance, LayerParameter, NetParameter, ParamSpec
from imae.prototxt_like.text import did_you_mean, read_net
from imae.prototxt_like.weights import open_weights, write_weights

_RENAME = "; to learn this layer from scratch instead, rename it"  # Caffe's advice on another layer of that name


@dataclass
class CopyReport:
    """What `Net.copy_weights` did, by layer names."""

    copied: list[str]
    kept: list[str]  # layers of the net whose blobs the source lacks
    unused: list[str]  # layers of the source whose blobs the net lacks
    provenance: ImaeProvenance | None  # where the source is from, if it says so


class Net:
    """A net in one phase.

    `params` holds each layer's learnable blobs, `learnable` all of them once, in order, shared ones under their first
    owner. After a pass `blobs` and `diffs` hold the named values and their gradients, unless `keep_blobs` is off.
    """

    def __init__(
        self,
        param: NetParameter | str | Path,
        phase: int = TEST,
        *,
        level: int | None = None,
        stages: Sequence[str] = (),
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        folder: Path | None = None,
        backward: bool = True,
        plan: str = "plain",
        tf32: bool | None = False,
        allow_python: bool = False,
        skip_broken: bool = False,
        filled: bool = True,
    ) -> None:
        """Build the net that a prototxt (read, or its path) describes in `phase`, with `stages`.

        A `level` goes before the prototxt's own. Relative paths in it are looked up in the working directory, then in
        `folder` (a file's own, by default). `seed` determines the initial weights and everything random in the passes.
        Without `backward` nothing is kept for one. On the device "meta" there are shapes alone, at once and in no
        memory. The plan "fused" runs chains of layers as one (`imae.nets.rules`), whose inner values `blobs` then
        lacks. `tf32` lets a GPU round the factors of float32 products, from then on in the whole process; with None
        that stays as it is. With `allow_python` Python layers run the code that they name; with `skip_broken`
        ImageData, WindowData and MarsData leave out images that cannot be read. Without `filled` the weights are 0
        until others are copied or shared, and take no memory of a CPU's before. Raises InputError for what is wrong in
        the prototxt, naming the layer.
        """
        if not isinstance(param, NetParameter):
            folder = folder or Path(param).parent
            param = read_net(param)
        check_message(param, "net")
        param = deepcopy(param)
        set_state(param.state, phase, level, stages)
        self._whole, self.param = param, filter_layers(param)
        self.name: str = param.name
        self.context = Context(
            phase=phase,
            device=torch.device(device),
            dtype=dtype,
            folders=(Path(), folder) if folder else (Path(),),
            generator=torch.Generator().manual_seed(seed),
            passes=PassCounter(seed, device=torch.device(device)),
            allow_python=allow_python,
            skip_broken=skip_broken,
            filled=filled,
        )
        if self.context.device.type == "cuda" and tf32 is not None:
            set_gpu_arithmetic(tf32=tf32)
        self.names: list[str] = []
        self._shapes_changed = False
        self._users: dict[int, str] = {}  # of values that no later layer may overwrite: what uses them
        self.shapes: list[Shape] = []
        self.newest: dict[str, int] = {}
        self.steps = [self._add_step(layer_param) for layer_param in self.param.layer]
        self.params = self._collect_params()
        self.learnable = self._share_params()
        self.storage = Storage(self.learnable, plain=[owner for _, owner in self._views], filled=filled)
        for blob, owner in self._views:
            blob.data, blob.diff = owner.data.view(blob.shape), owner.diff.view(blob.shape)
            blob.lr_mult, blob.decay_mult = owner.lr_mult, owner.decay_mult
        self._no_derivative: tuple[Layer, int] | None = None
        """A layer that is asked for the derivative by a bottom such as labels, and that bottom's place."""
        if backward:
            self._plan_backward()
        self._hold_indices = _indices(self.steps)
        self._fused = plan == "fused"
        self.plan = fused_plan(self.steps) if self._fused else self.steps
        read = {bottom for step in self.steps for bottom in step.bottoms}
        fed = [top for step in self.steps if isinstance(step.layer, Input) for top in step.tops]
        self.input_values = {self.names[top]: top for top in fed}
        """The number of the value that is fed, by input: another than that of its blob where a layer works in place."""
        self.inputs = list(self.input_values)
        self.outputs = sorted(name for name, value in self.newest.items() if value not in read)
        self._recomputing = {top: step for step in self.plan if step.layer.recomputes for top in step.tops}
        plan_liveness(self.plan, {self.newest[name] for name in self.outputs})
        self.observer: Observer | None = None  # told in a pass of what each layer makes
        self.keep_blobs = True  # whether a pass leaves all in `blobs` and `diffs`; else each goes after its last reader
        self.loss = torch.zeros(())
        self._made = values_made(self.plan)
        self.blobs = NamedBlobs(self.newest, self._why_not, self.shape, dtype)
        self.diffs = NamedBlobs(self.newest, self._why_not, self.shape, dtype, gradients=True)
        self._values = self._no_values()

    # Shapes

    def shape(self, name: str) -> Shape:
        """Return the shape of the blob `name`; raises InputError if there is none."""
        if name not in self.newest:
            raise InputError(self._why_not(name))
        self._settle_shapes()
        return self.shapes[self.newest[name]]

    def holds_indices(self, value: int) -> bool:
        """Return whether layers make or read the value of this number as integers, such as labels."""
        return value in self._hold_indices

    def reshape(self, **inputs: Sequence[int]) -> None:
        """Give `inputs` (of the net's Input layers, by name) other shapes, and all blobs theirs that follow.

        Raises InputError for an unknown input, or where a layer cannot take what follows; the net stays as it was then.
        """
        before = list(self.shapes)
        for name, shape in inputs.items():
            self.shapes[self._input(name)] = tuple(int(size) for size in shape)
        self._shapes_changed = True
        try:
            for step in self.steps:
                if isinstance(step.layer, Input):
                    step.layer.reshape([self.shapes[top] for top in step.tops])
            self._settle_shapes()
        except InputError:
            self.shapes, self._shapes_changed = before, True
            self._settle_shapes()
            raise

    def _settle_shapes(self) -> None:
        """Reshape the layers below a source whose shape has changed."""
        if not self._shapes_changed:
            return
        for step in self.steps:
            bottoms = [self.shapes[bottom] for bottom in step.bottoms]
            if step.bottoms and bottoms != step.shapes:
                self._reshape(step, bottoms)
        self._shapes_changed = False

    def _reshape(self, step: Step, bottoms: Shapes) -> None:
        shapes = step.layer.reshape(bottoms)
        step.shapes = bottoms
        for top, shape in zip(step.tops, shapes or (), strict=shapes is not None):
            self.shapes[top] = shape

    # Running

    def forward(
        self, *, start: str | None = None, end: str | None = None, **inputs: Tensor | np.ndarray
    ) -> dict[str, Tensor]:
        """Run all layers, or those from layer `start` to layer `end`, and return the net's outputs (or `end`'s tops).

        `inputs` feed the net's Input layers, by name, with real numbers of any dtype, which become floats, in any shape
        that the layers take; an input that is not given is read from `blobs`, and so are the tops of layers before
        `start`. A pass reads batch `context.passes.number` of its data layers, and advances that counter; one from
        `start` on continues the pass before. `loss` becomes the weighted sum of the losses (a scalar tensor). Gradients
        come from `backward`: autograd through an output or the loss raises InputError.
        """
        steps = self._between(start, end)
        for name in inputs:
            self._input(name)
        self._values = values = self._before(steps) if start else self._no_values()
        if start:
            self.context.passes.go_back()
        loss: Tensor | None = None
        for step in steps:
            tops = self._run(step, values, inputs)
            for index, top, weight in zip(step.tops, tops, step.loss_weights, strict=True):
                values[index] = top
                if weight:
                    term = weight * top.sum()
                    loss = term if loss is None else loss + term
            if self.observer:
                self.observer.forward(step, tops)
            if step.backward:
                step.made = [(top.shape, top.dtype) for top in tops]
            else:
                step.saved = {}
            del tops
            if not self.keep_blobs:
                for index in step.last_read:
                    values[index] = None
        self.context.passes.advance()
        self.loss = torch.zeros((), device=self.context.device) if loss is None else loss
        if self.keep_blobs:
            made = ((self.names[top], values[top]) for step in steps for top in step.tops)
            self.blobs.update({name: top for name, top in made if top is not None and name in self.newest})
        if end is not None:
            return {self.names[top]: _present(values[top]) for top in steps[-1].tops}
        return {name: _present(values[self.newest[name]]) for name in self.outputs}

    def value(self, index: int) -> Tensor:
        """Return a value of the last pass by its number, also one that a layer in its place has replaced in `blobs`."""
        return _present(self._values[index])

    def backward(
        self,
        top_diffs: Mapping[str, Tensor | np.ndarray] | None = None,
        *,
        start: str | None = None,
        end: str | None = None,
    ) -> None:
        """Run all layers backward from the last forward pass, adding to the `diff` of each learnable blob.

        The gradient starts at the weighted losses, and at `top_diffs` of named blobs where they are given. With `start`
        only the layers from there down to `end` run, from what stands in `diffs` under the tops of `start`. Raises
        InputError for a diff that is of no blob's name, or not of its shape, and for a layer that is asked for the
        derivative by labels or other indices.
        """
        if self._no_derivative:
            raise self._refusal()
        steps = self._between(end, start)
        diffs: list[Tensor | None] = [None] * len(self.names)
        values = list(self._values) if self.keep_blobs else self._values
        if start is not None:
            for top in steps[-1].tops:
                if not any(steps[-1].loss_weights):
                    diffs[top] = self._placed(self.diffs.current(self.names[top]), top)
        for name, diff in (top_diffs or {}).items():
            index, given = self._given_diff(name, diff)
            diffs[index] = given
        for step in reversed(steps):
            if not step.backward:
                continue
            if step.made is None:
                raise InputError(f'net "{self.name}": backward follows a forward pass')
            arrived = [diffs[top] for top in step.tops]
            for i, weight in enumerate(step.loss_weights):
                if weight:
                    arrived[i] = _sum(arrived[i], self._constant(weight, step.made[i]))
            if any(diff is not None for diff in arrived):
                complete = [
                    self._constant(0.0, like) if diff is None else diff
                    for diff, like in zip(arrived, step.made, strict=True)
                ]
                bottoms = self._read(values, step.bottoms, step.kept.bottoms)
                tops = self._read(values, step.tops, step.kept.tops)
                bottom_diffs = step.layer.backward(bottoms, tops, complete, step.saved, step.needs)
                del bottoms, tops
                if self.observer:
                    self.observer.backward(step, complete, bottom_diffs)
                for bottom, bottom_diff, need in zip(step.bottoms, bottom_diffs, step.needs, strict=False):
                    if need:
                        diffs[bottom] = _sum(diffs[bottom], bottom_diff)
            if not self.keep_blobs:
                step.saved, step.made = {}, None
                for top in step.tops:
                    diffs[top] = None
                for index in step.last_kept:
                    values[index] = None
        if self.observer:
            self.observer.end_of_backward()
        if not self.keep_blobs:
            self._values = self._no_values()
            return
        # In-place layers make several values of one name: the gradient of the first, computed last, is the name's.
        arrived_at = reversed([*zip(self.names, diffs, strict=True)])
        self.diffs.update({name: diff for name, diff in arrived_at if diff is not None and name in self.newest})

    def _refusal(self) -> InputError:
        """The error that names the layer without the derivative that it is asked for."""
        assert self._no_derivative is not None
        layer, i = self._no_derivative
        return layer.error(
            f'has no derivative by its bottom "{layer.param.bottom[i]}", but is asked for one: it depends on what '
            "is learned, or propagate_down is true in its place; false there takes it as given"
        )

    def _run(self, step: Step, values: Sequence[Tensor | None], inputs: Mapping[str, Tensor | np.ndarray]) -> Tensors:
        """Run a step forward on the `values` of this pass, and return its tops."""
        layer, step.saved = step.layer, {}
        if isinstance(layer, Input):
            tops = [self._fed(*top, inputs) for top in zip(layer.param.top, step.tops, strict=True)]
        elif isinstance(layer, DataLayer):
            tops = [self._placed(*top) for top in zip(layer.forward([], {}), step.tops, strict=True)]
        else:
            bottoms = [_present(values[bottom]) for bottom in step.bottoms]
            if (shapes := [bottom.shape for bottom in bottoms]) != step.shapes:
                self._reshape(step, [tuple(shape) for shape in shapes])
                self._shapes_changed = True
            tops = layer.forward(bottoms, step.saved)
        for index, top in zip(step.tops, tops, strict=True):
            if self.shapes[index] != top.shape:
                self.shapes[index], self._shapes_changed = tuple(top.shape), True
        return tops

    def _between(self, first: str | None, last: str | None) -> Sequence[Step]:
        """The steps from layer `first` to layer `last`, both included."""
        if first is None and last is None:
            return self.plan
        if self._fused:
            raise InputError(f'net "{self.name}": the fused plan runs whole, the plan "plain" from layer to layer')
        places = {step.layer.name: place for place, step in enumerate(self.plan)}
        for name in (first, last):
            if name is not None and name not in places:
                raise InputError(f'net "{self.name}": has no layer "{name}"{did_you_mean(name, places)}')
        begin, stop = places[first] if first else 0, places[last] + 1 if last else len(self.plan)
        if begin >= stop:
            raise InputError(f'net "{self.name}": layer "{first}" comes after layer "{last}"')
        return self.plan[begin:stop]

    def _no_values(self) -> list[Tensor | None]:
        return [None] * len(self.names)

    def _before(self, steps: Sequence[Step]) -> list[Tensor | None]:
        """The values for a pass through `steps` alone: those that they read from outside come from `blobs`."""
        values, made = list(self._values), values_made(steps)
        for index in {bottom for step in steps for bottom in step.bottoms} - made:
            values[index] = self._placed(self.blobs.current(self.names[index]), index)
        return values

    def _read(self, values: list[Tensor | None], numbers: Sequence[int], kept: Sequence[int]) -> list[Tensor]:
        """The values for a backward: those of the places `kept`, and a stand-in for the others."""
        return [self._kept(values, index) if i in kept else _ABSENT for i, index in enumerate(numbers)]

    def _kept(self, values: list[Tensor | None], index: int) -> Tensor:
        """A value that was kept for backward, or is recomputed now."""
        if values[index] is None:
            producer = self._recomputing[index]
            bottoms = [self._kept(values, bottom) for bottom in producer.bottoms]
            for top, value in zip(producer.tops, producer.layer.recompute(bottoms, producer.saved), strict=True):
                values[top] = value
        return _present(values[index])

    def _why_not(self, name: str) -> str:
        """Why `blobs` and `diffs` do not have `name`; empty where they do."""
        if name not in self.newest:
            return f'net "{self.name}": has no blob "{name}"{did_you_mean(name, self.newest)}'
        if not self.keep_blobs:
            return f'net "{self.name}": without keep_blobs a pass leaves its outputs alone'
        if self.newest[name] not in self._made:
            return f'net "{self.name}": blob "{name}" lies inside fused layers; the plan "plain" has it'
        return ""

    def set_input_arrays(
        self, data: Tensor | np.ndarray, labels: Tensor | np.ndarray, layer: str | None = None
    ) -> None:
        """Give the MemoryData layer called `layer`, by default the first, its data and labels, as its own method does.

        Raises InputError if the net has no such layer, or the arrays do not fit it.
        """
        for step in self.steps:
            if isinstance(step.layer, MemoryData) and layer in (None, step.layer.name):
                return step.layer.set_input_arrays(data, labels)
        raise InputError(f'net "{self.name}": has no MemoryData layer' + (f' "{layer}"' if layer else ""))

    def check(self) -> None:
        """Raise the InputErrors that passes on a GPU have deferred, such as for a label that is no class."""
        self.context.checks.look()

    def clear_diffs(self) -> None:
        """Set the `diff` of every learnable blob to zero."""
        self.storage.diff.zero_()

    def reseed(self, seed: int, forwards: int) -> None:
        """Continue as a net made with `seed` does after `forwards` passes; the weights stay."""
        self.context.passes.seed, self.context.passes.number = seed, forwards

    # Weights

    def copy_weights(self, source: NetParameter | Stored | str | Path) -> CopyReport:
        """Copy the blobs of the layers that `source` (a net, or weights or their path) has under the same name.

        It may lack blobs that are another layer's by a shared name, as what Caffe writes as HDF5 does. Raises
        InputError where a layer's blobs differ in number or shape, or one is not finite; nothing is copied then.
        """
        if not isinstance(source, Stored):
            source = Stored(source) if isinstance(source, NetParameter) else open_weights(source)
        given = {layer.name: layer.blobs for layer in source.message.layer if layer.blobs}
        copies = [copy for name in self.params if name in given for copy in self.copies(name, given[name], source)]
        for data, array in copies:
            copy_array(data, array)
        return CopyReport(
            copied=[name for name in self.params if name in given],
            kept=[name for name in self.owners if name not in given],
            unused=[name for name in given if name not in self.params],
            provenance=of_net(source.message),
        )

    def copies(self, name: str, stored: Sequence[BlobProto], source: Stored) -> list[tuple[Tensor, np.ndarray]]:
        """Return the data of layer `name`'s blobs, each with the array, of those `stored` in `source`, that goes there.

        Those may be missing that another layer shares. Raises InputError if they differ in number or shape, or one
        is not finite.
        """
        blobs = self.params[name]
        held = {i: proto for i, proto in enumerate(stored) if proto.ByteSize()}
        own = {i for i in range(len(blobs)) if (name, i) not in self._shared}
        if not own <= set(held) <= set(range(len(blobs))):
            raise InputError(
                f'layer "{name}": has {counted(len(blobs), "blob")}, {source.origin} has {len(held)}{_RENAME}'
            )
        return [
            (blobs[i].data, self._fitting(f'layer "{name}": blob {i}', blobs[i], proto, source))
            for i, proto in held.items()
        ]

    def share_weights(self, other: "Net") -> None:
        """Let layers of this net share memory with `other`'s layers of the same names: data and gradients.

        Raises InputError where shapes differ.
        """
        for name, blobs in self.params.items():
            if len(theirs := other.params.get(name, [])) not in (0, len(blobs)):
                raise InputError(
                    f'layer "{name}": has {counted(len(blobs), "blob")} in one net and {len(theirs)} in the other'
                )
            for i, (mine, their) in enumerate(zip(blobs, theirs, strict=False)):
                if mine.shape != their.shape:
                    shapes = f"{describe(mine.shape)} in one net and {describe(their.shape)} in the other"
                    raise InputError(f'layer "{name}": blob {i} is {shapes}')
                mine.data, mine.diff = their.data, their.diff

    @property
    def owners(self) -> list[str]:
        """The layers with blobs of their own."""
        return [
            name for name, blobs in self.params.items() if any((name, i) not in self._shared for i in range(len(blobs)))
        ]

    def to_proto(self, *, diffs: bool = False) -> NetParameter:
        """Return the net with its weights, and their gradients by option, as a caffemodel holds it."""
        param = deepcopy(self.param)
        for layer in param.layer:
            for blob in self.params.get(layer.name, []):
                layer.blobs.append(array_to_blob(as_array(blob.data), as_array(blob.diff) if diffs else None))
        return param

    def write_weights(self, path: str | Path, *, diffs: bool = False, provenance: ImaeProvenance | None = None) -> None:
        """Write what `to_proto` returns, and where it is from, in the form of the path's ending, by default binary.

        No copy of all weights is made, but in binary of those that lie in memory in another order. Raises InputError if
        a caffemodel would be larger than protobuf's 2 GiB, or `path` cannot be written.
        """
        param = deepcopy(self.param)
        if provenance:
            param.imae_provenance.CopyFrom(provenance)
        once = self._shared if str(path).endswith(".h5") else ()
        blobs = {
            name: [
                (None if (name, i) in once else blob.data, blob.diff if diffs else None) for i, blob in enumerate(blobs)
            ]
            for name, blobs in self.params.items()
        }
        write_weights(path, param, blobs, as_array)

    # Building

    def _add_step(self, param: LayerParameter) -> Step:
        """Create the layer, set it up on its bottoms' shapes, and number its tops."""
        layer = self._connected(param)
        bottoms = [self.newest[name] for name in param.bottom]
        bottom_shapes = [self.shapes[bottom] for bottom in bottoms]
        layer.setup(bottom_shapes)
        shapes = layer.reshape(bottom_shapes)
        if shapes is None:  # known only from a pass: run one on zeros
            context = self.context
            zeros = [torch.zeros(shape, dtype=context.dtype, device=context.device) for shape in bottom_shapes]
            shapes = [tuple(top.shape) for top in layer.forward(zeros, {})]
        if len(param.param) > len(layer.blobs):
            raise layer.error(
                f"has {counted(len(layer.blobs), 'learnable blob')}, but {counted(len(param.param), 'param setting')}"
            )
        tops = list(range(len(self.names), len(self.names) + len(shapes)))
        self.newest.update(zip(param.top, tops, strict=False))  # an anonymous top has no name to read it by
        self.names += layer.param.top
        self.shapes += shapes
        self._users |= dict.fromkeys(bottoms, f'layer "{layer.name}" reads')
        self._users |= {top: "the loss counts" for top, weight in zip(tops, param.loss_weight, strict=False) if weight}
        return Step(layer, bottoms, tops, layer.loss_weights(), [False] * len(bottoms), False, bottom_shapes)

    def _connected(self, param: LayerParameter) -> Layer:
        """Create the layer, and check that its bottoms are there and its tops are new."""
        if not param.HasField("phase"):
            param.phase = self.context.phase
        layer = create_layer(param, self.context)
        for name in param.bottom:
            if name not in self.newest:
                hint = left_out(name, self._whole) or did_you_mean(name, self.newest)
                raise layer.error(f'no layer before it produces its bottom "{name}"{hint}')
        for i, name in enumerate(param.top):
            in_place = i < len(param.bottom) and param.bottom[i] == name
            if (name in self.newest and not in_place) or name in list(param.top)[:i]:
                raise layer.error(f'its top "{name}" is produced by another layer already')
            if in_place and (user := self._users.get(self.newest[name])):
                raise layer.error(f'cannot overwrite "{name}", which {user}: its top needs another name')
        if param.propagate_down and len(param.propagate_down) != len(param.bottom):
            given, bottoms = len(param.propagate_down), len(param.bottom)
            raise layer.error(f"propagate_down must be given for each of its {bottoms} bottoms, not {given}")
        return layer

    def _collect_params(self) -> dict[str, list[Blob]]:
        params: dict[str, list[Blob]] = {}
        for step in self.steps:
            if step.layer.blobs:
                if step.layer.name in params:
                    raise step.layer.error("another layer with learnable blobs has the same name")
                params[step.layer.name] = step.layer.blobs
        return params

    def _share_params(self) -> list[Blob]:
        """Give blobs named alike by their layers' `param` one owner, the first; return the owners in order."""
        owners: dict[str, tuple[Layer, Blob, ParamSpec]] = {}
        learnable: list[Blob] = []
        self._views: list[tuple[Blob, Blob]] = []
        self._shared: set[tuple[str, int]] = set()  # layers and numbers of blobs that are another layer's
        for step in self.steps:
            layer = step.layer
            for i, blob in enumerate(layer.blobs):
                spec = layer.param.param[i] if i < len(layer.param.param) else ParamSpec()
                if not spec.name or spec.name not in owners:
                    learnable.append(blob)
                    if spec.name:
                        owners[spec.name] = layer, blob, deepcopy(spec)
                    continue
                first, owner, owner_spec = owners[spec.name]
                permissive = spec.share_mode == ParamSpec.PERMISSIVE
                if (blob.data.numel() != owner.data.numel()) if permissive else (blob.shape != owner.shape):
                    raise layer.error(
                        f'cannot share param "{spec.name}" of layer "{first.name}": it is {describe(owner.shape)} '
                        f"there, {describe(blob.shape)} here"
                    )
                for multiplier in ("lr_mult", "decay_mult"):
                    if spec.HasField(multiplier):
                        value = getattr(spec, multiplier)
                        if owner_spec.HasField(multiplier) and getattr(owner_spec, multiplier) != value:
                            raise layer.error(f'shares param "{spec.name}" with another {multiplier}')
                        setattr(owner_spec, multiplier, value)
                        setattr(owner, multiplier, value)
                self._shared.add((layer.name, i))
                if blob.shape == owner.shape:
                    layer.blobs[i] = owner
                else:
                    self._views.append((blob, owner))
        return learnable

    def _plan_backward(self) -> None:
        """Decide which layers run backward and which bottoms get a gradient, as Caffe's Net::Init does."""
        differentiable: set[int] = set()  # values that depend on something learned
        asked: list[tuple[Step, int]] = []  # bottoms, such as labels, by which there is no derivative
        for step in self.steps:
            propagate = list(step.layer.param.propagate_down) or [bottom in differentiable for bottom in step.bottoms]
            step.needs = [need and i not in step.layer.no_gradient_to for i, need in enumerate(propagate)]
            refused = step.layer.no_gradient_to - step.layer.held_fixed
            asked += [(step, i) for i, need in enumerate(propagate) if need and i in refused]
            learns = any(blob.lr_mult for blob in step.layer.blobs)
            step.backward = learns or any(bottom in differentiable for bottom in step.bottoms)
            if step.backward:
                differentiable.update(step.tops)
        arriving: set[int] = set()  # values that a later layer gives a gradient to
        for step in reversed(self.steps):
            if not any(step.loss_weights) and arriving.isdisjoint(step.tops):
                step.backward = False
                step.needs = [False] * len(step.needs)
            arriving.update(bottom for bottom, need in zip(step.bottoms, step.needs, strict=True) if need)
        self._no_derivative = next(((step.layer, i) for step, i in asked if step.backward), None)
        if self.param.force_backward:
            for step in self.steps:
                step.backward = True
                step.needs = [i not in step.layer.no_gradient_to for i in range(len(step.bottoms))]
                for blob in step.layer.blobs:
                    blob.forced = True

    # Values

    def _input(self, name: str) -> int:
        """The number of the input `name`."""
        if name not in self.inputs:
            known = ", ".join(self.inputs) or "none: its data comes from its data layers"
            raise InputError(f'net "{self.name}": "{name}" is no input of it; inputs are {known}')
        return self.input_values[name]

    def _fed(self, name: str, index: int, inputs: Mapping[str, Tensor | np.ndarray]) -> Tensor:
        if name in inputs:
            return self._placed(as_tensor(inputs[name], f'net "{self.name}": input "{name}"'), index)
        if name not in self.blobs.written():
            raise InputError(f'net "{self.name}": its input "{name}" was not given')
        return self._placed(self.blobs[name], index)

    def _given_diff(self, name: str, diff: Tensor | np.ndarray) -> tuple[int, Tensor]:
        """The number of the blob `name`, and the gradient that the caller gives by it, in the blob's precision."""
        what = f'net "{self.name}": the gradient by "{name}"'
        index = self.newest.get(name)
        step = next((step for step in self.plan if index in step.tops), None)
        if index is None or step is None:
            made = [self.names[top] for step in self.plan for top in step.tops]
            raise InputError(f"{what}: the net's plan makes no such blob{did_you_mean(name, made)}")
        value, dtype = as_tensor(diff, what), self._precision(index)
        if step.backward and step.made is not None:
            shape, dtype = step.made[step.tops.index(index)]
            if value.shape != shape:
                raise InputError(f"{what} is {describe(value.shape)}, not {describe(shape)}")
        return index, value.to(self.context.device, dtype)

    def _placed(self, value: Tensor, index: int) -> Tensor:
        """`value` on the net's device, a float as Caffe's values are; images channels last."""
        value = value.to(self.context.device, self._precision(index))
        return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value

    def _precision(self, index: int) -> torch.dtype:
        """The dtype in which a value enters the net: the net's, for indices float32 at least."""
        dtype = self.context.dtype
        return torch.promote_types(dtype, torch.float32) if index in self._hold_indices else dtype

    def _constant(self, value: float, like: tuple[Shape, torch.dtype]) -> Tensor:
        shape, dtype = like
        return torch.full(shape, value, dtype=dtype, device=self.context.device)

    @staticmethod
    def _fitting(what: str, blob: Blob, proto: BlobProto, source: Stored) -> np.ndarray:
        """The array of a stored blob, if its shape is the blob's; files from before N-d blobs pad with axes of 1."""
        array = source.array(proto, f"{source.origin}: {what}")
        shape = array.shape
        if not proto.HasField("shape"):
            padded = (1,) * (4 - len(blob.shape)) + blob.shape
            shape = blob.shape if shape == padded else shape
        if shape != blob.shape:
            raise InputError(f"{what} is {describe(blob.shape)}, {source.origin} has {describe(shape)}{_RENAME}")
        return array.reshape(blob.shape)


_ABSENT = torch.empty(0)  # stands for a value that backward does not read


def _indices(steps: Sequence[Step]) -> set[int]:
    """The values that layers declare as indices, and those that their numbers come from unchanged."""
    found: set[int] = set()
    for step in reversed(steps):
        found.update(step.tops[i] for i in step.layer.index_tops if i < len(step.tops))
        found.update(step.bottoms[i] for i in step.layer.index_bottoms if i < len(step.bottoms))
        for i, top in enumerate(step.tops):
            if top in found:
                found.update(step.bottoms[k] for k in step.layer.moved_from(i))
    return found


def _present(value: Tensor | None) -> Tensor:
    assert value is not None, "a value was released before its last reader"
    return value


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b
