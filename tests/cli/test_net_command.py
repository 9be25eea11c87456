"""`imae net`: well-known nets on the screen, in files, for training and for predicting."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imae.nets.zoo import NETS, build
from imae.prototxt_like.text import parse_net, read_net

Imae = Callable[..., Any]


def test_the_list_has_every_net_with_its_parameters(imae: Imae) -> None:
    outcome = imae("net", "--list")
    assert [line.split()[0] for line in outcome.out.splitlines()] == [*NETS]
    assert "138,357,544" in outcome.out


def test_a_net_is_written_as_it_is_built_and_runs(imae: Imae, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    outcome = imae("net", "autoencoder", path, "--classes", "4", "--batch", "2")
    assert (outcome.status, outcome.out) == (0, f"Wrote {path}\n")
    assert read_net(path) == build("autoencoder", classes=4, batch=2)
    assert imae("time", "--model", path, "--iterations", "1", "--cpu").status == 0
    assert parse_net(imae("net", "vgg16", "--source", "photos").out) == build("vgg16", source="photos")


def test_a_deployed_net_takes_one_image_and_has_no_loss(imae: Imae) -> None:
    net = parse_net(imae("net", "squeezenet", "--deploy", "--classes", "3").out)
    assert [*net.layer[0].input_param.shape[0].dim] == [1, 3, 227, 227]
    assert net.layer[-1].type == "Softmax"
    assert [layer.convolution_param.num_output for layer in net.layer if layer.name == "conv10"] == [3]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("vgg61",), 1, 'no net "vgg61"'),
        (("--deploy",), 2, "--list"),
        (("vgg16", "--deploy", "--source", "photos"), 2, "--source"),
        (("vgg16", "--classes", "0"), 2, "--classes"),
        (("vgg16", "nowhere/net.prototxt"), 1, "nowhere"),
    ],
)
def test_a_mistake_is_named(
    imae: Imae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], status: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = imae("net", *arguments)
    assert outcome.status == status
    assert said in outcome.err
    assert "Traceback" not in outcome.err
