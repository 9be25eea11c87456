"""`imae upgrade`: nets and solvers of older versions of Caffe, rewritten in the present form."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from imae.cli.hints import Command, Group
from imae.cli.options import argument
from imae.prototxt_like.errors import InputError, counted

Old = Annotated[Path, argument("IN", "The file in its old form.")]
New = Annotated[Path, argument("OUT", "The file to write.")]

upgrade = typer.Typer(cls=Group, help="Rewrite a net or a solver in Caffe's present form.", no_args_is_help=True)


@upgrade.command(cls=Command)
def net(old: Old, new: New) -> None:
    """Rewrite a net: a prototxt as a prototxt, a caffemodel, with its weights, as a caffemodel.

    Layers of the forms V0 and V1, transformations among the settings of data layers, input fields and BatchNorm's old
    multipliers become what Caffe makes of them. Fields that it drops are named, and the exit status is 1 then.

    [bold]imae upgrade net old.prototxt net.prototxt[/]
    """
    from imae.prototxt_like import binary, text
    from imae.prototxt_like.files import read_bytes
    from imae.prototxt_like.schema import NetParameter
    from imae.prototxt_like.upgrade import upgrade_net

    if text.looks_like_prototxt(read_bytes(old)):
        _upgrade(text.read_as_written(old, NetParameter), old, new, upgrade_net, text.write_text)
    else:
        _upgrade(binary.read_as_written(old), old, new, upgrade_net, binary.write_caffemodel)


@upgrade.command(cls=Command)
def solver(old: Old, new: New) -> None:
    """Rewrite a solver: the number or name in `solver_type` becomes `type`, and nets inside it as by `upgrade net`.

    [bold]imae upgrade solver old_solver.prototxt solver.prototxt[/]
    """
    from imae.prototxt_like.schema import SolverParameter
    from imae.prototxt_like.text import read_as_written, write_text
    from imae.prototxt_like.upgrade import upgrade_solver

    _upgrade(read_as_written(old, SolverParameter), old, new, upgrade_solver, write_text)


def _upgrade(
    message: Any, old: Path, new: Path, upgrade: Callable[[Any, str], list[str]], write: Callable[[Any, Path], None]
) -> None:
    from imae.prototxt_like.upgrade import old_forms

    forms = old_forms(message)
    lost = upgrade(message, str(old))
    write(message, new)
    typer.echo(f"Wrote {new}: " + (f"upgraded {', '.join(forms)}" if forms else "it was in the present form already"))
    if lost:
        raise InputError(f"{old}: {counted(len(lost), 'field')} could not be carried over, see the warnings")
