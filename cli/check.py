"""`imae check`: what is known of a net before anything runs, in one table."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imae.cli.export import sizes_in
from imae.cli.options import NetOptions, Phase, argument, choice, flag, load_torch, option, taking
from imae.cli.table import print_table
from imae.prototxt_like.errors import InputError, counted

if TYPE_CHECKING:
    from imae.nets.check import LayerCheck, NetCheck, Verdict


@taking(NetOptions, "gpu", "cpu", "threads", "precision", "plan", "skip_broken")
def check(
    net: Annotated[Path, argument("NET.prototxt", "The net.")],
    weights: Annotated[Path | None, argument("WEIGHTS", "Weights to compare with it.")] = None,
    *,
    phase: Annotated[Phase, choice("The phase whose layers are shown.")] = Phase.train,
    shape: Annotated[str, option("CxHxW", "The shape of an image, where the net's data is not here to tell it.")] = "",
    as_json: Annotated[bool, flag("--json", "Print it for machines, as one JSON object.")] = False,
    options: NetOptions,
) -> None:
    """Say what a net is and what stands in its way, before anything runs: shapes, parameters, and weights that fit.

    Layers, fields and values that are not here are listed, and whose they are; the others are followed as far as their
    shapes can be. Data need not be here. The last lines say whether the net can be trained and exported, in phases
    TRAIN and TEST. The exit status is 1 if something stands in the way.

    [bold]imae check train_val.prototxt pretrained.caffemodel --shape 3x227x227[/]
    """
    sizes = sizes_in("--shape", "CxHxW, such as 3x32x32", shape)
    load_torch()
    from imae.nets.check import check_net
    from imae.prototxt_like.schema import TEST, TRAIN

    found = check_net(
        net,
        TRAIN if phase is Phase.train else TEST,
        weights,
        shape=sizes,
        allow_python=options.allow_python,
        **options.state,
    )
    if as_json:
        from dataclasses import asdict

        typer.echo(json.dumps({**asdict(found), "obstacles": found.obstacles}, indent=1))
    else:
        _print(found, weights)
    if found.obstacles:
        raise InputError(f"{net}: {counted(len(found.obstacles), 'thing')} in the way, see above")


def _print(found: "NetCheck", weights: Path | None) -> None:
    header = ["layer", "type", "blobs", "shapes", "parameters", "weights", "remark"]
    rows = [
        [
            layer.name,
            layer.type,
            " -> ".join(filter(None, (", ".join(layer.bottoms), ", ".join(layer.tops)))),
            ", ".join("?" if shape is None else "x".join(map(str, shape)) or "scalar" for shape in layer.shapes),
            "?" if layer.parameters is None else f"{layer.parameters:,}" if layer.parameters else "",
            "do not fit" if layer.misfit else layer.weights,
            _remark(layer),
        ]
        for layer in found.layers
    ]
    empty = [i for i in range(len(header)) if i > 3 and not any(row[i] for row in rows)]
    columns = [i for i in range(len(header)) if i not in empty]
    right = [columns.index(4)] if 4 in columns else []
    print_table([header[i] for i in columns], [[row[i] for i in columns] for row in rows], right=right)
    fixed = f", {found.fixed:,} fixed" if found.fixed else ""
    partly = " in the layers that could be built" if any(layer.parameters is None for layer in found.layers) else ""
    typer.echo(f"\nPhase {found.phase}: {counted(len(found.layers), 'layer')}, ", nl=False)
    typer.echo(f"{found.parameters:,} learnable parameters{fixed}{partly}")
    if found.left_over:
        typer.echo(f"Left over in {weights}: {', '.join(found.left_over)}")
    for obstacle in found.obstacles:
        typer.echo(f"In the way: {obstacle}")
    typer.echo(f"Training: {_verdict(found.training)}")
    typer.echo(f"Export to ONNX: {_verdict(found.export)}")


def _remark(layer: "LayerCheck") -> str:
    taken = f"; shape by {layer.taken_from}" if layer.taken_from else ""
    remarks = [f"of {layer.whose}"] if layer.whose else ["cannot be built"] if layer.fault else []
    remarks += [f"needs {layer.needs}{taken}"] if layer.needs else []
    return ", ".join(remarks)


def _verdict(verdict: "Verdict") -> str:
    """In words; obstacles stand in lines of their own."""
    benign = [reason for reason in verdict.reasons if reason not in verdict.obstacles]
    reasons = "; ".join(benign) or ("see above" if verdict.obstacles else "")
    if verdict.possible is None:
        return f"cannot be told: it {reasons}, or --shape"
    if verdict.possible:
        return f"yes, but it {reasons}" if reasons else "yes"
    return f"no: {reasons}"
