"""What every command prints with: results to stdout, words to stderr, one shape of errors."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from cdc_lake.config import Config
    from cdc_lake.errors import CdcLakeError


# What stands between two columns of a table.
_GAP = 3


@dataclass(slots=True)
class _State:
    config: str | None = None
    as_json: bool = False
    verbosity: int = 0
    transient: bool = False
    logged: bool = False


_state = _State()


def configure(*, config: str | None, as_json: bool, verbosity: int) -> None:
    """Keep the global options of this run."""
    _state.config, _state.as_json, _state.verbosity = config, as_json, verbosity
    _state.transient = _state.logged = False


def log_words() -> None:
    """From now on, log what is said and what failed instead of printing it: nothing else stands between JSON lines."""
    _state.logged = True


def verbosity() -> int:
    """-1 quiet, 0 normal, 1 and 2 for -v and -vv."""
    return _state.verbosity


def as_json() -> bool:
    """Whether stdout must hold JSON and nothing else."""
    return _state.as_json


def config_option() -> str | None:
    """What `--config` said; None without it."""
    return _state.config


def settings() -> Config:
    """The configuration of this run; ConfigError when it is wrong."""
    from cdc_lake.config import load_config

    return load_config(_state.config)


def config_file() -> Path:
    """The file that `settings` reads."""
    from pathlib import Path

    from cdc_lake.config import DEFAULT_FILE

    return Path(_state.config or DEFAULT_FILE).absolute()


def say(text: str) -> None:
    """A line for a person, to stderr; silent under -q."""
    if _state.logged:
        logging.getLogger("cdc_lake.said").info(text)
    elif _state.verbosity >= 0:
        # A line that is rewritten in place goes: this one is to stand alone, and the next one comes below it.
        print(f"\r\x1b[K{text}" if _state.transient else text, file=sys.stderr, flush=True)
        _state.transient = False


def transient(text: str) -> None:
    """A line on a terminal's stderr that the next one replaces, cut to the terminal's width."""
    width = os.get_terminal_size(sys.stderr.fileno()).columns
    sys.stderr.write(f"\r\x1b[K{text if len(text) < width else text[: max(0, width - 2)] + '…'}")
    sys.stderr.flush()
    _state.transient = True


def clear() -> None:
    """Take a transient line away, so that a result can follow."""
    if _state.transient:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
        _state.transient = False


def emit(document: Any) -> None:
    """One JSON document as a line on stdout."""
    print(json.dumps(document, ensure_ascii=False, default=str), flush=True)


def console(*, stderr: bool = False) -> Console:
    """A rich console that respects NO_COLOR and plain pipes."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # A pipe has no width: tables are as wide as their content there.
    width = None if stream.isatty() else 10_000
    return Console(file=stream, no_color=bool(os.environ.get("NO_COLOR")), width=width, highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Rows as a table on stdout, numbers to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    body = [list(row) for row in rows]
    if sum(len(c) + _GAP for c in columns) > console().width:
        _records(columns, body, title)
        return
    grid = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        numeric = bool(body) and all(isinstance(row[i], (int, float)) for row in body if row[i] is not None)
        grid.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in body:
        grid.add_row(
            *(Text("" if v is None else f"{v:,}" if type(v) is int and abs(v) >= 10_000 else str(v)) for v in row)
        )
    console().print(grid)


def _records(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None) -> None:
    """A line per value, where the terminal is too narrow for so many columns beside each other."""
    size = max(len(c) for c in columns)
    if title:
        print(title)
    for row in rows:
        print(
            "\n".join(f"{c:>{size}}  {'' if v is None else v}" for c, v in zip(columns, row, strict=True)), end="\n\n"
        )


def result(document: Any, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Either the document as JSON or the rows as a table, as the user asked."""
    if _state.as_json:
        emit(document)
    else:
        table(columns, [[row.get(c) for c in columns] for row in rows])


def fail(error: CdcLakeError) -> None:
    """What, why, next command: as words on stderr, or as JSON on stdout."""
    if _state.as_json:
        emit(error.as_dict())
        return
    if _state.logged:
        logging.getLogger("cdc_lake.said").error(error.message, extra={"fields": error.as_dict()["error"]})
        return
    out = console(stderr=True)
    out.print(f"[bold red]Error:[/bold red] {_escape(error.message)}")
    if error.why:
        out.print(f"  why:  {_escape(error.why)}")
    if error.next:
        out.print(f"  next: {_escape(error.next)}")


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
