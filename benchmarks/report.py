"""What the benchmarks share: figures printed as they come and kept as JSON, and conditions waited for with a deadline.

`docs/benchmarks.md` is written from that JSON by `python -m benchmarks.document`.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
_PARTS = ("deltalake", "duckdb", "pyarrow", "kafka-python", "confluent-kafka")

Cell = str | int | float | None


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def shown(cell: Cell, form: str) -> str:
    """A cell as people read it; `form` is a format of numbers."""
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else format(cell, form)


@dataclass
class Table:
    """Rows under a title. Columns are names, each with the format of its numbers."""

    title: str
    columns: dict[str, str]
    rows: list[list[Cell]] = field(default_factory=list)

    def add(self, *cells: Cell) -> None:
        """Keep a row and print it."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns of {self.title}")
        if not self.rows:
            print(f"\n{self.title}\n  " + _line(list(self.columns)), flush=True)
        self.rows.append(list(cells))
        print("  " + _line([shown(c, f) for c, f in zip(cells, self.columns.values(), strict=True)]), flush=True)


def _line(cells: Sequence[str]) -> str:
    return f"{cells[0]:<34}" + "".join(f"{cell:>16}" for cell in cells[1:])


@dataclass
class Report:
    """One benchmark's answer to one question. `full`: with what takes long; `load`: of the machine before it."""

    name: str
    question: str
    rows: int
    full: bool = False
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    load: float = field(default_factory=lambda: round(os.getloadavg()[0], 1))

    def table(self, title: str, **columns: str) -> Table:
        """Begin a table; an underscore in a column's name is shown as a space."""
        self.tables.append(Table(title, {name.replace("_", " "): form for name, form in columns.items()}))
        return self.tables[-1]

    def note(self, text: str) -> None:
        """A sentence to be read with the figures."""
        self.notes.append(text)
        print(f"  {text}", flush=True)

    def save(self) -> Path:
        """Write it as JSON, with the machine and the versions it ran on."""
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"{self.name}.json"
        found = {**asdict(self), "machine": machine(), "at": datetime.now(UTC).date().isoformat()}
        file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return file


def machine() -> dict[str, Any]:
    """Cores, memory, system and versions."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {p: version(p) for p in _PARTS},
    }


def spread(delays: Sequence[float]) -> tuple[float, float, float]:
    """p50, p99 and the greatest of some."""
    ordered = sorted(delays)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1]


def wait(done: Callable[[], bool], what: str, seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not there after {seconds:.0f} s")
        time.sleep(0.2)
    say(what)
