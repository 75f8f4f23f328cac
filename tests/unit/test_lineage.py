"""Who reads what and writes what is told in OpenLineage's events, under the names that other tools use too."""

from __future__ import annotations

import json
import logging
import os
import re
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cdc_lake import undelivered
from cdc_lake.checks import Status
from cdc_lake.cli.witness import witnessed
from cdc_lake.config import Config, Kafka
from cdc_lake.config_source import Source
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.errors import LakeError, OffsetsExpired
from cdc_lake.events import TableId, TopicPartition
from cdc_lake.land import layout
from cdc_lake.lineage.check import check_lineage
from cdc_lake.lineage.names import delta_table, source_table, topic
from cdc_lake.lineage.runs import Lineage
from cdc_lake.lineage.sink import Places, SinkLineage
from cdc_lake.lineage.wish import wish
from tests.collectors import Received, events_of, receiver
from tests.commands import run
from tests.lake_model import Feed
from tests.lakes import SOURCE, event, make_sink
from tests.unit.test_rules_run import LOW, SALES, go_on, write

KEY = "canary-key-7"
BOOTSTRAP = "broker-1:9092,broker-2:9092"
DSN = "postgresql://admin:hunter2-canary@db.internal:5433/shop"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Received]:
    for name in [n for n in os.environ if n.startswith("OPENLINEAGE")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with receiver() as received:
        monkeypatch.setenv("OPENLINEAGE_URL", received.url)
        monkeypatch.setenv("OPENLINEAGE_API_KEY", KEY)
        yield received
    for name in [n for n in os.environ if n.startswith("OPENLINEAGE__")]:  # its client makes some
        del os.environ[name]


def settings(folder: Path) -> Config:
    return Config(root=folder, kafka=Kafka(bootstrap=BOOTSTRAP), source=Source(name=SOURCE, dsn=DSN))


def land(folder: Path, *, error: Exception | None = None) -> None:
    """Land two rows of a table and one of another; fail then, when told to."""
    kafka = MemoryKafka()
    for name, rows in (("orders", 2), ("stores", 1)):
        kafka.create_topic(f"pos.public.{name}")
        for number in range(rows):
            kafka.produce(f"pos.public.{name}", 0, *event(name, {"id": number}))
    sink = make_sink(kafka, folder)
    with witnessed(settings(folder)) as witness, witness.sink(SOURCE):
        (observer,) = witness.observers(SOURCE)
        sink.run(until_caught_up=True, observer=observer)
        if error is not None:
            raise error


def of_job(received: Received, name: str) -> list[dict[str, Any]]:
    found = [e for e in events_of(received) if e["job"]["name"] == name]
    for one in found:
        follows_the_standard(one)
    return found


def follows_the_standard(one: dict[str, Any]) -> None:
    """What OpenLineage.json requires of an event, and of each facet in it."""
    assert datetime.fromisoformat(one["eventTime"]).utcoffset() is not None
    assert re.fullmatch(r"urn:cdc-lake:[0-9.]+", one["producer"])
    kind = "RunEvent" if "run" in one else "JobEvent"
    assert re.fullmatch(rf"https://openlineage.io/spec/2-0-\d+/OpenLineage.json#/\$defs/{kind}", one["schemaURL"])
    if kind == "RunEvent":
        assert str(uuid.UUID(one["run"]["runId"])) == one["run"]["runId"]
        assert one["eventType"] in {"START", "RUNNING", "COMPLETE", "FAIL"}
    datasets = [*one["inputs"], *one["outputs"]]
    holders = [one.get("run", {}), one["job"], *datasets]
    for holder in (*datasets, one["job"]):
        assert holder["namespace"]
        assert holder["name"]
    facets = [f for h in holders for f in h.get("facets", {}).values()]
    facets += [f for d in one["outputs"] for f in d.get("outputFacets", {}).values()]
    assert facets
    for facet in facets:
        assert facet["_producer"]
        assert facet["_schemaURL"].startswith("https://openlineage.io/spec/facets/")


def names(datasets: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(d["namespace"], d["name"]) for d in datasets]


def test_each_table_is_told_of_from_the_source_over_its_topic_to_its_log(server: Received, tmp_path: Path) -> None:
    land(tmp_path)
    (capture,) = of_job(server, "capture.pos.public.orders")
    records = ("kafka://broker-1:9092", "pos.public.orders")
    log = ("file", layout.log_path(str(tmp_path / "lake"), SOURCE, TableId("public", "orders")))
    assert names(capture["inputs"]) == [("postgres://db.internal:5433", "shop.public.orders")]
    assert names(capture["outputs"]) == [records]
    begun, ended = of_job(server, "land.pos.public.orders")
    assert (begun["eventType"], ended["eventType"]) == ("START", "COMPLETE")
    assert begun["run"]["runId"] == ended["run"]["runId"]
    for one in (begun, ended):
        assert (names(one["inputs"]), names(one["outputs"])) == ([records], [log])
    assert ended["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 2
    columns = {f["name"]: f["type"] for f in ended["outputs"][0]["facets"]["schema"]["fields"]}
    assert (columns["__op"], columns["__offset"]) == ("string", "int64")
    whole = of_job(server, "sink.pos")
    assert [e["eventType"] for e in whole] == ["START", "COMPLETE"]
    assert ended["run"]["facets"]["parent"]["run"]["runId"] == whole[0]["run"]["runId"]
    assert ended["job"]["facets"]["jobType"]["processingType"] == "STREAMING"
    assert server.paths == ["/api/v1/lineage"] * len(server.paths)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_a_sink_that_goes_on_tells_how_far_it_has_come_of_tables_whose_source_is_not_known(tmp_path: Path) -> None:
    kafka = MemoryKafka()
    kafka.create_topic("pos.public.orders")
    for number in range(3):
        kafka.produce("pos.public.orders", 0, *event("orders", {"id": number}))
    told: list[Any] = []
    places = Places(SOURCE, lambda name: topic("b", name), lambda t: delta_table(f"/{t}"), lambda _table: None)
    watching = SinkLineage(Lineage(told.append), places, every=0.0)
    with watching.running():
        make_sink(kafka, tmp_path, max_records=1).run(until_caught_up=True, observer=watching)
    states = [e.eventType.value for e in told if e.job.name == "land.pos.public.orders"]
    assert (states[0], states[-1], set(states[1:-1])) == ("START", "COMPLETE", {"RUNNING"})
    assert told[-2].outputs[0].outputFacets["outputStatistics"].rowCount == 3
    assert not [e for e in told if e.job.name.startswith("capture.")]


def test_a_table_that_was_stopped_has_failed_and_the_others_have_not(tmp_path: Path) -> None:
    kafka = MemoryKafka()
    for name in ("orders", "stores"):
        kafka.create_topic(f"pos.public.{name}")
        kafka.produce(f"pos.public.{name}", 0, *event(name, {"id": 1}))
    told: list[Any] = []
    places = Places(SOURCE, lambda name: topic("b", name), lambda t: delta_table(f"/{t}"), lambda _table: None)
    watching = SinkLineage(Lineage(told.append), places)
    with watching.running():
        progress = make_sink(kafka, tmp_path).run(until_caught_up=True, observer=watching)
        progress.stopped[TopicPartition("pos.public.orders", 0)] = OffsetsExpired("Records 1 to 2 are gone.")
    ends = {e.job.name: e.eventType.value for e in told}
    assert ends == {"sink.pos": "COMPLETE", "land.pos.public.orders": "FAIL", "land.pos.public.stores": "COMPLETE"}


def test_a_sink_that_fails_says_so_of_itself_and_its_tables_without_secrets(server: Received, tmp_path: Path) -> None:
    with pytest.raises(LakeError):
        land(tmp_path, error=LakeError(f"The disk is full, says {DSN} with {KEY}."))
    for name in ("sink.pos", "land.pos.public.orders", "land.pos.public.stores"):
        failed = of_job(server, name)[-1]
        assert failed["eventType"] == "FAIL"
        assert failed["run"]["facets"]["errorMessage"]["message"].startswith("The disk is full")
    assert "canary" not in b"".join(server.bodies).decode()


def test_a_fold_is_told_of_with_the_columns_that_it_made(
    server: Received, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    feed = Feed(tmp_path, (SALES,))
    go_on(feed, 3)
    feed.land()
    (tmp_path / "cdc-lake.yaml").write_text("lake: {uri: ./lake}\n")
    assert run(tmp_path, "fold", capfd=capfd)[0] == 0
    begun, ended = of_job(server, f"fold.pos.{SALES}")
    assert (begun["eventType"], ended["eventType"]) == ("START", "COMPLETE")
    assert begun["eventTime"] <= ended["eventTime"]
    root = str(tmp_path / "lake")
    made = [layout.current_path(root, SOURCE, SALES), layout.history_path(root, SOURCE, SALES)]
    assert names(ended["inputs"]) == [("file", layout.log_path(root, SOURCE, SALES))]
    assert names(ended["outputs"]) == [("file", path) for path in made]
    assert [d["outputFacets"]["outputStatistics"]["rowCount"] > 0 for d in ended["outputs"]] == [True, True]
    assert all(d["facets"]["schema"]["fields"] for d in ended["outputs"])
    assert ended["job"]["facets"]["jobType"]["processingType"] == "BATCH"


def test_a_streaming_model_and_a_rule_are_told_of_with_the_logs_that_they_read(
    server: Received, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    feed = Feed(tmp_path, (SALES,))
    go_on(feed, 3)
    feed.land()
    (tmp_path / "cdc-lake.yaml").write_text("lake: {uri: ./lake}\n")
    (tmp_path / "streams").mkdir()
    (tmp_path / "streams" / "low.sql").write_text("SELECT id, qty FROM changes.sales WHERE qty < 5\n")
    write(tmp_path, many=LOW.replace("qty < 2", "qty > 7"))
    assert run(tmp_path, "stream", "run", "--until-caught-up", capfd=capfd)[0] == 0
    log = ("file", layout.log_path(str(tmp_path / "lake"), SOURCE, SALES))
    begun, ended = of_job(server, "stream.pos.low")
    assert (begun["eventType"], ended["eventType"]) == ("START", "COMPLETE")
    assert names(ended["inputs"]) == [log]
    assert names(ended["outputs"]) == [("file", layout.stream_path(str(tmp_path / "lake"), SOURCE, "low"))]
    assert [f["name"] for f in ended["outputs"][0]["facets"]["schema"]["fields"]][:2] == ["id", "qty"]
    assert "WHERE qty < 5" in ended["job"]["facets"]["sql"]["query"]
    assert run(tmp_path, "rules", "run", "--until-caught-up", capfd=capfd)[0] == 0
    begun, ended = of_job(server, "rule.pos.many")
    assert (begun["eventType"], ended["eventType"]) == ("START", "COMPLETE")
    assert names(ended["inputs"]) == [log]
    assert names(ended["outputs"]) == [("file", layout.alerts_path(str(tmp_path / "lake"), SOURCE))]
    assert ended["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 1


def test_a_server_that_is_away_is_said_once_without_the_key_and_counted_and_stops_nothing(
    server: Received, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.status, server.reason = 403, f"not with {KEY}"
    before = undelivered.counts()["lineage"]
    with caplog.at_level(logging.DEBUG):
        land(tmp_path)
    said = [r.getMessage() for r in caplog.records if r.name == "cdc_lake.lineage"]
    assert len(said) == 1
    assert f"does not reach {server.url} " in said[0]
    assert "403" in said[0]
    assert KEY not in caplog.text
    assert undelivered.counts()["lineage"] - before == len(server.bodies) == 8


def test_what_is_secret_in_the_file_of_the_client_is_not_written_either(
    server: Received, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = "canary-header-3"
    transport = {"type": "http", "url": server.url, "custom_headers": {"x-tenant": f"Basic {hidden}"}}
    (tmp_path / "lineage.yml").write_text(json.dumps({"transport": transport}))
    monkeypatch.setenv("OPENLINEAGE_CONFIG", str(tmp_path / "lineage.yml"))
    monkeypatch.delenv("OPENLINEAGE_URL")
    server.status, server.reason = 403, f"not with {hidden}"
    with caplog.at_level(logging.DEBUG):
        land(tmp_path)
    assert server.headers[0]["x-tenant"] == f"Basic {hidden}"
    assert "403" in caplog.text
    assert hidden not in caplog.text


def test_a_wrong_address_is_said_in_words_and_stops_nothing(
    server: Received, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", "nowhere")
    with witnessed(settings(tmp_path)) as witness:
        assert witness.observers(SOURCE) == []
    assert "No lineage: Need valid url" in capfd.readouterr().err
    assert check_lineage(os.environ, tmp_path, tmp_path)[0].status is Status.WARN


def test_doctor_says_whether_the_server_answers(
    server: Received, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [(c.name, c.status) for c in check_lineage(os.environ, tmp_path, tmp_path)] == [
        ("lineage.delivered", Status.OK)
    ]
    assert server.bodies == []
    monkeypatch.setenv("OPENLINEAGE_URL", f"http://me:{KEY}@127.0.0.1:9")
    (found,) = check_lineage(os.environ, tmp_path, tmp_path)
    assert (found.status, "start the server" in found.fix) == (Status.WARN, True)
    assert KEY not in f"{found}"
    assert check_lineage({}, tmp_path, tmp_path) == []


def test_a_file_asks_for_lineage_too_and_a_variable_ends_it(tmp_path: Path) -> None:
    assert wish({}, tmp_path, tmp_path) is None
    (tmp_path / "openlineage.yml").write_text("transport: {type: console}\n")
    found = wish({}, tmp_path, tmp_path)
    assert found is not None
    assert found.by == str(tmp_path / "openlineage.yml")
    assert wish({"OPENLINEAGE_DISABLED": "true"}, tmp_path, tmp_path) is None
    assert wish({"OPENLINEAGE_NAMESPACE": "x"}, tmp_path / "other", tmp_path / "home") is None


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (topic("b1:9092,b2:9092", "t"), ("kafka://b1:9092", "t")),
        (topic("SASL_SSL://b1", "t"), ("kafka://b1:9092", "t")),
        (source_table("host=h dbname=d user=u", TableId("s", "t")), ("postgres://h:5432", "d.s.t")),
        (source_table("host=/run/pg port=6000 dbname=d", TableId("s", "t")), ("postgres://localhost:6000", "d.s.t")),
        (delta_table("/data/lake/pos"), ("file", "/data/lake/pos")),
        (delta_table("s3://bucket/lake/pos"), ("s3://bucket", "lake/pos")),
        (delta_table("abfss://c@a.dfs.core.windows.net/x"), ("abfss://c@a.dfs.core.windows.net", "x")),
    ],
)
def test_datasets_are_called_as_the_standard_says(dataset: Any, expected: tuple[str, str]) -> None:
    assert (dataset.namespace, dataset.name) == expected
