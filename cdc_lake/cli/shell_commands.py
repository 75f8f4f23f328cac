"""The shell's backslash commands: each a function, with the line that `\\?` shows of it."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from cdc_lake.cli import output
from cdc_lake.cli.shell_show import FORMATS, page, show
from cdc_lake.errors import UsageError, suggest
from cdc_lake.query.names import CATALOGUES, Relation
from cdc_lake.query.needs import CATALOGUES as OF_TABLES
from cdc_lake.sqltext import ident

if TYPE_CHECKING:
    from cdc_lake.cli.shell import Shell

_PLOTTED = 100_000
_CATALOGUES = {
    "current": "each table as the source has it now; the default",
    "changes": "each change of each table",
    "history": "each version of each row, with from when to when it held",
    "lake": "the lake itself: tables, cut, transactions, schemas, dead letters",
    "streams": "what streaming models make of the changes",
}


@dataclass(frozen=True, slots=True)
class Command:
    """A command, what stands behind it, what it does; `words` are completed behind it."""

    run: Callable[[Shell, str], None]
    argument: str
    help: str
    words: tuple[str, ...] = ()


def run_command(shell: Shell, line: str) -> None:
    """Run a line that begins with a backslash. Raises UsageError when there is no such command."""
    name, _, argument = line.rstrip(";").strip().partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(f"There is no command {name}.", why=suggest(name, COMMANDS), next="\\? lists them")
    command.run(shell, argument.strip())


def _describe(shell: Shell, name: str) -> None:
    if not name or name.lower() in CATALOGUES:
        _list(shell, f"{name.lower()}.*" if name else "")
        return
    relation = shell.names.relation(name)
    if relation is None:
        near = suggest(name, [r.typed for r in shell.names.relations])
        raise UsageError(f"There is no table {name}.", why=near, next="\\d lists all")
    query = f"SELECT column_name AS column, column_type AS type{_key(shell, relation)} FROM (DESCRIBE {_sql(relation)})"
    with shell.result(query) as result:
        if result is not None:
            show(result, shell.view)
    others = [r.typed for r in shell.names.relations if r.path[1:] == relation.path[1:] and r is not relation]
    if others and relation.catalogue in OF_TABLES:
        output.say(f"The same table: {', '.join(others)}")


def _sql(relation: Relation) -> str:
    return ".".join(map(ident, (relation.catalogue, relation.schema, relation.name)))


def _key(shell: Shell, relation: Relation) -> str:
    """A column of `\\d` that says which columns are the table's key."""
    for source in shell.session.sources:
        for table in source.tables:
            if (table.table.schema, table.table.name) == (relation.schema, relation.name) and table.shapes is not None:
                keys = ", ".join("'" + c.name.replace("'", "''") + "'" for c in table.shapes.target.key_columns)
                return f", CASE WHEN column_name IN ({keys}) THEN 'yes' ELSE '' END AS key" if keys else ""
    return ""


def _list(shell: Shell, glob: str) -> None:
    wanted = glob.lower() or None
    rows = [
        [r.typed, len(r.columns), ", ".join(r.columns[:6]) + (", …" if len(r.columns) > 6 else "")]
        for r in shell.names.relations
        if (r.catalogue == "current" or r.catalogue not in OF_TABLES if wanted is None else _matches(r, wanted))
    ]
    if wanted is None and not any(r.catalogue == "current" for r in shell.names.relations):
        output.say("No table has landed yet: cdc-lake sink run")
    if not rows:
        raise UsageError(f"No table is called like {glob}.", next="\\d lists all")
    output.table(["table", "columns", "such as"], rows)
    if wanted is None:
        output.say("Of each table there are changes and history too: \\d changes, \\d history.")


def _matches(relation: Relation, glob: str) -> bool:
    return any(fnmatch.fnmatchcase(n.lower(), glob) for n in (relation.typed, ".".join(relation.path), relation.name))


def _catalogues(shell: Shell, _argument: str) -> None:
    counts = {c: sum(r.catalogue == c for r in shell.names.relations) for c in _CATALOGUES}
    output.table(["catalogue", "tables", "holds"], [[c, counts[c], text] for c, text in _CATALOGUES.items()])


def _schemas(shell: Shell, _argument: str) -> None:
    names = [r.schema for r in shell.names.relations if r.catalogue == "current"]
    output.table(["schema", "tables"], [[s, names.count(s)] for s in dict.fromkeys(names)])


def _as_of(shell: Shell, moment: str) -> None:
    if not moment:
        output.say(f"The lake is shown as of {shell.moment}." if shell.moment else "The lake is shown as it is now.")
        return
    shell.reopen(None if moment.lower() == "now" else moment.strip("'"))


def _again(shell: Shell, _argument: str) -> None:
    shell.reopen(shell.moment)


def _format(shell: Shell, form: str) -> None:
    if not form:
        output.say(f"The format is {shell.view.form}; there are: {', '.join(FORMATS)}.")
    elif form in FORMATS:
        shell.view.form = form
    else:
        why = suggest(form, FORMATS) or f"There are: {', '.join(FORMATS)}"
        raise UsageError(f"There is no format {form}.", why=why, next="\\format table")


def _lines(shell: Shell, _argument: str) -> None:
    shell.view.form = "table" if shell.view.form == "line" else "line"
    output.say(f"The format is {shell.view.form}.")


def _rows(shell: Shell, number: str) -> None:
    if number and not (number.isdecimal() and int(number)):
        raise UsageError(f"{number} is no number of rows.", next="\\rows 1000")
    shell.view.rows = int(number or shell.view.rows)
    output.say(f"At most {shell.view.rows:,} rows of a result are shown.")


def _switch(name: str, current: bool, argument: str) -> bool:
    if argument not in ("", "on", "off"):
        raise UsageError(f"{argument} is neither on nor off.", next=f"\\{name.lower()} on")
    wanted = argument == "on" if argument else not current
    output.say(f"{name} is {'on' if wanted else 'off'}.")
    return wanted


def _timing(shell: Shell, argument: str) -> None:
    shell.timing = _switch("Timing", shell.timing, argument)


def _pager(shell: Shell, argument: str) -> None:
    shell.view.paged = _switch("Pager", shell.view.paged, argument)


def _out(shell: Shell, name: str) -> None:
    shell.view.file = Path(name).expanduser() if name else None
    output.say(f"The next result goes to {name}." if name else "Results are printed.")


def _in(shell: Shell, name: str) -> None:
    if not name:
        raise UsageError("Which file?", next="\\i FILE")
    shell.run_file(Path(name))


def _plot(shell: Shell, query: str) -> None:
    from cdc_lake.cli.plot import draw, read_points

    sql = query or shell.last
    if not sql:
        raise UsageError("There is no query to plot yet.", next="\\plot SELECT x, y FROM … ORDER BY x")
    shell.last = sql
    with shell.result(sql) as result:
        columns = result.columns if result is not None else ()
        read = (zip(*(c.to_pylist() for c in b.columns), strict=True) for b in (result.batches() if result else ()))
        try:
            rows = list(islice((row for batch in read for row in batch), _PLOTTED))
        except (ValueError, OverflowError) as error:
            raise UsageError("A value cannot be plotted.", why=str(error), next="cast it in the query") from None
    size = shutil.get_terminal_size((80, 24))
    page(draw(read_points(columns, rows), min(size.columns, 120), min(size.lines - 2, 24)), paged=shell.view.paged)


def _help(_shell: Shell, _argument: str) -> None:
    size = max(len(f"{n} {c.argument}") for n, c in COMMANDS.items()) + 2
    lines = [f"  {f'{name} {c.argument}':{size}}{c.help}\n" for name, c in COMMANDS.items()]
    end = "A statement ends with ; and may take several lines. Tab completes, Ctrl-R searches what was typed before.\n"
    page("".join(lines) + f"  {end}  Ctrl-C drops the line, or stops a query.\n")


def _leave(_shell: Shell, _argument: str) -> None:
    """`\\q` ends the loop before it comes here."""


COMMANDS = {
    "\\d": Command(_describe, "[TABLE]", "tables; or a table's columns, types and key"),
    "\\dt": Command(_list, "[GLOB]", "tables called so: \\dt hist*orders"),
    "\\dn": Command(_schemas, "", "schemas"),
    "\\l": Command(_catalogues, "", "catalogues, and what each holds"),
    "\\asof": Command(_as_of, "MOMENT|now", "show the lake as of a time, an LSN or tx:ID; now comes back", ("now",)),
    "\\r": Command(_again, "", "read the lake again: see what has landed since"),
    "\\format": Command(_format, "|".join(FORMATS), "how results are shown", FORMATS),
    "\\x": Command(_lines, "", "a line per value, for wide rows; again for a table"),
    "\\rows": Command(_rows, "N", "how many rows of a result are shown"),
    "\\plot": Command(_plot, "[QUERY]", "draw two columns; without a query the last one's"),
    "\\o": Command(_out, "FILE", "the next result goes to a file: .csv .json .jsonl .md .parquet"),
    "\\i": Command(_in, "FILE", "run a file"),
    "\\timing": Command(_timing, "[on|off]", "show how long a query took", ("on", "off")),
    "\\pager": Command(_pager, "[on|off]", "page what does not fit, with $PAGER or less", ("on", "off")),
    "\\?": Command(_help, "", "this help"),
    "\\q": Command(_leave, "", "leave (also Ctrl-D)"),
}
