"""A process killed with SIGKILL at each named point, then started again: the lake equals the source, nothing is twice.

The points are those of `cdc_lake.crashpoints`; a test checks that every one in the code is killed at here.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

import cdc_lake
from cdc_lake.events import TableId
from cdc_lake.land import layout
from cdc_lake.local.retail.loader import create_schema, load
from cdc_lake.local.retail.rows import Size
from cdc_lake.local.retail.workload import Workload
from tests.guarantees.test_landing import check, landed
from tests.integration.conftest import RunningStack, fresh_database, wait_for
from tests.integration.test_services import POINTS as SERVICES
from tests.integration.test_stream_topic import POINTS as TOPIC
from tests.projects import Project, make_project
from tests.unit.test_erase import POINTS as ERASE
from tests.unit.test_erase_alerts import POINTS as ALERTS
from tests.unit.test_event_sources import POINTS as BATCHES
from tests.unit.test_replay_events import POINTS as EVENTS
from tests.unit.test_retention import POINTS as RETENTION
from tests.unit.test_retention_letters import POINTS as LETTERS
from tests.unit.test_rules_delivery import POINTS as DELIVERY
from tests.unit.test_rules_run import POINTS as RULES
from tests.unit.test_stream_http import POINTS as POSTS
from tests.unit.test_stream_run import POINTS as STREAMS
from tests.unit.test_stream_run import REPLAYED
from tests.unit.test_tiers import POINTS as TIERS

SINK = (
    "land:before-dead-letters",
    "land:after-dead-letters",
    "land:before-commit",
    "land:before-commit:4",
    "land:after-write",
    "land:after-commit:2",
    "land:before-transactions",
    "sink:before-broker-commit",
    "sink:after-broker-commit",
)
HISTORY = ("history:before-write", "history:writing", "history:after-commit")
FOLD = ("fold:before-write", "fold:writing", "fold:after-commit", "fold:after-commit:3", *HISTORY)
MAINTAIN = (
    "maintain:before-compact",
    "maintain:after-compact",
    "maintain:after-compact:3",
    "maintain:before-vacuum",
    "maintain:after-vacuum",
)
REPLAY = (
    "dlq:before-put-back",
    "land:before-commit",
    "land:after-write",
    "land:after-commit",
    "dlq:after-put-back",
    "fold:before-write",
    "fold:after-commit",
    "dlq:before-decision",
    "land:after-commit:2",
    "dlq:after-decision",
)


@pytest.fixture(scope="module")
def shop(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One small shop that lives through all deaths, its first rows landed."""
    folder = tmp_path_factory.mktemp("crash") / "project"
    with (
        fresh_database(stack) as database,
        make_project(folder, database.dsn, stack.bootstrap, stack.connect_url) as project,
    ):
        create_schema(project.dsn)
        load(project.dsn, Size.for_rows(800))
        project.register()
        database.execute("UPDATE stores SET area_m2 = area_m2 + 1 WHERE store_id = 1")
        project.ok("sink", "run", "--until-caught-up")
        yield project


def trade(project: Project) -> None:
    """Some sales and a price, committed and in Kafka; and a record that is none."""
    workload = Workload(project.dsn, seed=time.monotonic_ns())
    before = len(project.coordinates_in_kafka())
    for kind in ("sale", "sale", "price", "signup"):
        workload.perform(kind)
    producer = KafkaProducer(bootstrap_servers=project.bootstrap)
    producer.send(f"{project.name}.public.stores", b"{broken", key=b'{"store_id":1}').get(timeout=30)
    producer.close()
    wait_for(lambda: len(project.coordinates_in_kafka()) > before + 8, "the sales in Kafka")


def die(project: Project, point: str, *command: str) -> None:
    """Run a command that is killed at `point`."""
    done = project.run(*command, env={"CDC_LAKE_CRASH_AT": point})
    assert done.returncode == -signal.SIGKILL, f"{point} was not reached: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("point", SINK)
def test_a_sink_killed_at_a_named_point_is_mended_by_the_next_start(shop: Project, point: str) -> None:
    trade(shop)
    die(shop, point, "sink", "run", "--until-caught-up")
    check(shop)


@pytest.mark.parametrize("point", FOLD)
def test_a_fold_killed_at_a_named_point_is_mended_by_the_next_one(shop: Project, point: str) -> None:
    trade(shop)
    shop.ok("sink", "run", "--until-caught-up")
    die(shop, point, "fold")
    assert shop.verify()["ok"]
    shop.ok("fold")
    check(shop)


@pytest.mark.parametrize("point", FOLD[:3])
def test_a_rebuild_killed_before_or_after_its_swap_leaves_a_whole_table(shop: Project, point: str) -> None:
    trade(shop)
    shop.ok("sink", "run", "--until-caught-up")
    shop.ok("fold")
    die(shop, point, "rebuild", "public.orders")
    assert shop.verify()["ok"]
    shop.ok("rebuild", "public.orders")
    check(shop)


@pytest.mark.parametrize("point", MAINTAIN)
def test_a_maintenance_killed_at_a_named_point_is_mended_by_the_next_one(shop: Project, point: str) -> None:
    for _ in range(9):
        trade(shop)
        shop.ok("sink", "run", "--until-caught-up")
    if "vacuum" in point:
        shop.ok("maintain")
    shop.ok("fold")
    sink = shop.start("sink", "run")
    try:
        die(shop, point, "maintain", "--keep", "0h", "--no-fold")
        assert shop.verify()["ok"]
        shop.ok("maintain", "--keep", "0h")
    finally:
        sink.send_signal(signal.SIGTERM)
        assert sink.wait(timeout=60) == 0
    check(shop)


@pytest.mark.parametrize("point", REPLAY)
def test_a_replay_killed_at_a_named_point_puts_the_event_back_once(shop: Project, point: str, tmp_path: Path) -> None:
    trade(shop)
    shop.ok("sink", "run", "--until-caught-up")
    shop.ok("fold")
    before = len(landed(shop))
    topic = f"{shop.name}.public.stores"
    number = max(o for t, _, o in shop.coordinates_in_kafka() if t == topic)
    mended = tmp_path / "value.json"
    # A change that is there already: it counts once, however often it comes.
    change = shop.query("SELECT min(__offset) AS at FROM changes.public.stores WHERE __op = 'u'")[0]["at"]
    mended.write_bytes(value_at(shop, topic, change))
    command = ("dlq", "replay", f"{topic}/0/{number}", "--value", str(mended))
    die(shop, point, *command)
    for _ in range(2):
        shop.ok(*command)
    coordinates = landed(shop)
    assert len(coordinates) == len(set(coordinates)) == before + 1
    check(shop)


def value_at(project: Project, topic: str, offset: int) -> bytes:
    """A record's value as Kafka has it."""
    consumer = KafkaConsumer(bootstrap_servers=project.bootstrap, enable_auto_commit=False)
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), offset)
        records = wait_for(lambda: consumer.poll(timeout_ms=1000), f"record {offset} of {topic}")
        return bytes(next(iter(records.values()))[0].value)
    finally:
        consumer.close()


@pytest.mark.slow  # the kill is aimed by watching a folder: on a busy machine it may take many tries
def test_a_sink_killed_between_the_data_file_and_the_commit_leaves_an_orphan_that_no_reader_counts(
    shop: Project,
) -> None:
    folder = Path(layout.log_path(str(shop.folder / "lake"), shop.name, cdc_lake_table(shop)))
    for _ in range(30):
        trade(shop)
        if _kill_between(shop, folder):
            break
    else:
        pytest.fail("no kill fell between a data file and its commit")
    check(shop)
    orphans = {path.name for path in folder.glob("*.parquet")} - _committed(folder)
    assert orphans, "it is still there, and not counted"


def cdc_lake_table(project: Project) -> TableId:
    """The table whose commits are watched."""
    root = str(project.folder / "lake")
    return next(t for t in layout.list_tables(root, project.name) if t.name == "order_lines")


def _kill_between(project: Project, folder: Path) -> bool:
    """Start a sink, and kill it as soon as it has written a data file; whether the commit had not come yet."""
    files, committed = len(list(folder.glob("*.parquet"))), _committed(folder)
    sink = project.start("sink", "run", "--until-caught-up")
    while sink.poll() is None:
        if sum(name.endswith(".parquet") for name in os.listdir(folder)) > files:
            sink.send_signal(signal.SIGKILL)
            break
    sink.wait(timeout=60)
    return len(list(folder.glob("*.parquet"))) > files and _committed(folder) == committed


def _committed(folder: Path) -> set[str]:
    """The data files that commits have added, whatever became of them."""
    logs = (path.read_text() for path in (folder / "_delta_log").glob("*.json"))
    return {json.loads(line)["add"]["path"] for log in logs for line in log.splitlines() if line.startswith('{"add":')}


def test_every_point_of_the_code_is_killed_at() -> None:
    # Those of replays, retention, rules, models, tiers, events and services are killed at in tests of their own.
    source = "".join(p.read_text() for p in Path(cdc_lake.__file__).parent.rglob("*.py"))
    points = set(re.findall(r'\breach\("([^"]+)"\)', source))
    stages = re.findall(r'\bWords\("[^"]+", "([^"]+)"', source)
    points |= {
        f"{s}:{what}" for s in stages for what in re.findall(r'\breach\(f"{self._words.stage}:([^"]+)"\)', source)
    }
    without = (*RETENTION, *LETTERS, *TIERS, *ERASE, *ALERTS, *RULES, *DELIVERY, *EVENTS)
    killed = (*SINK, *FOLD, *MAINTAIN, *REPLAY, *without, *STREAMS, *REPLAYED, *TOPIC, *POSTS, *BATCHES, *SERVICES)
    assert points == {re.sub(r":\d+$", "", p) for p in killed}
