"""Is a source fit for capture? Read its settings and tables, and say what must change before anything is changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg

from cdc_lake.capture.postgres import Connection, explain_connection, explain_statement
from cdc_lake.connector_file import ConnectorFile, split_list
from cdc_lake.errors import ConfigError, SourceError
from cdc_lake.events import TableId
from cdc_lake.sqltext import ident

HEARTBEAT = TableId("cdc_lake", "heartbeat")
_GENERATED_PUBLISHED_FROM = 18

_SERVER = """
SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
       current_setting('max_replication_slots')::int, pg_is_in_recovery(),
       (SELECT pending_restart FROM pg_settings WHERE name = 'wal_level'),
       (SELECT count(*)::int FROM pg_replication_slots)
"""

_SLOT = """
SELECT slot_name::text, active_pid, COALESCE(database::text, ''), COALESCE(plugin::text, ''), COALESCE(wal_status, ''),
       COALESCE(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
FROM pg_replication_slots WHERE slot_name = %s
"""

# A key usable as replica identity must be valid and checked at once (not DEFERRABLE). UPDATE on a partition obeys the
# identity of that partition, not of the root, so each partition is read too, with its root.
_TABLES = """
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relreplident::text,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND i.indimmediate),
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid),
       ARRAY(SELECT relid::oid::bigint FROM pg_partition_ancestors(c.oid) WHERE relid <> c.oid),
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 's'
             AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v'
             AND NOT a.attisdropped ORDER BY a.attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'
ORDER BY n.nspname, c.relname
"""


@dataclass(frozen=True, slots=True)
class Server:
    """Settings of the server that decide whether it can be captured."""

    version: int
    wal_level: str
    wal_level_pending: bool
    max_slots: int
    used_slots: int
    standby: bool

    @property
    def major(self) -> int:
        """The major version, 18 for 18.1."""
        return self.version // 10000


@dataclass(frozen=True, slots=True)
class Slot:
    """The connector's replication slot: `pid` is the process that reads it, None when nobody does.

    `retained_bytes` of change log are kept by PostgreSQL for it.
    """

    name: str
    pid: int | None
    database: str
    plugin: str
    wal_status: str
    retained_bytes: int


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table or partition of the source. `kind` r or p, `identity` d, f, n or i as the catalogue has them."""

    id: TableId
    oid: int
    kind: str
    permanent: bool
    identity: str
    has_key: bool
    has_identity_index: bool
    ancestors: tuple[int, ...]
    generated_stored: tuple[str, ...]
    generated_virtual: tuple[str, ...]

    @property
    def identified(self) -> bool:
        """Whether PostgreSQL can name a row of an UPDATE or DELETE; if not, publishing makes those statements fail."""
        return (
            self.identity == "f"
            or (self.identity == "d" and self.has_key)
            or (self.identity == "i" and self.has_identity_index)
        )


@dataclass(frozen=True, slots=True)
class Survey:
    """What preflight found: the tables to capture, and what a person should know.

    `tables` are those the publication names; `partitions` belong to them and are never named themselves.
    `hidden_columns` are generated columns that PostgreSQL does not replicate: they would be right in the snapshot and
    stale ever after, so they are left out.
    """

    server: Server
    slot: Slot | None
    tables: tuple[SourceTable, ...]
    partitions: tuple[SourceTable, ...]
    hidden_columns: tuple[tuple[TableId, str], ...]
    warnings: tuple[str, ...]


def survey(connection: Connection, connector: ConnectorFile) -> Survey:
    """Read the source and check it. Raises SourceError or ConfigError with the exact statement or edit to make."""
    server, everything, slot = _read(connection, connector)
    _check_server(server, slot_exists=slot is not None)
    _check_slot(slot, connection.info.dbname)
    found = _surveyed(server, everything, slot, connector)
    _check_identities([*found.tables, *found.partitions])
    return found


def look(connection: Connection, connector: ConnectorFile) -> Survey:
    """Read the source as `survey` does and judge nothing: for a plan of what is still to be mended.

    Raises SourceError when it cannot be read or no table matches.
    """
    return _surveyed(*_read(connection, connector), connector)


def _read(connection: Connection, connector: ConnectorFile) -> tuple[Server, list[SourceTable], Slot | None]:
    try:
        return _read_server(connection), read_tables(connection), read_slot(connection, connector)
    except psycopg.Error as error:
        raise explain_statement(error, "read the settings and tables of the source") from None


def _surveyed(server: Server, everything: Sequence[SourceTable], slot: Slot | None, connector: ConnectorFile) -> Survey:
    tables, partitions, skipped = choose_tables(everything, connector)
    hidden = _hidden_columns(tables, server)
    warnings = [f"{t.id} is unlogged: PostgreSQL does not replicate it, so it is not captured." for t in skipped]
    warnings += [
        f"{table}.{column} is generated and PostgreSQL {server.major} does not replicate it: the column is left out."
        for table, column in hidden
    ]
    return Survey(server, slot, tuple(tables), tuple(partitions), tuple(hidden), tuple(warnings))


def captured_tables(connection: Connection, connector: ConnectorFile) -> list[TableId]:
    """The tables that the connector's lists name, unchecked; partitions are part of their root."""
    return [t.id for t in choose_tables(read_tables(connection), connector)[0]]


def read_slot(connection: Connection, connector: ConnectorFile) -> Slot | None:
    """The connector's replication slot as the source has it now; None when there is none."""
    try:
        row = connection.execute(_SLOT, (connector.config.get("slot.name", "debezium"),)).fetchone()
    except psycopg.OperationalError as error:
        info = connection.info
        raise explain_connection(error, f"{info.host}:{info.port}/{info.dbname}") from None
    return None if row is None else Slot(*row)


def choose_tables(
    everything: Iterable[SourceTable], connector: ConnectorFile
) -> tuple[list[SourceTable], list[SourceTable], list[SourceTable]]:
    """The tables that the connector's lists name, the partitions below them, and matching tables that are unlogged.

    A partition is never captured beside its root: its rows would count twice. The connector's own tables (heartbeat,
    signals) are left to `prepare`, which makes them.
    """
    pool = list(everything)
    wanted = TableFilter(connector)
    matching = [t for t in pool if wanted(t.id) and t.id not in own_tables(connector)]
    oids = {t.oid for t in matching}
    tables = [t for t in matching if t.permanent and not oids.intersection(t.ancestors)]
    roots = {t.oid for t in tables}
    partitions = [t for t in pool if roots.intersection(t.ancestors)]
    skipped = [t for t in matching if not t.permanent]
    if not tables:
        some = ", ".join(str(t.id) for t in pool[:5])
        raise SourceError(
            "No table of the source matches the connector's lists.",
            why=f"table.include.list is {connector.config.get('table.include.list', '(empty)')!r}; "
            + (f"the source has {some}{' …' if len(pool) > 5 else ''}." if pool else "the source has no table."),
            next="correct `table.include.list` in the connector file, or create the tables first",
            code="no_tables",
        )
    return tables, partitions, skipped


def own_tables(connector: ConnectorFile) -> tuple[TableId, ...]:
    """Tables in the source that the connector itself writes, as its settings name them: heartbeat and signals."""
    found = []
    if HEARTBEAT.schema in (action := connector.config.get("heartbeat.action.query", "")) and HEARTBEAT.name in action:
        found.append(HEARTBEAT)
    signals = signal_table(connector.config.get("signal.data.collection", ""))
    return (*found, signals) if signals else tuple(found)


def signal_table(setting: str) -> TableId | None:
    """The table that `signal.data.collection` names; None when there is none."""
    schema, _, name = setting.partition(".")
    return TableId(schema, name) if name else None


def _read_server(connection: Connection) -> Server:
    row = connection.execute(_SERVER).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM always has one row
    version, wal_level, max_slots, standby, pending, used = row
    return Server(version, wal_level, bool(pending), max_slots, used, standby)


def read_tables(connection: Connection) -> list[SourceTable]:
    """Every ordinary and partitioned table of the source, and every partition. Raises psycopg.Error."""
    return [
        SourceTable(
            TableId(schema, name), oid, kind, persistence == "p", identity, has_key, has_index,
            tuple(ancestors), tuple(stored), tuple(virtual),
        )
        for (oid, schema, name, kind, persistence, identity, has_key, has_index, ancestors, stored, virtual)
        in connection.execute(_TABLES).fetchall()
    ]  # fmt: skip


def _check_server(server: Server, *, slot_exists: bool) -> None:
    if server.standby:
        raise SourceError(
            "The source is a standby.",
            why="A publication and the heartbeat can only be written on the primary.",
            next="point `source.dsn` in cdc-lake.yaml at the primary",
            code="standby",
        )
    if server.wal_level != "logical":
        restart = "restart PostgreSQL (pg_ctl restart, or its service)"
        raise SourceError(
            f"PostgreSQL's wal_level is {server.wal_level}; capture needs logical.",
            why="It is set already and waits for a restart."
            if server.wal_level_pending
            else "At this level the change log does not hold what changed row by row.",
            next=restart
            if server.wal_level_pending
            else f"in the source: ALTER SYSTEM SET wal_level = 'logical';  then {restart}",
            code="wal_level",
        )
    if server.used_slots >= server.max_slots and not slot_exists:
        raise SourceError(
            f"PostgreSQL has no free replication slot: {server.used_slots} of {server.max_slots} are used.",
            why="The connector needs one of its own.",
            next="in the source: SELECT slot_name, active FROM pg_replication_slots;  then "
            "SELECT pg_drop_replication_slot('…'); for one that is not needed, or raise max_replication_slots",
            code="no_free_slot",
        )


def _check_slot(slot: Slot | None, database: str) -> None:
    if slot is None:
        return
    if slot.database != database:
        raise SourceError(
            f'The replication slot "{slot.name}" belongs to the database "{slot.database or "(none)"}".',
            why=f'The connector reads the database "{database}", and names of slots are shared by all databases.',
            next="give the connector a `slot.name` of its own",
            code="slot_in_use",
        )
    if slot.wal_status == "lost":
        raise SourceError(
            f'The replication slot "{slot.name}" is lost.',
            why="PostgreSQL removed changes that the connector had not read (max_slot_wal_keep_size).",
            next="cdc-lake connector delete NAME --drop-slot, then register again: all rows are read anew",
            code="slot_lost",
        )


def _check_identities(tables: Sequence[SourceTable]) -> None:
    leaves = [t for t in tables if t.kind == "r"]
    nameless = [t for t in leaves if not t.identified]
    if nameless:
        first = nameless[0]
        more = f" (and {len(nameless) - 1} more: {_names(nameless[1:])})" if len(nameless) > 1 else ""
        statements = " ".join(identity_statement(t) for t in nameless)
        raise SourceError(
            f"Table {first.id} has {_missing(first)}{more}.",
            why="Once such a table is published, every UPDATE and DELETE on it fails in the source.",
            next=f"in the source: {statements}  or leave it out: add it to `table.exclude.list` in the connector file",
            code="no_replica_identity",
        )
    # PostgreSQL refuses UPDATE and DELETE of published tables whose identity holds a column that it cannot publish.
    virtual = [t for t in leaves if t.identity == "f" and t.generated_virtual]
    if virtual:
        raise SourceError(
            f"Table {virtual[0].id} has REPLICA IDENTITY FULL and a virtual generated column.",
            why="Once such a table is published, every UPDATE and DELETE on it fails in the source.",
            next=f"in the source: ALTER TABLE {quoted(virtual[0].id)} REPLICA IDENTITY DEFAULT;  "
            "(with a primary key), or make the column STORED",
            code="no_replica_identity",
        )


def _missing(table: SourceTable) -> str:
    if table.identity == "n":
        return "REPLICA IDENTITY NOTHING"
    if table.identity == "i":
        return "a replica identity index that does not exist any more"
    return "no primary key and no replica identity"


def identity_statement(table: SourceTable) -> str:
    """The statement after which PostgreSQL can name the rows of `table`."""
    kind = "DEFAULT" if table.identity != "d" and table.has_key else "FULL"
    return f"ALTER TABLE {quoted(table.id)} REPLICA IDENTITY {kind};"


def _hidden_columns(tables: Sequence[SourceTable], server: Server) -> list[tuple[TableId, str]]:
    found = []
    for table in tables:
        lost = table.generated_virtual
        if server.major < _GENERATED_PUBLISHED_FROM:
            lost = (*table.generated_stored, *lost)
        found += [(table.id, column) for column in lost]
    return found


class TableFilter:
    """The connector's include and exclude lists, applied as Debezium applies them."""

    def __init__(self, connector: ConnectorFile) -> None:
        config = connector.config
        self._in_tables = _patterns("table.include.list", connector.include_tables)
        self._out_tables = _patterns("table.exclude.list", connector.exclude_tables)
        self._in_schemas = _patterns("schema.include.list", split_list(config.get("schema.include.list", "")))
        self._out_schemas = _patterns("schema.exclude.list", split_list(config.get("schema.exclude.list", "")))

    def __call__(self, table: TableId) -> bool:
        """Whether the connector captures `table`."""
        name = str(table)
        return (
            (not self._in_tables or _any(self._in_tables, name))
            and not _any(self._out_tables, name)
            and (not self._in_schemas or _any(self._in_schemas, table.schema))
            and not _any(self._out_schemas, table.schema)
        )


def _patterns(setting: str, texts: Iterable[str]) -> list[re.Pattern[str]]:
    found = []
    for text in texts:
        try:
            # Debezium compares whole names and ignores case.
            found.append(re.compile(text, re.I))
        except re.error as error:
            raise ConfigError(
                f"`{setting}` in the connector file: {text!r} is not a regular expression.",
                why=f"{error}.",
                next="correct it; a dot between schema and table is written \\\\. in JSON",
            ) from None
    return found


def _any(patterns: Iterable[re.Pattern[str]], name: str) -> bool:
    return any(p.fullmatch(name) for p in patterns)


def quoted(table: TableId) -> str:
    """`table` as SQL names it."""
    return f"{ident(table.schema)}.{ident(table.name)}"


def _names(tables: Iterable[SourceTable]) -> str:
    return ", ".join(str(t.id) for t in tables)
