"""The catalogue `streams`: one view per streaming model; and what there is to know of models in `lake`."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from cdc_lake.land.layout import list_models, parquet_files, stream_late_path, stream_path
from cdc_lake.land.tables import STREAM_LATE
from cdc_lake.project.files import scan
from cdc_lake.project.lake import Lake
from cdc_lake.sqltext import ident, literal

CATALOGUE = "streams"


def create_stream_views(con: duckdb.DuckDBPyConnection, lake: Lake, sources: list[str]) -> None:
    """Make `streams.<model>`, `lake.streams` and `lake.stream_late_events`."""
    con.execute(f"ATTACH ':memory:' AS {CATALOGUE}")
    places, late = [], [f"SELECT NULL::VARCHAR AS source, NULL::VARCHAR AS model, * FROM {scan([], STREAM_LATE)}"]
    for source in sources:
        for model in list_models(lake.root, source, lake.options):
            place = _create_view(con, lake, source, model)
            if place is not None:
                places.append(f"({literal(source)}, {literal(model)}, {place})")
            aside = lake.newest(stream_late_path(lake.root, source, model))
            if aside is not None:
                rows = scan(parquet_files(aside), STREAM_LATE)
                late.append(f"SELECT {literal(source)} AS source, {literal(model)} AS model, * FROM {rows}")
    columns = "source VARCHAR, model VARCHAR, position BIGINT"
    con.execute(f"CREATE TABLE lake.streams ({columns})")
    if places:
        con.execute(f"INSERT INTO lake.streams VALUES {', '.join(places)}")
    con.execute(f"CREATE VIEW lake.stream_late_events AS {' UNION ALL BY NAME '.join(late)}")


def _create_view(con: duckdb.DuckDBPyConnection, lake: Lake, source: str, model: str) -> int | None:
    """A view of a model's rows; its position, None when there is no table."""
    table = lake.newest(stream_path(lake.root, source, model))
    if table is None:
        return None
    files, schema = parquet_files(table), pa.schema(table.schema().to_arrow())
    view = f"{CATALOGUE}.main.{ident(model)}"
    if files:
        con.execute(f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM {scan(files)}")
    else:
        con.register("rows_to_store", schema.empty_table())
        con.execute(f"CREATE OR REPLACE TABLE {view} AS SELECT * FROM rows_to_store")
        con.unregister("rows_to_store")
    return table.transaction_version(f"model:{model}")
