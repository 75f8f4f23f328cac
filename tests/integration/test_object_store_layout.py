"""What a lake on an object store is asked for when its shape is told, and when a key's history is read."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from cdc_lake.config import Config
from cdc_lake.events import TableId
from cdc_lake.land import layout
from cdc_lake.land.store import REMEMBERED, log_writer
from cdc_lake.land.tables import LOG, SCHEMAS, TRANSACTIONS
from cdc_lake.query.session import open_session
from cdc_lake.query.versions import row_history
from tests.lake_model import SOURCE, end_row, log_row, schema_row
from tests.object_store import BUCKET, Gate, object_store

ORDERS = TableId("public", "orders")
FILES, ROWS = 12, 2_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with object_store(tmp_path_factory.mktemp("objects")) as gate:
        yield gate


def test_the_shape_of_a_table_is_told_and_a_keys_history_read_without_opening_what_does_not_matter(store: Gate) -> None:
    root, options = f"s3://{BUCKET}/layout", store.options()

    def write(path: str, rows: list[dict[str, object]], schema: pa.Schema) -> None:
        write_deltalake(
            path,
            pa.Table.from_pylist(rows, schema),
            mode="append",
            storage_options=options,
            configuration=REMEMBERED,
            writer_properties=log_writer(ROWS),
        )

    for first in range(0, FILES * ROWS, ROWS):
        numbers = range(first, first + ROWS)
        write(
            layout.log_path(root, SOURCE, ORDERS),
            [
                log_row(ORDERS, "c", n, key={"id": n}, after={"id": n, "note": f"{n:0200}"}, tx=(f"t{first}", n + 1))
                | {"__schema_id": "s"}
                for n in numbers
            ],
            LOG,
        )
        ends = [end_row(first, f"t{first}", {str(ORDERS): ROWS})]
        write(layout.transactions_path(root, SOURCE), ends, TRANSACTIONS)
    write(
        layout.schemas_path(root, SOURCE),
        [schema_row(ORDERS, "s", {"id": "int32", "note": "string"}, ("id",))],
        SCHEMAS,
    )
    session = open_session(Config.model_validate({"lake": {"uri": root, "options": options}}))
    store.take()
    asked = "SELECT files, bytes > 0, small_file_ratio, oldest_readable_version, next_due FROM lake.tables"
    assert session.connection.sql(asked).fetchall() == [(FILES, True, 1.0, 0, "fold")]
    assert store.take()["GET data"] == 0
    found = row_history(session, "orders", str(5 * ROWS + 7))
    assert [v.row["id"] for v in found.versions] == [5 * ROWS + 7]
    requests = store.take()
    # Of each file its end and its filter; of those that hold the key, or begin the log, all that is asked for.
    assert requests["GET data"] < 6 * FILES, requests
    session.close()
