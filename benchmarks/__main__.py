"""Run all benchmarks at their real sizes and bring the figures in benchmarks/README.md up to date.

    python -m benchmarks [NAME ...]     runs the named ones, by default all that need no GPU
    python -m benchmarks --no-run       writes the README's figures from the files in benchmarks/results/ alone

Each writes its file as it ends, so that a run that was stopped goes on with the names that are left.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measuring import RESULTS, ROOT, table
from imae.prototxt_like.files import write_atomically
from imae.prototxt_like.text import did_you_mean

NAMES = (
    "floor",
    "train_step",
    "cost",
    "layers",
    "inference",
    "onnx_sizes",
    "onnx_zoo",
    "data_path",
    "image_data",
    "loading",
    "plan_building",
    "startup",
    "busy_machine",
    "audit",
)
"""The benchmarks in the order of the README."""
ON_A_GPU = ("gpu_train",)
"""Run by name only."""
README = ROOT / "benchmarks" / "README.md"
BEGIN, END = "<!-- figures: written by python -m benchmarks -->", "<!-- end of figures -->"


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", type=known, help=", ".join(NAMES + ON_A_GPU))
    parser.add_argument("--no-run", action="store_true", help="Only write the README's figures.")
    options = parser.parse_args()
    try:
        for name in [] if options.no_run else options.names or NAMES:
            print(f"\n{name}", flush=True)
            if status := subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT).returncode:
                raise SystemExit(status)  # it has said why
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    write_figures(README, RESULTS)


def known(name: str) -> str:
    """Return the name of a benchmark as it is."""
    if name not in NAMES + ON_A_GPU:
        raise argparse.ArgumentTypeError(f'there is no benchmark "{name}"{did_you_mean(name, NAMES + ON_A_GPU)}')
    return name


def write_figures(readme: Path, results: Path) -> None:
    """Replace what stands between `BEGIN` and `END` in `readme` by tables of the records in `results`."""
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    files = sorted(results.glob("*.json"), key=lambda file: ([*NAMES, file.stem].index(file.stem), file.stem))
    sections = [section(json.loads(file.read_text())) for file in files]
    write_atomically(readme, "\n\n".join([before + BEGIN, *sections, END + after]).encode())


def section(record: Mapping[str, Any]) -> str:
    """Return a benchmark's record as Markdown."""
    header, cells = table(record)
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *cells]
    machine, versions = record["machine"], record["versions"]
    where = [
        f"`{record['command']}`, {record['date'][:10]}",
        f"{machine['cores']} cores of {machine['cpu']}",
        f"{machine['threads']} threads",
        f"{machine['memory_gib']:.0f} GiB",
        f"load {machine['load_before']:.1f} before",
        f"PyTorch {versions['torch']}",
        f"Python {versions['python']}",
    ]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([f"### {record['title']}", "", *lines, "", ", ".join(where) + ".", *record["notes"]])


if __name__ == "__main__":
    main()
