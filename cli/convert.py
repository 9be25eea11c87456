"""`imae convert`: data sets into the LMDBs and mean images that Caffe reads, weights from one form into another."""

from pathlib import Path
from typing import Annotated

import typer

from imae.cli.hints import Command, Group
from imae.cli.options import LARGEST, load_torch
from imae.cli.progress import Display
from imae.prototxt_like.errors import counted

convert = typer.Typer(cls=Group, help="Convert data sets to what Caffe reads, and weights.", no_args_is_help=True)


@convert.command(cls=Command)
def cifar10(
    root: Annotated[
        Path,
        typer.Argument(
            metavar="ROOT", help="The folder with cifar-10-batches-py or cifar-10-batches-bin.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write to.", show_default=False)],
    pad: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=LARGEST,
            help="Also write the training images with N zeros on each side, for random crops.",
        ),
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is in OUT.")] = False,
) -> None:
    """Write CIFAR-10 as LMDBs, and the mean of its training images.

    [bold]imae convert cifar10 data data/lmdb --pad 4[/]
    """
    load_torch()
    from imae.layers.data.convert import convert_cifar10

    with Display() as display:
        written = convert_cifar10(
            root, out, pad=pad, force=force, progress=lambda done, total: display.advance("images", done, total)
        )
    for path in written:
        typer.echo(path)


@convert.command(cls=Command)
def mean(
    source: Annotated[
        Path, typer.Argument(metavar="DATABASE", help="The folder of an LMDB or a LevelDB.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write: .binaryproto or .npy.", show_default=False)
    ],
) -> None:
    """Write the mean image of a database, as Caffe's compute_image_mean.

    [bold]imae convert mean train_lmdb mean.binaryproto[/]
    """
    load_torch()
    from imae.layers.data.convert import convert_mean

    with Display() as display:
        image = convert_mean(source, out, lambda done, total: display.advance("images", done, total))
    values = " ".join(f"{channel.mean():g}" for channel in image)
    typer.echo(f"Wrote {out}: {'x'.join(map(str, image.shape))}, the means of its channels {values}")


@convert.command(cls=Command)
def weights(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The weights, in any form.", show_default=False)],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="The file to write: .caffemodel, .h5, .npz or .safetensors.", show_default=False
        ),
    ],
) -> None:
    """Write weights in another form, bit for bit.

    In an .npz or a .safetensors blob 0 of layer conv1 is the array conv1/0. What a .caffemodel tells of the layers but
    their names and blobs is kept in a .caffemodel alone.

    [bold]imae convert weights net.caffemodel net.npz[/]
    """
    from imae.prototxt_like.provenance import describe
    from imae.prototxt_like.weights import convert_weights

    done = convert_weights(source, out)
    origin = f", of {describe(done.provenance)}" if done.provenance else ""
    held = ", ".join(counted(*of) for of in ((done.layers, "layer"), (done.blobs, "blob"), (done.values, "value")))
    typer.echo(f"Wrote {out}: {held}{origin}")
