"""`imae convert`: data sets into the LMDBs and mean images that Caffe reads, weights from one form into another."""

from pathlib import Path
from typing import Annotated

import typer

from imae.cli.hints import Command, Group
from imae.cli.options import LARGEST_SEED, Columns, argument, column_pair, flag, load_torch, number, option
from imae.cli.progress import Display
from imae.prototxt_like.errors import counted

convert = typer.Typer(cls=Group, help="Convert data sets to what Caffe reads, and weights.", no_args_is_help=True)


@convert.command(cls=Command)
def cifar10(
    root: Annotated[Path, argument("ROOT", "The folder with cifar-10-batches-py or cifar-10-batches-bin.")],
    out: Annotated[Path, argument("OUT", "The folder to write to.")],
    pad: Annotated[int, number("Also write the training images with N zeros on each side, for random crops.", 0)] = 0,
    force: Annotated[bool, flag("--force", "Overwrite what is in OUT.")] = False,
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
def images(
    source: Annotated[
        Path,
        argument(
            "SOURCE",
            "A folder with a subfolder for each class, a .csv or .tsv of paths and labels, or a list as "
            "convert_imageset's: a path and a label a line.",
        ),
    ],
    out: Annotated[Path, argument("OUT", "The LMDB to write, a folder.")],
    root: Annotated[Path | None, option("FOLDER", "Where the paths begin; else here, else beside the list.")] = None,
    columns: Columns = "",
    resize_height: Annotated[int, number("Resize to so many rows.", 0)] = 0,
    resize_width: Annotated[int, number("And so many columns.", 0)] = 0,
    gray: Annotated[bool, flag("--gray", "Store one channel, without colour.")] = False,
    shuffle: Annotated[bool, flag("--shuffle", "Store them in random order.")] = False,
    seed: Annotated[int, number("The seed of that order.", 0, LARGEST_SEED)] = 0,
    encoded: Annotated[bool, flag("--encoded", "Store files, not pixels.")] = False,
    encode_type: Annotated[
        str, option("png|jpg|...", "Their type, which implies --encoded; else each image's own.")
    ] = "",
    check_size: Annotated[bool, flag("--check-size", "Stop at an image of another size.")] = False,
    skip_broken: Annotated[
        bool, flag("--skip-broken", "Leave out images that cannot be read, and say how many.")
    ] = False,
    force: Annotated[bool, flag("--force", "Overwrite the LMDB.")] = False,
) -> None:
    """Write an LMDB of images and labels, as Caffe's convert_imageset; OUT/classes.txt has the names of the classes.

    [bold]imae convert images photos photos_lmdb --resize-height 256 --resize-width 256 --shuffle[/]
    """
    if bool(resize_height) != bool(resize_width):
        raise typer.BadParameter("give both --resize-height and --resize-width, or none")
    pair = column_pair(columns)
    load_torch()
    from imae.layers.data.convert_images import CLASSES, Stored, convert_images
    from imae.layers.data.image_sources import read_source

    found = read_source(source, pair)
    stored = Stored(
        (resize_height, resize_width) if resize_height else None,
        gray,
        encode_type.lower().lstrip(".") if encoded or encode_type else None,
    )
    with Display() as display:
        left_out = convert_images(
            found,
            out,
            stored,
            root=root,
            shuffle=shuffle,
            seed=seed,
            check_size=check_size,
            skip_broken=skip_broken,
            force=force,
            progress=lambda done, total: display.advance("images", done, total),
        )
    count = len(found.images.names)
    if left_out:
        typer.echo(f"{len(left_out)} of {counted(count, 'image')} cannot be read and are left out, the first:")
        typer.echo(left_out[0])
    named = f" of {counted(len(found.classes), 'class')}, named in {out / CLASSES}" if found.classes else ""
    typer.echo(f"Wrote {out}: {counted(count - len(left_out), 'image')}{named}")


@convert.command(cls=Command)
def mean(
    source: Annotated[Path, argument("DATABASE", "The folder of an LMDB or a LevelDB.")],
    out: Annotated[Path, argument("OUT", "The file to write: .binaryproto or .npy.")],
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
    source: Annotated[Path, argument("IN", "The weights, in any form.")],
    out: Annotated[Path, argument("OUT", "The file to write: .caffemodel, .h5, .npz or .safetensors.")],
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
