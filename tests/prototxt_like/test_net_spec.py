"""Nets written in Python come out as the prototxt one would have written by hand."""

import copy

import numpy as np
import pytest

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.net_spec import L, NetSpec, P, to_proto
from imae.prototxt_like.schema import FillerParameter, NetStateRule
from imae.prototxt_like.text import parse_net


def test_a_net_is_written_as_by_hand() -> None:
    n = NetSpec()
    n.data, n.label = L.Data(
        source="db",
        backend=P.Data.LMDB,
        batch_size=8,
        ntop=2,
        include={"phase": "TRAIN"},
        transform_param={"mirror": True},
    )
    n.conv = L.Convolution(
        n.data,
        num_output=np.int64(16),
        kernel_size=3,
        pad=[1, 2],
        weight_filler={"type": "msra"},
        param=[{"lr_mult": 1}, {}],
    )
    n.relu = L.ReLU(n.conv, in_place=True)
    n["block/pool"] = L.Pooling(n.relu, pool="AVE", global_pooling=True)
    n.score = L.InnerProduct(n["block/pool"], num_output=10)
    n.loss = L.SoftmaxWithIMAELoss(n.score, n.label, T=0.5, ignore_label=3, axis=1, loss_weight=2)
    n.nothing = L.Silence(n.label, ntop=0)
    assert n.to_proto("net") == parse_net(
        """
        name: "net"
        layer {
          name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } transform_param { mirror: true }
          data_param { source: "db" backend: LMDB batch_size: 8 }
        }
        layer {
          name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param {}
          convolution_param { num_output: 16 kernel_size: 3 pad: 1 pad: 2 weight_filler { type: "msra" } }
        }
        layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
        layer {
          name: "block/pool" type: "Pooling" bottom: "conv" top: "block/pool"
          pooling_param { pool: AVE global_pooling: true }
        }
        layer {
          name: "score" type: "InnerProduct" bottom: "block/pool" top: "score" inner_product_param { num_output: 10 }
        }
        layer {
          name: "loss" type: "SoftmaxWithIMAELoss" bottom: "score" bottom: "label" top: "loss" loss_weight: 2
          imae_param { T: 0.5 } loss_param { ignore_label: 3 } softmax_param { axis: 1 }
        }
        layer { name: "nothing" type: "Silence" bottom: "label" }
        """
    )


def test_unnamed_tops_are_numbered_around_the_names_in_use() -> None:
    n = NetSpec()
    n.x = L.DummyData(shape={"dim": [1]})
    n.sum = L.Eltwise(L.ReLU(n.x), L.ReLU(n.x), L.Sigmoid(n.x))
    n.ReLU2 = L.ReLU(n.x)
    assert [layer.name for layer in n.to_proto().layer] == ["x", "ReLU1", "ReLU3", "Sigmoid1", "sum", "ReLU2"]
    assert [layer.name for layer in to_proto(n.sum).layer] == ["DummyData1", "ReLU1", "ReLU2", "Sigmoid1", "Eltwise1"]


def test_writing_twice_gives_the_same() -> None:
    n = NetSpec()
    n.x = L.ReLU(L.DummyData())
    assert n.to_proto() == n.to_proto() == copy.deepcopy(n).to_proto()


def test_a_net_may_be_deeper_than_pythons_stack() -> None:
    top = L.DummyData()
    for _ in range(2000):
        top = L.ReLU(top)
    net = to_proto(top)
    assert len(net.layer) == 2001
    assert all(net.layer[i].bottom[0] == net.layer[i - 1].top[0] for i in range(1, 2001))


@pytest.mark.parametrize(
    ("type", "setting", "message"),
    [
        ("Deconvolution", {"num_output": 3}, "convolution_param"),
        ("LSTM", {"num_output": 3}, "recurrent_param"),
        ("SoftmaxWithLoss", {"normalization": "FULL"}, "loss_param"),
        ("SoftmaxWithGCELoss", {"q": 0.5}, "gce_param"),
        ("IMAELoss", {"T": 2}, "imae_param"),
        ("Cifar10Data", {"noise_rate": 0.5}, "cifar10_data_param"),
        ("MarsData", {"noise_unit": "TRACK"}, "mars_data_param"),
        ("PReLU", {"channel_shared": True}, "prelu_param"),
        ("Data", {"transform_param": {"crop_size": 3}}, "transform_param"),
        ("Data", {"data_param": {}}, "data_param"),
        ("MyOwn", {"python_param": {"module": "m"}}, "python_param"),
    ],
)
def test_settings_reach_the_message_that_has_them(type: str, setting: dict[str, object], message: str) -> None:
    (layer,) = to_proto(getattr(L, type)(**setting)).layer
    assert [field.name for field, _ in layer.ListFields() if field.name.endswith("_param")] == [message]


@pytest.mark.parametrize(
    ("type", "settings", "message"),
    [
        ("Convolution", {"num_ouput": 3}, 'Convolution: there is no setting "num_ouput"; did you mean "num_output"?'),
        ("MyOwn", {"num_output": 3}, 'MyOwn: there is no setting "num_output"'),
        ("Convolution", {"num_output": "x"}, "Convolution.num_output: 'x' does not fit: "),
        ("Convolution", {"num_output": -1}, "Convolution.num_output: -1 does not fit: "),
        ("Convolution", {"num_output": 1.5}, "Convolution.num_output: 1.5 does not fit: "),
        ("Convolution", {"pad": [1, None]}, "Convolution.pad: [1, None] does not fit: "),
        ("Convolution", {"weight_filler": 3}, "Convolution.weight_filler: 3 does not fit: "),
        (
            "Convolution",
            {"weight_filler": {"tpye": "msra"}},
            'Convolution.weight_filler: "tpye" is no field of FillerParameter; did you mean "type"?',
        ),
        ("Pooling", {"pool": "max"}, 'Pooling.pool: "max" is none of MAX, AVE, STOCHASTIC; did you mean "MAX"?'),
        ("Pooling", {"pool": 9}, "Pooling.pool: 9 does not fit: "),
        ("ReLU", {"in_place": True}, "ReLU: in_place needs one input and one top, not 0 and 1"),
    ],
)
def test_mistakes_are_named(type: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        getattr(L, type)(**settings)
    assert str(error.value).startswith(message)


def test_inputs_and_names_must_be_tops() -> None:
    with pytest.raises(InputError, match=r"^ReLU: input 0 is 3; expected the top of a layer"):
        L.ReLU(3)
    n = NetSpec()
    with pytest.raises(
        InputError, match=r"^data: .*found \(top 0 of Data, top 1 of Data\); assign each of several tops"
    ):
        n.data = L.Data(ntop=2)
    n.data = L.Data()
    with pytest.raises(AttributeError, match='no top "dat"; did you mean "data"'):
        _ = n.dat


def test_messages_of_the_schema_are_taken_as_settings() -> None:
    filler = FillerParameter(type="xavier")
    (layer,) = to_proto(L.Scale(filler=filler, include=[NetStateRule(min_level=1), {"max_level": 2}])).layer
    assert layer.scale_param.filler == filler
    assert [(rule.min_level, rule.max_level) for rule in layer.include] == [(1, 0), (0, 2)]
