"""Java's stack traces, reduced to what went wrong and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_CAUSE = re.compile(r"^Caused by: (.*)$", re.M)
_CLASS = re.compile(r"^(?:[\w$]+\.)+[\w$]+: ")
_ONLY_CLASS = re.compile(r"^(?:[\w$]+\.)+([\w$]+)$")
# Debezium prints whole objects into its messages: `PostgresOffsetContext [… pages …]`.
_INNARDS = re.compile(r"\[\w+=.*\]")
_NAME = re.compile(r"\bNAME\b")
_LINE_LIMIT = 400
_USERINFO = re.compile(r"(://[^/\s:@]*):[^/\s@]+@")
_PASSWORD = re.compile(r"(password\s*[=:]\s*)(\S+)", re.I)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A failure in words: what happened, why, the next thing to do, and a stable code."""

    message: str
    why: str
    next: str
    code: str


@dataclass(frozen=True, slots=True)
class _Known:
    pattern: re.Pattern[str]
    message: str
    next: str
    code: str


def _known(pattern: str, message: str, next: str, code: str) -> _Known:
    return _Known(re.compile(pattern, re.I), message, next, code)


# Tried in order against the whole trace: the most telling first. `{1}` is the pattern's first group.
_KNOWN = (
    _known(
        r"password authentication failed for user \"([^\"]+)\"",
        'PostgreSQL refused the password of role "{1}".',
        "cdc-lake connector register FILE  (sets a new password when the file says ${{capture:password}})",
        "wrong_password",
    ),
    _known(
        r"role \"([^\"]+)\" (?:does not exist|is not permitted to log in)",
        'The role "{1}" does not exist in PostgreSQL or may not log in.',
        "cdc-lake connector register FILE  (makes the role)",
        "no_role",
    ),
    _known(
        r"database \"([^\"]+)\" does not exist",
        'There is no database "{1}" on that server.',
        "check the name in `source.dsn` of cdc-lake.yaml, then: cdc-lake connector register FILE",
        "no_database",
    ),
    _known(
        r"no pg_hba\.conf entry",
        "PostgreSQL's pg_hba.conf does not let the connector in.",
        "add a line for the capture role to pg_hba.conf, then in the source: SELECT pg_reload_conf();",
        "pg_hba",
    ),
    _known(
        r"publication \"?([^\"\s]+)\"? does(?:n't| not) exist|publication autocreation is disabled",
        "The publication that the connector reads does not exist.",
        "cdc-lake connector register FILE  (makes the publication)",
        "no_publication",
    ),
    _known(
        r"replication slot \"([^\"]+)\" is active(?: for PID (\d+))?",
        'The replication slot "{1}" is in use by another connection.',
        "stop the other connector, or give this one a `slot.name` of its own",
        "slot_in_use",
    ),
    _known(
        r"can no longer (?:get changes from|access) replication slot|WAL segment \S+ has already been removed"
        r"|no longer available on the server|replication slot .*(?:invalidated|is lost)",
        "The replication slot was lost: PostgreSQL no longer has the changes the connector needs next.",
        "cdc-lake connector delete NAME --drop-slot, then register again: all rows are read anew",
        "slot_lost",
    ),
    _known(
        r"all replication slots are in use",
        "PostgreSQL has no free replication slot.",
        "drop a slot that is not needed (SELECT pg_drop_replication_slot('…')) or raise max_replication_slots",
        "no_free_slot",
    ),
    _known(
        r"replication slot \"([^\"]+)\" does not exist",
        'The replication slot "{1}" does not exist any more.',
        "cdc-lake connector delete NAME --drop-slot, then register again: all rows are read anew",
        "slot_lost",
    ),
    _known(
        r"wal_level",
        "PostgreSQL does not write a logical change log (wal_level is not logical).",
        "in the source: ALTER SYSTEM SET wal_level = 'logical';  then restart PostgreSQL",
        "wal_level",
    ),
    _known(
        r"permission denied for (table|view|schema|database|sequence|function) ([^\s\n]+)",
        "The capture role may not read {1} {2}.",
        "cdc-lake connector register FILE  (grants what is missing)",
        "permission_denied",
    ),
    _known(
        r"permission denied to (?:start WAL sender|use replication slots|create replication slot)"
        r"|must be superuser or replication role|does not have (?:the )?replication",
        "The capture role may not replicate.",
        "in the source: ALTER ROLE … REPLICATION;",
        "permission_denied",
    ),
    _known(
        r"Connection to ([^\s,]+) refused",
        "Kafka Connect cannot reach PostgreSQL at {1}: the connection is refused.",
        "start the database; where Connect runs elsewhere, write `database.hostname` as Connect sees it",
        "source_unreachable",
    ),
    _known(
        r"UnknownHostException: ([^\s\n]+)",
        'Kafka Connect cannot find the host "{1}".',
        "write `database.hostname` in the connector file as Connect sees it",
        "source_unreachable",
    ),
    _known(
        r"too many connections|remaining connection slots are reserved",
        "PostgreSQL has no free connection.",
        "close connections or raise max_connections, then: cdc-lake connector restart NAME",
        "too_many_connections",
    ),
    _known(
        r"Table '([^']+)' has columns that differ only by case\. Column name: '([^']+)'",
        'Table {1} has another column "{2}" that differs in case alone: Debezium refuses it, and reads no table.',
        "in the source rename one (ALTER TABLE … RENAME COLUMN …), or add the table to `table.exclude.list` in the "
        "connector file; then: cdc-lake connector register FILE",
        "column_case",
    ),
    _known(
        r"RecordTooLargeException",
        "A row is larger than Kafka takes.",
        "raise producer.override.max.request.size in the connector file and max.message.bytes of the topic",
        "record_too_large",
    ),
    _known(
        r"(?:Could not read properties from file|Could not open file) ([^\n]+)",
        "Kafka Connect cannot read the secrets file {1}.",
        "let the Connect worker read that file, or refer to the secret by ${{env:VARIABLE}}",
        "secrets_unreadable",
    ),
    _known(
        r"terminating connection due to administrator command|the database system is (?:shutting down|starting up)"
        r"|This connection has been closed|An I/O error occurred|Database connection failed",
        "The connection to PostgreSQL was lost.",
        "start the database, then: cdc-lake connector restart NAME",
        "source_unreachable",
    ),
    _known(
        r"Failed to find any class that implements Connector",
        "The Connect worker does not have this connector class.",
        "cdc-lake connector plugins",
        "no_plugin",
    ),
)


def root_cause(trace: str) -> str:
    """The last cause of a stack trace as one line without class names and secrets; empty for an empty trace."""
    causes = _CAUSE.findall(trace)
    line = (causes[-1] if causes else next(iter(trace.strip().splitlines()), "")).strip()
    only = _ONLY_CLASS.match(line)
    if only:
        return only.group(1)
    while _CLASS.match(line):
        line = _CLASS.sub("", line, count=1)
    line = line.removeprefix("Error while validating connector config: ").removeprefix("FATAL: ")
    line = _INNARDS.sub("[…]", line)
    return redact(line if len(line) <= _LINE_LIMIT else f"{line[:_LINE_LIMIT]}…")


def explain(trace: str, *, name: str = "NAME", secrets: Iterable[str] = ()) -> Explanation:
    """What a trace (or a single message of Connect) means for connector `name`."""
    cause = redact(root_cause(trace), secrets)
    for known in _KNOWN:
        found = known.pattern.search(trace)
        if found:
            groups = [found.group(0), *(g or "" for g in found.groups())]
            message = redact(known.message.format(*groups), secrets)
            return Explanation(message, cause, _NAME.sub(name, known.next.format()), known.code)
    return Explanation(
        cause or "The task failed without a word.",
        "",
        f"cdc-lake connector restart {name}  (the worker's log has the whole trace)",
        "task_failed",
    )


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without passwords in addresses, without `password=…`, and without any of `secrets`."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "********")
    return _PASSWORD.sub(r"\1********", _USERINFO.sub(r"\1:********@", text))
