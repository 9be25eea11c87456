"""The examples' prototxts are what their writer writes, and say what the paper's section 5.1 says."""

from pathlib import Path

import numpy as np
import pytest

from imae.examples import write_examples
from imae.layers.data.image_set import ImageSetData
from imae.layers.layer import TRAIN
from imae.nets.net import Net
from imae.nets.state import filter_layers
from imae.prototxt_like.schema import TEST, NetParameter, NetState
from imae.prototxt_like.text import read_net, read_solver
from imae.solvers.solver import Solver

EXAMPLES = Path(write_examples.__file__).parent
CIFAR10, DIGITS = EXAMPLES / "cifar10", EXAMPLES / "digits"


def test_the_files_are_what_the_writer_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert write_examples.main(["--check"]) == 0, capsys.readouterr().out
    written = {EXAMPLES / path for path in write_examples.examples()}
    assert set(EXAMPLES.glob("*/*.prototxt")) == written


def test_check_names_a_file_that_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(write_examples, "FOLDER", tmp_path)
    assert write_examples.main(["--check"]) == 1
    assert write_examples.main([]) == write_examples.main(["--check"]) == 0
    (tmp_path / "digits" / "imae_solver.prototxt").write_text("base_lr: 10")
    capsys.readouterr()
    assert write_examples.main(["--check"]) == 1
    assert capsys.readouterr().out == "digits/imae_solver.prototxt: is not what write_examples writes\n"


def layers_for(net: NetParameter, phase: int, stages: list[str]) -> NetParameter:
    staged = NetParameter()
    staged.CopyFrom(net)
    staged.state.CopyFrom(NetState(phase=phase, stage=stages))
    return filter_layers(staged)


@pytest.mark.parametrize("depth", [20, 32, 56])
def test_cifar10_solvers_choose_the_loss_and_the_noise_by_stages(depth: int) -> None:
    net = read_net(CIFAR10 / f"resnet{depth}.prototxt")
    types = {"cce": "SoftmaxWithLoss", "mae": "SoftmaxWithMAELoss", "gce": "SoftmaxWithGCELoss"}
    for loss in ("cce", "mae", "gce", "imae"):
        for percent in (0, 20, 50, 80):
            solver = read_solver(CIFAR10 / f"resnet{depth}_{loss}_noise{percent}_solver.prototxt")
            assert solver.net == f"resnet{depth}.prototxt"
            for phase, state in ((TRAIN, solver.train_state), (TEST, next(iter(solver.test_state), NetState()))):
                chosen = layers_for(net, phase, list(state.stage)).layer
                assert [layer.name for layer in chosen].count("loss") == 1
                assert [layer.type for layer in chosen].count("Cifar10Data") == 1
                last = next(layer for layer in chosen if layer.name == "loss")
                assert last.type == types.get(loss, "SoftmaxWithIMAELoss")
                if loss == "imae":
                    expected = 8 if percent else 0.5
                    assert expected == last.imae_param.T
                rate = chosen[0].cifar10_data_param.noise_rate
                assert rate == pytest.approx(percent / 100 if phase == TRAIN else 0)


def test_cifar10_solvers_have_the_papers_settings() -> None:
    for path in CIFAR10.glob("*_solver.prototxt"):
        solver = read_solver(path)
        assert (solver.base_lr, solver.momentum, solver.weight_decay) == pytest.approx((0.1, 0.9, 1e-4))
        assert (solver.lr_policy, solver.gamma, list(solver.stepvalue)) == (
            "multistep",
            pytest.approx(0.1),
            [32000, 48000],
        )
        assert (solver.max_iter, list(solver.test_iter), solver.snapshot) == (64000, [100], 10000)
        assert solver.snapshot_prefix == f"snapshots/{path.stem.removesuffix('_solver')}"
        assert solver.random_seed >= 0


def test_mars_solvers_have_the_papers_settings_and_choose_the_loss_by_stages() -> None:
    net = read_net(EXAMPLES / "mars" / "googlenet_bn.prototxt")
    for loss, kind in (("cce", ""), ("mae", "MAE"), ("gce", "GCE"), ("imae", "IMAE")):
        solver = read_solver(EXAMPLES / "mars" / f"googlenet_bn_{loss}_solver.prototxt")
        assert (solver.base_lr, solver.momentum, solver.weight_decay) == pytest.approx((0.01, 0.9, 5e-4))
        assert (solver.lr_policy, solver.gamma, solver.stepsize, solver.max_iter) == ("step", 0.5, 10000, 50000)
        assert (solver.net, solver.snapshot_prefix) == ("googlenet_bn.prototxt", f"snapshots/googlenet_bn_{loss}")
        chosen = [
            layer for layer in layers_for(net, TRAIN, list(solver.train_state.stage)).layer if layer.name == "loss"
        ]
        assert [layer.type for layer in chosen] == [f"SoftmaxWith{kind}Loss"]
        assert loss != "imae" or chosen[0].imae_param.T == 8


@pytest.fixture
def fake_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory whose `data/` holds random images in the form of CIFAR-10's binary version."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        records = rng.integers(0, 256, (200, 1 + 3 * 32 * 32), np.uint8)
        records[:, 0] %= 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    monkeypatch.chdir(tmp_path)


def wrong_labels(net: Net) -> float:
    data = net.steps[0].layer
    assert isinstance(data, ImageSetData)
    return float((data.labels != data.intact).double().mean())


@pytest.mark.usefixtures("fake_cifar10")
def test_a_cifar10_solver_trains_the_net_it_names_on_noisy_labels() -> None:
    solver = Solver(CIFAR10 / "resnet20_imae_noise80_solver.prototxt")
    assert wrong_labels(solver.net) == pytest.approx(0.8 * 0.9, abs=0.05)
    before = solver.net.params["conv1"][0].data.clone()
    solver.param.test_initialization = False
    solver.step(1)
    assert solver.iteration == 1 and not np.array_equal(before, solver.net.params["conv1"][0].data)
    assert solver.net.shapes[0] == (128, 3, 32, 32)
    assert solver.test_nets[0].shapes[0] == (100, 3, 32, 32)
    assert Path("snapshots").is_dir()


def test_digits_solvers_train_with_half_of_the_labels_replaced_at_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for loss, kind in (("cce", ""), ("mae", "MAE"), ("gce", "GCE"), ("imae", "IMAE")):
        solver = Solver(DIGITS / f"{loss}_solver.prototxt")
        assert wrong_labels(solver.net) == pytest.approx(0.5 * 0.9, abs=0.03)
        assert solver.param.test_iter[0] * solver.test_nets[0].shapes[0][0] == 500
        for net in (solver.net, *solver.test_nets):
            (layer,) = (step.layer for step in net.steps if step.layer.is_loss)
            assert layer.type == f"SoftmaxWith{kind}Loss"
            assert loss != "imae" or layer.param.imae_param.T == 8
