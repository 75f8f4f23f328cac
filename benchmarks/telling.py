"""What traces and lineage cost the sink that tells of its work: the processor time of a run with and without.

Kafka is in memory and holds transactions of ten rows, so that the whole run is the sink's own. Whoever is told is a
process of its own on the same machine, which takes everything; its time is not counted. Runs of all kinds take turns.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.report import Report
from cdc_lake.cli.sink_watch import Told
from cdc_lake.cli.witness import witnessed
from cdc_lake.config import Config, Kafka
from cdc_lake.config import Sink as SinkConfig
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.land.landing import Landing
from cdc_lake.pipeline import Sink
from tests.collectors import receiver
from tests.lakes import CONNECTOR, SOURCE, end, event

_TURNS, _EACH, _FLUSH_MB = 5, 10, 2.0


def run(report: Report) -> None:
    table = report.table(
        f"{report.rows:,} changes in transactions of {_EACH}",
        **{"told": "", "flushes": ",d", "CPU, s": ".2f", "CPU, ms a flush": ".1f", "more than off, %": ".1f"},
    )
    kafka = _filled(report.rows)
    with _server() as url:
        kinds = {
            "nothing": {},
            "traces": {"OTEL_EXPORTER_OTLP_ENDPOINT": url},
            "traces, one of a hundred": {
                "OTEL_EXPORTER_OTLP_ENDPOINT": url,
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": "0.01",
            },
            "lineage": {"OPENLINEAGE_URL": url},
        }
        found: dict[str, list[tuple[float, int]]] = {kind: [] for kind in kinds}
        for turn in range(_TURNS + 1):
            for kind, environ in kinds.items():
                one = _landed(kafka, environ, f"{turn}-{kind}")
                if turn:  # the first one of each imports, and warms what is kept
                    found[kind].append(one)
    middle = {kind: statistics.median(cpu for cpu, _ in runs) for kind, runs in found.items()}
    for kind, runs in found.items():
        flushes = round(statistics.median(n for _, n in runs))
        more = (middle[kind] / middle["nothing"] - 1) * 100
        table.add(kind, flushes, middle[kind], middle[kind] / flushes * 1000, more)
    spread = max(cpu for cpu, _ in found["nothing"]) / min(cpu for cpu, _ in found["nothing"]) - 1
    report.note(f"Medians of {_TURNS} runs; those that tell nothing differ among each other by {spread:.0%}.")


def _filled(rows: int) -> MemoryKafka:
    kafka = MemoryKafka()
    kafka.create_topic("pos.public.orders", 4)
    kafka.create_topic("pos.transaction")
    note = "x" * 400
    for number in range(rows // _EACH):
        for order in range(1, _EACH + 1):
            row = event("orders", {"id": number * _EACH + order, "note": note}, tx=(str(number), order))
            kafka.produce("pos.public.orders", order % 4, *row)
        kafka.produce("pos.transaction", 0, *end(str(number), {"public.orders": _EACH}))
    return kafka


def _landed(kafka: MemoryKafka, environ: dict[str, str], group: str) -> tuple[float, int]:
    """Processor seconds of one run of a new sink, and its flushes."""
    os.environ.update(environ)
    try:
        with tempfile.TemporaryDirectory(prefix="cdc-lake-telling-") as folder:
            config = Config(
                root=Path(folder), sink=SinkConfig(flush_mb=_FLUSH_MB), kafka=Kafka(bootstrap="localhost:9092")
            )
            landing = Landing(config.lake_uri, SOURCE, transaction_topic=CONNECTOR.transaction_topic)
            sink = Sink(config, CONNECTOR, kafka.broker(group, max_records=2000), landing)
            begun = time.process_time()
            with witnessed(config) as witness, witness.sink(SOURCE):
                sink.run(until_caught_up=True, observer=Told(SOURCE, *witness.observers(SOURCE)))
            return time.process_time() - begun, sink.progress.commits
    finally:
        for name in [n for n in os.environ if n in environ or n.startswith("OPENLINEAGE__")]:
            del os.environ[name]


@contextmanager
def _server() -> Iterator[str]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("end")
        process.join()


def _serve(pipe: Connection) -> None:
    with receiver() as received:
        pipe.send(received.url)
        pipe.recv()
