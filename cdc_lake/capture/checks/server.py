"""Checks of a source's server: can it be captured, and is there room for one more reader?"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import psycopg

from cdc_lake.capture.postgres import Connection, explain_statement
from cdc_lake.checks import Check, fail, listed, ok, span, warn
from cdc_lake.sqltext import ident

# publish_via_partition_root came with 13.
_OLDEST = 13
_CLOCK_SECONDS = 5.0

_FACTS = """
SELECT current_setting('server_version'), current_setting('server_version_num')::int, current_setting('wal_level'),
       (SELECT pending_restart FROM pg_settings WHERE name = 'wal_level'), pg_is_in_recovery(),
       current_setting('max_replication_slots')::int, (SELECT count(*)::int FROM pg_replication_slots),
       current_setting('max_wal_senders')::int, (SELECT count(*)::int FROM pg_stat_replication)
"""

# Domains that stand on an enum, perhaps over other domains, each with the columns that use it; in the order in which
# they can be dropped.
_ENUM_DOMAINS = """
WITH RECURSIVE chain AS (
    SELECT oid, typbasetype AS base, 1 AS depth FROM pg_type WHERE typtype = 'd'
    UNION ALL
    SELECT c.oid, t.typbasetype, depth + 1 FROM chain c JOIN pg_type t ON t.oid = c.base WHERE t.typtype = 'd'
)
SELECT n.nspname, d.typname, format_type(e.oid, NULL),
       ARRAY(SELECT ARRAY[cn.nspname::text, r.relname::text, a.attname::text]
             FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid JOIN pg_namespace cn ON cn.oid = r.relnamespace
             WHERE a.atttypid = d.oid AND NOT a.attisdropped AND r.relkind IN ('r', 'p') AND NOT r.relispartition
             ORDER BY 1)
FROM chain c JOIN pg_type e ON e.oid = c.base AND e.typtype = 'e'
JOIN pg_type d ON d.oid = c.oid JOIN pg_namespace n ON n.oid = d.typnamespace
ORDER BY c.depth DESC, 1, 2
"""


@dataclass(frozen=True, slots=True)
class EnumDomain:
    """A domain over an enum: its name and the enum's as SQL writes them, and `(schema, table, column)` that use it."""

    name: str
    enum: str
    columns: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the server says of itself. `clock` is its time minus ours in seconds."""

    version: str
    number: int
    wal_level: str
    wal_level_pending: bool
    standby: bool
    max_slots: int
    used_slots: int
    max_senders: int
    used_senders: int
    clock: float = 0.0
    enum_domains: tuple[EnumDomain, ...] = ()


def read_server(connection: Connection) -> ServerFacts:
    """Ask the server. Raises SourceError when it refuses."""
    try:
        before = time.time()
        clock = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        after = time.time()
        facts = connection.execute(_FACTS).fetchone()
        domains = connection.execute(_ENUM_DOMAINS).fetchall()
    except psycopg.Error as error:
        raise explain_statement(error, "read the server's settings") from None
    assert clock is not None and facts is not None  # noqa: S101, PT018 - a SELECT without FROM has one row
    found = tuple(
        EnumDomain(f"{ident(schema)}.{ident(name)}", enum, tuple((s, t, c) for s, t, c in columns))
        for schema, name, enum, columns in domains
    )
    return replace(ServerFacts(*facts), clock=clock[0] - (before + after) / 2, enum_domains=found)


def check_server(server: ServerFacts, *, slot_exists: bool) -> list[Check]:
    """Judge the server; `slot_exists`: the connector has its slot already."""
    return [
        _version(server),
        _standby(server),
        _wal_level(server),
        _slots(server, slot_exists=slot_exists),
        _senders(server),
        _enum_domains(server),
        _clock(server),
    ]


def _version(server: ServerFacts) -> Check:
    if server.number // 10_000 < _OLDEST:
        return fail(
            "source.version",
            f"PostgreSQL {server.version}",
            why=f"Partitioned tables can be published under their root only from PostgreSQL {_OLDEST}.",
            fix=f"pg_upgrade to PostgreSQL {_OLDEST} or later",
        )
    return ok("source.version", f"PostgreSQL {server.version}")


def _standby(server: ServerFacts) -> Check:
    if server.standby:
        return fail(
            "source.primary",
            "the source is a standby",
            why="A publication and the heartbeat can only be written on the primary.",
            fix="point `source.dsn` in cdc-lake.yaml at the primary",
        )
    return ok("source.primary", "a primary")


def _wal_level(server: ServerFacts) -> Check:
    if server.wal_level == "logical":
        return ok("source.wal_level", "logical")
    return fail(
        "source.wal_level",
        server.wal_level + (", logical after a restart" if server.wal_level_pending else ""),
        why="At this level the change log does not hold what changed row by row.",
        fix=("" if server.wal_level_pending else "ALTER SYSTEM SET wal_level = 'logical';  then ")
        + "restart PostgreSQL: pg_ctl restart",
    )


def _slots(server: ServerFacts, *, slot_exists: bool) -> Check:
    name, found = "source.replication_slots", f"{server.used_slots} of {server.max_slots} used"
    if server.used_slots < server.max_slots:
        return ok(name, found)
    fix = (
        "SELECT slot_name, active FROM pg_replication_slots;  SELECT pg_drop_replication_slot('…');  "
        f"or ALTER SYSTEM SET max_replication_slots = {server.max_slots + 10};  and restart PostgreSQL"
    )
    if slot_exists:
        return warn(name, found, why="No other connector can be added.", fix=fix)
    return fail(name, found, why="The connector needs a slot of its own.", fix=fix)


def _senders(server: ServerFacts) -> Check:
    name, found = "source.wal_senders", f"{server.used_senders} of {server.max_senders} used"
    if server.used_senders < server.max_senders:
        return ok(name, found)
    return warn(
        name,
        found,
        why="A connector that loses its connection cannot come back while all are taken.",
        fix=f"ALTER SYSTEM SET max_wal_senders = {server.max_senders + 10};  then restart PostgreSQL: pg_ctl restart",
    )


def _enum_domains(server: ServerFacts) -> Check:
    name = "source.enum_domains"
    if not server.enum_domains:
        return ok(name, "no domain over an enum")
    statements = []
    for domain in server.enum_domains:
        statements += [
            f"ALTER TABLE {ident(schema)}.{ident(table)} ALTER COLUMN {ident(column)} TYPE {domain.enum};"
            for schema, table, column in domain.columns
        ]
        statements.append(f"DROP DOMAIN {domain.name};")
    return fail(
        name,
        f"domains over an enum: {listed(d.name for d in server.enum_domains)}",
        why="The connector dies at its start (NullPointerException) when the database has one, captured or not.",
        fix=" ".join(statements),
    )


def _clock(server: ServerFacts) -> Check:
    name = "source.clock"
    if abs(server.clock) <= _CLOCK_SECONDS:
        return ok(name, f"{abs(server.clock):.1f} s apart from this machine's")
    return warn(
        name,
        f"{span(abs(server.clock))} {'ahead of' if server.clock > 0 else 'behind'} this machine's",
        why="Order and completeness need no clock, but ages and lags that are shown are off by as much.",
        fix="timedatectl set-ntp true   (on both machines)",
    )
