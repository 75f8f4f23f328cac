"""`query`: one SQL query over the lake."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdc_lake.cli import output
from cdc_lake.errors import UsageError, suggest

if TYPE_CHECKING:
    from cdc_lake.query.run import Result
    from cdc_lake.query.session import Session

_EXAMPLES = (
    "Examples:  cdc-lake query 'SELECT count(*) FROM orders'   ·   "
    "cdc-lake query 'FROM changes.public.orders LIMIT 5' --format json   ·   "
    "cdc-lake query --as-of 2026-11-24T18:30:00Z 'FROM stores'   ·   "
    "cdc-lake query -f report.sql --format csv > report.csv   ·   "
    "echo 'FROM lake.tables' | cdc-lake query -"
)
_FORMATS = ("table", "json", "csv", "parquet")
_TABLE_ROWS = 1000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(query)


def query(
    sql: Annotated[str | None, typer.Argument(metavar="SQL|-", help="The query; - reads it from stdin.")] = None,
    file: Annotated[
        Path | None, typer.Option("-f", "--file", metavar="FILE", help="Read the query from a file.")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", metavar="table|json|csv|parquet", help="How rows are printed.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME|LSN|TX", help="Read the lake as it was then.")
    ] = None,
) -> None:
    """Ask the lake with SQL: `current` (the default), `changes`, `history`, `lake`, all tables at one cut.

    A query written for the source runs unchanged.
    """
    text = _text(sql, file)
    chosen = _format(form)
    from contextlib import closing

    from cdc_lake.cli.witness import witnessed
    from cdc_lake.query.run import run_sql
    from cdc_lake.query.session import open_session

    config = output.settings()
    with witnessed(config, "query") as witness, closing(open_session(config, as_of=as_of, sql=text)) as session:
        witness.reads(session)
        result = run_sql(session, text)
        if chosen == "table":
            show_cut(session)
        if result is not None:
            show(result, chosen)


def _text(sql: str | None, file: Path | None) -> str:
    if (sql is None) == (file is None):
        raise UsageError("Give one query: as an argument, with -f FILE, or - for stdin.", next="cdc-lake query --help")
    if file is not None:
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"{file} cannot be read.", why=why, next="check the path") from None
    return sys.stdin.read() if sql == "-" else str(sql)


def _format(form: str | None) -> str:
    chosen = form or ("json" if output.as_json() else "table")
    if chosen not in _FORMATS:
        hint = suggest(chosen, _FORMATS)
        raise UsageError(
            f"There is no format {chosen}.",
            why=hint or f"There are: {', '.join(_FORMATS)}",
            next="cdc-lake query --help",
        )
    if chosen == "parquet" and sys.stdout.isatty():
        raise UsageError(
            "Parquet is binary and not for a terminal.", next="cdc-lake query … --format parquet > result.parquet"
        )
    return chosen


def show(result: Result, form: str) -> None:
    """Print a result in one of the formats."""
    from cdc_lake.query import formats

    try:
        if form == "json":
            formats.write_json(result, sys.stdout)
        elif form == "csv":
            formats.write_csv(result, sys.stdout)
        elif form == "parquet":
            formats.write_parquet(result, sys.stdout.buffer)
        else:
            _show_table(result)
    finally:
        result.close()


def _show_table(result: Result) -> None:
    from itertools import islice

    from cdc_lake.query import formats
    from cdc_lake.query.values import as_text

    rows = formats.rows(result)
    head = list(islice(rows, _TABLE_ROWS))
    plain = (bool, int, float)
    output.table(
        list(result.columns), [[v if v is None or isinstance(v, plain) else as_text(v) for v in row] for row in head]
    )
    if next(rows, None) is not None:
        output.say(f"The first {_TABLE_ROWS:,} rows; all of them: --format csv")


def show_cut(session: Session) -> None:
    """On a terminal: which moment the result shows; and always, what a stalled cut waits for."""
    for name, cut in session.cuts.items():
        age = cut.age_seconds
        if sys.stderr.isatty() and cut.tx_id is not None and age is not None:
            output.say(f"{name}: at transaction {cut.tx_id}, committed {duration(age)} ago")
        for wait in cut.waits[:3]:
            output.say(
                f"{name}: the cut waits for transaction {wait.tx_id}: "
                f"{wait.missing:,} of {wait.expected:,} rows of {wait.table} have not landed"
            )


def duration(seconds: float) -> str:
    """A length of time in one unit, such as `12 s` or `3 h`."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
