"""Folders that an audit leaves, made in milliseconds from scores that are given, for the tests of its pages."""

from pathlib import Path

import numpy as np
from PIL import Image

from imae.audit.cleaned import Thresholds
from imae.audit.label_issues import LabelIssues, Picked
from imae.audit.noise_model import Interval
from imae.audit.result_folder import write_result
from imae.audit.samples import Samples

CLASSES = ["cat", "<img src=x onerror=alert(1)>", "</script><b>dog"]


def audited(folder: Path, count: int = 40, *, images: bool = True, suspects: bool = True) -> tuple[Path, Samples]:
    """Write the folder of an audit of `count` images, or of rows, half of whose labels are `suspects`.

    Sample i has the label i % C, of which the next class is suggested; the more suspicious the smaller i is.
    """
    label = np.arange(count) % len(CLASSES)
    p_wrong = np.linspace(1, 0, count) ** 0.5
    root = folder / "photos" if images else None
    names = [f"{i:04} 'n' & <b>.png" for i in range(count)]
    if root:
        root.mkdir(parents=True)
        for i, name in enumerate(names):
            pixels = np.full((90, 120, 3), (6 * i) % 256, np.uint8)
            Image.fromarray(pixels).save(root / name)
        (root / names[1]).write_bytes(b"no image")
    matrix = np.eye(len(CLASSES)) * 0.7 + 0.3 / len(CLASSES)
    samples = Samples(
        "photos & <more>", label, CLASSES, names, root=root, unreadable=[("=1+1<i>.png", "<script>alert(2)</script>")]
    )
    found = LabelIssues(
        label=label,
        classes=CLASSES,
        score=10 * p_wrong,
        p_wrong=p_wrong,
        suggested=(label + 1) % len(CLASSES),
        p_suggested=p_wrong * 0.9,
        is_issue=np.arange(count) < count // 2 * suspects,
        noise_rate=Interval(p_wrong.mean(), p_wrong.mean() - 0.1, p_wrong.mean() + 0.1),
        transition=Interval(matrix, matrix - 0.05, matrix + 0.05),
        picked=Picked("IMAE", 8.0, 0.01, 100, 0, 1, 0.8, 0.7, []),
        logits=np.zeros((count, len(CLASSES)), np.float32),
    )
    out = folder / "audit"
    out.mkdir(parents=True)
    write_result(out, samples, found, Thresholds())
    return out, samples
