"""What messages say is so: plurals, flags by their names, advice that helps, counts of what they name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imae.cli.messages import error_line
from imae.prototxt_like.errors import counted

Imae = Callable[..., Any]
TRAIN = ("train", "--solver", "solver.prototxt", "--cpu")


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [(1, "image", "1 image"), (2, "image", "2 images"), (0, "batch", "0 batches"), (1, "query", "1 query")],
)
def test_one_thing_is_not_called_several(number: int, noun: str, said: str) -> None:
    assert counted(number, noun) == said


def test_one_of_each_is_singular_in_what_commands_print(imae: Imae, digits: Path) -> None:
    outcome = imae(*TRAIN, "--iterations", "1")
    assert "Done at iteration 1: 1 iteration in " in outcome.out
    weights = "out/digits_iter_1.caffemodel"
    Path("net.prototxt").write_text(Path("net.prototxt").read_text().replace('"ip2"', '"new"'))
    tuned = imae(*TRAIN, "--iterations", "1", "--prefix", "tuned/net", "--weights", weights)
    assert "Copied the weights of 1 layer from" in tuned.err


def test_what_is_learned_is_counted_without_running_statistics(imae: Imae, digits: Path) -> None:
    text = Path("net.prototxt").read_text()
    norm = 'layer { name: "norm" type: "BatchNorm" bottom: "ip1" top: "ip1" }'
    Path("net.prototxt").write_text(text.replace('layer { name: "relu"', norm + ' layer { name: "relu"'))
    assert "digits: 1210 learnable parameters" in imae(*TRAIN, "--iterations", "1").err


def test_weights_of_another_shape_advise_renaming_the_layer(imae: Imae, digits: Path) -> None:
    assert imae(*TRAIN, "--iterations", "1").status == 0
    Path("net.prototxt").write_text(Path("net.prototxt").read_text().replace("num_output: 16", "num_output: 17"))
    weights = "out/digits_iter_1.caffemodel"
    outcome = imae(*TRAIN, "--weights", weights, "--prefix", "other/net")
    assert outcome.status == 1
    assert f"blob 0 is 17x64, {weights} has 16x64; to learn this layer from scratch instead, rename it" in outcome.err


def test_what_exists_is_overwritten_only_with_the_flag_that_is_named(imae: Imae, tmp_path: Path) -> None:
    root = tmp_path / "cifar-10-batches-bin"
    root.mkdir()
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        (root / name).write_bytes(bytes(3073))
    assert imae("convert", "cifar10", root, tmp_path / "out").status == 0
    assert (
        "exists already, and is overwritten only with --force\n"
        in imae("convert", "cifar10", root, tmp_path / "out").err
    )
    assert imae("convert", "cifar10", root, tmp_path / "out", "--force").status == 0


def test_memory_is_blamed_on_the_batch_only_where_a_pass_ran_out_of_it() -> None:
    import torch

    from imae.nets.net import Net
    from imae.prototxt_like.text import parse_net

    assert error_line(MemoryError()) == "out of memory"
    asked = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes. Error code 12"
    assert error_line(RuntimeError(asked)) == "out of memory: 8 GiB were asked for"
    net = Net(
        parse_net("""
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }
        layer { name: "relu" type: "ReLU" bottom: "x" top: "y" }""")
    )

    def run_out(*_: object) -> None:
        raise MemoryError

    net.steps[1].layer.forward = run_out  # type: ignore[method-assign,assignment]
    with pytest.raises(MemoryError) as caught:
        net.forward(x=torch.zeros(1, 2))
    assert error_line(caught.value) == "out of memory; a smaller batch_size needs less"
