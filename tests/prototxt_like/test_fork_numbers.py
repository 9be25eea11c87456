"""Binary nets of forks, by schemas of their own: read by the layer's type, and written back for the fork to read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from imae.prototxt_like import schema
from imae.prototxt_like.binary import open_caffemodel, read_caffemodel, unknown_fields, write_caffemodel
from imae.prototxt_like.errors import InputError

OWN = {
    "interp_param": "height:i width:i zoom_factor:i shrink_factor:i pad_beg:i pad_end:i",
    "upsample_param": "scale:i scale_h:i scale_w:i pad_out_h:b pad_out_w:b upsample_h:i upsample_w:i",
    "roi_pooling_param": "pooled_h:i pooled_w:i spatial_scale:f",
    "recurrent_param": "num_output:i",
    "embed_param": "num_output:i",
    "prefix_param": "prefix:s source:s strides:i batch_size:i",
    "seg_accuracy_param": "top_k:i ignore_label:i",
    "sigma_param": "sigma:f",
    "smooth_l1_loss_param": "sigma:f",
    "psroi_pooling_param": "spatial_scale:f output_dim:i group_size:i",
    "box_annotator_ohem_param": "roi_per_img:i ignore_label:i",
    "permute_param": "order:i",
}
"""Settings of forks, their fields in the order of their numbers from 1."""
FORKS = {
    "DeepLab": {"interp_param": 143, "seg_accuracy_param": 144, "prefix_param": 145},
    "SegNet": {"upsample_param": 137, "prefix_param": 138},
    "YOLO": {"upsample_param": 149},
    "R-FCN": {
        "roi_pooling_param": 147,
        "sigma_param": 148,
        "psroi_pooling_param": 149,
        "box_annotator_ohem_param": 150,
    },
    "another R-FCN": {"psroi_pooling_param": 148, "smooth_l1_loss_param": 150, "box_annotator_ohem_param": 151},
    "Intel": {"embed_param": 137, "roi_pooling_param": 154, "engine": 149, "psroi_pooling_param": 153},
    "NVIDIA": {"recurrent_param": 151, "embed_param": 137},
    "Faster R-CNN": {"roi_pooling_param": 8266711, "smooth_l1_loss_param": 8266712},
    "SSD": {"permute_param": 202, "embed_param": 137},
}
"""The numbers of each fork's settings in its LayerParameter; Intel's `engine` is a string in any layer."""
LAYERS: list[tuple[str, str, dict[str, Any]]] = [
    ("DeepLab", "Interp", {"interp_param": {"zoom_factor": 8, "pad_beg": -1}}),
    ("DeepLab", "SegAccuracy", {"seg_accuracy_param": {"ignore_label": 255}}),
    ("DeepLab", "MatWrite", {"prefix_param": {"prefix": "out/", "strides": 3}}),
    ("SegNet", "Upsample", {"upsample_param": {"scale": 2, "scale_w": 3, "pad_out_h": True, "upsample_w": 45}}),
    ("SegNet", "DenseImageData", {"prefix_param": {"prefix": "train.txt", "source": "x"}}),
    ("YOLO", "Upsample", {"upsample_param": {"scale": 4}}),
    ("R-FCN", "ROIPooling", {"roi_pooling_param": {"pooled_h": 7, "spatial_scale": 0.0625}}),
    ("R-FCN", "SmoothL1LossOHEM", {"sigma_param": {"sigma": 3}}),
    ("R-FCN", "PSROIPooling", {"psroi_pooling_param": {"spatial_scale": 0.0625, "group_size": 7}}),
    ("R-FCN", "BoxAnnotatorOHEM", {"box_annotator_ohem_param": {"roi_per_img": 128}}),
    ("another R-FCN", "PSROIPooling", {"psroi_pooling_param": {"output_dim": 21}}),
    ("another R-FCN", "SmoothL1Loss", {"smooth_l1_loss_param": {"sigma": 3}}),
    ("another R-FCN", "BoxAnnotatorOHEM", {"box_annotator_ohem_param": {"roi_per_img": 64}}),
    ("Intel", "PSROIPooling", {"psroi_pooling_param": {"group_size": 3}}),
    ("Intel", "ROIPooling", {"roi_pooling_param": {"pooled_h": 7}, "engine": "CAFFE"}),
    ("Intel", "Convolution", {"engine": "MKL2017"}),
    ("Intel", "Embed", {"embed_param": {"num_output": 4}, "engine": "CAFFE"}),
    ("NVIDIA", "LSTM", {"recurrent_param": {"num_output": 5}}),
    ("NVIDIA", "Embed", {"embed_param": {"num_output": 5}}),
    ("Faster R-CNN", "SmoothL1Loss", {"smooth_l1_loss_param": {"sigma": 3}}),
    ("Faster R-CNN", "ROIPooling", {"roi_pooling_param": {"pooled_w": 6}}),
    ("SSD", "Permute", {"permute_param": {"order": 2}}),
    ("SSD", "OurOwn", {"embed_param": {"num_output": 5}}),
]


def fork(name: str) -> Any:
    """The class of a fork's NetParameter, made from the numbers above."""
    kinds = {"i": "INT32", "b": "BOOL", "f": "FLOAT", "s": "STRING"}
    caffes = FileDescriptorProto()
    schema.BlobProto.DESCRIPTOR.file.CopyToProto(caffes)
    file = FileDescriptorProto(name=f"{name}.proto", package="caffe", dependency=[caffes.name])

    def add(message: Any, field: str, number: int, kind: str, of: str = "", many: bool = False) -> None:
        label = FieldDescriptorProto.LABEL_REPEATED if many else FieldDescriptorProto.LABEL_OPTIONAL
        type = getattr(FieldDescriptorProto, f"TYPE_{kind}")
        message.field.add(name=field, number=number, type=type, type_name=of or None, label=label)

    net, layer = (file.message_type.add(name=f"Fork{kind}") for kind in ("Net", "Layer"))
    add(net, "layer", 100, "MESSAGE", ".caffe.ForkLayer", many=True)
    add(layer, "name", 1, "STRING")
    add(layer, "type", 2, "STRING")
    add(layer, "blobs", 7, "MESSAGE", ".caffe.BlobProto", many=True)
    for field, number in FORKS[name].items():
        if field == "engine":
            add(layer, field, number, "STRING")
            continue
        settings = file.message_type.add(name=f"Fork_{field}")
        add(layer, field, number, "MESSAGE", f".caffe.Fork_{field}")
        for place, (own, _, kind) in enumerate((one.partition(":") for one in OWN[field].split()), 1):
            add(settings, own, place, kinds[kind])
    pool = DescriptorPool()
    pool.AddSerializedFile(caffes.SerializeToString())
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName("caffe.ForkNet"))


def net_of(name: str) -> Any:
    """A net of a fork with its layers above, each with two numbers as weights."""
    net = fork(name)()
    for own, kind, settings in LAYERS:
        if own == name:
            net.layer.add(name=f"a {kind}", type=kind, blobs=[{"shape": {"dim": [2]}, "data": [1, 2]}], **settings)
    return net


@pytest.mark.parametrize("name", FORKS)
@pytest.mark.parametrize("again", [False, True])
def test_a_forks_net_is_read_by_its_types_and_written_back(name: str, again: bool, tmp_path: Path) -> None:
    given = net_of(name)
    (tmp_path / "fork.caffemodel").write_bytes(given.SerializeToString())
    net = read_caffemodel(tmp_path / "fork.caffemodel")
    aside = []
    for layer, (_, kind, settings) in zip(net.layer, [one for one in LAYERS if one[0] == name], strict=True):
        assert (layer.type, list(layer.blobs[0].data)) == (kind, [1, 2])
        found = {field.name: value for field, value in layer.ListFields()}
        for field, value in settings.items():
            if field in schema.LayerParameter.DESCRIPTOR.fields_by_name and field != "permute_param":
                assert {one.name: number for one, number in found[field].ListFields()} == value
            elif field != "permute_param":
                assert set(found) <= {"name", "type", "blobs", "roi_pooling_param", "embed_param"}
                aside.append(f"{field} {FORKS[name][field]}")
    said = unknown_fields(net)
    assert [line.split()[-1] for line in said] == [line.split()[-1] for line in aside]
    blobs = {layer.name: [(np.array([1, 2], np.float32), None)] for layer in net.layer} if again else None
    write_caffemodel(net, tmp_path / "again.caffemodel", blobs)
    written = type(given).FromString((tmp_path / "again.caffemodel").read_bytes())
    written.DiscardUnknownFields()  # the number of layers, which is ours
    assert written == given
    assert open_caffemodel(tmp_path / "again.caffemodel").message.layer[0].type == given.layer[0].type


def test_settings_of_ours_are_written_under_the_forks_numbers(tmp_path: Path) -> None:
    net = schema.NetParameter()
    net.layer.add(name="i", type="Interp", interp_param={"zoom_factor": 4})
    net.layer.add(name="u", type="Upsample", upsample_param={"scale": 3})
    write_caffemodel(net, tmp_path / "w")
    data = (tmp_path / "w").read_bytes()
    assert fork("DeepLab").FromString(data).layer[0].interp_param.zoom_factor == 4
    assert fork("SegNet").FromString(data).layer[1].upsample_param.scale == 3
    assert list(read_caffemodel(tmp_path / "w").layer) == list(net.layer)
    (tmp_path / "older").write_bytes(net.SerializeToString())  # interp_param as 2143, upsample_param as 149
    assert read_caffemodel(tmp_path / "older").layer[0].interp_param.zoom_factor == 4


def test_a_type_nobody_knows_keeps_what_reads_as_no_message_of_caffes(tmp_path: Path) -> None:
    """Another fork's number 145 with text in it, which as Caffe's parameter_param made the whole file damaged."""
    net = fork("DeepLab")()
    net.layer.add(name="n", type="Novel", prefix_param={"prefix": "a"})
    (tmp_path / "w").write_bytes(net.SerializeToString())
    assert unknown_fields(read_caffemodel(tmp_path / "w")) == ['layer[0] "n": field 145']
    net.layer[0].type = "Parameter"
    (tmp_path / "w").write_bytes(net.SerializeToString())
    with pytest.raises(InputError, match="damaged"):
        read_caffemodel(tmp_path / "w")


@pytest.mark.parametrize("read", [read_caffemodel, open_caffemodel])
def test_a_forks_net_cut_anywhere_is_an_error_or_has_fewer_layers(read: Any, tmp_path: Path) -> None:
    net = net_of("SegNet")
    data, path = net.SerializeToString(), tmp_path / "cut"
    del net.layer[1:]
    boundary, whole = len(net.SerializeToString()), []
    for length in [boundary, *range(0, len(data), 10)]:
        path.write_bytes(data[:length])
        try:
            result = read(path)
            whole.append(len(getattr(result, "message", result).layer))
        except InputError as error:
            assert "\n" not in str(error)
    assert whole == [1]
