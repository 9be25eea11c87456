"""`imae retrieval`: score features by the MARS protocol."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imae.cli.options import option
from imae.cli.table import print_table
from imae.prototxt_like.errors import InputError, counted

if TYPE_CHECKING:
    import numpy as np


def retrieval(
    features: Annotated[Path, option("FILE.npy", "A row for each test frame, or for each test track.")],
    info: Annotated[Path, option("FOLDER", "MARS's info folder: tracks_test_info.mat, query_IDX.mat.")],
) -> None:
    """Score features of the MARS test set, from anywhere, by the published protocol: mAP and CMC.

    Features of frames are averaged over each track. Tracks are compared by cosine similarity; what shows the same
    person in the same camera as the query is left out, and so is junk; distractors count as misses. mAP is the
    published code's, trapezoids between successive precisions, and the usual one beside it.

    [bold]imae retrieval --features features.npy --info MARS/info[/]
    """
    from imae.experiments.retrieval import RANKS, average_features, evaluate
    from imae.prototxt_like.mars_info import read_query_index, read_tracks

    tracks = read_tracks(info / "tracks_test_info.mat")
    query = read_query_index(info / "query_IDX.mat")
    rows, frames = _read_features(features), int(tracks.last.max())
    if len(rows) not in (frames, len(tracks.last)):
        raise InputError(
            f"{features}: has {counted(len(rows), 'row')} of features; {info} has {counted(frames, 'frame')} and "
            f"{counted(len(tracks.last), 'track')}"
        )
    if len(rows) == frames:
        rows = average_features(rows, tracks.first, tracks.last)
    result = evaluate(rows, tracks.person, tracks.camera, query)
    figures = [("mAP", result.map_trapezoid), ("mAP, not interpolated", result.map_standard)]
    figures += [(f"CMC-{rank}", result.cmc[rank - 1]) for rank in RANKS if rank <= len(result.cmc)]
    print_table(["", "%"], [[name, f"{100 * value:.2f}"] for name, value in figures], right=[1])
    typer.echo(f"{counted(len(query), 'query')}, {counted(len(rows), 'track')} of {counted(rows.shape[1], 'feature')}")
    if missed := len(result.queries_without_match):
        have, they = ("has", "it counts") if missed == 1 else ("have", "they count")
        typer.echo(f"{counted(missed, 'query')} {have} no match; {they} as missed")


def _read_features(path: Path) -> "np.ndarray":
    from imae.prototxt_like.number_file import map_numbers

    rows = map_numbers(path)
    if rows.ndim != 2:
        raise InputError(f"{path}: holds an array of shape {rows.shape}, expected a row of features for each frame")
    return rows
