"""How long things take to start: the stack from warm caches, the command line, completion, the prompt of `sql`; and how
much is installed. Times of the command line are medians of nine."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.report import Report, say
from cdc_lake.local.stack import Stack
from tests.shops import Shop
from tests.terminals import terminal

_TIMES = 9
# What each shell's script puts into the environment for `cdc-lake changes ord`.
_LINE = "cdc-lake changes ord"
_SHELLS = {
    "bash": {"COMP_WORDS": _LINE, "COMP_CWORD": "2"},
    "zsh": {"_TYPER_COMPLETE_ARGS": _LINE},
    "fish": {"_TYPER_COMPLETE_ARGS": _LINE, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


def run(_ends: Any, _stack: Stack, report: Report) -> None:
    table = report.table("Starting", what="", seconds=".2f")
    with tempfile.TemporaryDirectory(prefix="cdc-lake-start-") as folder:
        stack = Stack(Path(folder) / ".cdc-lake")
        began = time.monotonic()
        try:
            stack.up(say)
            table.add("`up`, new project, warm caches", time.monotonic() - began)
            stack.down(wipe=False)
            began = time.monotonic()
            stack.up(say)
            table.add("`up`, existing project", time.monotonic() - began)
        finally:
            stack.down(wipe=True)
        (Path(folder) / "shop").mkdir()
        shop = Shop.open(Path(folder) / "shop")
        for what, act in _acts(shop.folder).items():
            table.add(what, statistics.median(_seconds(act) for _ in range(_TIMES)))
    sizes = report.table("What `pip install` brings", what="", MB=".1f", packages="d")
    sizes.add("cdc-lake itself", _megabytes({"cdc-lake"}), 1)
    for extras in ((), ("fast",), ("fast", "embedded")):
        found = _closure("cdc-lake", set(extras))
        sizes.add(f"with its dependencies{''.join(f', `{e}`' for e in extras)}", _megabytes(found), len(found))


def _acts(folder: Path) -> dict[str, Callable[[], object]]:
    """What is timed, by the words of its row. A program that fails ends the run."""

    def python(*words: str, **environment: str) -> Callable[[], object]:
        command, env = [sys.executable, *words], {**os.environ, **environment}
        return lambda: subprocess.run(command, cwd=folder, env=env, capture_output=True, check=True)

    def completion(shell: str) -> Callable[[], object]:
        ask = python("-m", "cdc_lake", _CDC_LAKE_COMPLETE=f"complete_{shell}", **_SHELLS[shell])

        def complete() -> None:
            answer: Any = ask()
            if b"order_lines" not in answer.stdout:
                raise SystemExit(f"{shell} was told {answer.stdout!r}")

        return complete

    def prompt() -> None:
        with terminal(folder, "sql") as screen:
            screen.until("lake>")

    return {
        "`import cdc_lake`": python("-c", "import cdc_lake"),
        "`import cdc_lake`, `connect()`": python("-c", "import cdc_lake; cdc_lake.connect().close()"),
        "`cdc-lake --help`": python("-m", "cdc_lake", "--help"),
        **{f"completion of a table's name, {shell}": completion(shell) for shell in _SHELLS},
        "the prompt of `cdc-lake sql`": prompt,
    }


def _seconds(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def _closure(name: str, extras: set[str]) -> set[str]:
    """The names of a distribution and of all that it requires on this machine."""
    found, waiting = set[str](), [(name, frozenset({"", *extras}))]
    while waiting:
        one, wanted = waiting.pop()
        if one in found:
            continue
        found.add(one)
        for required in map(Requirement, metadata.requires(one) or ()):
            if required.marker is None or any(required.marker.evaluate({"extra": extra}) for extra in wanted):
                waiting.append((canonicalize_name(required.name), frozenset({"", *required.extras})))
    return found


def _megabytes(names: set[str]) -> float:
    """Of all files of distributions; of the project's own, its package."""
    total = 0
    for name in names:
        if name == "cdc-lake":
            files = [f for f in (Path(__file__).parents[1] / "cdc_lake").rglob("*") if f.is_file()]
        else:
            files = [Path(str(f.locate())) for f in metadata.files(name) or ()]
        total += sum(f.stat().st_size for f in files if f.suffix != ".pyc" and f.exists())
    return total / 1e6
