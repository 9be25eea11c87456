"""`imae audit`: which labels are wrong, how many, and what they should be."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from imae.cli.options import Cpu, Loss, Threads, argument, choice, flag, load_torch, number, option
from imae.cli.progress import Display
from imae.cli.table import print_table
from imae.prototxt_like.errors import counted

METHOD, DATA, RESULT = "Method", "Data", "Result"
_SHOWN = 10  # suspects that are printed
_beyond = partial(option, "P", min=0, max=1, panel=RESULT)


def audit(
    data: Annotated[
        str,
        argument(
            "DATA",
            "A folder of images, one subfolder a class; a .csv, .tsv or .parquet of paths (--image) or of "
            "numbers; features, .npy or .npz:KEY; cifar10:ROOT; digits.",
        ),
    ],
    output: Annotated[
        Path | None, option("FOLDER", "Where the results go; audit-NAME without it.", "--output", "-o")
    ] = None,
    image: Annotated[str, option("COLUMN", "The table's column of image paths.", panel=DATA)] = "",
    label: Annotated[
        str,
        option(
            "COLUMN|FILE[:KEY]",
            "The labels: a column of the table, a key of the .npz, or a file: .npy, .npz:KEY, or one a line.",
            panel=DATA,
        ),
    ] = "",
    root: Annotated[
        Path | None,
        option(
            "FOLDER", "What the paths begin at; the table's folder without it. Nothing outside is read.", panel=DATA
        ),
    ] = None,
    allow_outside: Annotated[bool, flag("--allow-outside", "Read images outside the root, too.", panel=DATA)] = False,
    ignore: Annotated[
        list[str] | None, option("COLUMN", "A column that is no feature; may be given again.", panel=DATA)
    ] = None,
    backbone: Annotated[
        str,
        option(
            "NET",
            "Whose features images are told by: FILE.onnx, deploy.prototxt,FILE.caffemodel or torchvision:NAME. "
            "Without it a small residual net is trained on the pixels.",
            panel=METHOD,
        ),
    ] = "",
    budget: Annotated[
        float, option("MINUTES", "How long a net on the pixels is trained, at most.", min=0.01, panel=METHOD)
    ] = 10.0,
    loss: Annotated[Loss, choice("What is trained by.", panel=METHOD)] = Loss.IMAE,
    parameter: Annotated[
        float | None, option("T|Q", "T of IMAE or q of GCE; picked by labels held out without it.", panel=METHOD)
    ] = None,
    hidden: Annotated[int, number("Values of a hidden layer of the head; 0: none.", 0, 65536, panel=METHOD)] = 0,
    folds: Annotated[
        int | None,
        number(
            "Score each part by heads trained on the others; 0: by heads trained on all. Measured without it.",
            0,
            100,
            panel=METHOD,
        ),
    ] = None,
    seeds: Annotated[int, number("Trainings to average over.", 1, 100, panel=METHOD)] = 1,
    seed: Annotated[int, number("What is random follows from it.", 0, panel=METHOD)] = 0,
    drop_above: Annotated[
        float | None, _beyond("Leave samples out of cleaned.csv whose label is wrong with a greater probability.")
    ] = None,
    relabel_above: Annotated[
        float | None,
        _beyond("Give samples the suggested label in cleaned.csv that is right with a greater probability."),
    ] = None,
    resume: Annotated[bool, flag("--resume", "Go on with the audit in the folder, stopped or killed.")] = False,
    jobs: Annotated[
        int | None,
        number(
            "Image files to read at a time, and processes, of --threads each, that train settings, folds and seeds; "
            "without it as many files as there are cores, and this process.",
            1,
            256,
            panel=METHOD,
        ),
    ] = None,
    engine: Annotated[
        str, option("ray[:ADDRESS]", "Train settings, folds and seeds by Ray, here or on a cluster.", panel=METHOD)
    ] = "",
    cpu: Cpu = False,
    threads: Threads = None,
) -> None:
    """Find the labels that are wrong, how many there are, and what they should be.

    No label needs to be known to be right. In the folder are then report.html, suspects.csv, cleaned.csv, summary.json,
    the scores of all samples, and the trained net as prototxt, caffemodel and ONNX.

    [bold]imae audit photos/ --backbone torchvision:resnet50 --relabel-above 0.9 --drop-above 0.8[/]

    [bold]imae audit embeddings.npy --label labels.npy[/]
    """
    load_torch(threads)
    from imae.audit.cleaned import Thresholds
    from imae.audit.result import review_command
    from imae.audit.run import AuditOptions
    from imae.audit.run import audit as run
    from imae.nets.memory import keep_freed_memory

    keep_freed_memory()
    folder = output or Path(f"audit-{Path(data.split(':')[0]).stem or 'folder'}")
    options = AuditOptions(
        data=data,
        output=folder,
        image=image,
        label=label,
        root=root,
        allow_outside=allow_outside,
        ignore=tuple(ignore or ()),
        backbone=backbone,
        budget=budget,
        loss=loss.value,
        parameter=parameter,
        hidden=hidden,
        folds=folds,
        seeds=seeds,
        seed=seed,
        thresholds=Thresholds(drop_above, relabel_above),
        resume=resume,
        jobs=jobs,
        cpu=cpu,
        engine=engine,
    )
    with Display() as display:
        outcome = run(options, on_progress=display.advance, show=display.show)
    found, summary = outcome.found, outcome.summary
    rate = found.noise_rate
    of = f"{100 * float(rate.low):.1f} to {100 * float(rate.high):.1f}"
    typer.echo(f"About {100 * float(rate.value):.1f} % of the labels are wrong ({of} by resampling)")
    picked = found.picked
    setting = {"IMAE": f", T = {picked.parameter or 0:g}", "GCE": f", q = {picked.parameter or 0:g}"}.get(
        picked.loss, ""
    )
    scored = f"{counted(picked.folds, 'fold')}" if picked.folds else "trained on all"
    typer.echo(f"Picked: {picked.loss}{setting}, rate {picked.rate:g}, {picked.iterations} iterations, {scored}")
    issues = summary["issues"]
    expected = (
        f"{counted(issues, 'label')} to look at, of which {found.expected_wrong(issues):.0f} are expected to be wrong"
    )
    typer.echo(expected if issues else "None is so suspicious that it should be looked at")
    if summary["doubt"]:
        typer.echo(summary["doubt"])
    rows = [
        [
            _printable(outcome.samples.names[i]),
            *(_printable(found.classes[number]) for number in (found.label[i], found.suggested[i])),
            *(f"{p:.3f}" for p in (found.p_wrong[i], found.p_suggested[i])),
        ]
        for i in found.order[: min(_SHOWN, issues)]
    ]
    if rows:
        print_table(["sample", "label", "suggested", "wrong", "suggested is right"], rows, right=[3, 4])
    for key, noun in (
        ("duplicates", "pair of near duplicates with different labels"),
        ("unreadable", "unreadable image"),
    ):
        if summary[key]:
            typer.echo(f"{summary[key]} x {noun}: {folder / key}.csv")
    for pair in summary["merged_classes"]:
        typer.echo(f"The classes {' and '.join(map(_printable, pair['classes']))} look like one")
    for pair in summary["undecided_classes"]:
        name, label = map(_printable, pair.values())
        typer.echo(f"Of {name}, {label} is about as usual a label as {name}: nothing tells which is wrong")
    actions = ", ".join(f"{name} {count}" for name, count in summary["actions"].items())
    typer.echo(f"Wrote {folder}: suspects.csv, cleaned.csv ({actions}), {', '.join(sorted(_others(folder)))}")
    typer.echo(f"To look at: {folder / 'report.html'}; to decide one by one: {review_command(folder, issues)}")
    if outcome.stopped:
        typer.echo("Stopped early: this is of what was there. --resume goes on")
        raise typer.Exit(130)


def _others(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix in (".json", ".npz", ".onnx", ".prototxt", ".txt")]


def _printable(text: str) -> str:
    """Text without what a terminal would obey, or could not show."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
