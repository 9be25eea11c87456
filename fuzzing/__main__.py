"""`python -m fuzzing`: try every reader on damaged inputs, and print what is found; status 1 if anything is."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from fuzzing.formats import all_formats
from fuzzing.trial import Finding, try_format


def main() -> int:
    """Run; a finding is repeated by its format, seed and number."""
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description=__doc__)
    parser.add_argument("formats", nargs="*", help="which formats to try; all, if none is given")
    parser.add_argument("--inputs", type=int, default=10_000, help="inputs of each format (default 10000)")
    parser.add_argument("--seed", type=int, default=1, help="of the damage (default 1)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first input, to repeat a finding")
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.inputs)
    print(f"seed {options.seed}, inputs {numbers.start} to {numbers.stop - 1} of each format")
    findings = 0
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # inputs are many and small: no disk is needed
    with tempfile.TemporaryDirectory(dir=memory) as temporary:
        formats = all_formats(Path(temporary))
        if unknown := set(options.formats) - set(formats):
            parser.error(f"no format {', '.join(unknown)}; there are {', '.join(formats)}")
        print("| format | inputs | seconds | findings |\n| --- | ---: | ---: | ---: |")
        for name in options.formats or formats:
            folder, since, found = Path(temporary) / "inputs" / name, time.monotonic(), 0
            folder.mkdir(parents=True)
            for news in try_format(name, formats[name], options.seed, numbers, folder):
                if isinstance(news, Finding):
                    found += 1
                    print(f"{name}: input {news.number} of seed {options.seed}: {news.what}", file=sys.stderr)
            print(f"| {name} | {len(numbers):,} | {time.monotonic() - since:.0f} | {found} |", flush=True)
            findings += found
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
