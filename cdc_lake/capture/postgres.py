"""An administrator's connection to a source, with errors in words and never a password in them."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict

from cdc_lake.errors import ConfigError, SourceError, UnavailableError

CONNECT_SECONDS = 10
# A waiting DDL statement blocks every later reader of its table: rather give up and say so.
_LOCK_TIMEOUT = "10s"

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"


# What PostgreSQL says on connecting; `{1}` is the pattern's first group.
_REFUSALS = (
    (
        r'password authentication failed for user "([^"]+)"',
        'PostgreSQL at {where} refused the password of "{1}".',
        "correct the password in `source.dsn` of cdc-lake.yaml",
        "wrong_password",
    ),
    (
        r"no password supplied",
        "PostgreSQL at {where} asks for a password and `source.dsn` has none.",
        "write `source.dsn` in cdc-lake.yaml by reference (${{POS_DSN}}), with the password in it",
        "wrong_password",
    ),
    (
        r'database "([^"]+)" does not exist',
        'There is no database "{1}" at {where}.',
        "correct the database in `source.dsn` of cdc-lake.yaml, or create it: CREATE DATABASE …",
        "no_database",
    ),
    (
        r'role "([^"]+)" does not exist',
        'There is no role "{1}" at {where}.',
        "correct the user in `source.dsn` of cdc-lake.yaml",
        "no_role",
    ),
    (
        r"no pg_hba\.conf entry",
        "PostgreSQL at {where} does not let this host in.",
        "add a line to pg_hba.conf, then in the source: SELECT pg_reload_conf();",
        "pg_hba",
    ),
    (
        r"too many (?:clients|connections)|remaining connection slots",
        "PostgreSQL at {where} has no free connection.",
        "close connections or raise max_connections",
        "too_many_connections",
    ),
)


def address(dsn: str) -> str:
    """`host:port/dbname` of an address, for messages: no user, no password."""
    parts = _parse(dsn)
    return f"{parts.get('host') or 'localhost'}:{parts.get('port') or 5432}/{parts.get('dbname') or ''}"


def open_source(dsn: str, *, seconds: int = CONNECT_SECONDS) -> Connection:
    """Connect as the administrator; the connection is in autocommit.

    Raises ConfigError when the address cannot be read, UnavailableError when nothing answers within `seconds`, and
    SourceError when PostgreSQL refuses (password, database, role, pg_hba).
    """
    parts = _parse(dsn)
    parts.setdefault("connect_timeout", str(seconds))
    parts.setdefault("application_name", "cdc_lake")
    try:
        connection = psycopg.connect(**parts, autocommit=True)
        connection.execute("SELECT set_config('lock_timeout', %s, false)", (_LOCK_TIMEOUT,))
    except psycopg.OperationalError as error:
        raise explain_connection(error, address(dsn)) from None
    return connection


def explain_connection(error: psycopg.OperationalError, where: str) -> SourceError | UnavailableError:
    """The reason PostgreSQL cannot be reached or refuses, in words; `where` is `host:port/dbname`."""
    text = str(error)
    for pattern, message, next_step, code in _REFUSALS:
        found = re.search(pattern, text)
        if found:
            groups = [found.group(0), *found.groups()]
            return SourceError(
                message.format(*groups, where=where), why=_last_line(text), next=next_step.format(), code=code
            )
    return UnavailableError(
        f"PostgreSQL does not answer at {where}.",
        why=_last_line(text),
        next="start the database (embedded: cdc-lake up), or correct `source.dsn` in cdc-lake.yaml",
        code="source_unavailable",
    )


def explain_statement(error: psycopg.Error, doing: str) -> SourceError:
    """Why the source refused a statement; `doing` names it in words."""
    why = error.diag.message_primary or str(error).strip()
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return SourceError(
            f"The user of `source.dsn` may not {doing}.",
            why=why,
            next="hand the statements to an administrator: cdc-lake connector register FILE --dry-run",
            code="permission_denied",
        )
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return SourceError(
            f"A lock held by another session kept PostgreSQL from this for {_LOCK_TIMEOUT}: {doing}.",
            why=why,
            next="end the long transaction (SELECT pid, query FROM pg_stat_activity WHERE state <> 'idle'), then again",
            code="locked",
        )
    return SourceError(f"PostgreSQL refused to {doing}.", why=why, next="cdc-lake connector register FILE --dry-run")


def _parse(dsn: str) -> dict[str, Any]:
    try:
        return dict(conninfo_to_dict(dsn))
    except psycopg.ProgrammingError:
        # psycopg's own words quote the address, with its password.
        raise ConfigError(
            "The source's address (`source.dsn`) cannot be read.",
            why="It is neither postgresql://user:password@host:port/dbname nor key=value pairs.",
            next="correct `source.dsn` in cdc-lake.yaml",
        ) from None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1].removeprefix("FATAL:").strip() if lines else ""
