"""The file of a shard: SQLite with the service's tables, the position, the events to be sent and what was handled.

One process has it; readers of other threads open it read-only. All that a handled event changes is one transaction.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from cdc_lake.errors import LakeError
from cdc_lake.events import TopicPartition
from cdc_lake.service.service import Service

FORMAT = "1"
_CACHE_KIB = 32_768
_OWN_TABLES = """
CREATE TABLE _meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE _position (one INTEGER PRIMARY KEY CHECK (one = 1), next INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE TABLE _outbox (n INTEGER PRIMARY KEY AUTOINCREMENT, cause INTEGER NOT NULL, topic TEXT NOT NULL, key BLOB,
    value BLOB, headers TEXT NOT NULL);
CREATE TABLE _timers (name TEXT PRIMARY KEY, id TEXT NOT NULL, due INTEGER NOT NULL, topic TEXT NOT NULL, key BLOB,
    value BLOB, headers TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX _timers_due ON _timers (due);
CREATE TABLE _letters (at_offset INTEGER PRIMARY KEY, at INTEGER NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL,
    headers TEXT, key BLOB, value BLOB);
"""
_FATAL = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_NOMEM,
}


def file_name(tp: TopicPartition) -> str:
    """The name of a shard's file; the topic is percent-encoded, so that it is never a path."""
    return f"{quote(tp.topic, safe='')}-{tp.partition}.sqlite"


def open_state(file: Path, service: Service, tp: TopicPartition, topic_id: str) -> sqlite3.Connection:
    """Open a shard's file, or make it. Raises LakeError when it is another's or cannot be written."""
    with explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(file, isolation_level=None, cached_statements=512)
        try:
            _settle(db)
            if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = '_meta'").fetchone():
                _make(db, service, tp, topic_id)
            _check(db, file, service, tp)
        except BaseException:
            db.close()
            raise
    return db


def _settle(db: sqlite3.Connection) -> None:
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA journal_mode = WAL")
    # What a power cut takes is handled again, from the position that is left. A killed process loses nothing.
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    db.execute("PRAGMA busy_timeout = 5000")


def _make(db: sqlite3.Connection, service: Service, tp: TopicPartition, topic_id: str) -> None:
    db.execute("BEGIN IMMEDIATE")
    for statement in _statements(_OWN_TABLES + service.tables):
        db.execute(statement)
    found = {**_identity(service, tp), "topic_id": topic_id}
    db.executemany("INSERT INTO _meta VALUES (?, ?)", found.items())
    db.execute("INSERT INTO _position VALUES (1, 0, 0)")
    db.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script: `executescript` would commit between them."""
    statement = ""
    for piece in script.split(";"):
        statement += piece + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip(" ;\n"):
                yield statement
            statement = ""


def _identity(service: Service, tp: TopicPartition) -> dict[str, str]:
    return {"format": FORMAT, "service": service.group, "topic": tp.topic, "partition": str(tp.partition)}


def _check(db: sqlite3.Connection, file: Path, service: Service, tp: TopicPartition) -> None:
    found = dict(db.execute("SELECT name, value FROM _meta").fetchall())
    wrong = {k: v for k, v in _identity(service, tp).items() if found.get(k) != v}
    if wrong:
        raise LakeError(
            f"The state in {file} is of something else.",
            why=", ".join(f"{k} is {found.get(k)}, not {v}" for k, v in wrong.items()),
            next="give the service another folder (--state), or remove the file: it is filled again from the log",
            code="service_state",
        )


def topic_id_of(db: sqlite3.Connection) -> str:
    """The incarnation of the topic that the state was made from; empty when the broker has none."""
    row = db.execute("SELECT value FROM _meta WHERE name = 'topic_id'").fetchone()
    return str(row[0]) if row else ""


def position_in(file: Path) -> int:
    """The position of a state file; -1 when there is none, or it is none."""
    if not file.exists():
        return -1
    try:
        with contextlib.closing(read_only(file)) as db:
            return int(db.execute("SELECT next FROM _position").fetchone()[0])
    except sqlite3.Error:
        return -1


def read_only(file: Path) -> sqlite3.Connection:
    """A connection that reads."""
    db = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, check_same_thread=False)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA query_only = ON")
    return db


def copy(db: sqlite3.Connection, file: Path) -> None:
    """A copy of a state as of now, whole or not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    made = file.with_suffix(f".{os.getpid()}.part")
    made.unlink(missing_ok=True)
    with explained(file):
        with contextlib.closing(sqlite3.connect(made)) as target:
            db.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
        os.replace(made, file)


def remove(file: Path) -> None:
    """Remove a state file with what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)


def is_fatal(error: sqlite3.Error) -> bool:
    """Whether it is the disk or the file, and no event's fault."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _FATAL


@contextlib.contextmanager
def explained(file: Path) -> Iterator[None]:
    """Errors of the disk in the product's words."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, sqlite3.Error) and not is_fatal(error):
            raise
        raise LakeError(
            f"The state of a service cannot be written: {file}",
            why=str(error),
            next="mend space or permissions and start it again; a damaged file may be removed: the log fills it",
            code="service_state",
        ) from None
