"""What `init` says: the files, what was found in the source, and the commands to go on with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdc_lake.checks import Status
from cdc_lake.cli import output
from cdc_lake.init.address import Address
from cdc_lake.init.files import Outline
from cdc_lake.init.look import Found
from cdc_lake.sqltext import ident

_SHOP = (
    'cdc-lake query "SELECT s.name, count(*) AS orders, sum(o.total) AS revenue FROM orders o '
    'JOIN stores s USING (store_id) GROUP BY s.name ORDER BY revenue DESC LIMIT 5"'
)


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next. `command` can be copied as it is, except where `by_hand` says that a person must fill it in; it
    is empty where only words help."""

    words: str
    command: str = ""
    by_hand: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"words": self.words, "command": self.command or None, "by_hand": self.by_hand}


def steps(folder: Path, outline: Outline, address: Address | None, found: Found | None) -> list[Step]:
    """The way from the new files to a first answer, in order."""
    way = [] if folder == Path() else [Step("go there", f"cd {shlex.quote(str(folder))}")]
    if address is not None and found is not None:
        way += _prepare(outline, address, found)
        way.append(Step("start Kafka and Kafka Connect", "cdc-lake up"))
    else:
        way.append(Step("start PostgreSQL, Kafka and Kafka Connect", "cdc-lake up"))
        way.append(
            Step("fill the database", "cdc-lake shop load")
            if outline.template == "retail"
            else Step("create your tables in its database: `up` prints the address", by_hand=True)
        )
    return [
        *way,
        Step("capture", f"cdc-lake connector register {outline.connector}"),
        Step("land what is there", "cdc-lake sink run --until-caught-up"),
        Step("ask", _question(outline, found)),
        Step("go on landing", "cdc-lake sink run"),
        Step("explore, with the extra `notebooks`", f"marimo edit {outline.notebook}"),
    ]


def _prepare(outline: Outline, address: Address, found: Found) -> list[Step]:
    way = [Step("set the address, with its password", address.export, by_hand=True)] if address.export else []
    if found.needs_setup:
        command = f"psql -v ON_ERROR_STOP=1 -f {outline.setup_file} {address.in_shell}"
        way.append(Step("prepare the source: read the SQL, then run it", command))
    if any(c.name == "server.wal_level" and c.status is not Status.OK for c in found.checks):
        way.append(Step("restart PostgreSQL", by_hand=True))
    return way


def _question(outline: Outline, found: Found | None) -> str:
    if outline.template == "retail":
        return _SHOP
    if found is None or not found.tables:
        return "cdc-lake tables"
    table = found.tables[0][0]
    plain = all(part.isidentifier() and part == part.lower() for part in (table.schema, table.name))
    name = f"{table.schema}.{table.name}" if plain else f"{ident(table.schema)}.{ident(table.name)}"
    return f"cdc-lake query {shlex.quote(f'SELECT count(*) FROM {name}')}"


def document(
    folder: Path,
    outline: Outline,
    made: Mapping[str, str],
    found: Found | None,
    way: list[Step],
    *,
    dry_run: bool,
) -> dict[str, Any]:
    """All of it for `--json`."""
    source = None
    if found is not None:
        source = {
            "database": found.database,
            "version": found.version,
            "tables": [{"table": str(table), "rows_estimated": rows} for table, rows in found.tables],
            "checks": [check.as_dict() for check in found.checks],
            "ok": found.ok,
            "needs_setup": found.needs_setup,
        }
    return {
        "folder": str(folder),
        "template": outline.template,
        "name": outline.name,
        "files": list(made),
        "written": not dry_run,
        "source": source,
        "next": [step.as_dict() for step in way],
    }


def show(folder: Path, made: Mapping[str, str], found: Found | None, way: list[Step], *, dry_run: bool) -> None:
    """All of it for a person."""
    if found is not None:
        _show_source(found)
    verb = "Would write" if dry_run else "Wrote"
    for name in made:
        output.say(f"{verb} {folder / name}")
    output.say("\nNext:")
    width = max(len(step.words) for step in way if step.command) + 2
    for step in way:
        output.say(f"  {step.words + ':':<{width}}{step.command}" if step.command else f"  {step.words}")


def _show_source(found: Found) -> None:
    from cdc_lake.cli.doctor import line

    out = output.console()
    out.print(f"PostgreSQL {found.version.split()[0]}, database {found.database}", markup=False)
    for check in found.checks:
        out.print(line(check.status, check.name, check.found))
        for word, text in (("why", check.why), ("fix", check.fix)):
            if text:
                out.print(f"       {word}: {text}", markup=False)
    out.print("")
