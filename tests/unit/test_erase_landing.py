"""What was erased does not land again, by whichever way it comes; a new row under the same key does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cdc_lake.config import Config, Table
from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.erase.run import Job, Report, erase
from cdc_lake.errors import LakeError
from cdc_lake.events import TopicPartition
from cdc_lake.land.append import AppendTable, Span
from cdc_lake.land.dead_letters import DeadLetters
from cdc_lake.project.fold import fold_source
from cdc_lake.project.lake import Lake
from cdc_lake.query.session import open_session
from cdc_lake.replay import replay
from tests.lakes import CONNECTOR, SOURCE, end, event, log_rows, make_sink
from tests.unit.test_erase import holding

PEOPLE, TRANSACTIONS = "pos.public.people", "pos.transaction"
JANE, JOE = {"id": 77_001, "name": "CANARY Jane"}, {"id": 2, "name": "Joe"}


def sent(tx: str, lsn: int, *rows: tuple[str, dict[str, Any]]) -> list[tuple[str, tuple[bytes | None, bytes | None]]]:
    """A transaction as the connector sends it: its rows (operation, image), and its END."""
    found: list[tuple[str, tuple[bytes | None, bytes | None]]] = []
    for order, (op, row) in enumerate(rows, 1):
        before, after = (row, None) if op == "d" else (None, row)
        key, value = event("people", after, op=op, before=before, tx=(tx, order), lsn=lsn + order)
        found.append((PEOPLE, (key, value)))
        if op == "d":
            found.append((PEOPLE, (key, None)))
    return [*found, (TRANSACTIONS, end(tx, {"public.people": len(rows)}, lsn=lsn + 50))]


FIRST = sent("1", 100, ("c", JANE), ("c", JOE))
SECOND = sent("2", 200, ("u", {**JANE, "name": "CANARY Jane, moved"}), ("u", {**JOE, "name": "Joseph"}))
THIRD = sent("3", 300, ("d", {**JANE, "name": "CANARY Jane, moved"}))


@pytest.fixture
def kafka() -> MemoryKafka:
    made = MemoryKafka()
    made.create_topic(PEOPLE)
    made.create_topic(TRANSACTIONS)
    return made


def produce(kafka: MemoryKafka, *transactions: list[tuple[str, tuple[bytes | None, bytes | None]]]) -> None:
    for transaction in transactions:
        for topic, record in transaction:
            kafka.produce(topic, 0, *record)


def land(kafka: MemoryKafka, folder: Path) -> None:
    make_sink(kafka, folder).run(until_caught_up=True)


def erased(folder: Path, key: int = 77_001) -> Report:
    lake = Lake(str(folder / "lake"))
    job = Job(lake, lambda _: True, lambda _: {}, "people", str(key), apply=True, delete=True)
    return erase(job, lambda _: None)


def config(folder: Path) -> Config:
    return Config(root=folder, tables={"*.*": Table()})


def people(folder: Path) -> tuple[list[tuple[Any, ...]], str | None, bool]:
    """Who is there, and the cut."""
    session = open_session(config(folder))
    rows = session.connection.sql("SELECT id, name FROM people ORDER BY id").fetchall()
    session.close()
    return rows, session.cut.tx_id, session.cut.stalled


@pytest.mark.parametrize("folded", [True, False])
def test_redelivered_changes_of_an_erased_row_land_without_their_contents(
    kafka: MemoryKafka, tmp_path: Path, folded: bool
) -> None:
    produce(kafka, FIRST, SECOND, THIRD)
    land(kafka, tmp_path)
    if folded:
        list(fold_source(Lake(str(tmp_path / "lake")), SOURCE, lambda _: True))
    erased(tmp_path)
    assert people(tmp_path) == ([(2, "Joseph")], "3", False)
    produce(kafka, SECOND, THIRD)
    land(kafka, tmp_path)
    assert people(tmp_path) == ([(2, "Joseph")], "3", False)
    assert holding(tmp_path, "CANARY", "77001") == []
    again = [r for r in log_rows(tmp_path, "people") if r["__offset"] > 5]
    assert [(r["__op"], r["__key"], r["__tx_id"], r["__tx_order"]) for r in again] == [
        ("e", None, "2", 1),
        ("u", '{"id":2}', "2", 2),
        ("e", None, "3", 1),
        ("e", None, None, None),
    ]


def test_a_new_row_under_an_erased_key_lands_and_can_be_erased_too(kafka: MemoryKafka, tmp_path: Path) -> None:
    produce(kafka, FIRST, SECOND, THIRD)
    land(kafka, tmp_path)
    list(fold_source(Lake(str(tmp_path / "lake")), SOURCE, lambda _: True))
    erased(tmp_path)
    produce(kafka, sent("4", 400, ("c", {"id": 77_001, "name": "somebody else"})))
    land(kafka, tmp_path)
    assert people(tmp_path) == ([(2, "Joseph"), (77_001, "somebody else")], "4", False)
    list(fold_source(Lake(str(tmp_path / "lake")), SOURCE, lambda _: True))
    produce(kafka, FIRST, sent("5", 500, ("u", {"id": 77_001, "name": "somebody"})))
    land(kafka, tmp_path)
    assert people(tmp_path) == ([(2, "Joseph"), (77_001, "somebody")], "5", False)
    assert holding(tmp_path, "CANARY") == []
    report = erased(tmp_path)
    assert (len(report.parts), report.parts[0].living) == (1, 1)
    assert people(tmp_path) == ([(2, "Joseph")], "5", False)
    assert holding(tmp_path, "77001") == []
    produce(kafka, sent("6", 600, ("d", {"id": 77_001, "name": "somebody"})))
    land(kafka, tmp_path)
    erased(tmp_path)
    assert (people(tmp_path), holding(tmp_path, "77001")) == (([(2, "Joseph")], "6", False), [])


def test_each_key_has_its_own_position_up_to_which_it_is_erased(kafka: MemoryKafka, tmp_path: Path) -> None:
    """The new row is older than what was erased of another key later."""
    new = sent("4", 400, ("c", {"id": 77_001, "name": "somebody else"}))
    produce(kafka, FIRST, SECOND, THIRD)
    land(kafka, tmp_path)
    erased(tmp_path)
    produce(kafka, new, sent("5", 500, ("d", JOE)))
    land(kafka, tmp_path)
    erased(tmp_path, 2)
    produce(kafka, new)
    land(kafka, tmp_path)
    assert [r["__op"] for r in log_rows(tmp_path, "people")][-1] == "c"
    assert people(tmp_path) == ([(77_001, "somebody else")], "5", False)


def test_a_running_sink_learns_of_an_erasure_with_its_next_commit(kafka: MemoryKafka, tmp_path: Path) -> None:
    produce(kafka, FIRST)
    land(kafka, tmp_path)

    sink = make_sink(kafka, tmp_path)
    rounds = 0

    def between(_: Any) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            erased(tmp_path)
            produce(kafka, FIRST)
        if rounds > 3 and len(log_rows(tmp_path, "people")) == 4:
            sink.stop()
        assert rounds < 100

    sink.run(on_progress=between)
    assert [r["__op"] for r in log_rows(tmp_path, "people")] == ["e", "c", "e", "c"]
    assert holding(tmp_path, "CANARY", "77001") == []


def test_a_letter_of_an_erased_row_that_is_replayed_brings_nothing_back(kafka: MemoryKafka, tmp_path: Path) -> None:
    """One letter was there when the row was erased; the other came behind it, when the change was delivered again."""
    (_, (key, value)) = SECOND[0]
    assert value is not None
    produce(kafka, FIRST, [(PEOPLE, (key, value[:-3])), *SECOND[1:]], THIRD)
    land(kafka, tmp_path)
    erased(tmp_path)
    assert people(tmp_path) == ([(2, "Joseph")], "3", False)
    kafka.produce(PEOPLE, 0, key, value[:-3])
    land(kafka, tmp_path)
    store = DeadLetters(str(tmp_path / "lake"), SOURCE)
    first, second = store.all()
    assert (first.state, second.state) == ("dropped", "waiting")
    assert [r.outcome for r in replay(store, [first], CONNECTOR, value=value)] == ["dead"]
    assert [r.outcome for r in replay(store, [second], CONNECTOR, value=value)] == ["replayed"]
    assert people(tmp_path)[0] == [(2, "Joseph")]
    erased(tmp_path)
    assert holding(tmp_path, "CANARY", "77001") == []


def test_a_snapshot_of_which_the_first_and_the_last_row_were_erased_still_counts_as_whole(
    kafka: MemoryKafka, tmp_path: Path
) -> None:
    """The second snapshot lacks 3, so 3 has ended: that must stay so when its marked rows are erased."""
    for lsn, ids in ((10, (1, 2, 3, 4)), (20, (1, 2, 4))):
        for place, number in enumerate(ids):
            marked = {0: "first", len(ids) - 1: "last"}.get(place, "true")
            key, value = event("people", {"id": number, "name": f"n{number}"}, op="r", lsn=lsn)
            kafka.produce(PEOPLE, 0, key, value.replace(b'"snapshot":"false"', f'"snapshot":"{marked}"'.encode()))
    land(kafka, tmp_path)
    assert [i for i, _ in people(tmp_path)[0]] == [1, 2, 4]
    for number in (1, 4):
        erased(tmp_path, number)
    assert [i for i, _ in people(tmp_path)[0]] == [2]
    list(fold_source(Lake(str(tmp_path / "lake")), SOURCE, lambda _: True))
    assert [i for i, _ in people(tmp_path)[0]] == [2]


def test_rows_wait_unwritten_when_it_cannot_be_read_what_was_erased_and_the_error_says_so(tmp_path: Path) -> None:
    def unreadable(_: object, rows: pa.Table) -> pa.Table:
        raise LakeError("The list of what was erased cannot be read.", why="", next="", code="lake_newer")

    schema = pa.schema([("n", pa.int64())])
    table = AppendTable(str(tmp_path / "t"), schema, screen=unreadable)
    with pytest.raises(LakeError) as refused:
        table.append(pa.table({"n": [1]}, schema), [Span(TopicPartition(PEOPLE, 0), 0, 1)])
    assert refused.value.code == "lake_newer"
    assert table.open() is None
