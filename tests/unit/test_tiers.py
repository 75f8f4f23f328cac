"""Tiers: older changes lie in another place, every reader sees the whole, and a death at any point changes nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import duckdb
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction

from cdc_lake.config import load_config
from cdc_lake.errors import ConfigError, LakeError
from cdc_lake.land import layout
from cdc_lake.land.swap import live_actions
from cdc_lake.query.session import open_lake, open_session
from tests.commands import fold, run
from tests.lake_model import SOURCE, Feed
from tests.unit.test_retention import BAG, ORDERS, config_of, feed, shown, versions

__all__ = ["feed"]
POINTS = (
    "tier:before-copy",
    "tier:after-copy",
    "tier:before-tier-commit",
    "tier:between-commits",
    "tier:after-commit",
)
_VIEWS = (
    "current.public.orders",
    "current.public.bag",
    "changes.public.orders",
    "changes.public.bag",
    "history.public.orders",
    "history.public.bag",
)
LEFT = 3
_CLASS = "{log: forever, tier: {after: 1s, uri: ./cold}}"


def configure(folder: Path, written: str = _CLASS, more: str = "") -> None:
    (folder / "cdc-lake.yaml").write_text(
        f"lake: {{uri: {folder}/lake}}\nretention: {{classes: {{cold: {written}}}, default: cold}}\n{more}"
    )


@pytest.fixture
def tiered(feed: Feed, capfd: pytest.CaptureFixture[str]) -> Feed:
    """All but the last change of each partition lies in the tier."""
    configure(feed.folder)
    code, document = run(feed.folder, "retention", "apply", capfd=capfd)
    assert code == 0, document
    assert {t["table"]: t["outcome"] for t in document["tiers"]} == {"public.orders": "done", "public.bag": "done"}
    return feed


def rows_in(folder: Path, root: str, table: Any) -> list[tuple[Any, ...]]:
    """The coordinates of the rows that the newest version of a Delta table holds."""
    handle = layout.open_delta(layout.log_path(str(folder / root), SOURCE, table))
    assert handle is not None
    places = handle.to_pyarrow_table(columns=["__topic", "__partition", "__offset"]).to_pylist()
    return sorted(tuple(row.values()) for row in places)


def test_a_plan_says_what_would_be_moved_and_writes_nothing(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    configure(feed.folder)
    before = [versions(feed.folder, t) for t in (ORDERS, BAG)]
    code, document = run(feed.folder, "retention", "plan", capfd=capfd)
    orders = next(t for t in document["tiers"] if t["table"] == "public.orders")
    assert (code, orders["outcome"], orders["uri"], orders["after"]) == (0, "due", "./cold", "1s")
    # Two partitions keep their last change, and one of these is a delete with its tombstone.
    assert orders["rows"] == len(rows_in(feed.folder, "lake", ORDERS)) - LEFT
    assert (orders["files"] > 1, orders["bytes"] > 0) == (True, True)
    assert "2026-11-24T00:01" in orders["since"] < orders["until"] < orders["horizon"]
    assert [versions(feed.folder, t) for t in (ORDERS, BAG)] == before
    assert not (feed.folder / "cold").exists()


def test_all_that_is_shown_is_as_it_was_and_each_row_is_in_one_place(
    feed: Feed,
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure(feed.folder)
    before, rows = shown(feed.folder, *_VIEWS), rows_in(feed.folder, "lake", ORDERS)
    _, life = run(feed.folder, "history", "orders", "30", capfd=capfd)
    assert run(feed.folder, "retention", "apply", capfd=capfd)[0] == 0
    near, far = (rows_in(feed.folder, root, ORDERS) for root in ("lake", "cold"))
    assert (len(near), sorted([*near, *far])) == (LEFT, rows)
    assert shown(feed.folder, *_VIEWS) == before
    assert run(feed.folder, "history", "orders", "30", capfd=capfd)[1] == life
    for moment in ("tx:00004", "tx:00007"):
        session = open_session(config_of(feed.folder), as_of=moment)
        found = session.connection.sql("FROM current.public.orders ORDER BY ALL").fetchall()
        session.close()
        assert found == feed.states[moment.removeprefix("tx:")][ORDERS]
    assert run(feed.folder, "rebuild", "orders", capfd=capfd)[0] == 0
    assert shown(feed.folder, *_VIEWS) == before
    again = run(feed.folder, "retention", "apply", capfd=capfd)[1]
    assert {t["outcome"] for t in again["tiers"]} == {"nothing"}


def test_what_lands_later_is_moved_later_and_a_file_with_both_is_parted(
    tiered: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(4, 7):
        tx = tiered.begin()
        tx.insert(ORDERS, number, number, "a long text")
        tx.update(ORDERS, number, number * 10)
        tx.commit()
    tiered.land()
    before = shown(tiered.folder, *_VIEWS)
    _, document = run(tiered.folder, "retention", "apply", capfd=capfd)
    assert {t["table"]: t["outcome"] for t in document["tiers"]}["public.orders"] == "done"
    assert len(rows_in(tiered.folder, "lake", ORDERS)) == 2
    assert shown(tiered.folder, *_VIEWS) == before


def test_a_file_that_goes_whole_is_the_same_there_byte_for_byte_with_its_statistics(
    feed: Feed,
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure(feed.folder)
    log, cold = (layout.log_path(str(feed.folder / root), SOURCE, BAG) for root in ("lake", "cold"))
    before = live_actions(DeltaTable(log))
    assert run(feed.folder, "retention", "apply", capfd=capfd)[0] == 0
    after = live_actions(DeltaTable(cold))
    assert len(before.keys() & after.keys()) > 3
    for name in before.keys() & after.keys():
        assert before[name].stats == after[name].stats
        assert (Path(log) / name).read_bytes() == (Path(cold) / name).read_bytes()


def test_a_reader_that_has_opened_the_log_reads_the_tier_as_it_was_then(
    tiered: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    tx = tiered.begin()
    tx.insert(ORDERS, 4, 4, None)
    tx.commit()
    tiered.land()
    session = open_session(config_of(tiered.folder), tables=["public.orders"])
    before = shown(tiered.folder, "changes.public.orders")
    assert run(tiered.folder, "retention", "apply", capfd=capfd)[0] == 0
    found = session.connection.sql("FROM changes.public.orders ORDER BY ALL").fetchall()
    session.close()
    assert found == before["changes.public.orders"]


@pytest.mark.parametrize("point", POINTS)
def test_a_move_killed_at_a_named_point_changes_nothing_that_is_shown_and_the_next_one_ends_it(
    feed: Feed,
    point: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure(feed.folder)
    before, rows = shown(feed.folder, *_VIEWS), rows_in(feed.folder, "lake", ORDERS)
    command = [sys.executable, "-m", "cdc_lake", "--config", "cdc-lake.yaml", "retention", "apply", "orders"]
    killed = subprocess.run(
        command,
        cwd=feed.folder,
        env={**os.environ, "CDC_LAKE_CRASH_AT": point},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert shown(feed.folder, *_VIEWS) == before
    code, document = run(feed.folder, "retention", "apply", "orders", capfd=capfd)
    assert (code, document["tiers"][0]["outcome"]) == (0, "nothing" if point == POINTS[-1] else "done")
    near, far = (rows_in(feed.folder, root, ORDERS) for root in ("lake", "cold"))
    assert (len(near), sorted([*near, *far])) == (LEFT, rows)
    assert shown(feed.folder, *_VIEWS) == before


def test_what_its_class_lets_go_goes_from_the_tier_too(tiered: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    current = shown(tiered.folder, "current.public.orders", "current.public.bag")
    lost = tiered.folder / "whole"
    shutil.copytree(tiered.folder / "lake", lost / "lake")
    configure(tiered.folder, "{log: 2s, tier: {after: 1s, uri: ./cold}}")
    code, document = run(tiered.folder, "retention", "apply", capfd=capfd)
    found = {t["table"]: (t["outcome"], t["rows"], t["starts"]) for t in document["tables"]}
    # As without a tier: see test_retention.
    assert (code, found) == (0, {"public.orders": ("done", 15, 4), "public.bag": ("done", 8, 6)})
    assert rows_in(tiered.folder, "cold", ORDERS) == []
    assert shown(tiered.folder, "current.public.orders", "current.public.bag") == current
    kept = shown(tiered.folder, "(SELECT __op, __tx_id FROM changes.public.orders)")
    assert list(kept.values()) == [[("u", "00008")]]


@pytest.mark.parametrize("point", ["tier:before-tier-commit", "tier:between-commits", "tier:after-commit"])
def test_an_erasure_reaches_the_tier_and_its_old_files_however_often_it_is_killed(
    tiered: Feed, point: str, capfd: pytest.CaptureFixture[str]
) -> None:
    others = "(FROM changes.public.orders WHERE id <> 1)", "current.public.bag"
    before = shown(tiered.folder, *others)
    command = [sys.executable, "-m", "cdc_lake", "--config", "cdc-lake.yaml", "erase", "orders", "1", "--now"]
    killed = subprocess.run(
        command,
        cwd=tiered.folder,
        env={**os.environ, "CDC_LAKE_CRASH_AT": point},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert run(tiered.folder, "erase", "orders", "1", "--now", capfd=capfd)[0] == 0
    assert shown(tiered.folder, *others) == before
    assert shown(tiered.folder, "(FROM changes.public.orders WHERE id = 1)") == {
        "(FROM changes.public.orders WHERE id = 1)": []
    }
    cold = layout.log_path(str(tiered.folder / "cold"), SOURCE, ORDERS)
    con = duckdb.connect()
    keys = con.execute(f"SELECT DISTINCT __key FROM read_parquet('{cold}/*.parquet')").fetchall()
    assert ('{"id":1}',) not in keys
    assert keys
    assert not any(b'{\\"id\\":1}' in p.read_bytes() for p in (Path(cold) / "_delta_log").glob("*.json"))


def test_rows_under_a_legal_hold_are_moved_and_neither_erased_nor_let_go(
    tiered: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    views = ("changes.public.orders", "history.public.orders")
    before = shown(tiered.folder, *views)
    configure(tiered.folder, "{log: 2s, tier: {after: 1s, uri: ./cold}}", "tables: {public.orders: {hold: true}}")
    assert run(tiered.folder, "retention", "apply", "orders", capfd=capfd)[0] == 0
    code, document = run(tiered.folder, "erase", "orders", "1", capfd=capfd)
    assert (code, document["error"]["code"]) == (1, "under_hold")
    assert shown(tiered.folder, *views) == before


def test_a_tier_that_is_away_is_named_and_what_is_folded_is_shown(
    tiered: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    current = shown(tiered.folder, "current.public.orders")
    (tiered.folder / "cold").rename(tiered.folder / "elsewhere")
    assert shown(tiered.folder, "current.public.orders") == current
    for view in ("changes.public.orders", "history.public.bag"):
        with pytest.raises(duckdb.Error, match=r"older changes of public\.\w+ cannot be read.*\n.*moved to \./cold"):
            shown(tiered.folder, view)
    code, document = run(tiered.folder, "query", "SELECT count(*) AS n FROM orders", capfd=capfd)
    assert (code, document) == (0, [{"n": 2}])
    code, document = run(tiered.folder, "history", "orders", "1", capfd=capfd)
    assert (code, document["error"]["code"]) == (1, "tier_away")
    code, document = run(tiered.folder, "tables", capfd=capfd)
    assert code == 0
    configure(tiered.folder, "{log: forever, tier: {after: 1s, uri: ./elsewhere}}")
    assert shown(tiered.folder, "current.public.orders") == current
    assert len(shown(tiered.folder, "changes.public.orders")["changes.public.orders"]) > 2


def test_a_tier_that_cannot_be_written_takes_nothing_and_says_so(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    configure(feed.folder)
    before, rows = shown(feed.folder, *_VIEWS), rows_in(feed.folder, "lake", ORDERS)
    (feed.folder / "cold").write_text("a file, no folder")
    code, document = run(feed.folder, "retention", "apply", capfd=capfd)
    orders = next(t for t in document["tiers"] if t["table"] == "public.orders")
    assert (code, orders["outcome"], orders["error"]["code"]) == (1, "failed", "tier_failed")
    assert orders["error"]["next"] == "see that the place can be written, then: cdc-lake retention apply"
    assert shown(feed.folder, *_VIEWS) == before
    assert rows_in(feed.folder, "lake", ORDERS) == rows
    (feed.folder / "cold").unlink()
    code, document = run(feed.folder, "retention", "apply", capfd=capfd)
    assert (code, [t["outcome"] for t in document["tiers"]]) == (0, ["done", "done"])
    assert shown(feed.folder, *_VIEWS) == before


def test_readers_see_every_change_once_while_older_ones_are_moved(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(feed.folder)
    view, counts, done = "(SELECT __topic, __partition, __offset FROM changes.public.orders)", list[int](), Event()

    def read() -> None:
        while not done.is_set():
            found = shown(feed.folder, view)[view]
            assert len(set(found)) == len(found)
            counts.append(len(found))

    with ThreadPoolExecutor() as pool:
        reader = pool.submit(read)
        try:
            for number in range(4):
                assert run(feed.folder, "retention", "apply", "orders", capfd=capfd)[0] == 0
                tx = feed.begin()
                tx.insert(ORDERS, 100 + number, 1, None)
                tx.commit()
                feed.land()
                fold(feed.folder)
        finally:
            done.set()
        reader.result()
    assert counts == sorted(counts)
    assert len(counts) > 4, "nothing was read meanwhile"
    assert len(shown(feed.folder, view)[view]) >= counts[-1] >= counts[0] + 3


def test_tables_count_what_lies_in_the_tier(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    def numbers() -> dict[str, tuple[int, int]]:
        _, document = run(feed.folder, "tables", capfd=capfd)
        return {t["table"]: (t["rows_landed"], t["bytes"]) for t in document["tables"]}

    configure(feed.folder)
    before = numbers()
    assert run(feed.folder, "retention", "apply", capfd=capfd)[0] == 0
    after = numbers()
    assert {t: rows for t, (rows, _) in after.items()} == {t: rows for t, (rows, _) in before.items()}
    for table, (_, size) in after.items():
        assert size > 0.7 * before[table][1]


def test_maintenance_keeps_a_tier_in_shape_and_what_a_killed_move_left_there_is_never_counted(
    tiered: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(9, 14):
        tx = tiered.begin()
        tx.bag_insert(BAG, {"id": number, "qty": 1, "note": None})
        tx.commit()
        tiered.land()
    assert run(tiered.folder, "retention", "apply", capfd=capfd)[0] == 0
    before = shown(tiered.folder, *_VIEWS)
    cold = layout.log_path(str(tiered.folder / "cold"), SOURCE, BAG)
    table = DeltaTable(cold)
    # What a move leaves that dies between its two commits: files of the log that the tier names, and it alone.
    doubled = replace(next(iter(live_actions(table).values())), path="part-of-nobody.parquet")
    shutil.copy(next(Path(cold).glob("*.parquet")), Path(cold) / doubled.path)
    table.create_write_transaction([doubled], "append", table.schema())
    assert shown(tiered.folder, *_VIEWS) == before
    code, document = run(tiered.folder, "maintain", capfd=capfd)
    assert code == 0, document
    steps = {(p["table"], p["part"]): [s["step"] for s in p["steps"]] for p in document["tables"]}
    assert "compact" in steps["public.bag", "tier"]
    assert shown(tiered.folder, *_VIEWS) == before
    assert len(live_actions(DeltaTable(cold))) == 1
    assert run(tiered.folder, "maintain", "--keep", "0h", capfd=capfd)[0] == 0
    assert len(list(Path(cold).glob("*.parquet"))) == 1
    assert shown(tiered.folder, *_VIEWS) == before


def test_a_tier_of_another_lake_is_refused(tiered: Feed, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    far = rows_in(tiered.folder, "cold", ORDERS)
    other = Feed(tmp_path / "other", (ORDERS,))
    for number in range(1, 4):
        tx = other.begin()
        tx.insert(ORDERS, number, number, None)
        tx.commit()
        other.land()
    configure(other.folder, f"{{log: forever, tier: {{after: 1s, uri: {tiered.folder}/cold}}}}")
    code, document = run(other.folder, "retention", "apply", capfd=capfd)
    assert (code, document["tiers"][0]["error"]["code"]) == (1, "tier_foreign")
    assert rows_in(tiered.folder, "cold", ORDERS) == far


@pytest.mark.parametrize(
    ("tier", "said"),
    [
        ("{after: 90d, uri: ./lake/cold}", "lie in each other"),
        ("{after: 400d, uri: ./cold}", "must be shorter"),
        ("{after: 90d, uri: 's3://me:secret@bucket/x'}", "holds a user"),
        ("{after: forever, uri: ./cold}", "String should match"),
        ("{after: 90d, url: ./cold}", "uri"),
        ("{after: 90d}", "no default"),
    ],
)
def test_a_tier_that_cannot_be_is_named(tmp_path: Path, tier: str, said: str) -> None:
    text = f"retention: {{classes: {{cold: {{log: 400d, tier: {tier}}}}}, default: cold}}"
    (tmp_path / "cdc-lake.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "cdc-lake.yaml", environ={})
    assert said in f"{caught.value.message} {caught.value.why}"
    assert "secret" not in f"{caught.value.message} {caught.value.why}"


def test_storage_options_come_by_reference_and_are_those_of_the_lake_without(tmp_path: Path) -> None:
    text = """lake: {uri: s3://near/lake, options: {aws_region: here}}
retention:
  classes:
    one: {tier: {after: 9d, uri: s3://far/one}}
    two: {tier: {after: 9d, uri: s3://far/two, options: {aws_secret_access_key: "${COLD}"}}}
    three: {tier: {after: 9d, uri: ./cold}}
  default: one"""
    (tmp_path / "cdc-lake.yaml").write_text(text)
    config = load_config(tmp_path / "cdc-lake.yaml", environ={"COLD": "canary"})
    tiers = {t.name: t.options for t in open_lake(config).tiers}
    assert tiers == {
        "s3://far/one": {"aws_region": "here"},
        "s3://far/two": {"aws_secret_access_key": "canary"},
        "./cold": None,
    }
    assert "canary" not in repr(config) + repr(open_lake(config))


def test_a_lake_that_a_newer_version_wrote_is_refused_and_left_as_it_is(
    tiered: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    path = layout.log_path(str(tiered.folder / "lake"), SOURCE, ORDERS)
    table = DeltaTable(path)
    later = CommitProperties(app_transactions=[Transaction("cdc_lake:form", 99)])
    table.create_write_transaction([], "append", table.schema(), commit_properties=later)
    with pytest.raises(LakeError, match="was written by a newer version") as caught:
        layout.open_delta(path)
    assert (caught.value.code, "99" in caught.value.why) == ("lake_newer", True)
    code, document = run(tiered.folder, "retention", "apply", "orders", capfd=capfd)
    assert (code, document["tiers"][0]["error"]["code"]) == (1, "lake_newer")
    assert DeltaTable(path).version() == table.version() + 1


def test_a_file_of_somebody_else_in_a_tables_folder_stays_and_is_not_read(
    tiered: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    before = shown(tiered.folder, "changes.public.orders", "current.public.orders")
    strangers = []
    for root in ("lake", "cold"):
        folder = Path(layout.log_path(str(tiered.folder / root), SOURCE, ORDERS))
        strangers += [folder / "notes.txt", folder / "part-of-somebody.parquet"]
        strangers[-2].write_text("mine")
        shutil.copy(next(p for p in folder.glob("*.parquet")), strangers[-1])
    assert run(tiered.folder, "maintain", "orders", "--keep", "0h", capfd=capfd)[0] == 0
    assert all(p.exists() for p in strangers)
    assert shown(tiered.folder, "changes.public.orders", "current.public.orders") == before
