"""`replay`: the events between two moments, each once and in order, to stdout or to a table that holds none twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from cdc_lake.cli.progress import describe
from cdc_lake.cli.replay_records import records
from cdc_lake.errors import LakeError
from cdc_lake.events import TableId
from cdc_lake.land.copies import Copy
from cdc_lake.query.window import Window, open_window
from tests.commands import fold, run
from tests.lake_model import SOURCE, Feed, config
from tests.unit.test_as_of import at
from tests.unit.test_cli_help import run as run_words

A, B = TableId("public", "a"), TableId("public", "b")
POINTS = ("replay:before-commit", "replay:after-commit")


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    """Transactions 00001 (insert), 00002 (update and insert), 00003 (delete), 00004 (another table)."""
    (tmp_path / "cdc-lake.yaml").write_text("lake: {uri: ./lake}\n")
    feed = Feed(tmp_path, (A, B), partitions=2)
    given: list[list[Callable[[Any], object]]] = [
        [lambda tx: tx.insert(A, 1, 1, "é")],
        [lambda tx: tx.update(A, 1, 2), lambda tx: tx.insert(A, 2, 5, None)],
        [lambda tx: tx.delete(A, 1)],
        [lambda tx: tx.insert(B, 9, 9, "x")],
    ]
    for changes in given:
        tx = feed.begin()
        for change in changes:
            change(tx)
        tx.commit()
    feed.land()
    return feed


def lines(feed: Feed, capfd: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    code, out, _ = run_words(capfd, "--config", str(feed.folder / "cdc-lake.yaml"), "-q", "replay", *words)
    assert code == 0
    return [json.loads(line) for line in out.splitlines()]


def brief(events: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(e["__tx_id"], e["__op"], e["__key"]["id"]) for e in events]


ALL = [("00001", "c", 1), ("00002", "u", 1), ("00002", "c", 2), ("00003", "d", 1)]


def test_all_events_come_once_and_in_the_order_of_the_source(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    found = lines(feed, capfd, "a")
    assert brief(found) == ALL
    assert found[0]["__after"] == {"id": 1, "qty": 1, "note": "é"}
    assert {"__topic", "__partition", "__offset", "__source_ts", "__lsn", "__tx_order"} <= found[0].keys()


def test_what_was_delivered_twice_or_folded_is_there_once(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    fold(feed.folder)
    feed.redeliver(3)
    feed.land()
    assert brief(lines(feed, capfd, "a")) == ALL


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--from", "tx:00001"], ALL[1:]),
        (["--to", "tx:00001"], ALL[:1]),
        (["--from", at(1), "--to", at(2)], ALL[1:3]),
        (["--from", "lsn:1001", "--to", "lsn:1002"], ALL[1:3]),
        (["--from", "tx:00003"], []),
        (["--from", "00002", "--to", "00002"], []),
    ],
)
def test_a_window_leaves_out_what_its_beginning_shows_and_holds_what_its_end_shows(
    feed: Feed, capfd: pytest.CaptureFixture[str], words: list[str], shown: list[tuple[str, str, int]]
) -> None:
    assert brief(lines(feed, capfd, "a", *words)) == shown


def test_windows_that_follow_each_other_hold_everything_once(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    bounds = [None, "tx:00001", "tx:00002", "tx:00003", None]
    found = []
    for start, end in pairwise(bounds):
        words = [*(["--from", start] if start else []), *(["--to", end] if end else [])]
        found += lines(feed, capfd, "a", *words)
    assert brief(found) == ALL


def test_a_transaction_that_is_not_complete_is_not_replayed(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    tx = feed.begin()
    tx.insert(A, 7, 7, "x")
    tx.commit(deliver=False)
    feed.land()
    assert brief(lines(feed, capfd, "a")) == ALL


def test_a_dry_run_counts_and_writes_nothing(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = run(feed.folder, "replay", "a", "--dry-run", "--into", "table:again", capfd=capfd)
    assert code == 0
    assert (said["events"], said["transactions"], said["operations"]) == (4, 3, {"c": 2, "d": 1, "u": 1})
    assert (said["dry_run"], said["after_position"]) == (True, None)
    assert not list((feed.folder / "lake").glob("**/replay*"))


# --- into a table


def copied(feed: Feed) -> pa.Table:
    return DeltaTable(f"{feed.folder}/lake/{SOURCE}/replay~3Aagain/public/a").to_pyarrow_table()


def into_table(feed: Feed, capfd: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, said = run(feed.folder, "replay", "a", "--into", "table:again", *words, capfd=capfd)
    assert code == 0, said
    found: dict[str, Any] = said
    return found


def test_a_table_has_typed_columns_and_each_event_once_however_often_it_is_replayed(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    first = into_table(feed, capfd, "--to", "tx:00002")
    assert (first["written"], first["there_already"]) == (3, 0)
    again = into_table(feed, capfd)
    assert (again["written"], again["there_already"]) == (1, 3)
    assert into_table(feed, capfd)["written"] == 0
    rows = copied(feed).sort_by([("__position", "ascending"), ("__tx_order", "ascending")])
    assert [(r["__tx_id"], r["__op"], r["id"]) for r in rows.to_pylist()] == ALL
    assert rows.schema.field("qty").type == pa.int32()


def test_a_replay_that_was_killed_is_made_whole_by_the_next(
    feed: Feed, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc_lake.query.window.BATCH_ROWS", 1)
    monkeypatch.setattr("cdc_lake.cli.replay._COMMIT_BYTES", 1)
    append = Copy.append
    commits: list[int] = []

    def until_killed(self: Copy, rows: pa.Table) -> None:
        if len(commits) == 2:
            raise KeyboardInterrupt
        commits.append(rows.num_rows)
        append(self, rows)

    monkeypatch.setattr(Copy, "append", until_killed)
    code, _ = run(feed.folder, "replay", "a", "--into", "table:again", capfd=capfd)
    assert code == 130
    monkeypatch.setattr(Copy, "append", append)
    assert into_table(feed, capfd)["there_already"] == sum(commits) > 0
    assert copied(feed).num_rows == 4


@pytest.mark.parametrize("point", POINTS)
def test_a_replay_killed_at_a_named_point_is_made_whole_by_the_next(
    feed: Feed, capfd: pytest.CaptureFixture[str], point: str
) -> None:
    command = [sys.executable, "-m", "cdc_lake", "--config", str(feed.folder / "cdc-lake.yaml"), "replay", "a"]
    killed = subprocess.run(
        [*command, "--into", "table:again"], check=False, env={**os.environ, "CDC_LAKE_CRASH_AT": point}
    )
    assert killed.returncode == -signal.SIGKILL
    assert into_table(feed, capfd)["there_already"] == (4 if point == "replay:after-commit" else 0)
    assert copied(feed).num_rows == 4


def test_two_replays_into_one_table_do_not_both_write(feed: Feed) -> None:
    window = open_window(config(feed.folder), "a", None, None)
    try:
        rows = pa.Table.from_batches(list(window.typed()))
    finally:
        window.close()
    mine, other = (Copy(window.root, SOURCE, A, "again") for _ in range(2))
    other.append(rows)
    with pytest.raises(LakeError, match="Another replay writes"):
        mine.append(rows)
    assert copied(feed).num_rows == rows.num_rows


def test_an_erasure_does_not_pass_over_a_copy(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    into_table(feed, capfd)
    fold(feed.folder)
    code, said = run(feed.folder, "erase", "a", "2", "--alone", capfd=capfd)
    assert code == 1
    assert "The copy again of public.a" in said["error"]["message"]
    assert "replay~3Aagain" in said["error"]["next"]


# --- into a topic


@pytest.fixture
def window(feed: Feed) -> Iterator[Window]:
    opened = open_window(config(feed.folder), "a", None, None)
    yield opened
    opened.close()


def test_a_record_is_keyed_by_its_row_and_tells_its_first_place(window: Window) -> None:
    found = [r for batch in window.raw() for r in records(batch, A, "r1")]
    assert [json.loads(key or b"") for key, _, _ in found] == [{"id": i} for _, _, i in ALL]
    envelope = json.loads(found[0][1])
    assert (envelope["op"], envelope["before"], envelope["after"]["note"]) == ("c", None, "é")
    assert envelope["transaction"] == {"id": "00001", "total_order": 1}
    headers = dict(found[0][2])
    assert (headers["replay.id"], headers["replay.topic"], headers["replay.tx"]) == (b"r1", b"pos.public.a", b"00001")
    assert headers.keys() >= {"replay.partition", "replay.offset", "replay.lsn"}


# --- slips


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["aa"], 'Did you mean "a"?'),
        (["a", "--into", "tabel:x"], 'Did you mean "table"?'),
        (["a", "--into", "nowhere"], "no destination"),
        (["a", "--into", "table:../x"], "cannot be a table's name"),
        (["a", "--into", "topic:pos.public.a"], "--into topic:replay.pos.public.a"),
        (["a", "--from", "yesterday"], "no moment"),
        (["a", "--from", "tx:00003", "--to", "tx:00001"], "later than"),
        (["a", "--form", "tx:1"], 'Did you mean "--from"?'),
    ],
)
def test_a_slip_is_usage(feed: Feed, capfd: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    code, out, err = run_words(capfd, "--config", str(feed.folder / "cdc-lake.yaml"), "-q", "replay", *words)
    assert (code, out) == (2, "")
    assert said in err


def test_a_broker_that_is_away_is_named(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    with (feed.folder / "cdc-lake.yaml").open("a") as file:
        file.write("kafka: {bootstrap: '127.0.0.1:1'}\n")
    code, said = run(feed.folder, "replay", "a", "--into", "topic:again", capfd=capfd)
    assert (code, said["error"]["code"]) == (1, "kafka_unavailable")


def test_progress_says_how_much_how_fast_and_how_long() -> None:
    assert describe("events", 250, 1000, 10) == "250 of 1,000 events · 25% · 25/s · 0:30 left"
    assert describe("events", 0, 0, 0) == "0 of 0 events · 0/s"
