"""A key's history reads few files of the log, and is the one that the whole log tells."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from cdc_lake.errors import LakeError
from cdc_lake.events import TableId
from cdc_lake.land import layout
from cdc_lake.land.tables import LOG
from cdc_lake.maintain.plan import Rules
from cdc_lake.maintain.run import Job, maintain
from cdc_lake.project.files import LogFile, LogFiles, read_files
from cdc_lake.project.lake import Lake
from cdc_lake.query import keys as keys_module
from cdc_lake.query import versions as versions_module
from cdc_lake.query.picked import files_of_keys
from cdc_lake.query.session import Session, open_session
from cdc_lake.query.versions import row_history
from cdc_lake.retain.files import LogWriter
from tests.depth import seeds
from tests.lake_model import SOURCE, Feed, Row, append_log, append_schemas, config, log_row, schema_row
from tests.unit.test_history_model import begun
from tests.unit.test_project_model import A, B

ORDERS = TableId("public", "orders")
_FIELDS = {"id": "int32", "qty": "int32"}


def keep_in_shape(folder: Path) -> None:
    job = Job(Lake(str(folder / "lake")), lambda _table: True, Rules(keep=timedelta(days=7), fold=False))
    assert not [r for r in maintain(job, lambda _line: None) if r.failed]


def lives(session: Session, *tables: TableId) -> dict[str, Any]:
    """The history of each key that a table may have had."""
    found: dict[str, Any] = {}
    for table in tables:
        for key in range(16):
            try:
                found[f"{table} {key}"] = row_history(session, str(table), str(key))
            except LakeError as error:
                found[f"{table} {key}"] = error.code
    return found


@pytest.mark.parametrize("seed", seeds(2))
def test_the_history_of_every_key_is_that_of_the_whole_log(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, skipped = Random(seed), 0
    feed, workload = begun(tmp_path, chance)
    feed.land()
    for step in range(20):
        workload.transaction()
        feed.land(chance)
        if step == 9 and seed % 2:
            keep_in_shape(tmp_path)

    def counted(con: duckdb.DuckDBPyConnection, log: LogFiles, keys: Collection[str]) -> LogFiles:
        nonlocal skipped
        picked = files_of_keys(con, log, keys)
        skipped += len(log.files) - len(picked.files)
        return picked

    def whole(_con: duckdb.DuckDBPyConnection, log: LogFiles, _keys: Collection[str]) -> LogFiles:
        return log

    session = open_session(config(tmp_path))
    shown = {}
    for name, pick in (("picked", counted), ("whole", whole)):
        monkeypatch.setattr(versions_module, "files_of_keys", pick)
        monkeypatch.setattr(keys_module, "files_of_keys", pick)
        shown[name] = lives(session, A, B)
    assert shown["picked"] == shown["whole"]
    assert skipped > 0
    assert any(not isinstance(life, str) for life in shown["whole"].values())
    session.close()


def written(folder: Path, *rows: Row) -> LogFile:
    """The statistics of a file with these rows."""
    append_log(folder, ORDERS, list(rows))
    path = layout.log_path(str(folder / "lake"), SOURCE, ORDERS)
    table = layout.open_delta(path)
    assert table is not None
    return next(f for f in read_files(path, table).files if f.offsets[1] == rows[-1]["__offset"])


def change(offset: int, op: str = "u", key: int = 1) -> Row:
    return log_row(ORDERS, op, offset, key={"id": key}, after={"id": key, "qty": 1}, tx=("7", offset))


def test_a_file_is_plain_when_all_of_it_belongs_to_transactions_and_to_keys(tmp_path: Path) -> None:
    tombstone = log_row(ORDERS, "x", 11, key={"id": 1}) | {"__source_ts": None, "__lsn": None}
    assert written(tmp_path, change(1), change(2)).plain
    assert written(tmp_path, change(10, "d"), tombstone).plain
    others = {
        20: log_row(ORDERS, "r", 20, key={"id": 1}, after={"id": 1, "qty": 1}),
        22: log_row(ORDERS, "t", 22, tx=("7", 22)),
        24: log_row(ORDERS, "r", 24, key={"id": 1}, after={"id": 1}) | {"__lsn": None, "__snapshot": "incremental"},
        26: log_row(ORDERS, "u", 26, key={"id": 1}, after={"id": 1}) | {"__tx_order": 5, "__snapshot": "repair"},
        28: change(28) | {"__key": None, "__op": "e"},
    }
    for offset, row in others.items():
        assert not written(tmp_path, change(offset - 1), row | {"__offset": offset}).plain, row["__op"]
    assert written(tmp_path, change(30), tombstone | {"__offset": 31}).plain


def test_updates_with_an_image_before_them_are_told_by_the_statistics_where_deletes_are_fewer(tmp_path: Path) -> None:
    before, after = {"id": 1, "qty": 1}, {"id": 1, "qty": 2}
    full = [log_row(ORDERS, "u", o, key={"id": 1}, before=before, after=after, tx=("7", o)) for o in (1, 2, 3)]
    gone = [log_row(ORDERS, "d", o, key={"id": 1}, before=before, tx=("7", o)) for o in (11, 12, 13)]
    told = {
        "all updates": written(tmp_path, *full).both,
        "one delete": written(tmp_path, *full, gone[0]).both,
        "no update": written(tmp_path, *gone).both,
        "updates without": written(tmp_path, gone[0], change(21), change(22)).both,
    }
    assert told == {"all updates": True, "one delete": True, "no update": False, "updates without": False}


def test_a_row_without_a_transaction_has_all_files_before_it_in_its_partition(tmp_path: Path) -> None:
    """It stands behind the latest transaction that precedes it there, of whatever key."""
    for offset in range(5):
        written(tmp_path, change(offset, key=offset))
    read = log_row(ORDERS, "r", 5, key={"id": 3}, after={"id": 3, "qty": 1}) | {"__snapshot": "incremental"}
    written(tmp_path, read | {"__lsn": None})
    for offset in range(6, 9):
        written(tmp_path, change(offset, key=offset))
    path = layout.log_path(str(tmp_path / "lake"), SOURCE, ORDERS)
    table = layout.open_delta(path)
    assert table is not None
    log, con = read_files(path, table), duckdb.connect()

    def picked(key: int) -> list[int]:
        return sorted(f.offsets[0] for f in files_of_keys(con, log, [f'{{"id":{key}}}']).files)

    assert picked(3) == [0, 1, 2, 3, 4, 5]
    assert picked(7) == [0, 5, 7]
    assert picked(99) == [0, 5]


def test_compaction_writes_a_filter_by_which_readers_skip_files_without_the_key(tmp_path: Path) -> None:
    append_schemas(tmp_path, [schema_row(ORDERS, "s", _FIELDS, ("id",))])
    for offset in range(0, 100, 10):
        written(tmp_path, *(change(offset + i, key=1000 + offset + i) for i in range(10)))
    keep_in_shape(tmp_path)
    table = layout.open_delta(layout.log_path(str(tmp_path / "lake"), SOURCE, ORDERS))
    assert table is not None
    (file,) = layout.parquet_files(table)
    assert [excludes(file, key) for key in (1042, 4711)] == [False, True]
    batches = iter(pq.read_table(file).select(LOG.names).cast(LOG).to_batches())
    (tmp_path / "other").mkdir()
    (rewritten,) = LogWriter(str(tmp_path / "other"), None, 1 << 20).write(batches)
    assert [excludes(str(tmp_path / "other" / rewritten.path), key) for key in (1042, 4711)] == [False, True]


def excludes(file: str, key: int) -> bool:
    """Whether the filter of a file says that it has no row with the key."""
    probe = "SELECT bool_and(bloom_filter_excludes) FROM parquet_bloom_probe($1, '__key', $2)"
    ((found,),) = duckdb.connect().execute(probe, [file, f'{{"id":{key}}}']).fetchall()
    return bool(found)


@pytest.mark.parametrize(
    ("kind", "key", "text"),
    [("int32", "7", '{"id":7}'), ("string", "é'7", '{"id":"é\'7"}'), ("string", "7", '{"id":"7"}')],
)
def test_a_key_is_looked_for_as_the_connector_spells_it(tmp_path: Path, kind: str, key: str, text: str) -> None:
    schema = schema_row(ORDERS, "s", {"id": kind}, ("id",))
    schema["key_definition"] = schema["key_definition"].replace("int32", kind)
    append_schemas(tmp_path, [schema])
    append_log(tmp_path, ORDERS, [change(1) | {"__key": text, "__after": text, "__schema_id": "s"}])
    session = open_session(config(tmp_path))
    (state,) = session.sources[0].tables
    assert keys_module.find_keys(session, state, key, quick=True) == [text]
    assert keys_module.find_keys(session, state, key) == [text]
    session.close()


def test_a_key_that_is_spelled_otherwise_is_found_all_the_same(tmp_path: Path) -> None:
    append_schemas(tmp_path, [schema_row(ORDERS, "s", _FIELDS, ("id",))])
    odd = '{"id": 7}'
    append_log(tmp_path, ORDERS, [change(1, key=7) | {"__key": odd, "__schema_id": "s"}])
    session = open_session(config(tmp_path))
    (state,) = session.sources[0].tables
    assert keys_module.find_keys(session, state, "7", quick=True) == [odd]
    session.close()


def test_no_other_key_of_the_feed_is_meant(tmp_path: Path) -> None:
    feed = Feed(tmp_path, (ORDERS,))
    for number in (1, 11):
        tx = feed.begin()
        tx.insert(ORDERS, number, number, None)
        tx.commit()
        feed.land()
    session = open_session(config(tmp_path))
    assert [v.row["qty"] for v in row_history(session, "orders", "1").versions] == [1]
    session.close()
