"""The heads compute what a net of InnerProduct, ReLU and a loss layer computes."""

import numpy as np
import pytest
import torch

from imae.audit.features import Features, check_labels
from imae.audit.heads import Heads, Setting, logits_gradient, train_heads
from imae.layers.layer import Context
from imae.layers.registry import create_layer
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TRAIN, LayerParameter
from imae.prototxt_like.text import parse_net

PARAM = {"IMAE": {"imae_param": {"T": 8}}, "GCE": {"gce_param": {"q": 0.7}}}
VALUE = {"IMAE": 8.0, "GCE": float(np.float32(0.7))}
TYPE = {loss: f"SoftmaxWith{'' if loss == 'CCE' else loss}Loss" for loss in ("IMAE", "GCE", "CCE", "MAE")}


@pytest.mark.parametrize("loss", TYPE)
def test_the_gradient_by_the_logits_is_the_layers(loss: str) -> None:
    logits = 6 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label = torch.arange(200) % 5
    logits[0] = torch.tensor([300.0, 0, 0, 0, 0])  # fitted, beyond what a float holds of 1 - p_y
    ends = {"bottom": ["z", "label"], "top": ["loss"]}
    layer = create_layer(LayerParameter(name="loss", type=TYPE[loss], **ends, **PARAM.get(loss, {})), Context())
    layer.setup([(200, 5), (200,)])
    layer.reshape([(200, 5), (200,)])
    saved: dict[str, object] = {}
    layer.forward([logits, label], saved)
    (expected, _) = layer.backward([], [], [torch.ones(())], saved, [True, False])
    each = torch.full((1, 1), 1 / 200)
    found = logits_gradient(loss, VALUE.get(loss, 0.0), logits.t().contiguous(), label[None], each).t()
    assert expected is not None
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


NET = """
layer {{ name: "data" type: "Input" top: "data" top: "label"
  input_param {{ shape {{ dim: 30 dim: 6 }} shape {{ dim: 30 }} }} }}
{first}
layer {{ name: "ip" type: "InnerProduct" bottom: "{bottom}" top: "z" inner_product_param {{ num_output: 4 }} }}
layer {{ name: "loss" type: "SoftmaxWithIMAELoss" bottom: "z" bottom: "label" top: "loss" imae_param {{ T: 8 }} }}
"""
FIRST = """
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "h" inner_product_param { num_output: 7 } }
layer { name: "relu" type: "ReLU" bottom: "h" top: "h" }
"""


@pytest.mark.parametrize("hidden", [0, 7])
def test_the_gradients_by_the_weights_are_the_nets(hidden: int) -> None:
    draws = torch.Generator().manual_seed(1)
    heads = Heads(2, 6, 4, hidden, draws)
    heads.weights = [torch.randn(weight.shape, generator=draws) for weight in heads.weights]
    x, label = torch.randn(30, 6, generator=draws), torch.arange(30) % 4
    gradients = heads.gradients(x, label, torch.ones(2, 30), "IMAE", torch.tensor([4.0, 8.0]))
    net = Net(parse_net(NET.format(first=FIRST if hidden else "", bottom="h" if hidden else "data")), TRAIN)
    blobs = [blob for layer in net.params.values() for blob in layer]
    for blob, weight in zip(blobs, heads.weights, strict=True):
        blob.data.copy_(weight[1])
    net.forward(data=x, label=label.float())
    net.backward()
    for blob, gradient in zip(blobs, gradients, strict=True):
        torch.testing.assert_close(gradient[1], blob.diff, rtol=1e-4, atol=1e-6)


def test_heads_side_by_side_are_as_each_alone_and_leave_out_what_does_not_count() -> None:
    draws = np.random.default_rng(0)
    features, labels = Features(draws.normal(size=(400, 5))), torch.from_numpy(draws.integers(0, 3, 400))
    settings = [Setting("IMAE", 4.0, 0.01), Setting("IMAE", 8.0, 0.03)]
    (both,) = train_heads(features, labels, 3, settings, iterations=40)
    (alone,) = train_heads(features, labels, 3, settings[1:], iterations=40)
    torch.testing.assert_close(both.take([1]).weights, alone.weights)
    half = torch.arange(400) < 200
    other = labels.where(half, (labels + 1) % 3)
    counts = half[:, None]
    (left,) = train_heads(features, labels, 3, settings[:1], iterations=40, counts=counts)
    (same,) = train_heads(features, other, 3, settings[:1], iterations=40, counts=counts)
    torch.testing.assert_close(left.weights, same.weights)


def test_features_are_standardised_in_memory_and_from_a_map(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(0).normal(5, 3, (1000, 4)).astype(np.float16)
    table[:, 2] = 7
    rows = Features(table).rows(torch.arange(1000))
    torch.testing.assert_close(rows.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.std(0, correction=0), torch.tensor([1.0, 1, 0, 1]), atol=1e-5, rtol=0)
    monkeypatch.setattr("imae.audit.features.IN_MEMORY", 0)
    mapped = Features(table)
    assert mapped._rows is None
    torch.testing.assert_close(mapped.rows(torch.tensor([3, 999])), rows[[3, 999]])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((0, 3)), "features: has the shape (0, 3), expected a row of numbers for each sample"),
        (np.array([[1.0, 2], [3, np.nan]]), "features: row 2, column 2 is no finite number"),
        (np.array([["a"]]), "features: holds <U1 values, expected numbers"),
    ],
)
def test_features_that_are_none_are_refused(table: np.ndarray, message: str) -> None:
    with pytest.raises(InputError) as error:
        Features(table)
    assert str(error.value) == message


def test_labels_of_any_kind_become_classes() -> None:
    assert check_labels(np.array(["cat", "dog", "cat"]), 3)[1] == ["cat", "dog"]
    classes, names = check_labels(np.array([7.0, -1.0, 7.0]), 3)
    assert (classes.tolist(), names) == ([1, 0, 1], ["-1", "7"])
    with pytest.raises(InputError, match="expected one for each of 4 samples"):
        check_labels(np.arange(3), 4)
    with pytest.raises(InputError, match="expected at least two classes"):
        check_labels(np.zeros(3), 3)
