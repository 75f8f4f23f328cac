"""`history` and `changes` on the command line: a key as people type it, what changed, and what lands meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.cli import main as cli
from cdc_lake.cli import output
from cdc_lake.errors import UsageError
from cdc_lake.events import TableId
from cdc_lake.project.types import Column
from cdc_lake.query.keys import read_key
from tests.lake_model import Feed, append_ends, append_log, append_schemas, end_row, log_row, schema_row

ORDERS, PAIRS, BAG = TableId("public", "orders"), TableId("public", "pairs"), TableId("public", "bag")


@pytest.fixture
def feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    """Order 1 is made, changed twice, moved to key 9, and deleted."""
    feed = Feed(tmp_path, (ORDERS,), (BAG,), partitions=2)
    for step in range(5):
        tx = feed.begin()
        if step == 0:
            tx.insert(ORDERS, 1, 10, "a long text")
            tx.bag_insert(BAG, {"id": 1, "qty": 1, "note": None})
        elif step == 1:
            tx.update(ORDERS, 1, 20)
        elif step == 2:
            tx.update(ORDERS, 1, 20, "another text", touch=True)
        elif step == 3:
            tx.move(ORDERS, [(1, 9)])
        else:
            tx.delete(ORDERS, 9)
        tx.commit()
    feed.land()
    (tmp_path / "cdc-lake.yaml").write_text("source: {name: pos}\nlake: {uri: ./lake}\n")
    monkeypatch.chdir(tmp_path)
    yield feed
    output.configure(config=None, as_json=False, verbosity=0)


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    out, err = capfd.readouterr()
    return int(stop.value.code or 0), out, err


def words(out: str) -> list[str]:
    """The lines without their times."""
    return [" ".join(w for w in line.split() if not w.startswith("2026-")) for line in out.splitlines()]


def test_history_shows_each_version_and_what_changed(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "history", "orders", "1")
    assert (code, err) == (0, "")
    assert words(out) == [
        "created transaction 00001",
        "id = 1",
        "qty = 10",
        "note = a long text",
        "updated transaction 00002",
        "qty 10 → 20",
        "updated transaction 00003",
        "note a long text → another text",
        "key changed to id=9 transaction 00004",
    ]
    assert words(run(capfd, "history", "public.orders", "9")[1]) == [
        "key changed from id=1 transaction 00004",
        "id 1 → 9",
        "deleted transaction 00005",
    ]


def test_history_as_json_has_the_versions_and_their_changed_columns(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capfd, "history", "orders", '{"id": 1}', "--json")
    document = json.loads(out)
    assert (code, document["table"], document["key"]) == (0, "public.orders", {"id": 1})
    shown = [(v["qty"], v["note"], v["__changed"], v["__tx_id"]) for v in document["versions"]]
    assert shown == [
        (10, "a long text", ["id", "qty", "note"], "00001"),
        (20, "a long text", ["qty"], "00002"),
        (20, "another text", ["note"], "00003"),
    ]
    assert document["versions"][-1]["__next_key"] == {"id": 9}


def test_history_as_of_ends_there(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    versions = json.loads(run(capfd, "history", "orders", "id=1", "--as-of", "tx:00002", "--json")[1])["versions"]
    assert [v["__valid_to"] is None for v in versions] == [False, True]


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("history", "oders", "1"), 2, ("no_table", 'Did you mean "orders"?')),
        (("history", "orders", "one"), 2, ("bad_key", "of the type int")),
        (("history", "orders", "idd=1"), 2, ("bad_key", 'Did you mean "id"?')),
        (("history", "orders", "{id: 1}"), 2, ("bad_key", "")),
        (("history", "orders", '{"qty": 1}'), 2, ("bad_key", "Its key is id.")),
        (("history", "orders", ""), 2, ("bad_key", "of the type int")),
        (("history", "orders", "9.5"), 2, ("bad_key", "of the type int")),
        (("history", "orders", "id=\udcff"), 2, ("bad_key", "of the type int")),
        (("history", "orders", '{"id":' * 100_000), 2, ("bad_key", "nested too deeply")),
        (("history", "orders", '["id"]'), 2, ("bad_key", "of the type int")),
        (("history", "orders", "1", "--as-of", "2020-01-01"), 2, ("as_of_before_log", "first transaction is 00001")),
        (("history", "orders", "1", "--as-of", "2026-12-01"), 2, ("as_of_after_cut", "up to transaction 00005")),
        (("history", "orders", "77"), 1, ("no_row", "No change in the log")),
        (("history", "bag", "1"), 2, ("no_key", "cannot be told apart")),
        (("history", "orders", "1", "--as-of", "nix"), 2, ("as_of", "ISO 8601")),
        (("changes", "oders"), 2, ("no_table", 'Did you mean "orders"?')),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else "",
)
def test_a_slip_has_a_name_and_a_hint(
    feed: Feed, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, error: tuple[str, str]
) -> None:
    found, out, err = run(capfd, *arguments, "--json")
    told = json.loads(out)["error"]
    assert (found, told["code"], err) == (code, error[0], "")
    assert error[1] in told["why"]
    assert told["next"]
    found, out, err = run(capfd, *arguments)
    assert (found, out, "Traceback" in err) == (code, "", False)
    assert told["next"] in err


def key(text: str, *names: str) -> dict[str, str]:
    columns = [Column(n, "text", "VARCHAR", i + 1, False, "text") for i, n in enumerate(names)]
    return read_key(PAIRS, columns, text)


@pytest.mark.parametrize(
    ("text", "names", "found"),
    [
        ("7", ("id",), {"id": "7"}),
        ("a=b,c", ("id",), {"id": "a=b,c"}),
        ("id=a=b,c", ("id",), {"id": "a=b,c"}),
        ("a=1,b=2", ("a", "b"), {"a": "1", "b": "2"}),
        ("b=x,y=z,a=1", ("a", "b"), {"a": "1", "b": "x,y=z"}),
        ('"odd name"=1,b=', ("odd name", "b"), {"odd name": "1", "b": ""}),
        ('{"a": 1.10, "b": "x"}', ("a", "b"), {"a": "1.10", "b": "x"}),
        ('{"a": 9007199254740993, "b": true}', ("a", "b"), {"a": "9007199254740993", "b": "true"}),
    ],
)
def test_a_key_is_a_value_pairs_or_json(text: str, names: tuple[str, ...], found: dict[str, str]) -> None:
    assert key(text, *names) == found


@pytest.mark.parametrize("text", ["7", "a=1", "a=1,c=2", '{"a": 1}', '{"a": 1, "b": 2, "c": 3}', "c=2,a=1,b=1"])
def test_a_key_of_several_columns_wants_all_of_them_and_no_other(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        key(text, "a", "b")
    assert caught.value.code == "bad_key"


def test_a_key_of_several_columns_is_found(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    fields = {"a": "int32", "b": "string", "n": "int32"}
    append_schemas(feed.folder, [schema_row(PAIRS, "p", fields, ("a", "b"))])
    for i, (a, b) in enumerate([(1, "x"), (1, "y,b=1")]):
        row = {"a": a, "b": b, "n": i}
        append_log(
            feed.folder,
            PAIRS,
            [log_row(PAIRS, "c", i, key={"a": a, "b": b}, after=row, tx=(f"9{i}", 1), schema_id="p")],
        )
        append_ends(feed.folder, [end_row(50 + i * 2, f"9{i}", {"public.pairs": 1})])
    document = json.loads(run(capfd, "history", "pairs", "a=1,b=y", "--json")[1])
    assert document["error"]["code"] == "no_row"
    document = json.loads(run(capfd, "history", "pairs", '{"b": "y,b=1", "a": 1}', "--json")[1])
    assert [v["n"] for v in document["versions"]] == [1]
    for typed in ("1", "a=1", "a=1.5,b=x", "b=x", '{"a": 1, "b": "x", "c": 1}', '{"a": 1, "b": "\\ud800"}'):
        code, out, _ = run(capfd, "history", "pairs", typed, "--json")
        assert (code, json.loads(out)["error"]["code"]) == (2, "bad_key"), typed


def test_changes_shows_the_last_events_in_the_order_of_landing(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "changes", "orders", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    by_tx = {(e["__tx_id"], e["__op"]): e for e in events}
    assert len(events) == len(by_tx) == 6
    assert by_tx["00002", "u"]["__changed"] == ["qty"]
    assert "note" not in by_tx["00002", "u"], "an unchanged large value is not in the event"
    assert by_tx["00003", "u"]["__changed"] == ["note"]
    assert by_tx["00005", "d"]["__key"] == {"id": 9}
    assert by_tx["00001", "c"]["__changed"] is None
    for partition in (0, 1):
        offsets = [e["__offset"] for e in events if e["__partition"] == partition]
        assert offsets == sorted(offsets)
    assert len(run(capfd, "changes", "orders", "--limit", "2")[1].splitlines()) == 2


def test_changes_tells_a_person_op_key_changed_columns_and_transaction(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = words(run(capfd, "changes", "orders")[1])
    assert any(line.startswith("update id=1 qty=20 tx 00002 lsn 0/") for line in shown)
    assert any(line.startswith("create id=1 qty=10 note=a long text tx 00001") for line in shown)
    assert any(line.startswith("delete id=9 tx 00005") for line in shown)


def test_follow_goes_on_with_each_event_that_lands_once_and_ctrl_c_ends_it_quietly(feed: Feed) -> None:
    command = [sys.executable, "-m", "cdc_lake", "changes", "orders", "--limit", "1", "--follow", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        json.loads(follower.stdout.readline())
        seen: list[dict[str, Any]] = []
        for number in range(3):
            tx = feed.begin()
            if number == 0:
                tx.insert(ORDERS, 5, 1, "x")
            else:
                tx.update(ORDERS, 5, number + 1)
            tx.commit()
            feed.land()
            seen.append(json.loads(follower.stdout.readline()))
        follower.send_signal(signal.SIGINT)
        rest, err = follower.communicate(timeout=30)
    assert [(e["__op"], e["qty"], e["__changed"]) for e in seen] == [
        ("c", 1, None),
        ("u", 2, ["qty"]),
        ("u", 3, ["qty"]),
    ]
    assert (follower.returncode, rest, err) == (130, "", "")
