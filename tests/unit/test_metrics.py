"""The running sink's numbers: true to what landed, named by Prometheus' rules, ready only while it does its work."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.errors import ConfigError, OffsetsExpired
from cdc_lake.events import TopicPartition
from cdc_lake.progress import Progress
from cdc_lake.serve import catalogue, health
from cdc_lake.serve.health import Check
from cdc_lake.serve.http import Server, parse_address
from cdc_lake.serve.lake_state import LakeState
from cdc_lake.serve.metrics import Numbers
from tests.lakes import SOURCE, end, event, make_sink

LAKE = {
    "sources": [{"name": SOURCE, "tables": 1, "dead_letters": 3}],
    "tables": [{"table": "public.orders", "source": SOURCE, "rows_unfolded": 7}],
    "cut": {"position": 4, "age_seconds": 12.0, "waits_for": [{"tx_id": "9"}]},
}


def printing(document: Any) -> list[str]:
    return [sys.executable, "-c", f"print({json.dumps(document)!r})"]


@pytest.fixture
def numbers() -> Numbers:
    return Numbers(memory_mb=64)


@pytest.fixture
def url(numbers: Numbers) -> Iterator[str]:
    with Server("127.0.0.1:0", numbers) as server:
        yield f"http://{server.address}"


def get(url: str, accept: str = "") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def landed(numbers: Numbers, folder: Path, records: int = 5) -> None:
    kafka = MemoryKafka()
    kafka.create_topic("pos.public.orders", 2)
    kafka.create_topic("pos.transaction")
    for i in range(records):
        kafka.produce("pos.public.orders", i % 2, *event("orders", {"id": i}, tx=("77", i + 1)))
    kafka.produce("pos.public.orders", 0, b"{}", b"no json")
    kafka.produce("pos.transaction", 0, *end("77", {"public.orders": records}))
    make_sink(kafka, folder).run(until_caught_up=True, observer=numbers.watch(SOURCE))


def test_what_landed_is_what_the_counters_say(numbers: Numbers, url: str, tmp_path: Path) -> None:
    landed(numbers, tmp_path)
    found = samples(get(f"{url}/metrics")[1])

    source = ("source", SOURCE)
    assert found["cdc_lake_events_landed_total", (source, ("table", "public.orders"))] == 5
    assert found["cdc_lake_dead_letters_total", (source,)] == 1
    flushes = found["cdc_lake_flush_duration_seconds_count", (source,)]
    assert flushes >= 1
    assert found["cdc_lake_commit_duration_seconds_count", (source,)] == flushes
    assert found["cdc_lake_commit_duration_seconds_sum", (source,)] > 0
    assert time.time() - found["cdc_lake_last_commit_timestamp_seconds", (source,)] < 60
    assert found["cdc_lake_broker_connected", (source,)] == 1
    assert found["cdc_lake_registry_connected", (source,)] == 1
    assert found["cdc_lake_memory_limit_bytes", ()] == 64_000_000
    assert found["process_resident_memory_bytes", ()] > 1_000_000


def test_freshness_counts_every_change_by_its_age(numbers: Numbers, url: str, tmp_path: Path) -> None:
    landed(numbers, tmp_path)
    found = samples(get(f"{url}/metrics")[1])

    # The events of the test are of November 2025: none of them is younger than a day.
    assert found["cdc_lake_freshness_seconds_count", (("source", SOURCE),)] == 5
    assert found["cdc_lake_freshness_seconds_bucket", (("le", "86400.0"), ("source", SOURCE))] == 0
    assert found["cdc_lake_freshness_seconds_bucket", (("le", "+Inf"), ("source", SOURCE))] == 5


def test_the_lakes_own_numbers_come_from_a_process_beside_the_sink(numbers: Numbers, url: str) -> None:
    numbers.lake.look(printing(LAKE))
    found = samples(get(f"{url}/metrics")[1])

    assert found["cdc_lake_cut_age_seconds", (("source", SOURCE),)] >= 12
    assert found["cdc_lake_cut_stalled", (("source", SOURCE),)] == 1
    assert found["cdc_lake_unfolded_rows", (("source", SOURCE), ("table", "public.orders"))] == 7
    assert found["cdc_lake_dead_letters", (("source", SOURCE),)] == 3


@pytest.mark.parametrize(
    "command",
    [["/no/such/program"], [sys.executable, "-c", "print('words')"], printing({"error": {"message": "gone"}})],
)
def test_a_look_at_the_lake_that_fails_is_a_check_that_fails_and_keeps_the_last_numbers(command: list[str]) -> None:
    lake = LakeState()
    lake.look(printing(LAKE))
    lake.look(command)
    assert lake.trouble
    assert lake.found.letters == {SOURCE: 3}
    lake.look(printing(LAKE))
    assert lake.trouble == ""


def test_the_sink_is_ready_while_all_parts_answer(numbers: Numbers, url: str, tmp_path: Path) -> None:
    assert get(f"{url}/readyz")[0] == 503  # it has not begun
    landed(numbers, tmp_path)
    status, text = get(f"{url}/readyz")
    assert (status, json.loads(text)["ready"]) == (200, True)
    assert {c["check"] for c in json.loads(text)["checks"]} == {
        "loop",
        "broker",
        "registry",
        "store",
        "tables",
        "lake",
    }


def _broker_away(numbers: Numbers, progress: Progress) -> None:
    progress.waiting = "waiting for the broker (no answer)"


def _registry_away(numbers: Numbers, progress: Progress) -> None:
    progress.registry = "waiting for the schema registry (no answer)"


def _store_away(numbers: Numbers, progress: Progress) -> None:
    progress.flushing_since = time.monotonic() - health.STORE_SECONDS - 1


def _stopped(numbers: Numbers, progress: Progress) -> None:
    progress.stopped[TopicPartition("pos.public.orders", 0)] = OffsetsExpired("Records 1 to 2 are gone.")


def _source_away(numbers: Numbers, progress: Progress) -> None:
    numbers.outside["source"] = Check("source", False, "connector pos is FAILED")


@pytest.mark.parametrize(
    ("happens", "check"),
    [
        (_broker_away, "broker"),
        (_registry_away, "registry"),
        (_store_away, "store"),
        (_stopped, "tables"),
        (_source_away, "source"),
    ],
)
def test_a_part_that_is_away_makes_it_unready_and_is_named_but_it_stays_alive(
    happens: Any, check: str, numbers: Numbers, url: str, tmp_path: Path
) -> None:
    landed(numbers, tmp_path)
    progress = numbers.sinks[0].progress
    assert progress is not None
    happens(numbers, progress)
    status, text = get(f"{url}/readyz")
    assert status == 503
    assert [c["check"] for c in json.loads(text)["checks"] if not c["ok"]] == [check]
    assert get(f"{url}/healthz")[0] == 200
    assert samples(get(f"{url}/metrics")[1])["cdc_lake_ready", (("check", check),)] == 0


def test_a_partition_that_stopped_is_counted_by_its_kind_of_error(numbers: Numbers, url: str, tmp_path: Path) -> None:
    landed(numbers, tmp_path)
    assert numbers.sinks[0].progress is not None
    _stopped(numbers, numbers.sinks[0].progress)
    found = samples(get(f"{url}/metrics")[1])
    assert found["cdc_lake_stopped_partitions", (("code", "offsets_expired"), ("source", SOURCE))] == 1


def test_a_loop_that_stands_is_not_alive(numbers: Numbers, url: str, tmp_path: Path) -> None:
    landed(numbers, tmp_path)
    numbers.sinks[0].turned -= health.LOOP_SECONDS + 1
    status, text = get(f"{url}/healthz")
    assert status == 503
    assert "the loop stands" in json.loads(text)["found"]


def test_openmetrics_is_spoken_to_those_who_ask_for_it(numbers: Numbers, url: str) -> None:
    assert get(f"{url}/metrics", "application/openmetrics-text; version=1.0.0")[1].endswith("# EOF\n")
    assert get(f"{url}/nothing")[0] == 404


def test_every_metric_of_the_catalogue_exists_and_no_other(numbers: Numbers, url: str, tmp_path: Path) -> None:
    landed(numbers, tmp_path)
    numbers.lake.look(printing(LAKE))
    families = {f.name: f for f in text_string_to_metric_families(get(f"{url}/metrics")[1])}

    def base(name: str) -> str:
        return name.removesuffix("_total")

    known = {base(m.name): m for m in (*catalogue.METRICS, *catalogue.PROCESS)}
    created = {n for n in families if n.endswith("_created")}
    assert families.keys() - created == known.keys()
    for name, family in families.items():
        if name in known:
            assert (family.type, family.documentation != "") == (known[name].kind, True)
            labels = {label for s in family.samples for label in s.labels} - {"le"}
            assert labels <= set(known[name].labels), name


@pytest.mark.parametrize("metric", catalogue.METRICS, ids=lambda m: m.name)
def test_names_follow_the_rules(metric: catalogue.Metric) -> None:
    assert re.fullmatch(r"cdc_lake_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(r"_(ms|milliseconds|minutes|mb|kb|percent)(_|$)", metric.name)
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert metric.help.endswith(".")
    assert set(metric.labels) <= {"source", "table", "topic", "code", "check", "version", "kind"}


def test_an_address_that_is_taken_or_none_is_an_error_with_a_way_out(numbers: Numbers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(ConfigError) as caught:
            Server(f"127.0.0.1:{taken.getsockname()[1]}", numbers)
        assert caught.value.code == "address_taken"
    for wrong in ("9464x", "host", "1:2:3", "localhost:99999"):
        with pytest.raises(ConfigError, match="not an address"):
            parse_address(wrong)
    assert parse_address(":9464") == ("127.0.0.1", 9464)
    assert parse_address("[::1]:9464") == ("::1", 9464)
