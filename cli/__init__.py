"""The `imae` command: what the library does, from a shell. Heavy imports happen inside the commands that need them."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer
from typer.main import get_command

from imae import __version__
from imae.cli.audit import audit
from imae.cli.caffe_flags import normalise, read
from imae.cli.check import check
from imae.cli.check_gradients import check_gradients
from imae.cli.convert import convert
from imae.cli.demo import demo
from imae.cli.devices import devices
from imae.cli.export import export
from imae.cli.features import features
from imae.cli.hints import Command, Group
from imae.cli.import_onnx import import_onnx
from imae.cli.init import init
from imae.cli.messages import error_line, log_warnings, warn
from imae.cli.net import net
from imae.cli.plot import plot
from imae.cli.predict import predict
from imae.cli.reproduce import reproduce
from imae.cli.retrieval import retrieval
from imae.cli.review import review
from imae.cli.signals import exit_status, sigterm_as_interrupt
from imae.cli.test import test
from imae.cli.timing import time
from imae.cli.train import train
from imae.cli.tune_t import tune_t
from imae.cli.upgrade import upgrade
from imae.prototxt_like.errors import InputError

_INTERRUPTED = exit_status(signal.SIGINT)
_ENDINGS: dict[object, str] = {_INTERRUPTED: "interrupted", exit_status(signal.SIGTERM): "terminated"}

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, train, test, export, time, check, check_gradients, features, retrieval, tune_t, audit, devices):
    app.command(cls=Command)(command)
app.add_typer(convert, name="convert")
app.add_typer(upgrade, name="upgrade")
app.add_typer(plot, name="plot")
for command in (net, reproduce, predict, import_onnx, review, init):
    app.command(cls=Command, no_args_is_help=True)(command)
app.command("device_query", hidden=True)(devices)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"imae {__version__}")
        raise typer.Exit


@app.callback()
def imae(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Train, test and export nets written in Caffe's prototxt, on labels that may be wrong.

    The commands and flags are Caffe's where it has them, also in its spelling: [bold]imae train -solver FILE[/].
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line `arguments` (the process's own by default), and exit.

    Exit status: 0, 1 after one line `imae: error: ...` about the user's input, 2 for wrong usage, 130 if interrupted by
    Ctrl-C, 143 by SIGTERM.
    """
    program = get_command(app)
    try:
        line = read(program, sys.argv[1:] if arguments is None else arguments)
        log_warnings(shown=line.glog.shown_from <= 1)
        for flag in line.unused:
            warn(f"{line.arguments[0]} makes no use of {flag}, nor does Caffe's")
        with sigterm_as_interrupt() as received:
            program.main(args=normalise(program, line.arguments), prog_name="imae", obj=line.glog)
    except typer.BadParameter as error:
        print(f"imae: error: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as exit_:
        status = exit_status(received[0]) if exit_.code == _INTERRUPTED and received else exit_.code
        if status in _ENDINGS and os.environ.get("RANK", "0") == "0":  # of several processes the first speaks
            print(f"imae: {_ENDINGS[status]}", file=sys.stderr)
        sys.exit(status)
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        said = error_line(error)
        if said is None:
            raise
        print(f"imae: error: {said}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)
