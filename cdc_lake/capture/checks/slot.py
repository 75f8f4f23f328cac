"""Checks of the replication slot: is it there, read by the right one, and how much of the WAL does it hold?"""

from __future__ import annotations

import ipaddress
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from cdc_lake.capture.checks.subject import Subject
from cdc_lake.capture.postgres import Connection, explain_statement
from cdc_lake.checks import Check, fail, listed, ok, size, warn
from cdc_lake.sqltext import literal

# Held WAL that is worth a word where PostgreSQL has no limit of its own.
_HELD_BYTES = 1 << 30
_MEANWHILE_BYTES = 1 << 26
_WARN_SHARE, _FAIL_SHARE = 0.5, 0.8

# Columns that older versions lack are read through the row's JSON.
_SLOT = """
WITH now AS (
    SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn
)
SELECT COALESCE(s.database::text, ''), COALESCE(s.plugin::text, ''), s.active_pid, COALESCE(a.usename::text, ''),
       COALESCE(s.wal_status, ''), COALESCE(to_jsonb(s)->>'invalidation_reason', ''),
       COALESCE(pg_wal_lsn_diff(now.lsn, s.restart_lsn), 0)::bigint,
       COALESCE(pg_wal_lsn_diff(s.confirmed_flush_lsn, '0/0'), 0)::bigint,
       CASE current_setting('max_slot_wal_keep_size') WHEN '-1' THEN NULL
            ELSE pg_size_bytes(current_setting('max_slot_wal_keep_size')) END,
       pg_wal_lsn_diff(now.lsn, '0/0')::bigint
FROM pg_replication_slots s CROSS JOIN now LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
WHERE s.slot_name = %s
"""


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """The slot as the source has it.

    `pid` and `reader` are the process that reads it and its user (None and empty when nobody does), `held` the bytes
    of WAL kept for it, `confirmed` the LSN that its reader has confirmed, `limit` max_slot_wal_keep_size in bytes
    (None: none), `free` the bytes free on the source's disk (None: not to be seen from here), `now` the LSN at which
    the source's WAL ends (None: not known).
    """

    database: str
    plugin: str
    pid: int | None
    reader: str
    wal_status: str
    invalidation: str
    held: int
    confirmed: int
    limit: int | None
    free: int | None = None
    now: int | None = None


def read_slot(connection: Connection, name: str) -> SlotFacts | None:
    """The slot of this name; None when there is none. Raises SourceError when the source refuses."""
    try:
        row = connection.execute(_SLOT, (name,)).fetchone()
    except psycopg.Error as error:
        raise explain_statement(error, "read the replication slots") from None
    return None if row is None else replace(SlotFacts(*row[:-1]), free=_free_disk(connection), now=row[-1])


def check_slot(subject: Subject, slot: SlotFacts, *, database: str, user: str) -> list[Check]:
    """Judge the slot; `database` is the captured one, `user` the connector's role (empty: not known)."""
    if slot.database != database:
        foreign = fail(
            "slot.state",
            f'"{subject.slot}" belongs to the database "{slot.database or "(none)"}"',
            why=f'The connector captures "{database}", and names of slots are shared by all databases of a server.',
            fix=f'give the connector a "slot.name" of its own in {subject.file}, then: {subject.register}',
        )
        return [foreign]
    return [_state(subject, slot), _reader(subject, slot, user), _wal(subject, slot)]


def missing_slot(subject: Subject) -> Check:
    """The slot of a registered connector is not there."""
    return fail(
        "slot.exists",
        f'there is no replication slot "{subject.slot}"',
        why="It was dropped: changes since then are not in the lake, and no reader can have them any more.",
        fix=subject.anew,
    )


def check_offset(subject: Subject, slot: SlotFacts, offsets: Sequence[Mapping[str, Any]]) -> Check:
    """Is the connector's stored offset still within what the slot can give? Read the slot before the offsets."""
    name = "slot.offset"
    found = [int(o["offset"]["lsn_proc"]) for o in offsets if (o.get("offset") or {}).get("lsn_proc") is not None]
    if not found:
        return ok(name, "the connector has no offset in the stream yet")
    at, confirmed = lsn(max(found)), lsn(slot.confirmed)
    # What was written between the two looks is less than this.
    if slot.now is not None and max(found) > slot.now + (_MEANWHILE_BYTES if slot.pid is not None else 0):
        return fail(
            name,
            f"the connector has read up to {at}, and the source's WAL ends at {lsn(slot.now)}",
            why="This is not the server that it read before, or one that was restored from a backup: what it writes up "
            "to there would be passed over.",
            fix="capture it as a source of its own, all rows are read anew: another `source.name` in cdc-lake.yaml, "
            f'another "topic.prefix" and "slot.name" in {subject.file}; '
            f"then: {subject.register}   (what has landed stays)",
        )
    # A connector that reads has passed its own check of the two, and moves the slot after its offset.
    if max(found) < slot.confirmed and slot.pid is None:
        return fail(
            name,
            f"the connector would go on at {at}, the slot can give changes from {confirmed} on",
            why="The slot was dropped and made again, or another reader advanced it: what lies between is lost.",
            fix=subject.anew,
        )
    return ok(name, f"connector at {at}, slot confirmed to {confirmed}")


def check_sharing(subject: Subject, connectors: Iterable[tuple[str, Mapping[str, str]]]) -> Check:
    """Does another connector of the same Connect read the same slot? `connectors` are names and configs."""
    configs = dict(connectors)
    own = configs.get(subject.connector.name, {})
    server = [own.get(key) for key in ("database.hostname", "database.port")]
    others = [
        name
        for name, config in sorted(configs.items())
        if name != subject.connector.name
        and "database.hostname" in config
        and config.get("slot.name", "debezium") == subject.slot
        and (not own or [config.get(key) for key in ("database.hostname", "database.port")] == server)
    ]
    if not others:
        return ok("slot.connectors", f'"{subject.slot}" is named by one connector')
    return fail(
        "slot.connectors",
        f'"{subject.slot}" is also named by {listed(others)}',
        why="A slot hands out each change once: two readers take them from each other, and both lose.",
        fix=f'give each a "slot.name" of its own, or: cdc-lake connector delete {others[0]}',
    )


def lsn(position: int) -> str:
    """A position in the WAL as PostgreSQL writes it: `0/458C0F40`."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def _state(subject: Subject, slot: SlotFacts) -> Check:
    name, found = "slot.state", f'"{subject.slot}": {slot.wal_status or "no WAL reserved yet"}'
    if slot.wal_status == "lost" or slot.invalidation:
        return fail(
            name,
            f'"{subject.slot}" is lost' + (f" ({slot.invalidation})" if slot.invalidation else ""),
            why="PostgreSQL removed changes that the connector had not read (max_slot_wal_keep_size).",
            fix=subject.anew,
        )
    if slot.wal_status == "unreserved":
        return fail(
            name,
            found,
            why="PostgreSQL removes the WAL that the connector needs next at its next checkpoint.",
            fix="ALTER SYSTEM SET max_slot_wal_keep_size = '…';  SELECT pg_reload_conf();  and let the connector read: "
            f"cdc-lake connector restart {subject.connector.name}",
        )
    return ok(name, found)


def _reader(subject: Subject, slot: SlotFacts, user: str) -> Check:
    name = "slot.reader"
    if slot.pid is None:
        return warn(
            name,
            f'nobody reads "{subject.slot}"',
            why="PostgreSQL keeps all WAL from here on until somebody does; a first snapshot is the one good reason.",
            fix=f"cdc-lake connector status {subject.connector.name}",
        )
    if user and slot.reader and slot.reader != user:
        return fail(
            name,
            f'"{subject.slot}" is read by "{slot.reader}" (process {slot.pid}), not by the connector',
            why="What another reader takes from the slot, the connector never gets.",
            fix=f'SELECT pg_terminate_backend({slot.pid});  or give the connector a "slot.name" of its own',
        )
    return ok(name, f'read by "{slot.reader}" (process {slot.pid})' if slot.reader else f"read by process {slot.pid}")


def _wal(subject: Subject, slot: SlotFacts) -> Check:
    name, held = "slot.wal", f"{size(slot.held)} of WAL held"
    fix = (
        "SELECT pid, xact_start, query FROM pg_stat_activity WHERE xact_start IS NOT NULL ORDER BY xact_start;  "
        "and end the transaction that is open for so long"
        if slot.pid is not None
        else f"cdc-lake connector restart {subject.connector.name}   or, when it is not needed any more, in the "
        f"source: SELECT pg_drop_replication_slot({literal(subject.slot)});"
    )
    if slot.limit is not None:
        found = f"{held}; the limit is {size(slot.limit)}"
        why = "Above max_slot_wal_keep_size the slot is lost, and all rows must be read anew."
        if slot.held >= slot.limit * _FAIL_SHARE:
            return fail(name, found, why=why, fix=fix)
        if slot.held >= slot.limit * _WARN_SHARE:
            return warn(name, found, why=why, fix=fix)
    else:
        found = f"{held}; no limit (max_slot_wal_keep_size = -1)"
        if slot.held >= _HELD_BYTES:
            return warn(name, found, why="Without a limit the WAL grows until the source's disk is full.", fix=fix)
    if slot.free is not None and slot.held >= slot.free:
        found += f", {size(slot.free)} free on its disk"
        return fail(name, found, why="The source stops when its disk is full.", fix=fix)
    return ok(name, found)


def _free_disk(connection: Connection) -> int | None:
    """Bytes free below the source's data folder, where the source runs on this machine and shows its folder."""
    host = connection.info.host
    try:
        local = host.startswith("/") or host == "localhost" or ipaddress.ip_address(host).is_loopback
        row = connection.execute("SELECT current_setting('data_directory', true)").fetchone() if local else None
        return shutil.disk_usage(row[0]).free if row and row[0] and Path(row[0]).is_dir() else None
    except (ValueError, OSError, psycopg.Error):
        return None
