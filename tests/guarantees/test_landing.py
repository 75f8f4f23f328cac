"""Promise 1, landing: each Kafka record (topic, partition, offset) is in the lake exactly once."""

from __future__ import annotations

import random
import signal
import time
from functools import partial

import pytest

from cdc_lake.land import layout
from cdc_lake.local.retail.loader import create_schema, load
from cdc_lake.local.retail.rows import Size
from cdc_lake.local.retail.workload import Workload
from tests.integration.conftest import wait_for
from tests.projects import Project

CRASH_POINTS = (
    "land:after-dead-letters",
    "land:before-commit",
    "land:after-write",
    "land:after-commit:2",
    "land:before-transactions",
)


def more_landed(project: Project, before: int) -> bool:
    return len(landed(project)) > before


def landed(project: Project) -> list[tuple[str, int, int]]:
    """Coordinates of all landed records, repeats included."""
    root, options = project.lake()
    paths = [layout.log_path(root, project.name, t) for t in layout.list_tables(root, project.name, options)]
    found: list[tuple[str, int, int]] = []
    for path in [*paths, layout.transactions_path(root, project.name)]:
        table = layout.open_delta(path, options)
        if table is None:
            continue  # killed before the first commit
        rows = table.to_pyarrow_table(columns=["__topic", "__partition", "__offset"]).to_pylist()
        found += [(r["__topic"], r["__partition"], r["__offset"]) for r in rows]
    return found


def dead_letters(project: Project) -> set[tuple[str, int, int]]:
    """Coordinates of all records that could not be decoded."""
    root, options = project.lake()
    table = layout.open_delta(layout.dead_letters_path(root, project.name), options)
    if table is None:
        return set()
    rows = table.to_pyarrow_table(columns=["topic", "partition", "offset"]).to_pylist()
    return {(r["topic"], r["partition"], r["offset"]) for r in rows}


def check(project: Project) -> None:
    """The lake equals the source, and holds every record once."""
    project.ok("sink", "run", "--until-caught-up")
    report = project.verify()
    assert report["ok"], report
    coordinates = landed(project)
    assert len(coordinates) == len(set(coordinates))
    in_kafka = project.coordinates_in_kafka()
    newest = {(t, p): o for t, p, o in sorted(coordinates)}
    # What waits with the dead letters is in no log until it is replayed.
    dead = dead_letters(project)
    assert {c for c in in_kafka if c[2] <= newest.get(c[:2], -1)} - dead == set(coordinates) - dead


@pytest.fixture
def shop(project: Project) -> Project:
    """A project with a small retail database behind a running connector."""
    create_schema(project.dsn)
    load(project.dsn, Size.for_rows(2000))
    project.register()
    return project


def test_a_sink_killed_ten_times_loses_and_repeats_nothing(shop: Project) -> None:
    rng = random.Random(7)
    workload = Workload(shop.dsn, rate=60)
    workload.start()
    try:
        for _ in range(10):
            sink = shop.start("sink", "run", env={"CDC_LAKE__SINK__FLUSH_SECONDS": "0.2"})
            before = len(landed(shop)) if (shop.folder / "lake").exists() else 0
            wait_for(partial(more_landed, shop, before), "the sink to land more", seconds=60)
            time.sleep(rng.random())  # not a wait: the moment of the kill must be any moment
            sink.send_signal(signal.SIGKILL)
            sink.wait()
    finally:
        workload.stop()
    check(shop)


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_sink_killed_at_a_named_point_goes_on_where_the_lake_is(shop: Project, point: str) -> None:
    workload = Workload(shop.dsn, rate=40)
    workload.start()
    try:
        sink = shop.start("sink", "run", env={"CDC_LAKE_CRASH_AT": point, "CDC_LAKE__SINK__FLUSH_SECONDS": "0.2"})
        assert sink.wait(timeout=60) == -signal.SIGKILL
    finally:
        workload.stop()
    check(shop)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_finishes_and_commits_what_is_buffered(shop: Project, number: signal.Signals, code: int) -> None:
    shop.ok("sink", "run", "--until-caught-up")
    before = len(landed(shop))
    sink = shop.start("sink", "run", env={"CDC_LAKE__SINK__FLUSH_SECONDS": "3600"})
    workload = Workload(shop.dsn, rate=20)
    workload.start()
    try:
        wait_for(lambda: len(shop.coordinates_in_kafka()) > before + 100, "changes in Kafka")
        wait_for(lambda: " lag " in shop.log(), "the sink to read", seconds=30)
    finally:
        workload.stop()
    sink.send_signal(number)
    assert sink.wait(timeout=30) == code
    assert len(landed(shop)) > before
    check(shop)
