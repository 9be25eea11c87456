"""What a log says about a net's losses."""

import pytest

from imae.nets.loss_settings import loss_settings
from imae.nets.net import Net
from imae.prototxt_like.schema import TRAIN
from imae.prototxt_like.text import parse_net

INPUTS = 'layer { name: "x" type: "Input" top: "x" top: "y" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }'


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        ('type: "SoftmaxWithIMAELoss"', "SoftmaxWithIMAELoss, T = 8"),
        ('type: "SoftmaxWithIMAELoss" imae_param { T: 0.5 }', "SoftmaxWithIMAELoss, T = 0.5"),
        (
            'type: "IMAELoss" imae_param { normalize_by: WEIGHTS }',
            "IMAELoss, T = 8, epsilon = 1e-06, normalize_by = WEIGHTS",
        ),
        ('type: "GCELoss" gce_param { k: 0.25 }', "GCELoss, q = 0.7, k = 0.25"),
        (
            'type: "SoftmaxWithLoss" loss_weight: 0.5 loss_param { normalization: FULL ignore_label: 1 }',
            "SoftmaxWithLoss, ignore_label = 1, normalization = FULL, loss_weight = 0.5",
        ),
    ],
)
def test_a_loss_is_named_with_its_settings_in_use(layer: str, line: str) -> None:
    net = Net(parse_net(f'{INPUTS} layer {{ name: "l" {layer} bottom: "x" bottom: "y" top: "l" }}'), TRAIN)
    (found,) = loss_settings(net)
    assert found.startswith(f'Loss "l": {line}')


@pytest.mark.parametrize("type", ["MultinomialLogisticLoss", "SigmoidCrossEntropyLoss", "HingeLoss"])
def test_settings_of_layers_named_within_a_losss_name_are_not_its_own(type: str) -> None:
    """Log, Sigmoid: not MultinomialLogisticLoss, nor SigmoidCrossEntropyLoss."""
    inputs = INPUTS.replace("dim: 2 }", "dim: 2 dim: 3 }") if type.startswith("Sigmoid") else INPUTS
    net = Net(parse_net(f'{inputs} layer {{ name: "l" type: "{type}" bottom: "x" bottom: "y" top: "l" }}'), TRAIN)
    assert loss_settings(net) == [f'Loss "l": {type}' + (", norm = L1" if type == "HingeLoss" else "")]
