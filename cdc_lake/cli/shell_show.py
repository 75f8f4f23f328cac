"""How the shell shows a result: as a table, in another format, in a file, through a pager when it does not fit."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cdc_lake.cli import output
from cdc_lake.errors import UsageError

if TYPE_CHECKING:
    from cdc_lake.query.run import Result

FORMATS = ("table", "line", "csv", "json", "jsonl", "markdown")
ENDINGS = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".md": "markdown",
    ".parquet": "parquet",
    ".txt": "table",
}
# Formats that people look at: they are laid out as a whole, so they end after some rows.
_LOOKED_AT = ("table", "line", "markdown")


@dataclass(slots=True)
class View:
    """What the person chose."""

    form: str = "table"
    rows: int = 1000
    paged: bool = True
    # The file of the next result.
    file: Path | None = None


def show(result: Result, view: View) -> int:
    """Show a result; how many rows were shown. The connection is free again then."""
    file, view.file = view.file, None
    try:
        if file is not None:
            return _save(result, view, file)
        if view.form in _LOOKED_AT:
            text, count = laid_out(result, view.form, view.rows, _width())
            page(text, paged=view.paged)
            return count
        return _FORMS[view.form](result, sys.stdout)
    finally:
        result.close()


def _save(result: Result, view: View, file: Path) -> int:
    from cdc_lake.query.formats import write_parquet

    form = ENDINGS.get(file.suffix.lower(), view.form)
    try:
        if form == "parquet":
            with file.open("wb") as binary:
                write_parquet(result, binary)
            count = -1
        else:
            with file.open("w", encoding="utf-8", newline="") as out:
                if form in _LOOKED_AT:
                    text, count = laid_out(result, form, None, None)
                    out.write(text)
                else:
                    count = _FORMS[form](result, out)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"{file} cannot be written.", why=why, next="\\o FILE with another path") from None
    output.say(f"Written: {file}")
    return count


def _counted(write: Callable[[Result, TextIO], None]) -> Callable[[Result, TextIO], int]:
    def run(result: Result, out: TextIO) -> int:
        write(result, out)
        return -1

    return run


def _json(result: Result, out: TextIO) -> None:
    from cdc_lake.query.formats import write_json

    write_json(result, out)


def _jsonl(result: Result, out: TextIO) -> None:
    from cdc_lake.query.formats import rows, unique_names
    from cdc_lake.query.values import dumps

    names = unique_names(result.columns)
    for row in rows(result):
        out.write(dumps(dict(zip(names, row, strict=True))) + "\n")


def _csv(result: Result, out: TextIO) -> None:
    from cdc_lake.query.formats import write_csv

    write_csv(result, out)


_FORMS = {"json": _counted(_json), "jsonl": _counted(_jsonl), "csv": _counted(_csv)}


def laid_out(result: Result, form: str, limit: int | None, width: int | None) -> tuple[str, int]:
    """The first rows of a result as text for a person, and how many they are."""
    from cdc_lake.query.formats import rows

    read = rows(result)
    head = list(islice(read, limit))
    more = next(read, None) is not None
    columns = list(result.columns)
    if form == "markdown":
        text = _markdown(columns, head)
    elif form == "line":
        text = _lines(columns, head)
    else:
        text = _table(columns, [_type(t) for t in result.types], head, width)
    if more:
        text += f"The first {len(head):,} rows; \\rows N for more, \\o FILE for all.\n"
    return text, len(head)


def _type(kind: Any) -> str:
    """A column's type, short: `timestamptz` for the longest, and what is nested without its fields."""
    text = str(kind).lower().replace("timestamp with time zone", "timestamptz")
    return text if len(text) <= 16 else text.partition("(")[0]


def _text(value: Any) -> str:
    from cdc_lake.query.values import as_text

    return "NULL" if value is None else as_text(value)


def _table(columns: list[str], types: list[str], rows: list[list[Any]], width: int | None) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = width is not None and not os.environ.get("NO_COLOR")
    # Without less nothing can be seen beside the screen: there, long values are folded.
    natural = width is None or shutil.which("less") is not None
    grid = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for i, (name, kind) in enumerate(zip(columns, types, strict=True)):
        numbers = all(isinstance(r[i], (int, float)) and not isinstance(r[i], bool) for r in rows if r[i] is not None)
        head = Text(name).append(f"\n{kind}", "dim not bold")
        grid.add_column(head, justify="right" if numbers and rows else "left", overflow="fold", no_wrap=natural)
    for row in rows:
        grid.add_row(*(Text("NULL", "dim") if v is None else Text(_number(v)) for v in row))
    out = io.StringIO()
    wide = Console(
        file=out,
        force_terminal=colours,
        color_system="standard" if colours else None,
        width=10_000 if natural else width,
        highlight=False,
    )
    wide.print(grid)
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines() if line.strip())


def _number(value: Any) -> str:
    return f"{value:,}" if type(value) is int and abs(value) >= 10_000 else _text(value)


def _lines(columns: list[str], rows: list[list[Any]]) -> str:
    size = max((len(c) for c in columns), default=0)
    blocks = ["".join(f"{c:>{size}} = {_text(v)}\n" for c, v in zip(columns, row, strict=True)) for row in rows]
    return "\n".join(blocks)


def _markdown(columns: list[str], rows: list[list[Any]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", "<br>") for c in cells) + " |\n"

    body = [line(["" if v is None else _text(v) for v in row]) for row in rows]
    return line(columns) + line(["---"] * len(columns)) + "".join(body)


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def page(text: str, *, paged: bool = True) -> None:
    """Print a text; on a terminal through a pager when it is longer or wider than the screen."""
    from rich.text import Text

    lines = text.splitlines()
    if not (paged and sys.stdout.isatty() and sys.stdin.isatty()):
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    size = shutil.get_terminal_size()
    if len(lines) < size.lines and all(Text.from_ansi(li).cell_len <= size.columns for li in lines):
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    command = shlex.split(os.environ.get("PAGER") or "less")
    if not command or shutil.which(command[0]) is None:
        _by_screens(lines, size.lines - 1)
        return
    _pipe(command, text)


def _pipe(command: list[str], text: str) -> None:
    # -S: a row is a line, and the arrows go to the right; -R: colours; -X: what was seen stays on the screen.
    environment = {"LESS": "-SRX", "LESSCHARSET": "utf-8", **os.environ}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, encoding="utf-8", env=environment)
    # Ctrl-C is the pager's while it is there; it would be left behind without us.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.communicate(text)
    finally:
        signal.signal(signal.SIGINT, before)


def _by_screens(lines: list[str], size: int) -> None:
    for at in range(0, len(lines), size):
        sys.stdout.write("\n".join(lines[at : at + size]) + "\n")
        if at + size >= len(lines):
            return
        try:
            answer = input(f"-- {len(lines) - at - size:,} more lines: Enter, or q -- ")
        except (EOFError, KeyboardInterrupt):
            return
        if answer.strip().lower() == "q":
            return
