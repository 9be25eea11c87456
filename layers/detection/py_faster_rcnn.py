"""The Python layers of py-faster-rcnn, of which the published nets are made, as layers that are here."""

import re
from typing import Any

from imae.prototxt_like.schema import TRAIN, LayerParameter

_SETTING = re.compile(r"""\s*["']?(\w+)["']?\s*:\s*(?:!!python/tuple\s*)?(\[[^\[\]]*\]|[\d.]+)\s*(?:,|\n|$)""")
_FIELDS = {"feat_stride": "feat_stride", "base_size": "base_size", "scales": "scale", "ratios": "ratio"}
_LAYERS: dict[tuple[str, str], tuple[str, str, dict[str, str]]] = {
    ("rpn.proposal_layer", "ProposalLayer"): ("Proposal", "proposal_param", _FIELDS),
    ("rpn.anchor_target_layer", "AnchorTargetLayer"): (
        "AnchorTarget",
        "anchor_target_param",
        {**_FIELDS, "allowed_border": "allowed_border"},
    ),
    ("rpn.proposal_target_layer", "ProposalTargetLayer"): (
        "ProposalTarget",
        "proposal_target_param",
        {"num_classes": "num_classes"},
    ),
}
"""By module and class: the layer, its settings, and their names for what a `param_str` says."""


def as_ours(layer: LayerParameter, phase: int) -> LayerParameter | None:
    """Return a Python layer of py-faster-rcnn as one that is here, None if it is none, or has settings of its own.

    What its configuration says is as for end-to-end training, or, in phase TEST, testing: of the 12000 best regions
    2000 remain, or of 6000, 300.
    """
    found = _LAYERS.get((layer.python_param.module, layer.python_param.layer))
    settings = _settings(layer.python_param.param_str)
    if layer.type != "Python" or not found or settings is None or not settings.keys() <= found[2].keys():
        return None
    kind, param, fields = found
    ours = LayerParameter()
    ours.CopyFrom(layer)
    ours.type = kind
    ours.ClearField("python_param")
    own: Any = getattr(ours, param)
    for name, values in settings.items():
        if fields[name] in ("scale", "ratio"):
            getattr(own, fields[name]).extend(values)
        elif len(values) == 1 and values[0] == int(values[0]):
            setattr(own, fields[name], int(values[0]))
        else:
            return None
    if kind == "Proposal" and phase == TRAIN:
        own.pre_nms_topn, own.post_nms_topn = 12000, 2000
    return ours


def _settings(text: str) -> dict[str, list[float]] | None:
    """Return what a `param_str` says, YAML of names and numbers or lists of these; None if it is more than that."""
    text = text.strip()
    text = text[1:-1].strip() if text[:1] == "{" and text[-1:] == "}" else text
    found, end = dict[str, list[float]](), 0
    while end < len(text):
        match = _SETTING.match(text, end)
        if not match:
            return None
        try:
            found[match[1]] = [float(number) for number in match[2].strip("[]").split(",")]
        except ValueError:
            return None
        end = match.end()
    return found
