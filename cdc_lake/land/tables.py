"""What the columns of the lake's append-only tables are. A contract: any Delta reader may read them."""

from __future__ import annotations

import pyarrow as pa

# Where the offsets of repairs begin: above every offset that Kafka will ever give.
REPAIR_OFFSETS = 10**18

_INSTANT = pa.timestamp("us", tz="UTC")

# One row per Kafka record of a captured table. `__op` is c(reate), u(pdate), d(elete), r(ead by a snapshot),
# t(runcate), a(gain): one more message of an event that is there, which `changes` alone shows, x: a tombstone, which
# only log compaction needs and no view shows, or e: erased, of which only the coordinates are left, and which no view
# shows either. Rows of `verify --repair` have the
# topic `repair_topic(source)`, `__snapshot` repair, and in `__tx_order` the position of the transaction that they stand
# behind.
LOG = pa.schema(
    [
        ("__op", pa.string()),
        ("__key", pa.string()),
        ("__before", pa.string()),
        ("__after", pa.string()),
        ("__source_ts", _INSTANT),
        ("__tx_id", pa.string()),
        ("__tx_order", pa.int64()),
        ("__lsn", pa.int64()),
        ("__snapshot", pa.string()),
        ("__topic", pa.string()),
        ("__partition", pa.int32()),
        ("__offset", pa.int64()),
        ("__ingested_at", _INSTANT),
        ("__schema_id", pa.string()),
        ("__headers", pa.string()),
    ]
)

# One row per record of Debezium's transaction topic. `data_collections` is JSON: events per table of the transaction.
# Of a source of events one row per batch (see `land.batches`), with the positions up to which other sources had landed.
TRANSACTIONS = pa.schema(
    [
        ("status", pa.string()),
        ("tx_id", pa.string()),
        ("lsn", pa.int64()),
        ("event_count", pa.int64()),
        ("data_collections", pa.string()),
        ("source_ts", _INSTANT),
        ("__topic", pa.string()),
        ("__partition", pa.int32()),
        ("__offset", pa.int64()),
        ("__ingested_at", _INSTANT),
    ]
)

# One row per schema version: `definition` is the envelope's inline schema (kind `connect`) or the source
# catalogue's entry (kind `catalogue`, or `repair` for rows that a repair wrote as PostgreSQL prints them), `settings`
# the connector's modes that decide how values were written.
SCHEMAS = pa.schema(
    [
        ("schema_id", pa.string()),
        ("schema", pa.string()),
        ("table", pa.string()),
        ("topic", pa.string()),
        ("kind", pa.string()),
        ("definition", pa.string()),
        ("key_definition", pa.string()),
        ("settings", pa.string()),
        ("first_partition", pa.int32()),
        ("first_offset", pa.int64()),
        ("recorded_at", _INSTANT),
    ]
)

# One row per record that could not become a change event; `id` is `topic/partition/offset`.
DEAD_LETTERS = pa.schema(
    [
        ("id", pa.string()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", _INSTANT),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("headers", pa.string()),
        ("schema_id", pa.string()),
        ("error_class", pa.string()),
        ("reason", pa.string()),
        ("ingested_at", _INSTANT),
    ]
)


# One row per key that was erased (see `land.erasures`): hashes with the source's `salt`, and the LSN of its last change
# that was erased. `id` is that of the erasure.
ERASURES = pa.schema(
    [
        ("id", pa.string()),
        ("schema", pa.string()),
        ("table", pa.string()),
        ("salt", pa.string()),
        ("key_hash", pa.string()),
        ("row_hash", pa.string()),
        ("lsn", pa.int64()),
        ("gone", pa.bool_()),
        ("erased_at", _INSTANT),
    ]
)

# What a person decided about a dead letter: `replayed` or `dropped`. The latest row of an id counts.
DECISIONS = pa.schema([("id", pa.string()), ("decision", pa.string()), ("decided_at", _INSTANT)])

# One change of the source that stands behind an alert. `at` is its event time, `values` what the rule says to keep, as
# JSON.
EVIDENCE = pa.struct(
    [
        ("stream", pa.string()),
        ("table", pa.string()),
        ("op", pa.string()),
        ("tx_id", pa.string()),
        ("tx_order", pa.int64()),
        ("lsn", pa.int64()),
        ("key", pa.string()),
        ("at", _INSTANT),
        ("values", pa.string()),
    ]
)

# What became of alerts: `change` is `opened`, `resolved` (by the rule, or by a person: `by`), `acknowledged`, or
# `late`: an event that a rule could no longer count, which is no alert. `position` is the cut at which a rule found it.
ALERTS = pa.schema(
    [
        ("id", pa.string()),
        ("change", pa.string()),
        ("rule", pa.string()),
        ("key", pa.string()),
        ("severity", pa.string()),
        ("title", pa.string()),
        ("at", _INSTANT),
        ("position", pa.int64()),
        ("evidence", pa.list_(EVIDENCE)),
        ("evidence_count", pa.int64()),
        ("notify", pa.list_(pa.string())),
        ("by", pa.string()),
        ("note", pa.string()),
        ("recorded_at", _INSTANT),
    ]
)

# One row per attempt whose outcome is final, or failed: `outcome` is `sent`, `silenced`, `skipped` or `failed`.
DELIVERIES = pa.schema(
    [
        ("id", pa.string()),
        ("change", pa.string()),
        ("output", pa.string()),
        ("outcome", pa.string()),
        ("attempts", pa.int64()),
        ("reason", pa.string()),
        ("recorded_at", _INSTANT),
    ]
)

# Alerts of `rule` (a glob) and `key` (null: all) that opened between two times are not sent. `until` of the latest row
# of an id counts.
SILENCES = pa.schema(
    [
        ("id", pa.string()),
        ("rule", pa.string()),
        ("key", pa.string()),
        ("since", _INSTANT),
        ("until", _INSTANT),
        ("by", pa.string()),
        ("note", pa.string()),
        ("recorded_at", _INSTANT),
    ]
)

# What somebody did through the dashboard, one row each: `what` (`acknowledge`, `resolve`, `silence`, `end silence`,
# `sql`), to what, and what came of it. Of SQL the text without its values.
AUDIT = pa.schema(
    [
        ("id", pa.string()),
        ("what", pa.string()),
        ("target", pa.string()),
        ("detail", pa.string()),
        ("by", pa.string()),
        ("address", pa.string()),
        ("outcome", pa.string()),
        ("recorded_at", _INSTANT),
    ]
)

# An event that a streaming model could not count, and `why`: `late`, `in the future` or `no time`. `row` is its image,
# `position` that of its transaction.
STREAM_LATE = pa.schema(
    [
        ("stream", pa.string()),
        ("table", pa.string()),
        ("op", pa.string()),
        ("key", pa.string()),
        ("row", pa.string()),
        ("why", pa.string()),
        ("event_time", _INSTANT),
        ("tx_id", pa.string()),
        ("tx_order", pa.int64()),
        ("position", pa.int64()),
    ]
)


def repair_topic(source: str) -> str:
    """The topic that rows of repairs bear. Kafka's own names hold no colon."""
    return f"{source}:repair"
