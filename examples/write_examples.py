"""Writes the prototxts of the examples from the nets in `imae.nets` and the paper's settings.

    python -m imae.examples.write_examples [--check]

With `--check` nothing is written; the exit status is 1 if a file is not what would be written.
"""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from imae.nets.digits_net import digits_net
from imae.nets.googlenet_bn import googlenet_bn
from imae.nets.resnet_cifar import resnet_cifar
from imae.prototxt_like.files import write_atomically
from imae.prototxt_like.schema import LayerParameter, NetParameter
from imae.prototxt_like.text import format_text

FOLDER = Path(__file__).parent
DEPTHS = (20, 32, 56)
NOISE = (0, 20, 50, 80)
"""Percentages of training labels that are drawn anew, section 5.1.2."""
LOSSES = ("cce", "mae", "gce", "imae")
T_INTACT, T_NOISY = 0.5, 8
"""IMAE's T for intact and for corrupted labels, section 5.1."""

_WRITTEN = "# Written by `python -m imae.examples.write_examples`: change that, or copy this file.\n"
_CIFAR10_NET = """\
# ResNet-{depth} for CIFAR-10 as in the IMAE paper: section 4.2 of He et al. 2016, with parameter-free shortcuts.
# Stages, in the train_state and test_state of a solver, choose among the layers:
#   noise20, noise50, noise80: the percentage of training labels drawn anew; without one all are intact
#   mae, gce, imae (T = {noisy:g}), imae_intact (T = {intact:g}): the loss; without one CCE
"""
_DIGITS_NET = """\
# A small residual net for the 8 x 8 digits that come with scikit-learn, half of the training labels drawn anew.
# The stages mae, gce and imae (T = {noisy:g}), in a solver's train_state and test_state, choose the loss, else CCE.
"""
_CIFAR10_SOLVER = """\
# {title}: the paper's settings, which are those of He et al. 2016.
net: "{net}"
{states}test_iter: 100  # of 100 images: the whole test set
test_interval: 500
base_lr: 0.1
lr_policy: "multistep"
gamma: 0.1
stepvalue: 32000
stepvalue: 48000
max_iter: 64000
momentum: 0.9
weight_decay: 0.0001
display: 100
snapshot: 10000
snapshot_prefix: "snapshots/{name}"
random_seed: 1
"""
_MARS_NET = """\
# GoogLeNet with batch normalisation (Ioffe and Szegedy 2015) for MARS, as in section 5.2 of the IMAE paper.
# The stages mae, gce and imae (T = {noisy:g}), in a solver's train_state, choose the loss, else CCE. The features of a
# frame are pool5/7x7_s1.
"""
_MARS_SOLVER = """\
# GoogLeNet with batch normalisation on MARS, {title}: the paper's settings, section 5.2.
net: "{net}"
{states}base_lr: 0.01
lr_policy: "step"
gamma: 0.5
stepsize: 10000
max_iter: 50000
momentum: 0.9
weight_decay: 0.0005
display: 100
average_loss: 100
snapshot: 2500
snapshot_prefix: "snapshots/{name}"
random_seed: 1
"""
_DIGITS_SOLVER = """\
# {title}
net: "{net}"
{states}test_iter: 5  # of 100 images: the whole test set
test_interval: 20
base_lr: 0.05
lr_policy: "multistep"
gamma: 0.1
stepvalue: 200
stepvalue: 300
max_iter: 400
momentum: 0.9
weight_decay: 0.005
display: 20
snapshot_prefix: "snapshots/{name}"
random_seed: 1
"""


def examples() -> dict[Path, str]:
    """Return the text of each file, by its path in this folder."""
    folders = {"cifar10": _cifar10(), "digits": _digits(), "mars": _mars()}
    return {Path(folder) / name: text for folder, files in folders.items() for name, text in files.items()}


def staged(plain: NetParameter, variants: Mapping[str, NetParameter]) -> NetParameter:
    """Return `plain` with the layers of each variant that differ from its own, chosen by a stage of the variant's name.

    All nets have the same number of layers. The layers of `plain` that variants change are for none of their stages.
    """
    net = NetParameter(name=plain.name)
    for layer, *others in zip(plain.layer, *(variant.layer for variant in variants.values()), strict=True):
        different = {stage: other for stage, other in zip(variants, others, strict=True) if other != layer}
        net.layer.append(_with_rule(layer, not_stage=list(different)))
        net.layer.extend(_with_rule(other, stage=[stage]) for stage, other in different.items())
    return net


def _with_rule(layer: LayerParameter, **stages: list[str]) -> LayerParameter:
    """`layer` with stages added to each of its include rules, to a new one if it has none."""
    changed = LayerParameter()
    changed.CopyFrom(layer)
    if any(stages.values()):
        for rule in changed.include or [changed.include.add()]:
            for field, names in stages.items():
                getattr(rule, field).extend(names)
    return changed


def _cifar10() -> dict[str, str]:
    files = {}
    for depth in DEPTHS:
        net = partial(resnet_cifar, depth)
        variants = {f"noise{percent}": net("cce", noise_rate=percent / 100) for percent in NOISE if percent}
        variants |= {"mae": net("mae"), "gce": net("gce"), "imae": net("imae", T=T_NOISY)}
        variants["imae_intact"] = net("imae", T=T_INTACT)
        header = _CIFAR10_NET.format(depth=depth, noisy=T_NOISY, intact=T_INTACT)
        files[f"resnet{depth}.prototxt"] = header + _WRITTEN + format_text(staged(net("cce"), variants))
        for loss in LOSSES:
            for percent in NOISE:
                name = f"resnet{depth}_{loss}_noise{percent}"
                title = f"ResNet-{depth}, {loss.upper()}, {f'{percent} % noise' if percent else 'intact labels'}"
                loss_stage = {"cce": [], "imae": ["imae" if percent else "imae_intact"]}.get(loss, [loss])
                states = _states(loss_stage, [f"noise{percent}"] if percent else [])
                text = _CIFAR10_SOLVER.format(title=title, net=f"resnet{depth}.prototxt", states=states, name=name)
                files[f"{name}_solver.prototxt"] = text + _WRITTEN
    return files


def _digits() -> dict[str, str]:
    net = partial(digits_net, noise_rate=0.5)
    variants = {"mae": net("mae"), "gce": net("gce"), "imae": net("imae", T=T_NOISY)}
    header = _DIGITS_NET.format(noisy=T_NOISY)
    files = {"digits.prototxt": header + _WRITTEN + format_text(staged(net("cce"), variants))}
    for loss in LOSSES:
        title = f"{loss.upper()} on digits, half of the training labels drawn anew."
        states = _states([] if loss == "cce" else [loss], [])
        text = _DIGITS_SOLVER.format(title=title, net="digits.prototxt", states=states, name=f"digits_{loss}")
        files[f"{loss}_solver.prototxt"] = text + _WRITTEN
    return files


def _mars() -> dict[str, str]:
    variants = {"mae": googlenet_bn("mae"), "gce": googlenet_bn("gce"), "imae": googlenet_bn("imae", T=T_NOISY)}
    net = staged(googlenet_bn("cce"), variants)
    files = {"googlenet_bn.prototxt": _MARS_NET.format(noisy=T_NOISY) + _WRITTEN + format_text(net)}
    for loss in LOSSES:
        state = "" if loss == "cce" else f'train_state {{ stage: "{loss}" }}\n'
        name = f"googlenet_bn_{loss}"
        text = _MARS_SOLVER.format(title=loss.upper(), net="googlenet_bn.prototxt", states=state, name=name)
        files[f"{name}_solver.prototxt"] = text + _WRITTEN
    return files


def _states(loss: list[str], noise: list[str]) -> str:
    """The lines of a solver that choose the stages of its nets; the noise concerns the training labels only."""
    lines = ""
    for state, stages in (("train_state", loss + noise), ("test_state", loss)):
        if stages:
            names = " ".join(f'stage: "{stage}"' for stage in stages)
            lines += f"{state} {{ {names} }}\n"
    return lines


def main(arguments: list[str]) -> int:
    """Write all files or, with `--check`, name those that differ; return the exit status."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m imae.examples.write_examples [--check]", file=sys.stderr)
        return 2
    files = {FOLDER / path: text for path, text in examples().items()}
    changed = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in changed:
        if arguments:
            print(f"{path.relative_to(FOLDER)}: is not what write_examples writes")
        else:
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, files[path].encode())
    return 1 if arguments and changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
