"""Forks' settings in binary nets, whose field numbers mean other things in Caffe 1.0 or in each other.

DeepLab's `interp_param` is 143, Caffe's `input_param`; SegNet's `upsample_param` is 137, Caffe's `embed_param`. The
layer's type tells them apart: its settings are under this schema's numbers while it is in memory, and in a file that is
written under those that they came with, or else those of the fork that the type is from. What other layers of forks
have in numbers of this schema is set aside, under numbers that nobody has, and put back: read as the wrong message it
could lose a value, or make a sound file look damaged.
"""

from google.protobuf.message import DecodeError

from imae.prototxt_like import schema
from imae.prototxt_like.known_names import CAFFE_LAYERS, FORK_LAYERS
from imae.prototxt_like.schema import ASIDE, CAME_AS, LayerParameter, NetParameter
from imae.prototxt_like.wire import LENGTH, fields, header

Pieces = list[bytes | memoryview]

_LAYER = NetParameter.DESCRIPTOR.fields_by_name["layer"].number
_FIELDS = LayerParameter.DESCRIPTOR.fields_by_name
_NUMBERS = LayerParameter.DESCRIPTOR.fields_by_number
_TYPE = _FIELDS["type"].number
_FORKS = {
    "Interp": ("interp_param", (143,)),  # DeepLab, PSPNet
    "Upsample": ("upsample_param", (137, 149, 150)),  # SegNet; two of YOLO's, whose first field is the scale as well
    "ROIPooling": ("roi_pooling_param", (8266711, 147, 150, 154)),  # Faster R-CNN; R-FCN's, yjxiong's, Intel's
    "LSTM": ("recurrent_param", (146, 151)),  # Caffe; NVIDIA's
    "RNN": ("recurrent_param", (146, 151)),
    "ShuffleChannel": ("shuffle_channel_param", (164,)),
    "MultiBoxLoss": ("multibox_loss_param", (201,)),
    "Permute": ("permute_param", (202,)),
    "PriorBox": ("prior_box_param", (203,)),
    "DetectionOutput": ("detection_output_param", (204,)),
    "Normalize": ("norm_param", (206,)),
    "Proposal": ("proposal_param", (8266713,)),
    "SmoothL1Loss": ("smooth_l1_loss_param", (8266712, 148, 150)),  # Faster R-CNN; R-FCN's, Intel's; another of R-FCN's
    "PSROIPooling": ("psroi_pooling_param", (149, 148, 153)),  # R-FCN's two; Intel's
    "BoxAnnotatorOHEM": ("box_annotator_ohem_param", (150, 151, 152)),
}
"""By type: the field of its settings here, and its numbers, the one to write where nothing else is known first."""
_LAST_OF_CAFFE = range(_FIELDS["embed_param"].number, _FIELDS["clip_param"].number + 1)
"""What Caffe gave out when forks had gone on from where it stood."""
_OF_FORKS = {_FIELDS[name].number for name, _ in _FORKS.values()} - set(_LAST_OF_CAFFE)


def from_forks(net: bytes) -> bytes:
    """Return the bytes of a net with its layers' settings where this schema has them; damaged ones as they are."""
    return _with_layers(net, writing=False)


def to_forks(net: bytes) -> bytes:
    """Return the bytes of a net with its layers' settings where forks have them: undoes `from_forks`."""
    return _with_layers(net, writing=True)


def layer_to_forks(layer: bytes) -> bytes:
    """Return the bytes of a layer as `to_forks` does."""
    return b"".join(_layer(memoryview(layer), writing=True))


def _with_layers(net: bytes, *, writing: bool) -> bytes:
    whole, pieces, copied = memoryview(net), Pieces(), 0
    try:
        for field in fields(whole):
            if field.number == _LAYER and field.kind == LENGTH:
                layer = whole[field.start : field.end]
                changed = _layer(layer, writing=writing)
                if changed != [layer]:
                    pieces += [whole[copied : field.begin], header(_LAYER, sum(map(len, changed))), *changed]
                    copied = field.end
    except ValueError:  # protobuf finds it as well, and what reads says so
        return net
    return b"".join([*pieces, whole[copied:]]) if pieces else net


def _layer(layer: memoryview, *, writing: bool) -> Pieces:
    """The pieces of a layer, the whole of it if nothing changes."""
    found = [field for field in fields(layer) if field.kind == LENGTH]
    if found and found[-1].end > len(layer):
        raise ValueError("cut short")
    kinds = [str(layer[field.start : field.end], errors="replace") for field in found if field.number == _TYPE]
    kind = kinds[-1] if kinds else ""
    name, numbers = _FORKS.get(kind, ("", (0,)))
    own = _FIELDS[name].number if name else 0
    came_as = next((field.number - CAME_AS for field in found if field.number > CAME_AS), numbers[0])
    pieces, marks, copied = Pieces(), Pieces(), 0
    for field in found:
        number, content = field.number, layer[field.start : field.end]
        if writing:
            new = came_as if number == own else number - ASIDE if CAME_AS > number > ASIDE else number
        elif number in numbers:
            new = own
        else:
            new = number + ASIDE if number != own and _is_anothers(number, kind, content) else number
        if new != number or number > CAME_AS:
            pieces += [layer[copied : field.begin]]
            pieces += [] if number > CAME_AS else [header(new, len(content)), content]
            copied = field.end
        if not writing and number in numbers[1:]:
            marks.append(header(CAME_AS + number, 0))
    return [*pieces, layer[copied:], *marks] if pieces or marks else [layer]


def _is_anothers(number: int, kind: str, content: memoryview) -> bool:
    """Whether a field of a layer of this type means something else here."""
    if number in _OF_FORKS:
        return True
    if number not in _LAST_OF_CAFFE or kind in CAFFE_LAYERS:
        return False
    try:
        getattr(schema, _NUMBERS[number].message_type.name).FromString(bytes(content))
    except DecodeError:
        return True
    return kind in FORK_LAYERS
