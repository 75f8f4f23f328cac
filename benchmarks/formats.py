"""What the format of records costs: the same changes with an inline schema, and through a registry as Avro and as JSON.

Records are in memory, so that the whole time is the decoder's. What counts is processor time: other work on the machine
makes it no longer. The registry is one in memory: its answers are kept for ever, and cost nothing in the long run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.report import Report
from cdc_lake.consume.columns import record_batch, without_prefix
from cdc_lake.decode.debezium import Decoder
from cdc_lake.decode.wire import WireFormat
from cdc_lake.events import RecordBatch, TopicPartition
from tests.registry_world import FakeRegistry
from tests.unit.test_codecs import KEY, envelope, event, field, written_avro, written_inline, written_json_schema

_TURNS, _BATCH, _DISTINCT = 5, 5_000, 1_000
_FORMATS: dict[str, Callable[[FakeRegistry, dict[str, Any], Any], bytes]] = {
    "JSON with inline schema": written_inline,
    "Avro": written_avro,
    "JSON Schema": written_json_schema,
}
_TYPES = {"int64": "INT8", "string": "TEXT", "boolean": "BOOL", "double": "FLOAT8"}


def run(report: Report) -> None:
    table = report.table(
        f"{report.rows:,} changes of a table of 16 columns, decoded",
        **{"format": "", "bytes a record": ",.0f", "records/s of processor time": ",.0f", "times inline": ".2f"},
    )
    made = {name: _made(write, report.rows) for name, write in _FORMATS.items()}
    found: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(_TURNS + 1):
        for name, (registry, batches, _) in made.items():
            seconds = _decoded(registry, batches)
            if turn:  # the first of each learns the schemas
                found[name].append(seconds)
    middle = {name: statistics.median(runs) for name, runs in found.items()}
    inline = middle["JSON with inline schema"]
    for name, seconds in middle.items():
        table.add(name, made[name][2], report.rows / seconds, inline / seconds)
    report.note(f"Medians of {_TURNS} runs that took turns.")
    report.note("The schema that all inline records repeat is left off by the client, before it is decoded.")


def _made(
    write: Callable[[FakeRegistry, dict[str, Any], Any], bytes], rows: int
) -> tuple[FakeRegistry, list[RecordBatch], float]:
    """A registry, batches, and the size of a record."""
    registry, columns = FakeRegistry(), [_column(i) for i in range(16)]
    schema = envelope(*columns)
    values, keys = list[bytes | None](), list[bytes | None]()
    for number in range(_DISTINCT):
        after = {c["field"]: _value(c["type"], number * 16 + i) for i, c in enumerate(columns)}
        values.append(write(registry, schema, event("u", number, None, after)))
        keys.append(write(registry, KEY, {"id": number}))
    prefix, rest = without_prefix(values, b"")
    many = _BATCH // _DISTINCT
    batches = [
        record_batch(
            TopicPartition("pos.public.sales", 0),
            start,
            start + _BATCH,
            offsets=range(start, start + _BATCH),
            timestamps=[0] * _BATCH,
            keys=keys * many,
            values=rest * many,
            prefix=prefix,
        )
        for start in range(0, rows, _BATCH)
    ]
    return registry, batches, sum(len(v or b"") for v in values) / len(values)


def _column(number: int) -> dict[str, Any]:
    kind = list(_TYPES)[number % len(_TYPES)]
    parameters = {"__debezium.source.column.type": _TYPES[kind], "__debezium.source.column.name": f"column_{number}"}
    return field(f"column_{number}", kind, optional=True, parameters=parameters)


def _value(kind: str, number: int) -> Any:
    return {"int64": number, "string": f"a text of some length {number}", "boolean": True, "double": number / 7}[kind]


def _decoded(registry: FakeRegistry, batches: list[RecordBatch]) -> float:
    """Processor seconds to decode them with a new decoder."""
    decoder = Decoder(transaction_topic=None, threads=1, wire=WireFormat(registry))
    decoder.decode(batches[:1])
    begun = time.process_time()
    for batch in batches:
        assert not decoder.decode([batch]).dead
    return time.process_time() - begun
