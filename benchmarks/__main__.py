"""All figures of one machine in one run: `make bench`, or of some: `python -m benchmarks verify start …`."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import consume, fold, freshness, history, layout, promises, start, throughput, verify
from benchmarks.report import machine, say
from cdc_lake.local.stack import Stack

FIGURES = {
    "start": start.run,
    "consume": consume.run,
    "freshness": freshness.run,
    "promises": promises.run,
    "throughput": throughput.run,
    "verify": verify.run,
}

# These need no stack.
ALONE = {"fold": fold.run, "history": history.run, "layout": layout.run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", choices=[[], *FIGURES, *ALONE], help="which; all when none is named")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="events of the throughput figures, rows of the verified table"
    )
    parser.add_argument("--project", type=Path, help="use the running stack of this project folder")
    options = parser.parse_args()
    print(machine())
    for name in (n for n in options.figures or ALONE if n in ALONE):
        ALONE[name](options.rows)
    wanted = [n for n in options.figures or FIGURES if n in FIGURES]
    if wanted:
        _with_stack(wanted, options)


def _with_stack(wanted: Sequence[str], options: argparse.Namespace) -> None:
    folder = options.project or Path(tempfile.mkdtemp(prefix="cdc-lake-bench-"))
    stack = Stack(folder / ".cdc-lake")
    ends = stack.up(say)
    try:
        for name in wanted:
            FIGURES[name](ends, stack, options.rows)
    finally:
        if not options.project:
            stack.down(wipe=True)
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
