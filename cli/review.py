"""`imae review`: a page of this machine's own, to keep, relabel or drop what an audit found."""

from pathlib import Path
from typing import Annotated

import typer

from imae.cli.options import argument, load_torch, number


def review(
    folder: Annotated[Path, argument("FOLDER", "The folder that imae audit wrote.")],
    top: Annotated[int | None, number("Review the N most suspicious labels; without it the suspects.", 1)] = None,
    port: Annotated[int, number("The port of 127.0.0.1; 0: one that is free.", 0, 65535)] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Keep, relabel or drop the suspects of an audit, in a page that this machine alone can open.

    K keeps, R or Enter relabels as suggested, 1 to 9 otherwise, D drops, U undoes, arrows go back and forth. Each
    decision is on the disk at once, in decisions.jsonl; cleaned.csv follows. Ctrl-C ends; start again to go on.

    [bold]imae review audit-photos[/]
    """
    load_torch()
    import contextlib
    import webbrowser

    from imae.audit.review import Review, Server

    with Review(folder, top) as found, Server(found, port) as server:
        typer.echo(f"{server.address}  (Ctrl-C ends)")
        if browser:
            webbrowser.open(server.address)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
        counts = found.counts()
    said = ", ".join(f"{name} {count}" for name, count in counts.items())
    typer.echo(f"Wrote {folder / 'cleaned.csv'}: {said}")
