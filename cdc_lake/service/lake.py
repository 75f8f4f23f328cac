"""What the log has no more, from the lake: records of an event topic as they landed, to fill a service with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb

from cdc_lake.config import Config
from cdc_lake.consume.broker import PartitionInfo
from cdc_lake.consume.columns import record_batch
from cdc_lake.events import RecordBatch, TopicPartition
from cdc_lake.land.layout import log_path, open_delta
from cdc_lake.sqltext import literal

CHUNK = 50_000
_ATTRIBUTES = ("id", "source", "type", "subject", "time", "correlationid", "causationid", "traceparent", "dataschema")
_NOT_DATA = {*_ATTRIBUTES, "specversion", "datacontenttype", "partitionkey", "kafka_partition", "kafka_offset"}


class LakeHistory:
    """Gives a partition's records as they landed, from an offset up to where Kafka still has them.

    The topic is one of the `events` of a source. What was no CloudEvent is not there: it is in the lake's dead letters.
    """

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, info: PartitionInfo, start: int) -> Iterator[RecordBatch]:
        """Batches from `start` on; they end where the lake ends, when it does not reach what Kafka has."""
        found = self._log(info.tp.topic)
        if found is None:
            return
        with duckdb.connect() as con:
            con.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
            con.register("landed", found)
            place = f"__topic = {literal(info.tp.topic)} AND __partition = {info.tp.partition}"
            row = con.execute(f"SELECT max(__offset) + 1 FROM landed WHERE {place}").fetchone()
            end = min(info.beginning, int(row[0] or 0) if row else 0)
            for low in range(start, end, CHUNK):
                high = min(low + CHUNK, end)
                rows = con.execute(
                    f"""SELECT __offset, epoch_ms(__source_ts), __after, __headers FROM landed
                    WHERE {place} AND __offset >= {low} AND __offset < {high} AND __after IS NOT NULL ORDER BY 1"""
                ).fetchall()
                yield batch_of(info.tp, low, high, rows)

    def _log(self, topic: str) -> Any:
        for source in self._config.all_sources:
            table = source.event_tables.get(topic)
            if table is not None:
                path = log_path(self._config.lake_uri, source.name, table)
                delta = open_delta(path, self._config.lake.options or None)
                return None if delta is None else delta.to_pyarrow_dataset()
        return None


def batch_of(tp: TopicPartition, start: int, end: int, rows: list[tuple[int, int, str, str | None]]) -> RecordBatch:
    """The records of landed rows (offset, time, image, headers), in the binary binding."""
    parts = [_record(json.loads(image), json.loads(headers or "{}")) for _, _, image, headers in rows]
    return record_batch(
        tp,
        start,
        end,
        offsets=[row[0] for row in rows],
        timestamps=[row[1] for row in rows],
        keys=[key for key, _, _ in parts],
        values=[value for _, value, _ in parts],
        headers=[headers for _, _, headers in parts],
    )


def _record(image: Mapping[str, Any], headers: Mapping[str, str]) -> tuple[bytes | None, bytes, str]:
    """Key, value and headers. Fields of the data that are called like an attribute landed as `data_<name>`."""
    named = {k[3:]: v for k, v in headers.items() if k.startswith("ce_")}
    if not named:  # it was structured: its headers say nothing
        named = {k: image[k] for k in ("specversion", *_ATTRIBUTES) if image.get(k) is not None}
        headers = {f"ce_{k}": str(v) for k, v in {"specversion": "1.0", **named}.items()}
    taken = _NOT_DATA | named.keys()
    data = {_plain(name, taken): value for name, value in image.items() if name not in taken}
    key = image.get("partitionkey")
    value = json.dumps(data, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return None if key is None else str(key).encode(), value, json.dumps(headers, ensure_ascii=False)


def _plain(name: str, taken: set[str]) -> str:
    rest = name.removeprefix("data_")
    return rest if rest != name and rest in taken else name
