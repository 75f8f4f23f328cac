"""Retention: what goes, what stays, what is refused, and that a death at any point leaves all of it or none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from cdc_lake.config import Config, load_config
from cdc_lake.config_retention import RetentionClass
from cdc_lake.errors import LakeError
from cdc_lake.events import TableId, TopicPartition
from cdc_lake.land import layout
from cdc_lake.land.append import AppendTable, Span, transaction_id
from cdc_lake.land.dead_letters import DeadLetters
from cdc_lake.land.lock import sole_rewriter
from cdc_lake.land.tables import DEAD_LETTERS, LOG
from cdc_lake.query.session import open_session
from cdc_lake.retain.policy import Policy
from tests.commands import fold, run
from tests.lake_model import SOURCE, Feed, append, log_row

ORDERS, BAG = TableId("public", "orders"), TableId("public", "bag")
POINTS = ("retention:before-write", "retention:before-commit", "retention:after-commit")
_THEN = datetime(2026, 11, 24, tzinfo=UTC)
_CLASSES = "retention: {classes: {brief: {log: 1s}, long: {log: forever}}, default: brief}"


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    """Three rows with some history, all folded; the last transaction changes every table."""
    made = Feed(tmp_path, (ORDERS,), (BAG,))
    for number in range(1, 9):
        tx = made.begin()
        if number <= 3:
            tx.insert(ORDERS, number, number, "a long text")
        tx.update(ORDERS, 1, number * 10)
        tx.bag_insert(BAG, {"id": number, "qty": 1, "note": None})
        if number == 6:
            tx.delete(ORDERS, 2)
            tx.bag_delete(BAG, 0)
        if number == 7:
            tx.move(ORDERS, [(3, 30)])
        tx.commit()
        made.land()
    fold(tmp_path)
    (tmp_path / "cdc-lake.yaml").write_text(f"lake: {{uri: {tmp_path}/lake}}\n{_CLASSES}\n")
    return made


def outcomes(document: Any) -> dict[str, tuple[str, int, int]]:
    return {t["table"]: (t["outcome"], t["rows"], t["starts"]) for t in document["tables"]}


def config_of(folder: Path) -> Config:
    return load_config(folder / "cdc-lake.yaml", environ={})


def shown(folder: Path, *views: str) -> dict[str, list[tuple[Any, ...]]]:
    session = open_session(config_of(folder))
    try:
        return {v: session.connection.sql(f"SELECT * FROM {v} ORDER BY ALL").fetchall() for v in views}
    finally:
        session.close()


def versions(folder: Path, table: TableId) -> int:
    log = layout.open_delta(layout.log_path(str(folder / "lake"), SOURCE, table))
    assert log is not None
    return log.version()


def test_a_plan_says_what_would_go_and_writes_nothing(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    before = [versions(feed.folder, t) for t in (ORDERS, BAG)]
    code, document = run(feed.folder, "retention", "plan", capfd=capfd)
    # The last transaction stays. Row 3 left its note out when it moved: the image that has it is a starting row too.
    assert (code, outcomes(document)) == (0, {"public.orders": ("due", 15, 4), "public.bag": ("due", 8, 6)})
    orders = next(t for t in document["tables"] if t["table"] == "public.orders")
    assert (orders["class"], orders["keeps"], orders["files"] > 1, orders["bytes"] > 0) == ("brief", "1s", True, True)
    assert orders["until"] < orders["horizon"]
    assert [versions(feed.folder, t) for t in (ORDERS, BAG)] == before


def test_applied_it_takes_away_what_was_planned_and_leaves_what_is_shown(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    current = shown(feed.folder, "current.public.orders", "current.public.bag")
    _, planned = run(feed.folder, "retention", "plan", capfd=capfd)
    code, dry = run(feed.folder, "retention", "apply", "--dry-run", capfd=capfd)
    assert (code, dry["applied"], outcomes(dry)) == (0, False, outcomes(planned))
    code, document = run(feed.folder, "retention", "apply", capfd=capfd)
    assert code == 0
    assert {t: ("due", *n) for t, (_, *n) in outcomes(document).items()} == outcomes(planned)
    assert shown(feed.folder, "current.public.orders", "current.public.bag") == current
    kept = shown(feed.folder, "(SELECT __op, __tx_id FROM changes.public.orders)")
    assert list(kept.values()) == [[("u", "00008")]]
    history = "(SELECT id, qty, note, __op, __tx_id, __valid_to IS NULL AS now FROM history.public.orders)"
    assert shown(feed.folder, history)[history] == [
        (1, 70, "a long text", "r", None, False),
        (1, 80, "a long text", "u", "00008", True),
        (30, 3, "a long text", "r", None, True),
    ]
    assert outcomes(run(feed.folder, "retention", "apply", capfd=capfd)[1])["public.orders"][0] == "nothing"


def test_a_moment_before_the_kept_ones_is_refused_for_that_table_alone(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(feed.folder, "retention", "apply", "orders", capfd=capfd)[0] == 0
    session = open_session(config_of(feed.folder), as_of="tx:00004")
    assert len(session.connection.sql("FROM current.public.bag").fetchall()) == 4
    with pytest.raises(duckdb.Error, match=r"tx:00004 is before what is kept of public\.orders.*\n.*transaction 00007"):
        session.connection.sql("FROM current.public.orders").fetchall()
    session.close()
    session = open_session(config_of(feed.folder))
    at = "SELECT qty FROM lake.at('orders', 'tx:{}') ORDER BY qty"
    assert session.connection.sql(at.format("00007")).fetchall() == [(3,), (70,)]
    with pytest.raises(duckdb.Error, match=r"tx:00004 is before what is kept of public\.orders"):
        session.connection.sql(at.format("00004")).fetchall()
    session.close()


def test_a_table_under_hold_and_one_that_is_kept_for_ever_lose_nothing(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = "tables: {public.orders: {hold: true}, public.bag: {class: long}}"
    with (feed.folder / "cdc-lake.yaml").open("a") as file:
        file.write(settings)
    before = [versions(feed.folder, t) for t in (ORDERS, BAG)]
    code, document = run(feed.folder, "retention", "apply", capfd=capfd)
    assert (code, outcomes(document)) == (0, {"public.orders": ("held", 0, 0), "public.bag": ("forever", 0, 0)})
    assert [versions(feed.folder, t) for t in (ORDERS, BAG)] == before


def test_what_a_fold_has_not_read_stays_and_the_fold_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    feed = Feed(tmp_path, (ORDERS,))
    (tmp_path / "cdc-lake.yaml").write_text(f"lake: {{uri: {tmp_path}/lake}}\n{_CLASSES}\n")

    def trade(transactions: int) -> None:
        for _ in range(transactions):
            tx = feed.begin()
            tx.insert(ORDERS, feed.transactions, 1, None)
            tx.commit()
        feed.land()

    trade(3)
    code, document = run(tmp_path, "retention", "apply", capfd=capfd)
    assert (code, outcomes(document)["public.orders"][0]) == (3, "refused")
    assert document["tables"][0]["why"] == "it was never folded; first: cdc-lake fold public.orders"
    fold(tmp_path)
    trade(3)
    code, document = run(tmp_path, "retention", "apply", capfd=capfd)
    assert (code, outcomes(document)) == (0, {"public.orders": ("done", 3, 3)})
    assert document["tables"][0]["why"] == "its fold has not read on; first: cdc-lake fold public.orders"
    assert run(tmp_path, "retention", "apply", capfd=capfd)[0] == 3
    fold(tmp_path)
    assert outcomes(run(tmp_path, "retention", "apply", capfd=capfd)[1]) == {"public.orders": ("done", 2, 5)}


MODEL = "-- start: beginning\nSELECT id, qty FROM changes.orders\n"
RULE = """title: Many of {id}
start: beginning
key: [id]
streams: {s: {table: orders}}
threshold: {of: s, when: qty > 100}
"""


@pytest.mark.parametrize(
    ("file", "text", "command"),
    [
        ("rules/many.yaml", RULE, ("rules", "run", "--until-caught-up")),
        ("streams/all.sql", MODEL, ("stream", "run", "--until-caught-up")),
    ],
    ids=["rule", "model"],
)
def test_what_a_rule_or_a_model_has_not_read_stays_and_it_is_named(
    feed: Feed, capfd: pytest.CaptureFixture[str], file: str, text: str, command: Sequence[str]
) -> None:
    path = feed.folder / file
    path.parent.mkdir()
    path.write_text(text)
    assert run(feed.folder, *command, capfd=capfd)[0] == 0
    read = feed.transactions
    for number in range(3):
        tx = feed.begin()
        tx.insert(ORDERS, 40 + number, 1, None)
        tx.commit()
    feed.land()
    fold(feed.folder)
    code, document = run(feed.folder, "retention", "apply", "orders", capfd=capfd)
    orders = document["tables"][0]
    assert (code, orders["outcome"]) == (0, "done")
    assert f" {path.stem} has not read on; first: cdc-lake {' '.join(command)}" in orders["why"]
    kept = shown(feed.folder, "(SELECT __tx_id FROM changes.public.orders)")
    assert [row[0] for row in next(iter(kept.values()))] == [f"{read + n:05}" for n in (1, 2, 3)]
    assert run(feed.folder, *command, capfd=capfd)[0] == 0
    assert run(feed.folder, "retention", "apply", "orders", capfd=capfd)[1]["tables"][0]["outcome"] == "done"


def test_what_stands_behind_a_letter_that_waits_stays_and_one_that_comes_too_late_is_refused(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    topic = f"{SOURCE}.{BAG}"
    letter = {"id": f"{topic}/0/4", "topic": topic, "partition": 0, "offset": 4, "error_class": "decode", "reason": "x"}
    at = {"timestamp": _THEN, "ingested_at": _THEN}
    append(feed.folder, layout.dead_letters_path(str(feed.folder / "lake"), SOURCE), [{**letter, **at}], DEAD_LETTERS)
    letters = DeadLetters(str(feed.folder / "lake"), SOURCE)
    _, document = run(feed.folder, "retention", "plan", "bag", capfd=capfd)
    assert outcomes(document)["public.bag"] == ("due", 3, 3)
    assert f"cdc-lake dlq show {letter['id']}" in document["tables"][0]["why"]
    (dropped,) = letters.all()
    letters.decide([dropped], "dropped")
    assert outcomes(run(feed.folder, "retention", "apply", "bag", capfd=capfd)[1])["public.bag"] == ("done", 8, 6)
    row = log_row(BAG, "c", 4, after={"id": 9, "qty": 9, "note": None}, tx=("00004", 2))
    with pytest.raises(LakeError, match="stands before what is kept of"):
        letters.put_back(dropped, BAG, pa.Table.from_pylist([row], LOG))


@pytest.mark.parametrize("point", POINTS)
def test_a_retention_killed_at_a_named_point_has_removed_all_or_nothing_of_a_table(
    feed: Feed, point: str, capfd: pytest.CaptureFixture[str]
) -> None:
    views = ("current.public.orders", "current.public.bag")
    before = shown(feed.folder, *views)
    command = [sys.executable, "-m", "cdc_lake", "--config", "cdc-lake.yaml", "retention", "apply"]
    killed = subprocess.run(
        command,
        cwd=feed.folder,
        env={**os.environ, "CDC_LAKE_CRASH_AT": point},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert shown(feed.folder, *views) == before
    code, document = run(feed.folder, "retention", "apply", capfd=capfd)
    assert code == 0
    whole = {"public.orders": ("done", 15, 4), "public.bag": ("done", 8, 6)}
    first = {"public.bag": ("nothing", 0, 0)} if point == POINTS[-1] else {}
    assert outcomes(document) == whole | first
    assert shown(feed.folder, *views) == before


def test_a_sink_lands_on_while_and_after_older_changes_go(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    path, tp = layout.log_path(str(feed.folder / "lake"), SOURCE, BAG), TopicPartition(f"{SOURCE}.{BAG}", 0)
    sink = AppendTable(path, LOG)
    sink.take_over([tp])
    rows = [log_row(BAG, "c", o, after={"id": o, "qty": 1, "note": None}, tx=("00009", o)) for o in (20, 21)]
    sink.append(pa.Table.from_pylist(rows[:1], LOG), [Span(tp, 20, 21)])
    assert outcomes(run(feed.folder, "retention", "apply", "bag", capfd=capfd)[1])["public.bag"][0] == "done"
    sink.append(pa.Table.from_pylist(rows[1:], LOG), [Span(tp, 21, 22)])
    log = layout.open_delta(path)
    assert log is not None
    assert log.transaction_version(transaction_id(tp)) == 22
    landed = shown(feed.folder, "(SELECT __offset FROM changes.public.bag WHERE __offset >= 20)")
    assert list(landed.values()) == [[(20,), (21,)]]


def test_two_that_rewrite_logs_keep_out_of_each_others_way(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    with sole_rewriter(str(feed.folder / "lake")):
        code, document = run(feed.folder, "retention", "apply", capfd=capfd)
    assert (code, document["error"]["code"]) == (1, "maintain_busy")


def test_what_came_behind_the_start_by_way_of_a_redelivery_changes_nothing(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    run(feed.folder, "retention", "apply", capfd=capfd)
    views = ("current.public.orders", "current.public.bag", "history.public.orders", "history.public.bag")
    before = shown(feed.folder, *views)
    feed.redeliver(6)
    feed.land()
    assert shown(feed.folder, *views) == before


def test_history_is_read_from_the_log_so_the_longer_of_the_two_counts() -> None:
    def kept(**written: str) -> timedelta | None:
        return Policy.of("x", RetentionClass.model_validate(written), hold=False).log

    assert kept(log="7d", history="30d") == timedelta(days=30)
    assert kept(log="400d", history="30d") == timedelta(days=400)
    assert kept(log="2w") == timedelta(days=14)
    assert kept(log="7d", history="forever") is None
    assert kept(log="forever", history="7d") is None


def test_a_row_under_hold_keeps_its_whole_life_and_the_rows_before_it_go(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    with (feed.folder / "cdc-lake.yaml").open("a") as file:
        file.write('tables: {"*.*": {}, public.orders: {hold: [30]}}')
    views = "(SELECT * FROM changes.public.orders WHERE id IN (3, 30))", "current.public.orders"
    lines = "(SELECT id, qty, note, __op, __tx_id, __valid_to FROM history.public.orders WHERE id IN (3, 30))"
    before = shown(feed.folder, *views, lines)
    code, document = run(feed.folder, "retention", "apply", "orders", capfd=capfd)
    # Row 30 was row 3 before it moved, and that began in the third transaction. Two images of row 1 are starting rows.
    assert (code, outcomes(document)["public.orders"]) == (0, ("done", 4, 3))
    assert document["tables"][0]["why"] == "a legal hold keeps the row 30"
    assert shown(feed.folder, *views, lines) == before
    fold(feed.folder)
    assert shown(feed.folder, *views, lines) == before
    code, document = run(feed.folder, "retention", "apply", "orders", capfd=capfd)
    assert (code, outcomes(document)["public.orders"], document["tables"][0]["hold"]) == (0, ("held", 0, 0), True)


def test_a_hold_on_a_row_that_never_was_keeps_nothing_and_one_on_no_key_is_an_error(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = (feed.folder / "cdc-lake.yaml").read_text()
    (feed.folder / "cdc-lake.yaml").write_text(settings + "tables: {public.orders: {hold: [{id: 4711}]}}")
    assert outcomes(run(feed.folder, "retention", "plan", "orders", capfd=capfd)[1])["public.orders"][0] == "due"
    (feed.folder / "cdc-lake.yaml").write_text(settings + "tables: {public.*: {hold: [nobody]}}")
    code, document = run(feed.folder, "retention", "apply", capfd=capfd)
    assert (code, {t["table"]: t["error"]["code"] for t in document["tables"]}) == (
        1,
        {"public.orders": "bad_key", "public.bag": "no_key"},
    )


@pytest.mark.parametrize("hold", ["true", "[30]", "[{id: 3}]"])
def test_a_row_under_hold_is_not_erased_by_any_of_its_keys(
    feed: Feed, hold: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with (feed.folder / "cdc-lake.yaml").open("a") as file:
        file.write(f"tables: {{public.orders: {{hold: {hold}}}}}")
    before = versions(feed.folder, ORDERS)
    for words in (("orders", "30"), ("orders", "30", "--dry-run")):
        code, document = run(feed.folder, "erase", *words, capfd=capfd)
        assert (code, document["error"]["code"]) == (1, "under_hold")
    assert versions(feed.folder, ORDERS) == before
    assert run(feed.folder, "erase", "orders", "1", capfd=capfd)[0] == (1 if hold == "true" else 0)
