"""What a session shows: names as in the source, types as promised, one moment for all tables, the lake's own state."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

import cdc_lake
from cdc_lake.events import TableId
from cdc_lake.project.fold import fold_source
from cdc_lake.project.lake import Lake
from cdc_lake.query.session import Session, open_session
from tests.lake_model import FIELDS, SOURCE, Feed, append_log, append_schemas, config, log_row, schema_row

ORDERS = TableId("public", "orders")
ODD_NAMES = ['Order "Lines"', "a.b", "new\nline", "çok güzel 🛒", "select", "_delta_log", "con", "x" * 63]


def fold(folder: Path) -> None:
    assert all(d.error is None for d in fold_source(Lake(str(folder / "lake")), SOURCE, lambda _table: True))


def one_row(folder: Path, table: TableId, row: dict[str, Any], fields: dict[str, Any], *, schema_id: str = "s") -> None:
    append_schemas(folder, [schema_row(table, schema_id, fields, ("id",))])
    append_log(folder, table, [log_row(table, "c", 0, key={"id": row["id"]}, after=row, schema_id=schema_id)])


def session(folder: Path) -> Session:
    return open_session(config(folder))


def ask(folder: Path, query: str) -> list[tuple[Any, ...]]:
    return session(folder).connection.sql(query).fetchall()


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    feed = Feed(tmp_path, (ORDERS,))
    tx = feed.begin()
    tx.insert(ORDERS, 1, 10, "a long text")
    tx.insert(ORDERS, 2, 20, "x")
    tx.commit()
    tx = feed.begin()
    tx.update(ORDERS, 1, 11)
    tx.delete(ORDERS, 2)
    tx.commit()
    feed.land()
    return feed


@pytest.mark.parametrize("name", ["orders", "public.orders", "current.public.orders", '"orders"', "ORDERS"])
def test_a_query_written_for_the_source_runs_unchanged(feed: Feed, name: str) -> None:
    assert ask(feed.folder, f"SELECT * FROM {name}") == [(1, 11, "a long text")]


def test_connect_gives_the_same_connection_to_scripts(feed: Feed) -> None:
    con = cdc_lake.connect(config(feed.folder))
    assert con.sql("SELECT count(*) FROM orders").fetchall() == [(1,)]


def test_changes_has_every_event_with_the_columns_of_its_image(feed: Feed) -> None:
    relation = session(feed.folder).connection.sql(
        "SELECT __op, __key, __tx_id, __tx_order, id, qty, note FROM changes.public.orders ORDER BY __tx_id, __tx_order"
    )
    assert [str(t) for t in relation.types[:2]] == ["VARCHAR", "JSON"]
    assert relation.fetchall() == [
        ("c", '{"id":1}', "00001", 1, 1, 10, "a long text"),
        ("c", '{"id":2}', "00001", 2, 2, 20, "x"),
        ("u", '{"id":1}', "00002", 1, 1, 11, None),
        ("d", '{"id":2}', "00002", 2, 2, None, None),
    ]


def test_a_session_stays_at_its_moment(feed: Feed) -> None:
    opened = session(feed.folder)
    tx = feed.begin()
    tx.insert(ORDERS, 3, 30, None)
    tx.commit()
    feed.land()
    fold(feed.folder)

    assert opened.connection.sql("SELECT count(*) FROM orders").fetchall() == [(1,)]
    assert ask(feed.folder, "SELECT count(*) FROM orders") == [(2,)]


def test_a_lake_with_nothing_in_it_opens(tmp_path: Path) -> None:
    assert ask(tmp_path, "SELECT count(*) FROM lake.tables") == [(0,)]
    assert ask(tmp_path, "SELECT count(*) FROM lake.dead_letters") == [(0,)]


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("schema", ["public", "Odd Schema", "../../x"])
@pytest.mark.parametrize(
    "name", ['Order "Lines"', "a.b", "new\nline", "çok güzel 🛒", "select", "_delta_log", "con", "x" * 63]
)
def test_tables_and_columns_of_any_spelling_are_read(tmp_path: Path, schema: str, name: str, folded: bool) -> None:
    table = TableId(schema, name)
    one_row(tmp_path, table, {"id": 1, name: "v"}, {"id": "int32", name: "string"})
    if folded:
        fold(tmp_path)
    spelled = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name))

    opened = session(tmp_path)
    for catalogue in ("current", "changes"):
        relation = opened.connection.sql(f"FROM {catalogue}.{spelled}")
        assert relation.columns[-2:] == ["id", name]
        assert relation.fetchall()[0][-2:] == (1, "v")


def test_tables_that_differ_only_in_case_say_so_and_leave_the_others_alone(tmp_path: Path) -> None:
    for name in ("Orders", "orders", "lines"):
        one_row(tmp_path, TableId("public", name), {"id": 1}, {"id": "int32"}, schema_id=name)
    opened = session(tmp_path)

    with pytest.raises(duckdb.Error, match=r'"public"."Orders" and "public"."orders" differ only in case'):
        opened.connection.sql("SELECT count(*) FROM orders").fetchall()
    assert opened.connection.sql("SELECT count(*) FROM lines").fetchall() == [(1,)]


def test_columns_that_differ_only_in_case_say_so_and_leave_the_others_alone(tmp_path: Path) -> None:
    one_row(tmp_path, TableId("public", "bad"), {"id": 1, "Id": 2}, {"id": "int32", "Id": "int32"}, schema_id="bad")
    one_row(tmp_path, TableId("public", "good"), {"id": 1}, {"id": "int32"}, schema_id="good")
    opened = session(tmp_path)

    with pytest.raises(duckdb.Error, match='"id" and "Id"'):
        opened.connection.sql("FROM bad").fetchall()
    assert opened.connection.sql("FROM good").fetchall() == [(1,)]
    assert "bad" in str(opened.connection.sql("SELECT error FROM lake.tables WHERE error IS NOT NULL").fetchall())


@pytest.mark.parametrize("folded", [False, True])
def test_columns_called_like_our_own_are_read(tmp_path: Path, folded: bool) -> None:
    row = {"id": 1, "__op": "mine", "__key": "my key", "__unknown": "?", "k": "k", "op": "o", "img": "i"}
    one_row(tmp_path, ORDERS, row, {n: "int32" if n == "id" else "string" for n in row})
    if folded:
        fold(tmp_path)

    assert ask(tmp_path, "FROM orders") == [tuple(row.values())]
    assert ask(tmp_path, "SELECT __op, __op_source, __key_source, __unknown FROM changes.public.orders") == [
        ("c", "mine", "my key", "?")
    ]


def _typed(kind: str, name: str = "", length: str = "", scale: str = "", semantic: str = "") -> dict[str, Any]:
    given = {"name": name, "length": length, "scale": scale}
    parameters = {f"__debezium.source.column.{k if k != 'name' else 'type'}": v for k, v in given.items() if v}
    return {"type": kind, "parameters": parameters} | ({"name": semantic} if semantic else {})


EPOCH = dt.datetime(1970, 1, 1)
MICRO = "io.debezium.time.MicroTimestamp"
TYPED: dict[str, tuple[Any, Any, str, Any]] = {
    "id": ("int32", 1, "INTEGER", 1),
    "price": (_typed("string", "NUMERIC", "12", "2"), "10.50", "DECIMAL(12,2)", Decimal("10.50")),
    "exact": (_typed("string", "NUMERIC"), "1.000000000000000000000000000000000000000001", "VARCHAR", None),
    "day": (_typed("int32", semantic="io.debezium.time.Date"), 19000, "DATE", dt.date(2022, 1, 8)),
    "clock": (_typed("int64", semantic="io.debezium.time.MicroTime"), 3_600_000_001, "TIME", dt.time(1, 0, 0, 1)),
    "seen": (
        _typed("int64", semantic="io.debezium.time.MicroTimestamp"),
        1,
        "TIMESTAMP",
        dt.datetime(1970, 1, 1, 0, 0, 0, 1),
    ),
    "length": (_typed("string", semantic="io.debezium.time.Interval"), "P1Y2M3DT4H5M6.5S", "INTERVAL", None),
    "code": (_typed("string", semantic="io.debezium.data.Uuid"), str(uuid.UUID(int=7)), "UUID", uuid.UUID(int=7)),
    "doc": (_typed("string", semantic="io.debezium.data.Json"), '{"a": 1.10}', "JSON", '{"a": 1.10}'),
    "ratio": ("double", 0.5, "DOUBLE", 0.5),
    "raw": ("bytes", "AAE=", "BLOB", b"\x00\x01"),
    "tags": ({"type": "array", "items": {"type": "string", "optional": True}}, ["a", None], "VARCHAR[]", ["a", None]),
}


@pytest.mark.parametrize("folded", [False, True])
def test_types_are_those_of_the_promise_also_through_a_fold(tmp_path: Path, folded: bool) -> None:
    row = {n: raw for n, (_, raw, _, _) in TYPED.items()}
    one_row(tmp_path, ORDERS, row, {n: kind for n, (kind, _, _, _) in TYPED.items()})
    if folded:
        fold(tmp_path)
    relation = session(tmp_path).connection.sql("FROM orders")

    assert dict(zip(relation.columns, map(str, relation.types), strict=True)) == {
        n: t for n, (_, _, t, _) in TYPED.items()
    }
    (found,) = relation.fetchall()
    for (name, (_, raw, _, expected)), value in zip(TYPED.items(), found, strict=True):
        assert value == (raw if expected is None and name == "exact" else expected) or name == "length", name
    assert ask(tmp_path, "SELECT length::VARCHAR FROM orders") == [("1 year 2 months 3 days 04:05:06.5",)]


@pytest.mark.parametrize("folded", [False, True])
def test_each_image_is_read_with_the_schema_it_was_written_under(tmp_path: Path, folded: bool) -> None:
    """timestamp(3) counts milliseconds and timestamp(6) microseconds: one schema for all would be silently wrong."""
    milli = {"id": "int32", "moment": _typed("int64", semantic="io.debezium.time.Timestamp"), "gone": "string"}
    micro = {"id": "int32", "moment": _typed("int64", semantic="io.debezium.time.MicroTimestamp"), "added": "int32"}
    append_schemas(tmp_path, [schema_row(ORDERS, "s1", milli, ("id",)), schema_row(ORDERS, "s2", micro, ("id",), 5)])
    old = log_row(ORDERS, "c", 0, key={"id": 1}, after={"id": 1, "moment": 1000, "gone": "x"}, schema_id="s1")
    append_log(tmp_path, ORDERS, [old])
    if folded:
        fold(tmp_path)
    new = log_row(ORDERS, "c", 1, key={"id": 2}, after={"id": 2, "moment": 1_000_000, "added": 7}, schema_id="s2")
    append_log(tmp_path, ORDERS, [new])

    second = dt.datetime(1970, 1, 1, 0, 0, 1)
    for _ in range(2):
        assert ask(tmp_path, "FROM orders ORDER BY id") == [(1, second, None), (2, second, 7)]
        assert ask(tmp_path, "SELECT id, moment FROM changes.public.orders ORDER BY id") == [(1, second), (2, second)]
        fold(tmp_path)


def test_events_without_a_schema_are_read_by_what_json_says(tmp_path: Path) -> None:
    row = {"id": 1, "name": "x", "ok": True, "many": [1, 2]}
    append_log(tmp_path, ORDERS, [log_row(ORDERS, "c", 0, key={"id": 1}, after=row)])

    relation = session(tmp_path).connection.sql("FROM orders")
    assert list(map(str, relation.types)) == ["BIGINT", "VARCHAR", "BOOLEAN", "JSON"]
    assert relation.fetchall() == [(1, "x", True, "[1,2]")]


def test_lake_shows_tables_folds_cut_transactions_and_schemas(feed: Feed) -> None:
    fold(feed.folder)
    con = session(feed.folder).connection

    assert con.sql('SELECT source, schema, "table", key, rows_landed, rows_unfolded FROM lake.tables').fetchall() == [
        (SOURCE, "public", "orders", ["id"], 5, 0)
    ]
    assert con.sql('SELECT "table", cut, version FROM lake.folds').fetchall() == [("orders", 3, 0)]
    assert con.sql("SELECT position, tx_id, stalled, waits_for FROM lake.cut").fetchall() == [(3, "00002", False, [])]
    assert con.sql("SELECT count(*) FROM lake.transactions WHERE status = 'END'").fetchall() == [(2,)]
    assert con.sql("SELECT DISTINCT schema_id FROM lake.schemas").fetchall() == [("s-public.orders",)]


def test_two_hundred_tables_are_all_there(tmp_path: Path) -> None:
    tables = [TableId("public", f"t{i}") for i in range(200)]
    append_schemas(tmp_path, [schema_row(t, f"s{i}", FIELDS, ("id",)) for i, t in enumerate(tables)])
    for i, table in enumerate(tables):
        row = {"id": 1, "qty": i, "note": None}
        append_log(tmp_path, table, [log_row(table, "c", 0, key={"id": 1}, after=row, schema_id=f"s{i}")])
    opened = session(tmp_path)

    assert len(opened.tables) == 200
    assert opened.connection.sql("SELECT qty FROM t199").fetchall() == [(199,)]
