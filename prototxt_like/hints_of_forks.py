"""Fields of forks that say how to compute a net, not what it computes: they are left out of a prototxt, with a warning.

Intel's and NVIDIA's Caffe choose by them integers or half precision, algorithms, and where memory is shared.
"""

import logging
import re
from collections import Counter

_log = logging.getLogger(__name__)
_TOKEN = re.compile(r"""\s+|\#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[{}<>\[\]:;,]|[^\s{}<>\[\]:;,"'\#]+""")
_QUOTES = "\"'"
_PRECISION = "a net computes in floating point, in the precision that it is asked for"
_MEMORY = "memory is seen to here"
_HINTS = {
    **dict.fromkeys(
        (
            "quantization_param",
            *(
                f"{begin}{way}_{what}"
                for begin in ("default_", "")
                for way in ("forward", "backward")
                for what in ("type", "math")
            ),
            "global_grad_scale",
            "global_grad_scale_adaptive",
        ),
        _PRECISION,
    ),
    **dict.fromkeys(("eltwise_mem_sharing", "cache", "threads", "parser_threads"), _MEMORY),
    "conv_algorithm": "it has no effect",
    "engine": "it has no effect",
}
"""By field: why it is left out."""
_ENGINES = re.compile(r"""["']|MKL2017\b|MKLDNN\b""")
"""Which of the fields called `engine` are a fork's: of a layer or a net, in quotes, and these values of Caffe's own."""


def without_hints(text: str, name: str) -> str:
    """Return a prototxt with blanks in place of these fields; `name` is its file's, which the warnings say."""
    found, fields = Counter[str](), list[int]()
    tokens = [token for token in _TOKEN.finditer(text) if not token[0].isspace() and token[0][0] != "#"]
    for token, after, value in zip(tokens, tokens[1:], tokens[2:], strict=False):
        field = token[0]
        if field in _HINTS and after[0] in (":", "{", "<") and (field != "engine" or _ENGINES.match(value[0])):
            found[field] += 1
            fields.append(token.start())
    for begin in reversed(fields):
        text = without_field(text, begin)
    for field, count in found.items():
        times = f" ({count} times)" if count > 1 else ""
        _log.warning("%s: %s is left out: %s%s", name, field, _HINTS[field], times)
    return text


def without_field(text: str, place: int) -> str:
    """Return a prototxt with blanks, so that what follows stays where it is, for the field of which the name, or the
    value, begins at `place`.
    """
    begin, end = _field_at(text, place)
    return text[:begin] + re.sub(r"[^\n]", " ", text[begin:end]) + text[end:]


def _field_at(text: str, place: int) -> tuple[int, int]:
    """Where the field begins and ends of which the name, or the value, begins at `place`."""
    before = re.search(r"\w+\s*:\s*$", text[:place])
    begin, end, depth = before.start() if before else place, place, 0
    found = ["name"] if before else []  # then the value, which may be several strings
    for token in _TOKEN.finditer(text, place):
        what = token[0]
        if what.isspace() or what[0] == "#":
            continue
        if len(found) == 2 and depth == 0 and what not in ",;" and not (what[0] in _QUOTES and found[1] in _QUOTES):
            break
        end = token.end()
        depth += (what in "{<[") - (what in "}>]")
        if len(found) == 2 and depth == 0 and what in ",;":
            break
        if what != ":" and len(found) < 2:
            found.append(what[0])
    return begin, end
