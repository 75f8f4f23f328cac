"""Every change has a trace: the one that its record names, else that of its transaction, in SQL and Python alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.consume.columns import header_json
from cdc_lake.events import TableId
from cdc_lake.query.session import open_session
from cdc_lake.traceids import Parent, parent_of, transaction_span, transaction_trace
from tests.lake_model import (
    FIELDS,
    SOURCE,
    append_ends,
    append_log,
    append_schemas,
    config,
    end_row,
    log_row,
    schema_row,
)

ORDERS = TableId("public", "orders")
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS: dict[str, tuple[str, Parent | None]] = {
    "as text": (f"00-{TRACE}-{SPAN}-01", Parent(TRACE, SPAN, True)),
    "as Connect's JsonConverter writes it": (f'"00-{TRACE}-{SPAN}-00"', Parent(TRACE, SPAN, False)),
    "of a later version": (f"cc-{TRACE}-{SPAN}-01-more", Parent(TRACE, SPAN, True)),
    "no trace": (f"00-{'0' * 32}-{SPAN}-01", None),
    "upper case, which the standard forbids": (f"00-{TRACE.upper()}-{SPAN}-01", None),
    "too short": (f"00-{TRACE[:-1]}-{SPAN}-01", None),
    "words": ("none", None),
}


def land(folder: Path, header: bytes | None, *, tx: str | None = "77") -> None:
    append_schemas(folder, [schema_row(ORDERS, "s", FIELDS, ("id",))])
    row = log_row(ORDERS, "c", 0, key={"id": 1}, after={"id": 1}, schema_id="s", tx=(tx, 1) if tx else None)
    row["__headers"] = header_json([("other", b"x"), ("traceparent", header)]) if header is not None else None
    append_log(folder, ORDERS, [row])
    append_ends(folder, [end_row(0, tx, {"public.orders": 1})] if tx else [])


def ask(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    session = open_session(config(folder))
    try:
        return session.connection.sql(sql).fetchall()
    finally:
        session.close()


@pytest.mark.parametrize("case", HEADERS)
def test_a_change_is_in_the_trace_that_its_record_names(case: str, tmp_path: Path) -> None:
    header, parent = HEADERS[case]
    land(tmp_path, header.encode())
    assert parent_of(header_json([("traceparent", header.encode())])) == parent
    expected = parent.trace_id if parent is not None else transaction_trace(SOURCE, "77")
    assert ask(tmp_path, "SELECT __trace_id FROM changes.public.orders") == [(expected,)]


def test_else_in_that_of_its_transaction_which_sql_and_python_call_alike(tmp_path: Path) -> None:
    land(tmp_path, None)
    trace = transaction_trace(SOURCE, "77")
    assert len(trace) == 32
    assert len(transaction_span(SOURCE, "77")) == 16
    assert ask(tmp_path, "SELECT __trace_id FROM changes.public.orders") == [(trace,)]
    assert ask(tmp_path, "SELECT lake.trace_id(source, tx_id) FROM lake.transactions") == [(trace,)]
    named = f"SELECT lake.trace_id('{SOURCE}', __tx_id) FROM history.public.orders"
    assert ask(tmp_path, named) == [(trace,)]


def test_a_row_of_a_snapshot_is_in_none(tmp_path: Path) -> None:
    land(tmp_path, None, tx=None)
    assert ask(tmp_path, "SELECT __trace_id FROM changes.public.orders") == [(None,)]


def test_a_header_within_a_header_is_not_taken_for_one() -> None:
    assert parent_of(header_json([("note", json.dumps({"traceparent": f"00-{TRACE}-{SPAN}-01"}).encode())])) is None


def test_a_source_may_have_a_column_of_that_name(tmp_path: Path) -> None:
    append_schemas(tmp_path, [schema_row(ORDERS, "s", {**FIELDS, "__trace_id": "string"}, ("id",))])
    image = {"id": 1, "__trace_id": "mine"}
    append_log(tmp_path, ORDERS, [log_row(ORDERS, "c", 0, key={"id": 1}, after=image, schema_id="s", tx=("77", 1))])
    found = ask(tmp_path, "SELECT __trace_id, __trace_id_source FROM changes.public.orders")
    assert found == [(transaction_trace(SOURCE, "77"), "mine")]
