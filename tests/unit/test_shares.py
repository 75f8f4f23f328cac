"""A fold that has no memory for all changes at once cuts them by key; nothing is left behind when it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pytest

from benchmarks.fold import SOURCE, TABLE, Feed
from cdc_lake.cli.fold_progress import FoldProgress
from cdc_lake.events import TableId
from cdc_lake.project import history_fold, writing
from cdc_lake.project.fold import fold_connection, fold_source
from cdc_lake.project.keys import KeyOrder
from cdc_lake.project.lake import Lake
from cdc_lake.project.shares import COLUMNS, cut_up, in_shares
from cdc_lake.project.tail import SET_OUT
from cdc_lake.query.session import open_session
from tests.lake_model import config

NULLS = {"string": "NULL::VARCHAR", "int64": "NULL::BIGINT", "int32": "NULL::INTEGER"}


def rows_of(keys: str) -> str:
    """A query of placed rows with the keys of a query."""
    nulls = {f.name: NULLS.get(str(f.type), "NULL::TIMESTAMPTZ") for f in SET_OUT} | {"__key": "k"}
    return f"SELECT {', '.join(f'{sql} AS {name}' for name, sql in nulls.items())} FROM ({keys})"


def test_every_row_is_in_one_share_and_every_truncate_in_all() -> None:
    con = duckdb.connect()
    keys = "SELECT 'k' || i % 97 AS k FROM range(1000) t(i) UNION ALL SELECT NULL FROM range(3)"
    with cut_up(con, rows_of(keys), f"SELECT k AS __key FROM ({keys})", KeyOrder(), 7) as found:
        assert len(found) == 7
        seen = [
            {k for (k,) in con.execute("SELECT __key FROM read_parquet(?)", [list(s.files)]).fetchall()} for s in found
        ]
        counts = [con.execute("SELECT count(*) FROM read_parquet(?)", [list(s.files)]).fetchone() for s in found]
        held = [{k for (k,) in con.execute(f"SELECT k FROM ({keys}) WHERE {s.holds('k')}").fetchall()} for s in found]
        assert held == [own - {None} for own in seen]
        folder = Path(found[0].files[0]).parents[1]
    assert all(None in own for own in seen)
    assert sum(n for (n,) in filter(None, counts)) == 1000 + 7 * 3
    assert sum(len(own - {None}) for own in seen) == 97
    assert not folder.exists()


def test_keys_that_belong_together_are_a_share_of_their_own() -> None:
    con = duckdb.connect()
    keys = "SELECT 'k' || i AS k FROM range(100) t(i)"
    rows, apart = rows_of(keys), "SELECT unnest(['k3', 'k77'])"
    with cut_up(con, rows, f"SELECT k AS __key FROM ({keys})", KeyOrder(), 4, apart=apart) as found:
        last = con.execute("SELECT list(__key ORDER BY __key) FROM read_parquet(?)", [list(found[-1].files)]).fetchone()
        others = [f for s in found[:-1] for f in s.files]
        rest = con.execute("SELECT count(*) FROM read_parquet(?) WHERE __key IN ('k3', 'k77')", [others]).fetchone()
    assert found[-1].apart
    assert last == (["k3", "k77"],)
    assert rest == (0,)


def test_what_does_not_fit_after_all_is_cut_into_more_shares() -> None:
    asked: list[int] = []

    def work(count: int) -> str:
        asked.append(count)
        if count < 16:
            raise duckdb.OutOfMemoryException("no room")
        return "done"

    assert in_shares(duckdb.connect(), 1000, 1000, work) == "done"
    assert asked == [1, 4, 16]


FOLD = """
import sys
from benchmarks.fold import SOURCE
from cdc_lake.project.fold import fold_source
from cdc_lake.project.lake import Lake
(done,) = list(fold_source(Lake(sys.argv[1]), SOURCE, lambda table: True, memory_mb=int(sys.argv[2])))
print(done.error, done.error and done.error.why, done.rows, done.history_rows)
"""


def test_a_table_far_larger_than_the_memory_is_folded(tmp_path: Path) -> None:
    """Whole, and then with as many changes again: ten times what the last images of all keys take."""
    feed = Feed(tmp_path, seed=3)
    feed.snapshot(300_000)
    feed.random(300_000)
    for _ in range(2):
        command = [sys.executable, "-c", FOLD, str(tmp_path / "lake"), "128"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("None "), done.stdout
        feed.random(100_000)
    session = open_session(config(tmp_path))
    try:
        shown = session.connection.execute(f"SELECT count(*), count(DISTINCT id) FROM {TABLE.name}").fetchone()
        log = session.connection.execute(f"SELECT count(*) FROM changes.{TABLE} WHERE __op <> 'r'").fetchone()
        open_lines = f"SELECT count(*) FROM history.{TABLE} WHERE __valid_to IS NULL"
        lines = session.connection.execute(open_lines).fetchone()
    finally:
        session.close()
    assert (shown, log, lines) == ((300_000, 300_000), (500_000,), (300_000,))


def test_what_a_killed_fold_has_left_on_the_disk_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, own = tmp_path / f"cdc-lake-fold-{ended.pid}-x", tmp_path / f"cdc-lake-fold-{os.getpid()}-x"
    for folder in (left, own):
        (folder / "shares-1").mkdir(parents=True)
    with fold_connection(256):
        assert not left.exists()
        assert own.exists(), "it belongs to a fold that is at work"


def test_a_large_fold_tells_how_far_it_is_and_how_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(writing, "image_bytes", lambda *_: 1 << 20)
    monkeypatch.setattr(history_fold, "image_bytes", lambda *_: 1 << 20)
    feed = Feed(tmp_path, seed=3)
    feed.snapshot(2_000)
    feed.random(1_000)
    told: list[tuple[TableId, str, float]] = []
    for done in fold_source(
        Lake(str(tmp_path / "lake")), SOURCE, lambda _table: True, memory_mb=512, tell=lambda *x: told.append(x)
    ):
        assert done.error is None
    steps = list(dict.fromkeys(what for _, what, _ in told))
    assert steps == ["setting out", "current", "setting out the history", "history"]
    parts = [part for _, what, part in told if what == "history"]
    assert parts == sorted(parts)
    assert len(parts) > 3
    now = [0.0]
    progress = FoldProgress(clock=lambda: now[0])
    for second, part in ((0, 0.0), (5, 0.1), (20, 0.25), (200, 0.5), (9_000, 0.75)):
        now[0] = float(second)
        progress(TABLE, "history", part)
    assert capsys.readouterr().err.splitlines() == [
        "public.orders: history 0%",
        "public.orders: history 25%, about 1:00 min left",
        "public.orders: history 50%, about 3:20 min left",
        "public.orders: history 75%, about 50:00 min left",
    ]


def test_no_progress_bar_is_drawn_into_a_result(tmp_path: Path) -> None:
    Feed(tmp_path, seed=3).snapshot(1)
    session = open_session(config(tmp_path))
    ours = "SELECT current_setting('enable_progress_bar')"
    try:
        assert session.connection.execute(ours).fetchone() == (False,)
    finally:
        session.close()
    with fold_connection(256) as con:
        assert con.execute(ours).fetchone() == (False,)
        assert con.cursor().execute(ours).fetchone() == (False,)


def test_all_columns_of_the_log_are_set_out() -> None:
    assert [c.strip('"') for c in COLUMNS] + ["pos_tx", "pos_order", "off"] == SET_OUT.names
