"""Small lakes for tests: Debezium events by hand, a sink on an in-memory Kafka, and what it landed."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from cdc_lake.config import Config, Table
from cdc_lake.config import Sink as SinkConfig
from cdc_lake.connector_file import ConnectorFile
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.decode.debezium import Decoder
from cdc_lake.decode.wire import WireFormat
from cdc_lake.events import TableId
from cdc_lake.land import layout
from cdc_lake.land.landing import Landing
from cdc_lake.pipeline import Sink
from cdc_lake.registry.schemas import Schemas

SOURCE = "pos"
CONNECTOR = ConnectorFile("pos", {"topic.prefix": "pos", "provide.transaction.metadata": "true"})


class Inline(Executor):
    """Runs what is submitted at once: a test without threads is the same at every run."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # what a thread would carry to the caller of result()
            future.set_exception(error)
        return future


def event(
    table: str,
    after: dict[str, Any] | None,
    *,
    op: str = "c",
    before: dict[str, Any] | None = None,
    key: dict[str, Any] | None = None,
    tx: tuple[str, int] | None = None,
    lsn: int = 1,
    inline: bool = False,
    schema: str = "public",
) -> tuple[bytes | None, bytes]:
    """Key and value of one Debezium record, as the JsonConverter writes it."""
    image = after or before or {}
    key = key if key is not None else ({"id": image["id"]} if "id" in image else None)
    payload = {
        "before": before,
        "after": after,
        "source": {"ts_ms": 1_764_000_000_000, "snapshot": "false", "schema": schema, "table": table, "lsn": lsn},
        "transaction": {"id": f"{tx[0]}:{lsn}", "total_order": tx[1]} if tx else None,
        "op": op,
    }
    return (None if key is None else _encode(key, inline)), _encode(payload, inline)


def end(tx_id: str, counts: dict[str, int], *, lsn: int = 1) -> tuple[bytes, bytes]:
    """Key and value of the END of a transaction."""
    collections = [{"data_collection": name, "event_count": n} for name, n in counts.items()]
    value = {
        "status": "END",
        "id": f"{tx_id}:{lsn}",
        "event_count": sum(counts.values()),
        "data_collections": collections,
        "ts_ms": 1_764_000_000_000,
    }
    return _encode({"id": tx_id}, False), _encode(value, False)


def _encode(payload: dict[str, Any], inline: bool) -> bytes:
    document = {"schema": {"type": "struct", "fields": []}, "payload": payload} if inline else payload
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def make_sink(
    kafka: MemoryKafka,
    folder: Path,
    *,
    group: str = "sink",
    flush_seconds: float = 1e-9,
    tables: str | None = None,
    accept_gaps: str | None = None,
    memory_mb: float = 1024,
    worker: Executor | None = None,
    max_records: int = 500,
    schemas: Schemas | None = None,
) -> Sink:
    """A sink of the source `pos` that lands in `folder/lake`."""
    config = Config(
        root=folder, sink=SinkConfig(flush_seconds=flush_seconds, memory_mb=memory_mb), tables={"*.*": Table()}
    )
    inline = Inline()
    landing = Landing(config.lake_uri, SOURCE, transaction_topic=CONNECTOR.transaction_topic, pool=inline)
    decoder = Decoder(
        transaction_topic=CONNECTOR.transaction_topic, home=landing.home, threads=1, wire=WireFormat(schemas)
    )
    return Sink(
        config,
        CONNECTOR,
        kafka.broker(group, max_records=max_records),
        landing,
        tables=tables,
        accept_gaps=accept_gaps,
        worker=worker or inline,
        decoder=decoder if schemas is not None else None,
    )


def log_rows(folder: Path, table: str | None, *, path: str | None = None) -> list[dict[str, Any]]:
    """Rows of a table's change log (or of another table of the source), by partition and offset."""
    root = str(folder / "lake")
    where = f"{root}/{SOURCE}/{path}" if path else layout.log_path(root, SOURCE, TableId("public", table or ""))
    if not DeltaTable.is_deltatable(where):
        return []
    rows = DeltaTable(where).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda r: (r.get("__partition") or 0, r.get("__offset") or 0))


def offsets(folder: Path, table: str) -> list[tuple[str, int, int]]:
    """The coordinates of all landed records of a table, in order, repeats included."""
    return [(r["__topic"], r["__partition"], r["__offset"]) for r in log_rows(folder, table)]


def dead_rows(folder: Path) -> list[dict[str, Any]]:
    """The dead letters, oldest first."""
    path = f"{folder}/lake/{SOURCE}/dead_letters"
    if not DeltaTable.is_deltatable(path):
        return []
    return sorted(
        DeltaTable(path).to_pyarrow_table().to_pylist(), key=lambda r: (r["topic"], r["partition"], r["offset"])
    )
