"""Writes the prototxts of the examples from the nets in `imae.nets` and the paper's settings.

    python -m imae.examples.write_examples [--check]

With `--check` nothing is written; the exit status is 1 if a file is not what would be written.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from imae.nets.digits_net import digits_net
from imae.nets.googlenet_bn import googlenet_bn
from imae.nets.paper import DEPTHS, LOSSES, NOISE, T_INTACT, T_NOISY, cifar10_solver, digits_solver, mars_solver
from imae.nets.resnet_cifar import resnet_cifar
from imae.prototxt_like.files import write_atomically
from imae.prototxt_like.schema import LayerParameter, NetParameter, SolverParameter
from imae.prototxt_like.text import format_text

FOLDER = Path(__file__).parent

_WRITTEN = "# Written by `python -m imae.examples.write_examples`: change that, or copy this file.\n"
_CIFAR10_NET = """\
# ResNet-{depth} for CIFAR-10 as in the IMAE paper: section 4.2 of He et al. 2016, with parameter-free shortcuts.
# Stages, in the train_state and test_state of a solver, choose among the layers:
#   noise20, noise50, noise80: the percentage of training labels replaced at random; without one all are intact
#   mae, gce, imae (T = {noisy:g}), imae_intact (T = {intact:g}): the loss; without one CCE
"""
_DIGITS_NET = """\
# A small residual net for the 8 x 8 digits that come with scikit-learn, half of the training labels replaced
# at random, trained on random crops of the padded images.
# The stages mae, gce and imae (T = {noisy:g}), in a solver's train_state and test_state, choose the loss, else CCE.
"""
_MARS_NET = """\
# GoogLeNet with batch normalisation (Ioffe and Szegedy 2015) for MARS, as in section 5.2 of the IMAE paper.
# The stages mae, gce and imae (T = {noisy:g}), in a solver's train_state, choose the loss, else CCE. The features of a
# frame are pool5/7x7_s1.
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
                title += ": the paper's settings, which are those of He et al. 2016"
                loss_stage = {"cce": [], "imae": ["imae" if percent else "imae_intact"]}.get(loss, [loss])
                noise_stage = [f"noise{percent}"] if percent else []
                text = _solver(title, f"resnet{depth}.prototxt", cifar10_solver(), name, loss_stage, noise_stage)
                files[f"{name}_solver.prototxt"] = text
    return files


def _digits() -> dict[str, str]:
    net = partial(digits_net, noise_rate=0.5, crops=True)
    variants = {"mae": net("mae"), "gce": net("gce"), "imae": net("imae", T=T_NOISY)}
    header = _DIGITS_NET.format(noisy=T_NOISY)
    files = {"digits.prototxt": header + _WRITTEN + format_text(staged(net("cce"), variants))}
    for loss in LOSSES:
        title = f"{loss.upper()} on digits, half of the training labels replaced at random"
        stages = [] if loss == "cce" else [loss]
        files[f"{loss}_solver.prototxt"] = _solver(title, "digits.prototxt", digits_solver(), f"digits_{loss}", stages)
    return files


def _mars() -> dict[str, str]:
    variants = {"mae": googlenet_bn("mae"), "gce": googlenet_bn("gce"), "imae": googlenet_bn("imae", T=T_NOISY)}
    net = staged(googlenet_bn("cce"), variants)
    files = {"googlenet_bn.prototxt": _MARS_NET.format(noisy=T_NOISY) + _WRITTEN + format_text(net)}
    for loss in LOSSES:
        name, stages = f"googlenet_bn_{loss}", [] if loss == "cce" else [loss]
        title = f"GoogLeNet with batch normalisation on MARS, {loss.upper()}: the paper's settings, section 5.2"
        files[f"{name}_solver.prototxt"] = _solver(title, "googlenet_bn.prototxt", mars_solver(), name, stages)
    return files


def _solver(
    title: str, net: str, settings: SolverParameter, name: str, loss: Sequence[str], noise: Sequence[str] = ()
) -> str:
    """The text of a solver that chooses the stages of its nets; the noise concerns the training labels only."""
    head = SolverParameter(net=net)
    if loss or noise:
        head.train_state.stage.extend([*loss, *noise])
    if loss and settings.test_iter:
        head.test_state.add(stage=loss)
    tests = "# test_iter batches of 100 images are the whole test set.\n" if settings.test_iter else ""
    settings.snapshot_prefix = f"snapshots/{name}"
    return f"# {title}.\n{tests}{_WRITTEN}{format_text(head)}{format_text(settings)}"


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
