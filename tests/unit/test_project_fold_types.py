"""A fold changes no value: every type's recorded events read the same from the tail and from the folded table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cdc_lake.events import TableId
from cdc_lake.project.base import storage_type
from cdc_lake.project.fold import fold_source
from cdc_lake.project.lake import Lake
from cdc_lake.query.session import open_session
from tests.lake_model import SOURCE, append_log, append_schemas, config, log_row, schema_row

T = TableId("public", "t")
RECORDED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data" / "type_events.json").read_text(encoding="utf-8")
)["values"]
SENT = {f"c{i}": event for i, event in enumerate(RECORDED.values()) if event["field"] is not None}


def shown(folder: Path) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    """Columns with their types, and all values as text."""
    session = open_session(config(folder))
    relation = session.connection.sql("FROM t ORDER BY id")
    values = session.connection.sql("SELECT COLUMNS(*)::VARCHAR FROM t ORDER BY id").fetchall()
    return dict(zip(relation.columns, map(str, relation.types), strict=True)), values


def test_a_folded_value_is_the_value_that_arrived(tmp_path: Path) -> None:
    fields = {"id": "int32"} | {name: event["field"] | {"field": name} for name, event in SENT.items()}
    append_schemas(tmp_path, [schema_row(T, "s", fields, ("id",))])
    rows = []
    for i in range(max(len(e["stream"]) for e in SENT.values())):
        row = {"id": i} | {name: e["stream"][i] for name, e in SENT.items() if i < len(e["stream"])}
        rows.append(log_row(T, "c", i, key={"id": i}, after=row, schema_id="s"))
    append_log(tmp_path, T, rows)

    before = shown(tmp_path)
    done = list(fold_source(Lake(str(tmp_path / "lake")), SOURCE, lambda _table: True))
    assert [(d.outcome, d.error) for d in done] == [("folded", None)]

    types, values = shown(tmp_path)
    assert types == before[0]
    assert len(types) > 100
    for column, name in enumerate(types):
        assert [r[column] for r in values] == [r[column] for r in before[1]], name


def test_only_what_delta_lacks_is_stored_as_text() -> None:
    assert storage_type("TIME") == storage_type("UUID") == storage_type("JSON") == storage_type("INTERVAL") == "VARCHAR"
    assert storage_type("TIME[]") == "VARCHAR[]"
    assert storage_type("TIMESTAMP WITH TIME ZONE") == "TIMESTAMP WITH TIME ZONE"
    assert storage_type("TIMESTAMP") == "TIMESTAMP"
    assert storage_type("STRUCT(x DOUBLE, y DOUBLE)") == "STRUCT(x DOUBLE, y DOUBLE)"
