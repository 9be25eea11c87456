"""The schema: Caffe's field numbers, the committed descriptor, and that it stands beside other copies of Caffe's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from imae.prototxt_like import schema

FOLDER = Path(schema.__file__).resolve().parent


def test_the_committed_descriptor_is_that_of_the_committed_proto(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    out = tmp_path / "caffe.descriptor"
    assert protoc.main(["protoc", f"-I{FOLDER}", f"--descriptor_set_out={out}", "caffe.proto"]) == 0
    recompiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    assert recompiled == descriptor_pb2.FileDescriptorSet.FromString((FOLDER / "caffe.descriptor").read_bytes())


@pytest.mark.parametrize(
    ("message", "field", "number", "default"),
    [
        ("NetParameter", "layer", 100, None),
        ("NetParameter", "layers", 2, None),
        ("NetParameter", "input_shape", 8, None),
        ("LayerParameter", "blobs", 7, None),
        ("LayerParameter", "convolution_param", 106, None),
        ("LayerParameter", "batch_norm_param", 139, None),
        ("LayerParameter", "clip_param", 148, None),
        ("BlobProto", "data", 5, None),
        ("BlobProto", "shape", 7, None),
        ("ConvolutionParameter", "dilation", 18, None),
        ("BatchNormParameter", "moving_average_fraction", 2, pytest.approx(0.999)),
        ("PoolingParameter", "round_mode", 13, 0),
        ("LossParameter", "normalization", 3, 1),
        ("SolverParameter", "type", 40, "SGD"),
        ("SolverParameter", "clip_gradients", 35, -1),
        ("SolverState", "current_step", 4, 0),
        ("DataParameter", "prefetch", 10, 4),
        ("V1LayerParameter", "layer", 1, None),
        ("V0LayerParameter", "new_height", 62, 0),
    ],
)
def test_fields_have_caffes_numbers_and_defaults(message: str, field: str, number: int, default: object) -> None:
    descriptor = getattr(schema, message).DESCRIPTOR.fields_by_name[field]
    assert descriptor.number == number
    if default is not None:
        assert getattr(getattr(schema, message)(), field) == default


def test_long_number_lists_are_packed_so_that_caffe_and_blobs_share_their_bytes() -> None:
    assert schema.BlobProto(data=[1.0, 2.0]).SerializeToString() == b"\x2a\x08\x00\x00\x80\x3f\x00\x00\x00\x40"
    assert schema.BlobShape(dim=[1, 300]).SerializeToString() == b"\x0a\x03\x01\xac\x02"


def test_our_additions_lie_in_numbers_caffe_leaves_free_and_change_no_other_byte() -> None:
    layer = schema.LayerParameter(name="loss", type="SoftmaxWithLoss")
    plain = layer.SerializeToString()
    layer.imae_param.T = 0.5
    assert layer.SerializeToString().startswith(plain)
    ours = [field.name for field in schema.LayerParameter.DESCRIPTOR.fields if 9000 < field.number < 10_000]
    assert ours == [
        "imae_param",
        "gce_param",
        "cifar10_data_param",
        "digits_data_param",
        "shortcut_param",
        "mars_data_param",
        "anchor_target_param",
        "proposal_target_param",
    ]


def test_additions_default_to_the_papers_settings() -> None:
    assert schema.IMAEParameter().T == 8
    assert schema.GCEParameter().q == pytest.approx(0.7)
    assert not schema.GCEParameter().HasField("k")
    assert not schema.Cifar10DataParameter().HasField("split")
    assert schema.DigitsDataParameter().noise_kind == schema.NoiseKind.Value("SYMMETRIC")


def test_both_data_parameters_number_what_they_share_alike() -> None:
    cifar10 = schema.Cifar10DataParameter.DESCRIPTOR.fields_by_name
    digits = dict(schema.DigitsDataParameter.DESCRIPTOR.fields_by_name)
    assert digits.pop("digit").number not in {field.number for field in cifar10.values()}
    for name, field in digits.items():
        assert (field.number, field.type) == (cifar10[name].number, cifar10[name].type), name
        assert field.default_value == cifar10[name].default_value, name


def test_phases_are_the_schemas() -> None:
    assert schema.Phase.items() == [("TRAIN", schema.TRAIN), ("TEST", schema.TEST)]


def test_pycaffe_can_register_the_same_names_in_the_same_process() -> None:
    other = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    other.message_type.add(name="NetParameter")
    descriptor_pool.Default().AddSerializedFile(other.SerializeToString())
    theirs = descriptor_pool.Default().FindMessageTypeByName("caffe.NetParameter")
    assert len(theirs.fields) == 0
    assert "layer" in schema.NetParameter.DESCRIPTOR.fields_by_name


def test_importing_the_schema_loads_nothing_heavy() -> None:
    code = "import sys, imae.prototxt_like.text; print([m for m in ('numpy', 'torch', 'onnx') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_fields_are_named_by_where_they_are() -> None:
    net = schema.NetParameter()
    net.layer.add(name="data")
    net.layer.add(name="conv1").MergeFromString(b"\x98\x09\x01")  # field 147 of type varint, where 147 is a message
    net.layer[1].convolution_param.weight_filler.MergeFromString(b"\xf8\x3e\x05")  # field 1007
    net.MergeFromString(b"\xf8\x3e\x05")
    assert schema.unknown_fields(net) == [
        "field 1007",
        'layer[1] "conv1": field 147',
        'layer[1] "conv1".convolution_param.weight_filler: field 1007',
    ]
    assert schema.unknown_fields(schema.NetParameter.FromString(net.SerializeToString())) == schema.unknown_fields(net)
