"""The folder that an audit leaves, from which reports are drawn and a review goes on.

| file | what is in it |
| --- | --- |
| `summary.json` | what was audited, what was picked, how many labels are expected to be wrong, the transition matrix |
| `scores.npz` | arrays over all N samples, in their order: see `SCORES`; and `classes` |
| `names.txt` | what each sample is called, one a line |
| `suspects.csv` | the labels to look at, the most suspicious first |
| `cleaned.csv` | every sample, what becomes of its label by the thresholds, and why |
| `cleaned.txt` | of images in files: those that are kept, `PATH CLASS` a line, as ImageData reads them |
| `duplicates.csv` | pairs that are almost the same with different labels |
| `unreadable.csv` | images that could not be read |
| `decisions.jsonl` | what a person decided, see `decisions.py`; goes before the thresholds |
| `report.html` | a page that shows all that, see `report.py` |
| `head.prototxt`, `.caffemodel`, `.onnx` | the trained head, of features as they were given |
| `net.prototxt`, `.caffemodel`, `.onnx` | of images without a backbone: the net on the pixels, 0 to 255 |
| `classes.txt` | the classes of both, one a line |
| `pixels.txt`, `pixels_iter_*` | what that net is of, and a snapshot, if it was interrupted |
| `features.npy`, `features.json` | of images with a backbone: their features, and how far they are |
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imae import __version__
from imae.audit.cleaned import Thresholds, one_line, write_cleaned
from imae.audit.decisions import Decisions
from imae.audit.features import FARTHEST, Features
from imae.audit.heads import Heads
from imae.audit.label_issues import LabelIssues
from imae.audit.near_duplicates import Duplicates, conflicting_duplicates, merged_classes, undecided_classes
from imae.audit.noise_model import MANY, Interval
from imae.audit.result import SCORES, SUMMARY, Result
from imae.audit.samples import Samples
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.prototxt_like.csv_file import SUSPECTS, write_csv
from imae.prototxt_like.files import replacing, write_atomically
from imae.prototxt_like.schema import TEST
from imae.prototxt_like.text import parse_net, write_text


def write_result(
    folder: Path, samples: Samples, found: LabelIssues, thresholds: Thresholds, *, stopped: bool = False
) -> dict[str, Any]:
    """Write all files; return the summary. `stopped`: the audit was interrupted, and is of what had been read."""
    duplicates = Duplicates(np.zeros((0, 2), np.int64), np.zeros(0), 0)
    if found.features is not None:
        duplicates = conflicting_duplicates(found.features, found.label)
    _write_names(folder / "names.txt", samples.names)
    scores = {name: getattr(found, name) for name in SCORES}
    with replacing(folder / "scores.npz") as file:
        np.savez(file, **scores, classes=np.array(found.classes))
    write_csv(folder / "suspects.csv", SUSPECTS, _suspects(samples, found))
    result = Result(folder, samples.names, found.classes, scores, samples.source, samples.root)
    actions = write_cleaned(result, thresholds, Decisions(result).by_index)
    rows = (
        (samples.names[a], samples.names[b], found.classes[found.label[a]], found.classes[found.label[b]], f"{d:.4f}")
        for (a, b), d in zip(duplicates.pairs.tolist(), duplicates.distance, strict=True)
    )
    write_csv(folder / "duplicates.csv", ("name", "other", "label", "other label", "distance"), rows)
    write_csv(folder / "unreadable.csv", ("name", "why"), samples.unreadable)
    if found.heads is not None and found.features is not None:
        write_head(folder, found.heads, found.features, found.classes)
    summary = _summary(samples, found, duplicates) | {
        "actions": actions,
        "thresholds": asdict(thresholds),
        "stopped": stopped,
    }
    write_atomically(folder / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def write_head(folder: Path, heads: Heads, features: Features, classes: Sequence[str]) -> None:
    """Write the head of the first seed as a net over features as they were given, which it standardises."""
    weights = [-features.mean, features.scale, *(weight[0] for weight in heads.weights)]
    shape, ends = f"dim: 1 dim: {features.width}", f"min: {-FARTHEST} max: {FARTHEST}"
    layers = [
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {shape} }} }} }}',
        'layer { name: "shift" type: "Bias" bottom: "data" top: "shift" }',
        'layer { name: "scale" type: "Scale" bottom: "shift" top: "scale" }',
        f'layer {{ name: "clip" type: "Clip" bottom: "scale" top: "clip" clip_param {{ {ends} }} }}',
    ]
    bottom = "clip"
    if heads.hidden:
        layers += [
            _inner_product("hidden", bottom, heads.hidden),
            'layer { name: "relu" type: "ReLU" bottom: "hidden" top: "hidden" }',
        ]
        bottom = "hidden"
    layers += [
        _inner_product("score", bottom, heads.classes),
        'layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" }',
    ]
    param = parse_net("\n".join(['name: "head"', *layers]))
    net = Net(param, TEST, backward=False)
    blobs = [blob for layer in net.params.values() for blob in layer]
    for blob, weight in zip(blobs, weights, strict=True):
        blob.data.copy_(weight.to(torch.float32))
    write_text(param, folder / "head.prototxt")
    net.write_weights(folder / "head.caffemodel")
    export_onnx(param, folder / "head.caffemodel", folder / "head.onnx")
    _write_names(folder / "classes.txt", classes)


def _write_names(path: Path, names: Sequence[str]) -> None:
    """Write names, one a line."""
    write_atomically(path, "".join(f"{one_line(name)}\n" for name in names).encode(errors="surrogateescape"))


def _inner_product(name: str, bottom: str, outputs: int) -> str:
    size = f"inner_product_param {{ num_output: {outputs} }}"
    return f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {size} }}'


def _suspects(samples: Samples, found: LabelIssues) -> Iterable[Sequence[object]]:
    for rank, i in enumerate((i for i in found.order if found.is_issue[i]), 1):
        yield (
            rank,
            i,
            samples.names[i],
            found.classes[found.label[i]],
            f"{found.p_wrong[i]:.4f}",
            found.classes[found.suggested[i]],
            f"{found.p_suggested[i]:.4f}",
        )


def _summary(samples: Samples, found: LabelIssues, duplicates: Duplicates) -> dict[str, Any]:
    total = len(samples)
    tops = sorted({max(1, total // 100), max(1, total // 20), max(1, int(found.is_issue.sum()))})
    return {
        "imae": __version__,
        "source": samples.source,
        "root": None if samples.root is None else str(samples.root.absolute()),
        "outside": samples.outside,
        "samples": total,
        "classes": found.classes,
        "samples_per_class": np.bincount(found.label, minlength=len(found.classes)).tolist(),
        "issues": int(found.is_issue.sum()),
        "noise_rate": _interval(found.noise_rate),
        "expected_wrong": {str(n): found.expected_wrong(n) for n in tops},
        "transition": _interval(found.transition) if len(found.classes) <= MANY else None,
        "picked": asdict(found.picked),
        "doubt": found.doubt,
        "duplicates": len(duplicates.pairs),
        "duplicates_among": duplicates.compared,
        "merged_classes": [
            {"classes": [found.classes[a], found.classes[b]], "taken_for_each_other": share}
            for a, b, share in merged_classes(found.transition.value)
        ],
        "undecided_classes": [
            {"class": found.classes[a], "label": found.classes[b]} for a, b in undecided_classes(found.transition.value)
        ],
        "unreadable": len(samples.unreadable),
    }


def _interval(interval: Interval) -> dict[str, Any]:
    arrays = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {name: array.tolist() if np.isfinite(array).all() else None for name, array in arrays.items()}
