"""All figures of one machine in one run: `make bench`, or of some: `python -m benchmarks verify start …`."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import (
    anomalies,
    commits,
    consume,
    dashboard,
    fold,
    formats,
    freshness,
    history,
    latency,
    layout,
    memory,
    objectstore,
    profile,
    promises,
    retail,
    services,
    soak,
    start,
    streams,
    tables,
    telling,
    throughput,
    verify,
    volume,
)
from benchmarks.document import PAGE, page
from benchmarks.report import Report, say
from cdc_lake.local.stack import Stack


@dataclass(frozen=True)
class Benchmark:
    """A question, what answers it, its rows by default and with `--full`, and whether it needs a stack.

    `long`: `make bench` leaves it to `make bench-full`.
    """

    question: str
    run: Callable[..., None]
    rows: int
    full: int
    stack: bool = True
    long: bool = False


BENCHMARKS = {
    "start": Benchmark("How long does it take to start?", start.run, 0, 0),
    "consume": Benchmark("What does the way from Kafka to Arrow columns cost?", consume.run, 500_000, 1_000_000),
    "throughput": Benchmark("How fast does the sink land?", throughput.run, 300_000, 1_000_000),
    "profile": Benchmark("Where does the sink's time go?", profile.run, 300_000, 2_000_000),
    "tables": Benchmark("What does the number of tables cost?", tables.run, 400_000, 4_000_000),
    "freshness": Benchmark("When is a commit of the source visible in the lake?", freshness.run, 0, 0, long=True),
    "promises": Benchmark("What do identity, order and the cut cost?", promises.run, 100_000, 400_000),
    "verify": Benchmark("What does `verify` cost?", verify.run, 500_000, 10_000_000),
    "fold": Benchmark("What do folds cost, and reading between them?", fold.run, 500_000, 10_000_000, stack=False),
    "formats": Benchmark("What does the format of records cost?", formats.run, 50_000, 500_000, stack=False),
    "history": Benchmark("What does a folded history cost?", history.run, 300_000, 2_000_000, stack=False),
    "commits": Benchmark("What does a commit cost after thousands?", commits.run, 1_000, 10_000, stack=False),
    "layout": Benchmark("How much of the log does a question skip?", layout.run, 200_000, 1_000_000, stack=False),
    "latency": Benchmark("How soon is a change seen, by rate and flush interval?", latency.run, 5, 20),
    "memory": Benchmark("Does the limit of memory hold?", memory.run, 150_000, 2_000_000, long=True),
    "soak": Benchmark("Does the sink stay as it is, hour by hour?", soak.run, 1, 60, long=True),
    "volume": Benchmark(
        "How does it hold with tens of millions of rows?", volume.run, 1_000_000, 50_000_000, long=True
    ),
    "streams": Benchmark("How fast are streaming models?", streams.run, 200_000, 1_000_000),
    "anomalies": Benchmark(
        "How many anomalies does a rule find, and how many alarms are false?",
        anomalies.run,
        200_000,
        400_000,
        stack=False,
    ),
    "services": Benchmark(
        "How fast is a service's read model filled from its log?", services.run, 500_000, 10_000_000, stack=False
    ),
    "telling": Benchmark("What do traces and lineage cost the sink?", telling.run, 60_000, 200_000, stack=False),
    "dashboard": Benchmark("What do open pages of the dashboard cost?", dashboard.run, 1_000, 1_000, stack=False),
    "retail": Benchmark("How soon does a retailer see, hear and reorder?", retail.run, 500, 2_000, stack=False),
    "objectstore": Benchmark("What does an object store cost?", objectstore.run, 0, 0, stack=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[[], *BENCHMARKS], help="which; all that are short when none is named"
    )
    parser.add_argument("--full", action="store_true", help="with the sizes and the peers that take long")
    parser.add_argument("--rows", type=int, help="of each, in place of its own")
    parser.add_argument("--project", type=Path, help="use the running stack of this project folder")
    options = parser.parse_args()
    names = options.names or [n for n, b in BENCHMARKS.items() if options.full or not b.long]
    for name in (n for n in names if not BENCHMARKS[n].stack):
        _answer(name, options)
    wanted = [n for n in names if BENCHMARKS[n].stack]
    if wanted:
        _with_stack(wanted, options)
    PAGE.write_text(page(), encoding="utf-8")


def _answer(name: str, options: argparse.Namespace, *given: Any) -> None:
    asked = BENCHMARKS[name]
    report = Report(name, asked.question, options.rows or (asked.full if options.full else asked.rows), options.full)
    begun = time.monotonic()
    asked.run(*given, report)
    report.save()
    say(f"{name}: {time.monotonic() - begun:.0f} s")


def _with_stack(names: Sequence[str], options: argparse.Namespace) -> None:
    folder = options.project or Path(tempfile.mkdtemp(prefix="cdc-lake-bench-"))
    stack = Stack(folder / ".cdc-lake")
    ends = stack.up(say)
    try:
        for name in names:
            _answer(name, options, ends, stack)
    finally:
        if not options.project:
            stack.down(wipe=True)
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
