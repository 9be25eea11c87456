"""Python layers: classes written for pycaffe, which run unchanged, and only where code is allowed."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from imae.layers.layer import TEST, TRAIN
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net, parse_solver
from imae.solvers.solver import Solver

LAYERS = '''
import caffe
import numpy as np
import json


class EuclideanLossLayer(caffe.Layer):
    """As in Caffe's examples/pycaffe/layers/pyloss.py."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("Need two inputs to compute distance.")

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise Exception("Inputs must have the same dimension.")
        self.diff = np.zeros_like(bottom[0].data, dtype=np.float32)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2.

    def backward(self, top, propagate_down, bottom):
        for i in range(2):
            if not propagate_down[i]:
                continue
            sign = 1 if i == 0 else -1
            bottom[i].diff[...] = sign * self.diff / bottom[i].num * top[0].diff[0]


class Numbers(caffe.Layer):
    """A data layer: batches of other sizes from pass to pass, and their labels."""

    def setup(self, bottom, top):
        self.sizes = json.loads(self.param_str)
        self.index = 0

    def reshape(self, bottom, top):
        size = self.sizes[self.index % len(self.sizes)]
        top[0].reshape(size, 3)
        top[1].reshape(size, 1)

    def forward(self, bottom, top):
        rng = np.random.RandomState(self.index)
        top[0].data[...] = rng.rand(*top[0].data.shape)
        top[1].data[...] = top[0].data.sum(axis=1, keepdims=True)
        self.index += 1

    def backward(self, top, propagate_down, bottom):
        pass


class Linear(caffe.Layer):
    """Learnable: y = a x + b."""

    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs.add_blob(*bottom[0].shape[1:])
        self.blobs[0].data[...] = 2
        self.blobs[1].data[...] = 1

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data[0] * bottom[0].data + self.blobs[1].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[0] += (top[0].diff * bottom[0].data).sum()
        self.blobs[1].diff[...] += top[0].diff.sum(axis=0)
        if propagate_down[0]:
            bottom[0].diff[...] = self.blobs[0].data[0] * top[0].diff


class Phase(caffe.Layer):
    def setup(self, bottom, top):
        import caffe
        self.training = self.phase == caffe.TRAIN

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        bottom[0].data[...] = -1
        top[0].reshape(1)
        top[0].data[0] = self.training

    def backward(self, top, propagate_down, bottom):
        pass


class Doubled(caffe.Layer):
    """In place."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        top[0].data[...] *= 2

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 2 * top[0].diff


class Broken(caffe.Layer):
    def setup(self, bottom, top):
        if self.param_str == "setup":
            raise Exception("said in setup")

    def reshape(self, bottom, top):
        top[0].reshape(1)
        if self.param_str == "negative":
            top[0].reshape(2, -1)

    def forward(self, bottom, top):
        if self.param_str == "forward":
            1 / 0
        if self.param_str == "exit":
            raise SystemExit(3)
        if self.param_str == "shape":
            top[0].data[...] = np.zeros((2, 2))

    def backward(self, top, propagate_down, bottom):
        raise ValueError("said in\\nbackward")


class Unfinished(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(1)


class Other:
    pass
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_layers.py").write_text(LAYERS)
    return tmp_path


def python(layer: str, bottoms: str, tops: str, more: str = "", param_str: str = "", module: str = "my_layers") -> str:
    names = "".join(f' bottom: "{name}"' for name in bottoms.split())
    names += "".join(f' top: "{name}"' for name in tops.split())
    own = f"python_param {{ module: '{module}' layer: '{layer}' param_str: '{param_str}' }}"
    return f'layer {{ name: "{layer.lower()}" type: "Python"{names} {own} {more} }} '


INPUTS = 'layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 4 dim: 3 } } } '


def net_of(text: str, folder: Path, phase: int = TRAIN, **options: bool) -> Net:
    return Net(parse_net(text, "net"), phase, folder=folder, **{"allow_python": True, **options})


def test_a_euclidean_loss_of_pycaffes_computes_what_it_says(folder: Path) -> None:
    """Forward and backward, with the gradient that arrives from the loss weight."""
    loss = python("EuclideanLossLayer", "y t", "loss", "loss_weight: 3")
    net = net_of(INPUTS + python("Linear", "x", "y") + loss, folder)
    x, t = np.random.default_rng(0).normal(size=(2, 4, 3))
    outputs = net.forward(x=x, t=t)
    y = 2 * x + 1
    assert outputs["loss"].shape == (1,) and float(outputs["loss"]) == pytest.approx(((y - t) ** 2).sum() / 8, rel=1e-5)
    assert float(net.loss) == pytest.approx(3 * float(outputs["loss"]))
    net.backward()
    dy = 3 * (y - t) / 4
    a, b = net.params["linear"]
    np.testing.assert_allclose(a.diff.numpy(), [(dy * x).sum()], rtol=1e-5)
    np.testing.assert_allclose(b.diff.numpy(), dy.sum(0), rtol=1e-4)
    np.testing.assert_allclose(net.diffs["y"], dy, rtol=1e-5)


def test_blobs_are_the_nets_own_weights(folder: Path) -> None:
    net = net_of(INPUTS + python("Linear", "x", "y", "param { lr_mult: 2 } param { lr_mult: 0 decay_mult: 0 }"), folder)
    a, b = net.params["linear"]
    assert (a.lr_mult, b.lr_mult, b.decay_mult) == (2, 0, 0) and (a.shape, b.shape) == ((1,), (3,))
    a.data.fill_(5)
    x = torch.ones(4, 3)
    assert net.forward(x=x, t=x)["y"].tolist() == [[6.0] * 3] * 4
    proto = net.to_proto()
    again = net_of(INPUTS + python("Linear", "x", "y"), folder)
    assert again.copy_weights(proto).copied == ["linear"] and float(again.params["linear"][0].data) == 5


@pytest.mark.parametrize("plan", ["plain", "fused"])
def test_a_data_layer_and_a_loss_of_pycaffes_train_a_net(folder: Path, plan: str) -> None:
    """A regression on sums: the weights become 1. Its batches differ in size from pass to pass."""
    text = python("Numbers", "", "x t", param_str="[4, 7, 5]")
    text += 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 } } '
    text += python("EuclideanLossLayer", "y t", "loss", "loss_weight: 1")
    (folder / "net.prototxt").write_text(text)
    solver_text = 'net: "net.prototxt" base_lr: 0.5 lr_policy: "fixed" max_iter: 150 momentum: 0.5 random_seed: 1'
    solver = Solver(parse_solver(solver_text, "solver"), folder=folder, plan=plan, allow_python=True)
    solver.solve()
    weight, bias = (blob.data.numpy() for blob in solver.net.params["ip"])
    np.testing.assert_allclose(weight, np.ones((1, 3)), atol=0.02)
    np.testing.assert_allclose(bias, [0], atol=0.02)


def test_what_a_layers_object_holds_is_in_no_snapshot(folder: Path) -> None:
    """As in Caffe: the layer's count of its batches starts over."""
    text = python("Numbers", "", "x t", param_str="[4, 7, 5]")
    text += 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 } } '
    text += python("EuclideanLossLayer", "y t", "loss", "loss_weight: 1")
    (folder / "net.prototxt").write_text(text)
    param = parse_solver('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 9', "solver")
    param.snapshot_prefix = str(folder / "run")
    trained, resumed = (Solver(param, folder=folder, allow_python=True) for _ in range(2))
    trained.step(2)
    resumed.restore(trained.snapshot())
    assert torch.equal(resumed.net.storage.data, trained.net.storage.data)
    sizes = []
    for solver in trained, resumed:
        solver.net.forward()
        sizes.append(solver.net.shape("x")[0])
    assert sizes == [5, 4]


def test_a_net_follows_tops_whose_shape_changes(folder: Path) -> None:
    net = net_of(python("Numbers", "", "x t", param_str="[4, 7]") + python("Linear", "x", "y"), folder)
    assert net.shape("x") == (4, 3)
    for size in (4, 7, 4):
        assert net.forward()["y"].shape == (size, 3)
        assert net.shape("x") == net.shape("y") == net.blobs["x"].shape == (size, 3)


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_the_phase_is_told_and_a_bottoms_data_stays_the_nets(folder: Path, phase: int) -> None:
    """Here the top's shape is known after forward alone, and `import caffe` stands inside a method."""
    net = net_of(INPUTS + python("Phase", "x", "y"), folder, phase)
    assert net.forward(x=torch.ones(4, 3), t=torch.ones(4, 3))["y"].tolist() == [float(phase == TRAIN)]
    assert torch.equal(torch.as_tensor(net.blobs["x"]), torch.ones(4, 3))


def test_a_layer_may_work_in_place(folder: Path) -> None:
    second = python("Linear", "y", "z").replace('"linear"', '"second"')
    text = INPUTS + python("Linear", "x", "y") + python("Doubled", "y", "y") + second
    net = net_of(f"force_backward: true {text}", folder)
    assert net.forward(x=torch.ones(4, 3), t=torch.ones(4, 3))["z"].tolist() == [[13.0] * 3] * 4
    net.backward({"z": torch.ones(4, 3)})
    assert net.params["linear"][1].diff.tolist() == [16.0] * 3


def test_double_precision_reaches_the_code(folder: Path) -> None:
    net = Net(
        parse_net(INPUTS + python("Linear", "x", "y"), "net"), dtype=torch.float64, folder=folder, allow_python=True
    )
    x = torch.full((4, 3), 1 + 2.0**-40, dtype=torch.float64)
    assert torch.equal(net.forward(x=x, t=x)["y"], 2 * x + 1)


def test_code_runs_only_where_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "forbidden.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    text = python("X", "", "y", module="forbidden")
    with pytest.raises(InputError, match=r'layer "x" \(Python\): would run .*"forbidden".*--allow-python') as error:
        net_of(text, tmp_path, allow_python=False)
    assert "\n" not in str(error.value) and not (tmp_path / "ran").exists()
    (tmp_path / "net.prototxt").write_text(text)
    with pytest.raises(InputError, match="has to be allowed"):
        Solver(parse_solver('net: "net.prototxt" max_iter: 1 base_lr: 1 lr_policy: "fixed"', "solver"), folder=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_what_the_import_of_caffe_means_ends_with_the_call(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = list(sys.path)
    net = net_of(INPUTS + python("Linear", "x", "y"), folder)
    net.forward(x=torch.ones(4, 3), t=torch.ones(4, 3))
    assert "caffe" not in sys.modules and sys.path == path
    real = type(sys)("caffe")
    monkeypatch.setitem(sys.modules, "caffe", real)
    net.forward(x=torch.ones(4, 3), t=torch.ones(4, 3))
    assert sys.modules["caffe"] is real


def test_modules_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    nets = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        code = LAYERS.replace("self.blobs[1].data[...] = 1", f"self.blobs[1].data[...] = {number}")
        (tmp_path / str(number) / "named_alike.py").write_text(code)
        nets.append(net_of(INPUTS + python("Linear", "x", "y", module="named_alike"), tmp_path / str(number)))
    x = torch.zeros(4, 3)
    assert [float(net.forward(x=x, t=x)["y"][0, 0]) for net in nets] == [1, 2]


@pytest.mark.parametrize(
    ("layer", "param_str", "module", "said"),
    [
        ("Broken", "setup", "my_layers", r"my_layers.py, line \d+, in setup: Exception: said in setup"),
        ("Broken", "negative", "my_layers", r"in reshape: a blob cannot be reshaped to \(2, -1\)"),
        ("Broken", "forward", "my_layers", "in forward: ZeroDivisionError: division by zero"),
        ("Broken", "shape", "my_layers", "in forward: ValueError: could not broadcast"),
        ("Broken", "exit", "my_layers", "in forward: SystemExit: 3"),
        ("Broken", "backward", "my_layers", "in backward: ValueError: said in backward"),
        ("Unfinished", "", "my_layers", "Unfinished has no forward"),
        ("Missing", "", "my_layers", 'my_layers.py. has no class "Missing"'),
        ("Other", "", "my_layers", 'as no subclass of caffe.Layer, "Other"'),
        ("X", "", "not_there", 'there is no module "not_there": looked in .* and in PYTHONPATH'),
        ("X", "", "my_layers.inner", "ModuleNotFoundError"),
        ("X", "", "bad_syntax", r"SyntaxError: .*bad_syntax.py, line 2"),
        ("X", "", "bad_import", r"bad_import.py, line 2, in <module>: .*no attribute 'Net'"),
        ("X", "", "numpy", "has no class"),
        ("X", "", "json", "rename it"),
        ("X", "", "", "needs module and layer"),
    ],
)
def test_what_code_raises_is_one_line_with_layer_file_and_line(
    folder: Path, layer: str, param_str: str, module: str, said: str
) -> None:
    (folder / "bad_syntax.py").write_text("import caffe\nclass X(:\n")
    (folder / "bad_import.py").write_text("import caffe\ncaffe.Net\n")
    (folder / "json.py").write_text("raise Exception('never loaded')")
    with pytest.raises(InputError, match=said) as error:
        text = INPUTS + python("Linear", "x", "y") + python(layer, "y", "z", "", param_str, module)
        net = net_of(f"force_backward: true {text}", folder)
        net.forward(x=torch.ones(4, 3), t=torch.ones(4, 3))
        net.backward({"z": torch.ones(1)})
    assert f'layer "{layer.lower()}" (Python): ' in str(error.value) and "\n" not in str(error.value)


def test_pycaffe_gives_what_the_import_gives() -> None:
    from imae import pycaffe

    assert (pycaffe.TRAIN, pycaffe.TEST) == (0, 1)
    blob = pycaffe.Blob((2, 3))
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (2, 3, 1, 1, 6)
    assert blob.data.dtype == blob.diff.dtype == np.float32 and issubclass(pycaffe.Layer, object)
