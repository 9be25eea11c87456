"""Python layers of py-faster-rcnn: its nets run as they are published, without its code."""

from pathlib import Path

import pytest
import torch

from imae.layers.layer import TEST, TRAIN, Context
from imae.layers.registry import create_layer
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

HEAD = """
layer { name: "data" type: "Input" top: "data" top: "im_info" top: "gt_boxes"
  input_param { shape { dim: [1, 3, 64, 96] } shape { dim: [1, 3] } shape { dim: [2, 5] } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 16 stride: 16 weight_filler { type: "xavier" } } }
layer { name: "rpn_cls_score" type: "Convolution" bottom: "conv" top: "rpn_cls_score"
  convolution_param { num_output: 12 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "rpn_bbox_pred" type: "Convolution" bottom: "conv" top: "rpn_bbox_pred"
  convolution_param { num_output: 24 kernel_size: 1 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "reshape" type: "Reshape" bottom: "rpn_cls_score" top: "rpn_cls_score_reshape"
  reshape_param { shape { dim: [0, 2, -1, 0] } } }
layer { name: "prob" type: "Softmax" bottom: "rpn_cls_score_reshape" top: "rpn_cls_prob" }
layer { name: "back" type: "Reshape" bottom: "rpn_cls_prob" top: "rpn_cls_prob_reshape"
  reshape_param { shape { dim: [0, 12, -1, 0] } } }
"""
PROPOSAL = """
layer { name: "proposal" type: "Python" bottom: "rpn_cls_prob_reshape" bottom: "rpn_bbox_pred" bottom: "im_info"
  top: "TOP" python_param { module: "rpn.proposal_layer" layer: "ProposalLayer"
    param_str: "'feat_stride': 16 \\n'scales': [1, 2]" } }
"""
TARGETS = """
layer { name: "rpn-data" type: "Python" bottom: "rpn_cls_score" bottom: "gt_boxes" bottom: "im_info" bottom: "data"
  top: "rpn_labels" top: "rpn_bbox_targets" top: "rpn_in" top: "rpn_out"
  python_param { module: "rpn.anchor_target_layer" layer: "AnchorTargetLayer"
    param_str: "{'feat_stride': 16, 'scales': !!python/tuple [1, 2]}" } }
layer { name: "rpn_loss_cls" type: "SoftmaxWithLoss" bottom: "rpn_cls_score_reshape" bottom: "rpn_labels" top: "rpn_cls"
  propagate_down: [true, false] loss_param { ignore_label: -1 normalize: true } }
layer { name: "rpn_loss_bbox" type: "SmoothL1Loss" bottom: "rpn_bbox_pred" bottom: "rpn_bbox_targets" bottom: "rpn_in"
  bottom: "rpn_out" top: "rpn_box" smooth_l1_loss_param { sigma: 3 } }
layer { name: "roi-data" type: "Python" bottom: "rpn_rois" bottom: "gt_boxes"
  top: "rois" top: "labels" top: "bbox_targets" top: "bbox_inside_weights" top: "bbox_outside_weights"
  python_param { module: "rpn.proposal_target_layer" layer: "ProposalTargetLayer" param_str: "'num_classes': 3" } }
"""
REGIONS = """
layer { name: "pool" type: "ROIPooling" bottom: "conv" bottom: "rois" top: "pool"
  roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.0625 } }
layer { name: "cls_score" type: "InnerProduct" bottom: "pool" top: "cls_score"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "bbox_pred" type: "InnerProduct" bottom: "pool" top: "bbox_pred"
  inner_product_param { num_output: 12 weight_filler { type: "xavier" } } }
"""
LOSSES = """
layer { name: "loss_cls" type: "SoftmaxWithLoss" bottom: "cls_score" bottom: "labels" top: "loss_cls"
  propagate_down: [true, false] }
layer { name: "loss_bbox" type: "SmoothL1Loss" bottom: "bbox_pred" bottom: "bbox_targets" bottom: "bbox_inside_weights"
  bottom: "bbox_outside_weights" top: "loss_bbox" }
"""
TRAINED = HEAD + PROPOSAL.replace("TOP", "rpn_rois") + TARGETS + REGIONS + LOSSES


def test_a_net_trains_end_to_end() -> None:
    """Two annotated boxes are found: among the regions, which learn offsets to them, and among the anchors."""
    net = Net(parse_net(TRAINED), TRAIN)
    boxes = torch.tensor([[3.0, 4, 30, 40, 2], [40, 10, 80, 60, 1]])
    tops = net.forward(data=torch.randn(1, 3, 64, 96), im_info=torch.tensor([[64.0, 96, 1]]), gt_boxes=boxes)
    net.backward()
    assert all(tops[name] > 0 for name in ("rpn_cls", "rpn_box", "loss_cls", "loss_bbox"))
    labels = torch.as_tensor(net.blobs["labels"].data).flatten()
    assert {1, 2} <= set(labels.tolist()) and net.blobs["bbox_targets"].shape == (len(labels), 12, 1, 1)
    assert 1 in net.blobs["rpn_labels"].data
    for name in ("conv", "rpn_cls_score", "rpn_bbox_pred", "cls_score", "bbox_pred"):
        assert net.params[name][0].diff.any(), name


def test_a_net_predicts_by_our_layer_of_the_same_settings() -> None:
    ours = 'type: "Proposal" proposal_param { feat_stride: 16 scale: [1, 2] } }'
    theirs = PROPOSAL.replace("TOP", "rois")
    text = theirs.replace('type: "Python"', "")[: theirs.index("python_param") - len('type: "Python"')] + ours
    nets = Net(parse_net(HEAD + theirs + REGIONS), TEST), Net(parse_net(HEAD + text + REGIONS), TEST)
    generator = torch.Generator().manual_seed(1)
    inputs = {"data": torch.randn(1, 3, 64, 96, generator=generator), "im_info": torch.tensor([[64.0, 96, 1]])}
    (tops, expected) = (net.forward(**inputs, gt_boxes=torch.zeros(2, 5)) for net in nets)
    assert tops["cls_score"].shape[0] > 1
    assert torch.equal(tops["cls_score"], expected["cls_score"])


@pytest.mark.parametrize(("phase", "kept"), [(TRAIN, (12000, 2000)), (TEST, (6000, 300))])
def test_as_many_regions_remain_as_end_to_end_training_and_testing_have(phase: int, kept: tuple[int, int]) -> None:
    layer = create_layer(parse_net(PROPOSAL).layer[0], Context(phase=phase))
    own = layer.param.proposal_param
    assert (layer.type, (own.pre_nms_topn, own.post_nms_topn), list(own.scale)) == ("Proposal", kept, [1, 2])


@pytest.mark.parametrize(
    "given",
    ["'feat_stride': [16, 8]", "'feat_stride': 1.5", "'feat_stride': sixteen", "'means': 3", "'scales': [1, [2]]", "["],
)
def test_settings_that_are_more_than_that_stay_python_code(given: str) -> None:
    text = PROPOSAL.replace("'feat_stride': 16 \\n'scales': [1, 2]", given)
    layer = create_layer(parse_net(text).layer[0])
    assert layer.type == "Python"
    with pytest.raises(InputError, match="would run Python code"):
        layer.setup([(1, 12, 2, 2), (1, 24, 2, 2), (1, 3)])


def test_code_that_may_run_and_is_there_runs(tmp_path: Path) -> None:
    param = parse_net(PROPOSAL).layer[0]
    assert create_layer(param, Context(allow_python=True, folders=(tmp_path,))).type == "Proposal"
    (tmp_path / "rpn").mkdir()
    assert create_layer(param, Context(allow_python=True, folders=(tmp_path,))).type == "Python"
    assert create_layer(param, Context(folders=(tmp_path,))).type == "Proposal"
