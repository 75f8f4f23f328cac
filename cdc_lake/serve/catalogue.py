"""Every metric of the sink: its name, kind, labels and meaning. The reference page is written from it.

Names follow Prometheus' own rules: `cdc_lake_` first, base units (seconds, bytes) at the end, `_total` for what only
grows, no unit in a label. No label has values without a bound: they are sources, tables and topics of the
configuration, the classes of our own errors, and the names of checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. A counter's name ends with `_total`; a histogram's buckets are upper bounds in its unit."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


_WORK = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_AGES = (0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)

BUILD = Metric("cdc_lake_build_info", "gauge", ("version",), "Always 1; the label says which version runs.")
EVENTS = Metric("cdc_lake_events_landed_total", "counter", ("source", "table"), "Changes committed to the log.")
DEAD = Metric("cdc_lake_dead_letters_total", "counter", ("source",), "Records that became dead letters in this run.")
FLUSH = Metric(
    "cdc_lake_flush_duration_seconds",
    "histogram",
    ("source",),
    "A flush from its decoding to its last commit.",
    _WORK,
)
COMMIT = Metric(
    "cdc_lake_commit_duration_seconds",
    "histogram",
    ("source",),
    "The part of a flush in which the store takes the commits of all its tables.",
    _WORK,
)
FRESHNESS = Metric(
    "cdc_lake_freshness_seconds",
    "histogram",
    ("source",),
    "From a change's commit in the source to its landing, each change counted; rows of snapshots are left out.",
    _AGES,
)
LAG = Metric("cdc_lake_lag_records", "gauge", ("source", "topic"), "Records in Kafka that have not been read yet.")
LAST_COMMIT = Metric(
    "cdc_lake_last_commit_timestamp_seconds", "gauge", ("source",), "When the last flush landed, Unix time."
)
FLUSHING = Metric(
    "cdc_lake_flush_pending_seconds", "gauge", ("source",), "For how long the flush under way has been going on; or 0."
)
LOOP = Metric("cdc_lake_loop_age_seconds", "gauge", ("source",), "How long ago the sink's loop last went round.")
REGISTRY = Metric(
    "cdc_lake_registry_connected",
    "gauge",
    ("source",),
    "0 while records wait for a schema of the schema registry, 1 otherwise.",
)
BROKER = Metric("cdc_lake_broker_connected", "gauge", ("source",), "1 while Kafka answers, 0 while it is waited for.")
STOPPED = Metric(
    "cdc_lake_stopped_partitions", "gauge", ("source", "code"), "Partitions that stopped, by the class of their error."
)
MEMORY_LIMIT = Metric("cdc_lake_memory_limit_bytes", "gauge", (), "`sink.memory_mb`, what buffers may hold.")
CHECK = Metric("cdc_lake_ready", "gauge", ("check",), "1 when this check of /readyz is passed, 0 when not.")
CUT_AGE = Metric("cdc_lake_cut_age_seconds", "gauge", ("source",), "Age of the transaction up to which readers see.")
CUT_STALLED = Metric(
    "cdc_lake_cut_stalled", "gauge", ("source",), "1 while the cut waits for rows of an earlier transaction."
)
UNFOLDED = Metric("cdc_lake_unfolded_rows", "gauge", ("source", "table"), "Landed changes that no fold has taken in.")
LETTERS = Metric("cdc_lake_dead_letters", "gauge", ("source",), "Dead letters in the lake that await a decision.")
LAKE_READ = Metric(
    "cdc_lake_lake_read_timestamp_seconds",
    "gauge",
    (),
    "When the lake was last read for the gauges of the cut, of folds and of dead letters, Unix time.",
)
UNDELIVERED = Metric(
    "cdc_lake_undelivered_total",
    "counter",
    ("kind",),
    "Spans (traces) and events (lineage) that the system they are told to did not take in this run.",
)

METRICS: tuple[Metric, ...] = (
    *(BUILD, EVENTS, DEAD, FLUSH, COMMIT, FRESHNESS, LAG, LAST_COMMIT, FLUSHING, LOOP, BROKER, REGISTRY, STOPPED),
    *(MEMORY_LIMIT, CHECK, CUT_AGE, CUT_STALLED, UNFOLDED, LETTERS, LAKE_READ, UNDELIVERED),
)
# What the client library adds of the process itself, on Linux.
PROCESS: tuple[Metric, ...] = (
    Metric("process_resident_memory_bytes", "gauge", (), "Memory that the process holds."),
    Metric("process_virtual_memory_bytes", "gauge", (), "Address space that the process has reserved."),
    Metric("process_cpu_seconds_total", "counter", (), "Processor time that the process has used."),
    Metric("process_open_fds", "gauge", (), "Open files and sockets."),
    Metric("process_max_fds", "gauge", (), "How many of these the system allows."),
    Metric("process_start_time_seconds", "gauge", (), "When the process began, Unix time."),
)


def series(metric: Metric) -> set[str]:
    """The names that may stand in a query: those of a histogram have suffixes."""
    if metric.kind == "histogram":
        return {metric.name + suffix for suffix in ("_bucket", "_sum", "_count")}
    return {metric.name}
