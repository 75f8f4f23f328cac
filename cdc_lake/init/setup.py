"""The SQL that prepares a source, as a file that its administrator can read, run and keep."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from cdc_lake.capture.preflight import identity_statement
from cdc_lake.init.look import Found

_WIDTH = 110


def setup_sql(found: Found, file: str) -> str:
    """All that the source of `found` lacks, in three parts. It holds no password and names what needs a restart."""
    database = f"PostgreSQL {found.version.split()[0]}"
    lines = [
        *_comment(
            f'What the database "{found.database}" ({database}) lacks before cdc-lake can capture it. Written by '
            "`cdc-lake init`, which has changed nothing. To run it, as a role that may do all of this:"
        ),
        f"--   psql -v ON_ERROR_STOP=1 -f {file} 'ADDRESS'",
        *_comment(
            "Part 3 is what `cdc-lake connector register` does by itself where the user of `source.dsn` may. "
            "It can be run again: what is there already is not in it."
        ),
        "",
        *_server(found),
        *_identities(found),
        *_preparation(found),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _comment(text: str) -> Iterator[str]:
    yield from (f"-- {line}" for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False))


def _part(number: int, title: str, lines: Sequence[str]) -> Iterator[str]:
    yield f"-- {number}. {title}"
    yield from lines or ["--    Nothing is missing."]
    yield ""


def _server(found: Found) -> Iterator[str]:
    server = found.survey.server if found.survey is not None else None
    lines = []
    if server is not None and server.wal_level != "logical":
        lines = ["ALTER SYSTEM SET wal_level = 'logical';  -- then restart PostgreSQL"]
        if server.wal_level_pending:
            lines = ["--    wal_level is set already: restart PostgreSQL."]
    yield from _part(1, "The server's change log must say what changed row by row.", lines)


def _identities(found: Found) -> Iterator[str]:
    tables = (*found.survey.tables, *found.survey.partitions) if found.survey is not None else ()
    nameless = [t for t in tables if t.kind == "r" and not t.identified]
    lines: list[str] = []
    if nameless:
        lines += _comment(
            "Once such a table is published, every UPDATE and DELETE on it would fail. FULL writes the whole old row "
            "into the change log each time: where the table has a unique index over columns that are NOT NULL, "
            "REPLICA IDENTITY USING INDEX is cheaper, and a primary key is best."
        )
        lines += [identity_statement(t) for t in nameless]
    yield from _part(2, "PostgreSQL must be able to name each changed row.", lines)


def _preparation(found: Found) -> Iterator[str]:
    title = "Heartbeat and signals, a role with least rights, the publication."
    lines: list[str] = []
    if found.survey is None:
        lines = ["--    There is no table to capture yet. Create the tables, then: cdc-lake init --force"]
    elif found.statements:
        lines = ["BEGIN;", *(f"{statement.sql};" for statement in found.statements), "COMMIT;"]
        if any(s.sql.startswith("CREATE ROLE") for s in found.statements):
            lines += _comment(
                "The role has no password yet, so nobody can log in with it: `cdc-lake connector register` makes one. "
                "Where the user of `source.dsn` may not set it, give the role a password yourself (\\password in "
                "psql) and name it in the connector file by reference: ${file:PATH:KEY} or ${env:VARIABLE}."
            )
    yield from _part(3, title, lines)
