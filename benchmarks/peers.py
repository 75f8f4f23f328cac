"""What users would write or pick instead of the sink, on the same topic, and the raw clients that only count.

Each takes the broker's address, the topic and how many events it has, and returns when it has read them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from confluent_kafka import Consumer
from deltalake import DeltaTable, write_deltalake
from kafka import KafkaConsumer, TopicPartition

from benchmarks.report import say
from cdc_lake.budget import AMPLE
from cdc_lake.cache import cache_folder
from cdc_lake.consume.confluent import fetching

Row = dict[str, Any]
_BATCH = 10_000
SPARK = ("pyspark==4.2.0", "delta-spark==4.4.1")
_FIELDS = "id bigint, store int, sku string, quantity int, price string, sold_at string, channel string, note string"


def raw_confluent(bootstrap: str, topic: str, events: int) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **fetching(AMPLE),  # with librdkafka's own defaults a full queue waits for a second: a fifth of the rate
        }
    )
    consumer.subscribe([topic])
    seen = 0
    while seen < events:
        seen += sum(len(m.value() or b"") > 0 for m in consumer.consume(10_000, timeout=1.0))
    consumer.close()


def kafka_python(bootstrap: str, topic: str) -> KafkaConsumer:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        max_partition_fetch_bytes=8 << 20,
        max_poll_records=10_000,
    )
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    return consumer


def raw_kafka_python(bootstrap: str, topic: str, events: int) -> None:
    consumer = kafka_python(bootstrap, topic)
    seen = 0
    while seen < events:
        seen += sum(len(records) for records in consumer.poll(timeout_ms=1000).values())
    consumer.close()


def naive(bootstrap: str, topic: str, events: int) -> None:
    """What one writes on the first afternoon: json.loads, and an append for each 10,000 events."""

    def write(folder: str, batch: list[Row]) -> None:
        write_deltalake(f"{folder}/t", pa.Table.from_pylist(batch), mode="append")

    _loop(bootstrap, topic, events, write)


def naive_merge(bootstrap: str, topic: str, events: int) -> None:
    """The same, merged by key, so that the table is what the source's is."""

    def write(folder: str, batch: list[Row]) -> None:
        latest = pa.Table.from_pylist(list({row["id"]: row for row in batch}.values()))
        if not DeltaTable.is_deltatable(f"{folder}/t"):
            write_deltalake(f"{folder}/t", latest)
            return
        merge = DeltaTable(f"{folder}/t").merge(latest, "t.id = s.id", source_alias="s", target_alias="t")
        merge.when_matched_update_all().when_not_matched_insert_all().execute()

    _loop(bootstrap, topic, events, write)


def _loop(bootstrap: str, topic: str, events: int, write: Callable[[str, list[Row]], None]) -> None:
    folder = tempfile.mkdtemp(prefix="cdc-lake-naive-")
    consumer = kafka_python(bootstrap, topic)
    batch: list[Row] = []
    seen = 0
    while seen < events:
        for records in consumer.poll(timeout_ms=1000).values():
            for record in records:
                value = json.loads(record.value)
                payload = value.get("payload", value)
                image = payload["after"] or {}
                batch.append({"op": payload["op"], "lsn": payload["source"]["lsn"], "offset": record.offset, **image})
                seen += 1
                if len(batch) == _BATCH:
                    write(folder, batch)
                    batch.clear()
    if batch:
        write(folder, batch)
    consumer.close()
    shutil.rmtree(folder)


def spark(bootstrap: str, topic: str, events: int, *, inline: bool) -> float | None:
    """Seconds of Spark structured streaming in a session that is warm; None where there is no Java for it."""
    if shutil.which("java") is None:
        say("Spark needs Java 17 on the PATH: not measured")
        return None
    event = f"op string, source struct<lsn:bigint>, after struct<{_struct(_FIELDS)}>"
    schema = f"payload struct<{_struct(event)}>" if inline else event
    found = spark_job(bootstrap, topic, "land", schema)
    if found["rows"] != events:
        raise SystemExit(f"Spark wrote {found['rows']} of {events} events")
    return float(found["warm"])


def _struct(fields: str) -> str:
    """`a int, b struct<c:int>` as the fields of a struct: `a:int, b:struct<c:int>`."""
    return re.sub(r"(^|, )(\w+) ", r"\1\2:", fields)


def spark_job(bootstrap: str, topic: str, question: str, schema: str) -> dict[str, Any]:
    """What `spark_job.py` says: `rows`, and the seconds `cold` and `warm`."""
    python = spark_environment()
    script, ivy = str(Path(__file__).with_name("spark_job.py")), str(python.parents[2] / "ivy")
    with tempfile.TemporaryDirectory(prefix="cdc-lake-spark-", ignore_cleanup_errors=True) as folder:
        program = [script, bootstrap, topic, folder, ivy, str(os.cpu_count()), question, schema]
        # -P: beside the job lies profile.py, which Python would take for its own.
        return job("Spark", [str(python), "-P", *program])


def spark_environment() -> Path:
    """The python that has Spark and its Delta extension."""
    return environment("spark", "Spark", SPARK)


def environment(name: str, what: str, packages: Sequence[str]) -> Path:
    """The python of an environment with `packages`, made once in the user's cache."""
    cache = cache_folder() / name
    python = cache / "env" / "bin" / "python"
    if not (cache / "ready").exists():
        say(f"installing {what} into the cache, once")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(cache / "env")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        (cache / "ready").touch()
    return python


def job(name: str, command: Sequence[str]) -> dict[str, Any]:
    """What a peer's program says in its last line, as JSON."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
