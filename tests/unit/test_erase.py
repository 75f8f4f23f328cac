"""Erasing a row: all of it goes, from every file; nothing else does; and nothing brings it back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cdc_lake.config import load_config
from cdc_lake.events import TableId
from cdc_lake.land import layout
from cdc_lake.land.dead_letters import DeadLetters
from cdc_lake.land.lock import sole_rewriter
from cdc_lake.land.tables import DEAD_LETTERS
from cdc_lake.project.fold import rebuild_table
from cdc_lake.project.lake import Lake
from cdc_lake.query.session import open_session
from tests.commands import fold, run
from tests.lake_model import SOURCE, Feed, append

CUSTOMERS, ORDERS = TableId("public", "customers"), TableId("public", "orders")
KEY, CANARY = 77_123_456, "CANARY-Jane-Doe"
POINTS = (
    "erase:after-list",
    "erase:before-letters-commit",
    "erase:after-letters-commit",
    "erase:before-log-commit",
    "erase:after-log-commit",
    "erase:after-rebuild",
    "erase:after-bounds",
    "erase:after-delete",
)


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    """Five customers with some history, folded twice on the way; one of them is the person."""
    made = Feed(tmp_path, (CUSTOMERS, ORDERS))
    for number in range(1, 13):
        tx = made.begin()
        if number <= 4:
            tx.insert(CUSTOMERS, number, number, "a long text")
            tx.insert(ORDERS, number, number, "an order of somebody")
        if number == 2:
            tx.insert(CUSTOMERS, KEY, 1, CANARY)
        if number in (3, 5, 9):
            tx.update(CUSTOMERS, KEY, number)
        if number == 7:
            tx.update(CUSTOMERS, KEY, 7, f"{CANARY} again", touch=True)
        tx.update(CUSTOMERS, 1, number * 10)
        if number == 11:
            tx.delete(CUSTOMERS, KEY)
        tx.commit()
        made.land()
        if number in (6, 10):
            fold(tmp_path)
    (tmp_path / "cdc-lake.yaml").write_text(f"lake: {{uri: {tmp_path}/lake}}\n")
    return made


def query(folder: Path, sql: str, as_of: str | None = None) -> list[tuple[Any, ...]]:
    session = open_session(load_config(folder / "cdc-lake.yaml", environ={}), as_of=as_of)
    try:
        return session.connection.sql(sql).fetchall()
    finally:
        session.close()


def rows_of(feed: Feed, table: TableId) -> list[tuple[Any, ...]]:
    return sorted(query(feed.folder, f"SELECT id, qty, note FROM current.{table}"), key=repr)


def holding(folder: Path, *texts: str) -> list[str]:
    """The files of the lake that hold one of the texts: all bytes are looked at, and all values of Parquet files."""
    found = []
    for file in sorted((folder / "lake").rglob("*")):
        if not file.is_file():
            continue
        content = file.read_bytes()
        if file.suffix == ".parquet":
            content += repr(pq.read_table(file).to_pylist()).encode()
        found += [f"{file.relative_to(folder)}: {t}" for t in texts if t.encode() in content]
    return found


def test_not_a_byte_of_an_erased_row_is_left_in_the_lake(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    before = rows_of(feed, CUSTOMERS), rows_of(feed, ORDERS)
    assert len({h.split(":")[0] for h in holding(feed.folder, CANARY, str(KEY))}) > 8
    code, document = run(feed.folder, "erase", "customers", str(KEY), "--now", capfd=capfd)
    assert (code, document.get("applied"), document.get("in_source")) == (0, True, False), document
    assert holding(feed.folder, CANARY, str(KEY)) == []
    assert (rows_of(feed, CUSTOMERS), rows_of(feed, ORDERS)) == before
    assert query(feed.folder, document["proof"]) == [(0, 0, 0)]


def test_a_dry_run_says_what_would_go_and_writes_nothing(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    before = {f: f.stat().st_mtime_ns for f in (feed.folder / "lake").rglob("*") if f.is_file()}
    code, document = run(feed.folder, "erase", "customers", f"id={KEY}", "--dry-run", capfd=capfd)
    (table,) = document["tables"]
    assert (code, document["applied"], document["dead_letters"]) == (0, False, [])
    assert (table["table"], table["keys"], table["rows"], table["events"]) == ("public.customers", 1, 7, 6)
    assert (table["versions"], table["current"], table["files"], table["bytes"] > 0) == (5, 1, 6, True)
    assert {f: f.stat().st_mtime_ns for f in (feed.folder / "lake").rglob("*") if f.is_file()} == before


def everything(feed: Feed, *, without: int) -> list[Any]:
    """All that readers see of a table, but for one key."""
    views = ("current.public.customers", "history.public.customers", "changes.public.customers")
    found: list[Any] = [query(feed.folder, f"SELECT * FROM {v} WHERE id <> {without} ORDER BY ALL") for v in views]
    found.append(query(feed.folder, "SELECT * FROM current.public.orders ORDER BY ALL"))
    return found


@pytest.mark.parametrize("folded", ["folded", "never folded", "behind"])
def test_nothing_else_changes_for_any_reader_and_the_cut_goes_on(
    feed: Feed, folded: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if folded == "folded":
        fold(feed.folder)
    elif folded == "never folded":
        for table in (CUSTOMERS, ORDERS):
            for kind in ("current", "patch"):
                shutil.rmtree(feed.folder / "lake" / SOURCE / kind / table.schema / table.name, ignore_errors=True)
    before, cut = everything(feed, without=KEY), cut_of(feed)
    assert run(feed.folder, "erase", "customers", str(KEY), capfd=capfd)[0] == 0
    assert (everything(feed, without=KEY), cut_of(feed)) == (before, cut)
    past = query(feed.folder, "SELECT id, qty, note FROM current.public.customers ORDER BY ALL", as_of="tx:00008")
    assert past == [r for r in feed.at("00008", CUSTOMERS) if r[0] != KEY]
    tx = feed.begin()
    tx.update(CUSTOMERS, 1, 4711)
    tx.commit()
    feed.land()
    fold(feed.folder)
    assert rows_of(feed, CUSTOMERS) == feed.expected(CUSTOMERS)
    assert rebuild_table(Lake(str(feed.folder / "lake")), SOURCE, lambda _: True, CUSTOMERS).error is None
    assert rows_of(feed, CUSTOMERS) == feed.expected(CUSTOMERS)


def cut_of(feed: Feed) -> tuple[Any, ...]:
    session = open_session(load_config(feed.folder / "cdc-lake.yaml", environ={}))
    session.close()
    return session.cut.position, session.cut.tx_id, session.cut.waits


def test_the_earlier_keys_of_a_row_go_with_it_and_a_key_that_another_row_had_stays(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    """3 goes to 300; 2 and 4 change places, and 4 moves on: whoever has the key 2 now was 4 once."""
    for moves in ([(3, 300)], [(2, 4), (4, 2)], [(4, 400)]):
        tx = feed.begin()
        tx.move(CUSTOMERS, moves)
        tx.commit()
        feed.land()
    fold(feed.folder)
    tx = feed.begin()
    tx.update(CUSTOMERS, 2, 2222)
    tx.commit()
    feed.land()
    _, document = run(feed.folder, "erase", "customers", "300", "--now", capfd=capfd)
    assert document["tables"][0]["keys"] == 2
    changes = "SELECT DISTINCT id FROM changes.public.customers ORDER BY id"
    assert query(feed.folder, changes) == [(1,), (2,), (4,), (400,), (KEY,)]
    other = "SELECT id, qty, note, __tx_id, __op FROM history.public.customers WHERE note IS NOT NULL ORDER BY ALL"
    kept = [r for r in query(feed.folder, other) if r[0] == 400]
    assert len(kept) == 1
    code, document = run(feed.folder, "erase", "customers", "2", "--now", capfd=capfd)
    assert (code, document["in_source"]) == (0, True)
    feed.rows[CUSTOMERS] = {k: r for k, r in feed.rows[CUSTOMERS].items() if k not in (2, 300)}
    assert rows_of(feed, CUSTOMERS) == feed.expected(CUSTOMERS)
    assert [r for r in query(feed.folder, other) if r[0] == 400] == kept
    # The row that was 4 for a while still is in its history, and the one that was 2 before it as well.
    assert query(feed.folder, changes) == [(1,), (2,), (4,), (400,), (KEY,)]
    code, document = run(feed.folder, "erase", "customers", "2", capfd=capfd)
    assert (code, document["tables"], document["erased_before"]) == (0, [], ["public.customers"])
    assert [r for r in query(feed.folder, other) if r[0] == 400] == kept
    rebuild_table(Lake(str(feed.folder / "lake")), SOURCE, lambda _: True, CUSTOMERS)
    assert rows_of(feed, CUSTOMERS) == feed.expected(CUSTOMERS)


@pytest.mark.parametrize("first", ["retention", "erase"])
def test_retention_and_erasure_do_not_get_into_each_others_way(
    feed: Feed, first: str, capfd: pytest.CaptureFixture[str]
) -> None:
    fold(feed.folder)
    with (feed.folder / "cdc-lake.yaml").open("a") as file:
        file.write("retention: {classes: {brief: {log: 1s}}, default: brief}\n")
    current = [r for r in rows_of(feed, CUSTOMERS) if r[0] != 2]
    commands = [["retention", "apply"], ["erase", "customers", "2", "--now"]]
    for words in commands if first == "retention" else reversed(commands):
        code, document = run(feed.folder, *words, capfd=capfd)
        assert code == 0, document
    tx = feed.begin()
    tx.update(CUSTOMERS, 1, 4711)
    tx.commit()
    feed.land()
    fold(feed.folder)
    code, document = run(feed.folder, "retention", "apply", "customers", capfd=capfd)
    assert code == 0, [(t["table"], t["outcome"], t["why"]) for t in document["tables"]]
    current[0] = (1, 4711, "a long text")
    assert rows_of(feed, CUSTOMERS) == current
    assert rebuild_table(Lake(str(feed.folder / "lake")), SOURCE, lambda _: True, CUSTOMERS).error is None
    assert rows_of(feed, CUSTOMERS) == current
    assert cut_of(feed)[1:] == ("00013", ())
    history = "SELECT DISTINCT id FROM history.public.customers WHERE __valid_to IS NULL ORDER BY id"
    assert query(feed.folder, history) == [(r[0],) for r in current]


@pytest.mark.parametrize("key", ["7.0", " 7", "007", '{"id": 7}', "id=7"])
def test_a_key_may_be_spelled_in_other_ways(feed: Feed, key: str, capfd: pytest.CaptureFixture[str]) -> None:
    tx = feed.begin()
    tx.insert(CUSTOMERS, 7, 1, CANARY)
    tx.commit()
    feed.land()
    code, document = run(feed.folder, "erase", "customers", key, "--dry-run", capfd=capfd)
    assert (code, document["tables"][0]["rows"]) == (0, 1)
    assert query(feed.folder, document["proof"]) == [(1, 1, 1)]


def test_a_second_rewriter_is_told_to_wait(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    with sole_rewriter(str(feed.folder / "lake")):
        code, document = run(feed.folder, "erase", "customers", str(KEY), capfd=capfd)
    assert (code, document["error"]["code"]) == (1, "maintain_busy")
    assert holding(feed.folder, CANARY)


def test_a_key_that_its_row_left_names_the_one_that_it_has(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    tx = feed.begin()
    tx.move(CUSTOMERS, [(3, 300)])
    tx.commit()
    feed.land()
    code, document = run(feed.folder, "erase", "customers", "3", capfd=capfd)
    assert (code, document["error"]["code"]) == (1, "key_changed")
    assert document["error"]["next"] == """cdc-lake erase public.customers '{"id":300}' --dry-run"""


def letter(offset: int, key: bytes | None, value: bytes, topic: str = "pos.public.customers") -> dict[str, Any]:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    return {
        "id": f"{topic}/0/{offset}",
        "topic": topic,
        "partition": 0,
        "offset": offset,
        "timestamp": now,
        "key": key,
        "value": value,
        "headers": None,
        "schema_id": None,
        "error_class": "invalid_json",
        "reason": f"not what it should be: {value!r}",
        "ingested_at": now,
    }


def test_dead_letters_of_a_row_lose_their_contents_and_are_dropped(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    key, other = f'{{"id": {KEY}}}'.encode(), b'{"id": 4}'
    letters = [
        letter(900, key, CANARY.encode()),
        letter(901, b'{"schema": {}, "payload": {"id":77123456}}', CANARY.encode()),
        letter(902, None, f'{{"op": "c", "after": {{"id":{KEY}, "note": "{CANARY}'.encode()),
        letter(903, b"no key", f'{{\\"id\\": {KEY}, "{CANARY}'.encode()),
        letter(904, other, b"{another row"),
        letter(905, None, f'{{"id":{KEY}00}}'.encode()),
        letter(906, key, b"{another table", topic="pos.public.orders"),
    ]
    path = layout.dead_letters_path(str(feed.folder / "lake"), SOURCE)
    append(feed.folder, path, letters, DEAD_LETTERS)
    _, planned = run(feed.folder, "erase", "customers", str(KEY), "--dry-run", capfd=capfd)
    code, document = run(feed.folder, "erase", "customers", str(KEY), "--now", capfd=capfd)
    assert (code, document["dead_letters"]) == (0, planned["dead_letters"])
    assert [x.rsplit("/", 1)[1] for x in document["dead_letters"]] == ["900", "901", "902", "903"]
    assert holding(feed.folder, CANARY) == []
    found = {x.offset: x for x in DeadLetters(str(feed.folder / "lake"), SOURCE).all()}
    assert {n: (x.state, x.error_class) for n, x in found.items()} == {
        **dict.fromkeys(range(900, 904), ("dropped", "erased")),
        **dict.fromkeys(range(904, 907), ("waiting", "invalid_json")),
    }
    assert (found[904].key, found[904].value, found[900].value) == (other, b"{another row", None)


@pytest.mark.parametrize(
    ("words", "code", "name"),
    [
        (("customers", "999"), 1, "no_row"),
        (("customers", "Jane"), 2, "bad_key"),
        (("customers", "id=1,name=2"), 2, "bad_key"),
        (("customer", "1"), 2, "no_table"),
    ],
)
def test_what_is_not_there_is_refused_in_words(
    feed: Feed, words: tuple[str, str], code: int, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    found, document = run(feed.folder, "erase", *words, capfd=capfd)
    assert (found, document["error"]["code"]) == (code, name)
    assert not (feed.folder / "lake" / SOURCE / "erasures").exists()


def test_a_strange_file_in_a_tables_folder_stays(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    folder = Path(layout.log_path(str(feed.folder / "lake"), SOURCE, CUSTOMERS))
    strange = folder / "notes.txt"
    strange.write_text("mine")
    orphan, young = folder / "part-old.zstd.parquet", folder / "part-young.zstd.parquet"
    for file in (orphan, young):
        file.write_text("of a writer that was killed")
    for file in (orphan, strange):
        os.utime(file, (1_700_000_000, 1_700_000_000))
    assert run(feed.folder, "erase", "customers", str(KEY), "--now", capfd=capfd)[0] == 0
    assert (strange.exists(), orphan.exists(), young.exists()) == (True, False, True)


def test_without_now_open_readers_go_on_and_the_day_is_told(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    session = open_session(load_config(feed.folder / "cdc-lake.yaml", environ={}))
    sql = "SELECT count(*) FROM history.public.customers"
    before = session.connection.sql(sql).fetchall()
    code, document = run(feed.folder, "erase", "customers", str(KEY), capfd=capfd)
    assert (code, document["replaced_files"] > 5, document["deleted_files"]) == (0, True, 0)
    assert session.connection.sql(sql).fetchall() == before
    session.close()
    held = holding(feed.folder, CANARY)
    assert held
    assert all(h.split(":")[0].endswith(".parquet") and "_delta_log" not in h for h in held)
    code, document = run(feed.folder, "erase", "customers", str(KEY), "--now", capfd=capfd)
    assert (code, document["tables"], document["deleted_files"] > 0) == (0, [], True)
    assert holding(feed.folder, CANARY) == []
    code, document = run(feed.folder, "erase", "customers", str(KEY), capfd=capfd)
    assert (code, document["replaced_files"], document["deleted_files"]) == (0, 0, 0)


@pytest.mark.parametrize("point", POINTS)
def test_an_erasure_killed_at_a_named_point_is_gone_on_with_by_the_next(
    feed: Feed, point: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = layout.dead_letters_path(str(feed.folder / "lake"), SOURCE)
    append(feed.folder, path, [letter(900, f'{{"id": {KEY}}}'.encode(), CANARY.encode())], DEAD_LETTERS)
    before, cut = everything(feed, without=KEY), cut_of(feed)
    command = [sys.executable, "-m", "cdc_lake", "--config", "cdc-lake.yaml", "erase", "customers", str(KEY), "--now"]
    environment = {**os.environ, "CDC_LAKE_CRASH_AT": point}
    done = subprocess.run(command, check=False, cwd=feed.folder, env=environment, capture_output=True, timeout=100)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (everything(feed, without=KEY), cut_of(feed)) == (before, cut)
    assert run(feed.folder, "erase", "customers", str(KEY), "--now", capfd=capfd)[0] == 0
    # What a writer left that was killed may be of one that still is at work, and stays for a day.
    live = [h for h in holding(feed.folder, CANARY, str(KEY)) if not young_orphan(feed.folder / h.split(":")[0])]
    assert live == []
    assert (everything(feed, without=KEY), cut_of(feed)) == (before, cut)
    assert rows_of(feed, CUSTOMERS) == feed.expected(CUSTOMERS)


def young_orphan(file: Path) -> bool:
    log = file.parent / "_delta_log"
    return log.is_dir() and not any(file.name in commit.read_text() for commit in log.glob("*.json"))
