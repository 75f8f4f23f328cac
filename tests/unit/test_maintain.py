"""Maintenance changes no row that anyone sees: folded or not, killed, or beside a sink."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from cdc_lake.cli import main as cli
from cdc_lake.cli import output
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.errors import LakeError
from cdc_lake.events import TableId
from cdc_lake.land import layout
from cdc_lake.land.lock import sole_rewriter
from cdc_lake.land.tables import REPAIR_OFFSETS, repair_topic
from cdc_lake.maintain import run as run_module
from cdc_lake.maintain.look import look
from cdc_lake.maintain.plan import Merge, Rules, find_merge, fold_due, plan
from cdc_lake.maintain.run import Job, Report, maintain
from cdc_lake.project.files import read_files
from cdc_lake.project.lake import Lake
from cdc_lake.query.run import SqlError, run_sql
from cdc_lake.query.session import Session, open_session
from tests.commands import fold
from tests.depth import seeds
from tests.lake_model import SOURCE, Feed, append_log, append_schemas, config, log_row, schema_row
from tests.lakes import end, event, log_rows, make_sink

ORDERS, PAIRS, BAG = TableId("public", "orders"), TableId("public", "pairs"), TableId("public", "bag")
POINTS = ("maintain:before-compact", "maintain:after-compact", "maintain:before-vacuum", "maintain:after-vacuum")
NOTHING = timedelta(0)


def lake(folder: Path) -> Lake:
    return Lake(str(folder / "lake"))


def job(folder: Path, *, keep: timedelta = timedelta(days=7), fold: bool = False, dry_run: bool = False) -> Job:
    return Job(lake(folder), lambda _table: True, Rules(keep=keep, fold=fold), dry_run=dry_run)


def keep_in_shape(wanted: Job) -> dict[str, Report]:
    reports = {str(r.part): r for r in maintain(wanted, lambda _line: None)}
    assert [r for r in reports.values() if r.failed] == []
    return reports


def trade(feed: Feed, chance: Random, transactions: int = 12) -> None:
    """Transactions of all kinds, each landed in files of its own; some are delivered twice."""
    for _ in range(transactions):
        tx = feed.begin()
        for table in (ORDERS, PAIRS):
            keys = sorted(feed.rows[table])
            free = max(keys, default=0) + 1
            tx.insert(table, free, chance.randrange(100), chance.choice([None, "a long text", "x"]))
            if keys:
                tx.update(table, chance.choice(keys), chance.randrange(100))
            if len(keys) > 3:
                tx.delete(table, keys[0])
                tx.move(table, [(keys[1], free + 7)])
        tx.bag_insert(BAG, {"id": chance.randrange(9), "qty": 1, "note": None})
        if chance.random() < 0.05:
            tx.truncate(PAIRS)
        tx.commit()
        if chance.random() < 0.3:
            feed.redeliver(2)
        feed.land(chance)


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    return Feed(tmp_path, (ORDERS, PAIRS), (BAG,))


VIEWS = [f"{c}.{t}" for c in ("current", "history", "changes") for t in (ORDERS, PAIRS, BAG)]
VIEWS += ["lake.transactions", "lake.schemas", "(SELECT * EXCLUDE (age_seconds) FROM lake.cut)"]


def shown(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that a session shows, and the positions of the logs."""
    session = open_session(config(folder))
    try:
        found = {v: session.connection.sql(f"SELECT * FROM {v} ORDER BY ALL").fetchall() for v in VIEWS}
        found["positions"] = [(t.table, t.log.positions, t.log.rows) for s in session.sources for t in s.tables]
        return found
    finally:
        session.close()


@pytest.mark.parametrize("folds", ["never", "before", "between", "before and between"])
@pytest.mark.parametrize("seed", seeds(1))
def test_what_is_shown_is_the_same_before_and_after_a_compaction(feed: Feed, folds: str, seed: int) -> None:
    chance = Random(seed)
    for step in range(3):
        trade(feed, chance)
        if "before" in folds and step < 2:
            fold(feed.folder)
        trade(feed, chance, 3)
        before = shown(feed.folder)
        reports = keep_in_shape(job(feed.folder))
        assert shown(feed.folder) == before
        assert [t.step.action for t in reports["public.orders: log"].steps if t.outcome == "done"].count("compact") == 1
        if "between" in folds:
            fold(feed.folder)
            assert shown(feed.folder) == before
    trade(feed, chance, 2)
    feed.land()
    fold(feed.folder)
    session = open_session(config(feed.folder))
    for table in (ORDERS, PAIRS, BAG):
        rows = session.connection.sql(f"SELECT id, qty, note FROM {table}").fetchall()
        assert sorted(rows, key=repr) == feed.expected(table)
    session.close()


def test_a_file_of_several_topics_still_tells_how_far_each_has_landed(tmp_path: Path) -> None:
    """Rows of a repair lie in the same log under a topic of their own."""
    kafka = sink_kafka(20)
    make_sink(kafka, tmp_path, max_records=2).run(until_caught_up=True)
    mark = {"__topic": repair_topic(SOURCE), "__offset": REPAIR_OFFSETS}
    append_log(tmp_path, ORDERS, [log_row(ORDERS, "r", 0, key={"id": 1}, after={"id": 1, "n": 9}) | mark])

    def files() -> Any:
        path = layout.log_path(lake(tmp_path).root, SOURCE, ORDERS)
        return read_files(path, DeltaTable(path))

    before = files()
    keep_in_shape(job(tmp_path))
    assert len(files().files) == 1 < len(before.files)
    assert files().positions == before.positions == {("pos.public.orders", 0): 20}


def test_a_compaction_does_not_bring_an_older_shape_back(tmp_path: Path) -> None:
    """Rows of an incremental snapshot have no LSN: only when they landed says that they are the newest."""
    append_schemas(tmp_path, [schema_row(ORDERS, "old", {"id": "int32", "qty": "int32"}, ("id",))])
    append_schemas(tmp_path, [schema_row(ORDERS, "new", {"id": "int32", "total": "int32"}, ("id",), 900)])
    for n in range(8):
        row = log_row(ORDERS, "c", n, key={"id": n}, after={"id": n, "qty": n}, schema_id="old")
        append_log(tmp_path, ORDERS, [row])
    last = log_row(ORDERS, "r", 900, key={"id": 9}, after={"id": 9, "total": 1}, schema_id="new")
    append_log(tmp_path, ORDERS, [{**last, "__lsn": None, "__snapshot": "incremental"}])

    def columns() -> list[str]:
        session = open_session(config(tmp_path))
        found = session.connection.sql("SELECT * FROM orders").columns
        session.close()
        return list(found)

    assert columns() == ["id", "total"]
    keep_in_shape(job(tmp_path))
    assert columns() == ["id", "total"]


def sink_kafka(count: int) -> MemoryKafka:
    kafka = MemoryKafka()
    for topic in ("pos.public.orders", "pos.transaction"):
        kafka.create_topic(topic)
    produce(kafka, 0, count)
    return kafka


def produce(kafka: MemoryKafka, first: int, last: int) -> None:
    for n in range(first, last):
        kafka.produce("pos.public.orders", 0, *event("orders", {"id": n, "n": n}, tx=(str(n), 1), lsn=n + 1))
        kafka.produce("pos.transaction", 0, *end(str(n), {"public.orders": 1}))


def test_a_sink_goes_on_landing_while_its_log_is_compacted(tmp_path: Path) -> None:
    kafka = sink_kafka(30)
    sink = make_sink(kafka, tmp_path, max_records=1)
    sink.run(until_caught_up=True)
    merged: list[int] = []
    stop = threading.Event()

    def compact() -> None:
        while not stop.is_set():
            reports = keep_in_shape(job(tmp_path))
            merged.append(sum(t.step.files for r in reports.values() for t in r.steps if t.step.action == "compact"))

    beside = threading.Thread(target=compact)
    beside.start()
    try:
        for n in range(30, 90, 3):
            produce(kafka, n, n + 3)
            make_sink(kafka, tmp_path, max_records=1).run(until_caught_up=True)
    finally:
        stop.set()
        beside.join(timeout=60)
    assert sum(n > 0 for n in merged) >= 2
    assert [r["__offset"] for r in log_rows(tmp_path, "orders")] == list(range(90))


def test_of_two_maintenances_at_once_the_second_is_refused(feed: Feed) -> None:
    """Two compactions that began at one version would both be taken, and each row be there twice."""
    trade(feed, Random(1))
    with sole_rewriter(lake(feed.folder).root) as held:
        assert held
        with pytest.raises(LakeError) as refused, sole_rewriter(lake(feed.folder).root):
            pass
    assert refused.value.code == "maintain_busy"
    with sole_rewriter(lake(feed.folder).root) as again:
        assert again


def test_a_store_without_locks_is_not_compacted(feed: Feed) -> None:
    with sole_rewriter("s3://bucket/lake") as held:
        assert not held
    trade(feed, Random(1))
    unlocked = Job(lake(feed.folder), lambda _table: True, Rules(fold=False), locked=False)
    outcomes = {t.step.action: t.outcome for t in keep_in_shape(unlocked)["public.orders: log"].steps}
    assert outcomes["compact"] == "skipped"


@pytest.mark.parametrize("point", POINTS)
def test_a_maintenance_killed_at_a_named_point_changes_nothing_that_is_shown(feed: Feed, point: str) -> None:
    trade(feed, Random(3))
    fold(feed.folder)
    trade(feed, Random(4))
    fold(feed.folder)
    (feed.folder / "cdc-lake.yaml").write_text("source: {name: pos}\nlake: {uri: ./lake}\n")
    before = shown(feed.folder)
    killed = subprocess.run(
        [sys.executable, "-m", "cdc_lake", "maintain", "--keep", "0h"],
        cwd=feed.folder,
        env={**os.environ, "CDC_LAKE_CRASH_AT": point},
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert shown(feed.folder) == before

    keep_in_shape(job(feed.folder, keep=NOTHING))

    assert shown(feed.folder) == before
    keep_in_shape(job(feed.folder, keep=NOTHING))
    again = keep_in_shape(job(feed.folder, keep=NOTHING))
    assert {t.step.action for r in again.values() for t in r.steps} <= {"checkpoint"}


# --- vacuum


def files_of(path: str) -> set[str]:
    return {p.name for p in Path(path).glob("*.parquet")}


def test_files_that_were_replaced_are_deleted_only_when_their_time_has_come(feed: Feed) -> None:
    trade(feed, Random(5))
    path = layout.log_path(lake(feed.folder).root, SOURCE, ORDERS)
    keep_in_shape(job(feed.folder))
    all_of_them = files_of(path)
    assert len(all_of_them) > len(DeltaTable(path).file_uris())

    keep_in_shape(job(feed.folder))
    assert files_of(path) == all_of_them

    reports = keep_in_shape(job(feed.folder, keep=NOTHING))
    assert len(files_of(path)) == len(DeltaTable(path).file_uris())
    (vacuum,) = reports["public.orders: log"].steps
    assert (vacuum.step.action, vacuum.step.files) == ("vacuum", len(all_of_them) - len(files_of(path)))
    assert vacuum.step.bytes > 0


def test_a_file_that_no_commit_names_yet_survives_for_a_writer_may_be_about_to_commit_it(feed: Feed) -> None:
    trade(feed, Random(5))
    path = layout.log_path(lake(feed.folder).root, SOURCE, ORDERS)
    written = Path(path) / "part-00000-of-a-live-sink.parquet"
    written.write_bytes(b"PAR1")
    keep_in_shape(job(feed.folder))
    keep_in_shape(job(feed.folder, keep=NOTHING))
    assert written.exists()


def test_files_are_found_and_deleted_also_after_checkpoints(feed: Feed) -> None:
    """What a checkpoint no longer names, a vacuum no longer finds."""
    trade(feed, Random(5))
    path = layout.log_path(lake(feed.folder).root, SOURCE, ORDERS)
    keep_in_shape(job(feed.folder))
    DeltaTable(path).create_checkpoint()
    keep_in_shape(job(feed.folder, keep=NOTHING))
    assert len(files_of(path)) == len(DeltaTable(path).file_uris())


def read_all(session: Session, sql: str) -> None:
    result = run_sql(session, sql)
    assert result is not None
    list(result.batches())


def test_an_open_reader_goes_on_within_the_retention_and_is_told_what_to_do_after_it(feed: Feed) -> None:
    trade(feed, Random(6))
    session = open_session(config(feed.folder))
    expected = session.connection.sql("SELECT * FROM changes.public.orders ORDER BY ALL").fetchall()
    keep_in_shape(job(feed.folder))
    assert session.connection.sql("SELECT * FROM changes.public.orders ORDER BY ALL").fetchall() == expected

    keep_in_shape(job(feed.folder, keep=NOTHING))
    with pytest.raises(SqlError, match=r"\.parquet") as gone:
        read_all(session, "SELECT * FROM changes.public.orders")
    assert (gone.value.code, gone.value.next) == ("files_gone", "run it again in a new session")
    session.close()


# --- checkpoints and old commits


def test_offsets_and_checkpoints_of_folds_are_there_after_a_checkpoint_and_the_removal_of_old_commits(
    tmp_path: Path,
) -> None:
    kafka = sink_kafka(30)
    make_sink(kafka, tmp_path, max_records=1).run(until_caught_up=True)
    fold(tmp_path)
    path = layout.log_path(lake(tmp_path).root, SOURCE, ORDERS)
    keep_in_shape(job(tmp_path))
    assert list(Path(path, "_delta_log").glob("*.checkpoint.parquet"))
    old = time.time() - 7 * 3600
    for commit in Path(lake(tmp_path).root).rglob("_delta_log/*.json"):
        os.utime(commit, (old, old))
    before = len(list(Path(path, "_delta_log").glob("*.json")))

    cleaned = keep_in_shape(job(tmp_path))["public.orders: log"]

    assert "cleanup" in [t.step.action for t in cleaned.steps]
    assert len(list(Path(path, "_delta_log").glob("*.json"))) < before
    produce(kafka, 30, 40)
    make_sink(kafka, tmp_path).run(until_caught_up=True)
    assert [r["__offset"] for r in log_rows(tmp_path, "orders")] == list(range(40))


# --- the rules


def test_a_merge_pays_when_files_are_many_and_none_of_them_dominates() -> None:
    mb = 1 << 20
    assert find_merge([mb] * 7, 128 * mb) is None
    assert find_merge([mb] * 8, 128 * mb) == Merge(128 * mb, 8, 8 * mb)
    assert find_merge([70 * mb] * 20, 128 * mb) is None
    # The large one is left alone until the small ones weigh as much as it does.
    assert find_merge([100 * mb] + [mb] * 8, 128 * mb) == Merge(16 * mb, 8, 8 * mb)


@pytest.mark.parametrize("largest", [6_000, 200_000])
def test_over_a_year_of_commits_files_stay_few_and_each_byte_is_rewritten_a_few_times(largest: int) -> None:
    """A flush every five minutes, a maintenance every hour."""
    chance, target = Random(1), 128 << 20
    sizes: list[int] = []
    written = rewritten = most = beside = 0
    replaced: list[int] = []
    for _ in range(365 * 24):
        fresh = [chance.randrange(largest // 2, largest) for _ in range(12)]
        sizes, written = sizes + fresh, written + sum(fresh)
        before = rewritten
        while (merge := find_merge(sizes, target)) is not None:
            sizes, cost = merged(sizes, merge.level)
            rewritten += cost
        # Replaced files stay for a week.
        replaced = [*replaced[-167:], rewritten - before]
        beside = max(beside, sum(replaced))
        most = max(most, sum(2 * s < target for s in sizes))
    assert most < 40, "small files"
    assert len(sizes) < 2 * written / target + most
    assert rewritten < 8 * written
    week = 7 * 24 * 12 * largest
    assert beside < 8 * week + target, "bytes of replaced files beside the live ones"


def merged(sizes: list[int], level: int) -> tuple[list[int], int]:
    """What a compaction makes: files below `level` filled up to it, in their order; and the bytes that it rewrites."""
    bins: list[list[int]] = [[]]
    for s in (s for s in sizes if s < level):
        if sum(bins[-1]) + s > level:
            bins.append([])
        bins[-1].append(s)
    kept = [s for s in sizes if s >= level] + [sum(b) for b in bins]
    return kept, sum(sum(b) for b in bins if len(b) > 1)


@pytest.mark.parametrize(
    ("unfolded", "folded", "due"),
    [(999, 0, False), (1_000, 0, True), (1_000, 100_000, True), (1_000, 100_001, False), (1_000_000, 1 << 40, True)],
)
def test_a_fold_pays_when_it_brings_in_a_hundredth_of_the_table(unfolded: int, folded: int, due: bool) -> None:
    assert bool(fold_due(unfolded, folded)) == due


def test_a_fold_is_done_when_it_is_due(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    trade(feed, Random(7))
    monkeypatch.setattr(run_module, "fold_due", lambda unfolded, folded: "due" if unfolded > 0 else "")
    reports = keep_in_shape(job(feed.folder, fold=True))
    assert [(t.step.action, t.outcome) for t in reports["public.orders: current"].steps] == [("fold", "done")]


# --- the command


@pytest.fixture
def project(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    trade(feed, Random(8))
    (feed.folder / "cdc-lake.yaml").write_text("source: {name: pos}\nlake: {uri: ./lake}\n")
    monkeypatch.chdir(feed.folder)
    yield feed
    output.configure(config=None, as_json=False, verbosity=0)


def command(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(["maintain", *arguments])
    out, err = capfd.readouterr()
    return int(stop.value.code or 0), out, err


def tree(folder: Path) -> set[str]:
    return {str(p) for p in folder.rglob("*")}


def test_a_dry_run_says_what_is_due_and_why_and_writes_nothing(
    project: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    before = tree(project.folder)
    code, out, _ = command(capfd, "--dry-run", "--json")
    document = json.loads(out)
    (log,) = (t for t in document["tables"] if (t["table"], t["part"]) == ("public.orders", "log"))
    assert (code, document["dry_run"], tree(project.folder)) == (0, True, before)
    (step,) = (s for s in log["steps"] if s["step"] == "compact")
    assert (step["outcome"], step["files"], step["why"]) == ("planned", 12, "12 files are below 64 MB")


def test_the_command_does_it_and_says_what_it_saved(project: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capfd, "orders")
    assert code == 0
    assert "12 files are below 64 MB" in out
    assert "pairs" not in out
    assert "1 files now" in err
    assert command(capfd, "orders")[2].endswith("nothing was due.\n")


def test_a_table_that_cannot_be_read_fails_and_the_others_are_kept_in_shape(
    project: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    for commit in Path(layout.log_path(lake(project.folder).root, SOURCE, PAIRS), "_delta_log").glob("*.json"):
        commit.write_text("not json")
    code, out, _ = command(capfd, "--json")
    tables = {(t["table"], t["part"]): t for t in json.loads(out)["tables"]}
    assert code == 1
    assert tables["public.pairs", "log"]["error"]["code"] == "lake_unreadable"
    assert "compact" in [s["step"] for s in tables["public.orders", "log"]["steps"]]


@pytest.mark.parametrize("text", ["11d", "7", "-1d", "soon"])
def test_an_age_that_is_none_or_too_long_is_a_slip(project: Feed, capfd: pytest.CaptureFixture[str], text: str) -> None:
    code, _, err = command(capfd, f"--keep={text}")
    assert (code, "from 0h to 10d" in err) == (2, True)


def test_a_lake_that_is_not_there_yet_needs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cdc-lake.yaml").write_text("source: {name: pos}\nlake: {uri: ./lake}\n")
    monkeypatch.chdir(tmp_path)
    assert command(capfd)[0] == 0
    assert not (tmp_path / "lake").exists()
    output.configure(config=None, as_json=False, verbosity=0)


def test_a_table_of_another_writer_is_made_to_remember_its_removed_files(tmp_path: Path) -> None:
    path = layout.log_path(lake(tmp_path).root, SOURCE, ORDERS)
    append_log(tmp_path, ORDERS, [log_row(ORDERS, "r", 0, key={"id": 1}, after={"id": 1})])
    held = CommitProperties(app_transactions=[Transaction("kept", 3)])
    write_deltalake(path, DeltaTable(path).to_pyarrow_table(), mode="append", commit_properties=held)
    seen = look(path, None, NOTHING)
    assert seen is not None
    assert [s.action for s in plan("log", path, seen, Rules())] == ["remember"]
    keep_in_shape(job(tmp_path))
    assert DeltaTable(path).transaction_version("kept") == 3
    again = look(path, None, NOTHING)
    assert again is not None
    assert plan("log", path, again, Rules()) == []
