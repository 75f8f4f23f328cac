"""A table whose primary key is put on other columns: rows are the same rows, before and after."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from cdc_lake.consume.memory import MemoryKafka
from cdc_lake.events import TableId
from cdc_lake.project.fold import fold_source, rebuild_table
from cdc_lake.project.lake import Lake
from cdc_lake.query.session import open_session
from cdc_lake.query.versions import row_history
from tests.depth import seeds
from tests.lake_model import (
    PLACEHOLDER,
    SOURCE,
    Row,
    append_ends,
    append_log,
    append_schemas,
    config,
    end_row,
    log_row,
    schema_row,
    text,
)
from tests.lakes import event, log_rows, make_sink

T = TableId("public", "t")
FIELDS = {"id": "int32", "n": "int32", "name": "string", "note": "string"}
KEYS = (("id",), ("n",), ("id", "n"), ("name",))
LONG = "long " * 8


class Table:
    """A table, its connector, and what it must show after each transaction."""

    def __init__(self, folder: Path, partitions: int = 2) -> None:
        self.folder, self.partitions = folder, partitions
        self.key: tuple[str, ...] = ("id",)
        self.rows: dict[int, Row] = {}
        self.shown: list[list[tuple[Any, ...]]] = []
        self.events: list[Row] = []
        self.pending: list[Row] = []
        self.ends: list[Row] = []
        self.offsets = [0] * partitions
        self.last = 0
        for number, key in enumerate(KEYS):
            append_schemas(folder, [schema_row(T, f"by-{'-'.join(key)}", FIELDS, key, number)])

    def key_of(self, row: Row) -> Row:
        return {k: row[k] for k in self.key}

    def send(self, op: str, row: Row, **values: Any) -> None:
        tx = (f"{len(self.shown) + 1:05d}", len(self.events) + 1)
        sid = f"by-{'-'.join(self.key)}"
        self.events.append(log_row(T, op, 0, key=self.key_of(row), tx=tx, schema_id=sid, **values))

    def insert(self, n: int) -> None:
        self.last += 1
        row = {"id": self.last, "n": n, "name": f"é-{n}/{self.last}", "note": LONG}
        self.rows[self.last] = row
        self.send("c", row, after=row)

    def update(self, number: int, **values: Any) -> None:
        """An update of columns; of the key, it is a delete and a create."""
        old = self.rows[number]
        row = self.rows[number] = {**old, **values}
        image = row if "note" in values else {**row, "note": PLACEHOLDER}
        if self.key_of(old) == self.key_of(row):
            self.send("u", row, after=image)
            return
        before, after = text(self.key_of(old)) or "", text(self.key_of(row)) or ""
        self.send("d", old, before=self.key_of(old), headers={"__debezium.newkey": after})
        self.send("c", row, after=image, headers={"__debezium.oldkey": before})

    def delete(self, number: int) -> None:
        row = self.rows.pop(number)
        self.send("d", row, before=self.key_of(row))

    def truncate(self) -> None:
        self.rows.clear()
        tx = (f"{len(self.shown) + 1:05d}", len(self.events) + 1)
        self.events.append(log_row(T, "t", 0, tx=tx, schema_id=f"by-{'-'.join(self.key)}"))

    def commit(self) -> None:
        """Send the transaction."""
        for row in self.events:
            partition = sum((row["__key"] or "").encode()) % self.partitions
            self.pending.append({**row, "__partition": partition, "__offset": self.offsets[partition]})
            self.offsets[partition] += 1
        tx = f"{len(self.shown) + 1:05d}"
        self.ends.append(end_row(2 * len(self.shown), tx, {str(T): len(self.events)}))
        self.events = []
        self.shown.append(sorted(tuple(r.values()) for r in self.rows.values()))

    def land(self) -> None:
        append_log(self.folder, T, self.pending)
        append_ends(self.folder, self.ends)
        self.pending, self.ends = [], []

    def fold(self) -> None:
        done = list(fold_source(Lake(str(self.folder / "lake")), SOURCE, lambda _: True))
        assert [d.error for d in done] == [None]

    def ask(self, sql: str, as_of: str | None = None) -> list[tuple[Any, ...]]:
        session = open_session(config(self.folder), as_of)
        try:
            return session.connection.execute(sql).fetchall()
        finally:
            session.close()

    def current(self) -> list[tuple[Any, ...]]:
        return sorted(self.ask("FROM t"))


@pytest.mark.parametrize("folded", [False, True])
def test_rows_sent_under_the_old_key_are_the_rows_of_the_new_one(tmp_path: Path, folded: bool) -> None:
    table = Table(tmp_path)
    for n in (10, 20, 30, 40):
        table.insert(n)
    table.delete(2)
    table.update(4, n=44)
    table.commit()
    table.land()
    if folded:
        table.fold()
    table.key = ("n",)
    table.update(1, note="changed")
    table.update(3, n=33)
    table.delete(4)
    table.commit()
    table.land()
    assert table.current() == table.shown[-1]
    table.fold()
    assert table.current() == table.shown[-1]


def test_a_row_that_nobody_touched_since_then_is_shown_once(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.insert(10)
    table.insert(20)
    table.commit()
    table.key = ("n",)
    table.insert(30)
    table.commit()
    table.land()
    assert table.current() == table.shown[-1]
    assert table.ask("SELECT __key->>'n', id, __valid_to FROM history.public.t ORDER BY id") == [
        ("10", 1, None),
        ("20", 2, None),
        ("30", 3, None),
    ]


def test_history_of_a_row_goes_on_over_a_new_key(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.insert(10)
    table.commit()
    table.update(1, n=11)
    table.commit()
    table.key = ("n",)
    table.update(1, note="new")
    table.commit()
    table.update(1, n=12)
    table.commit()
    table.land()
    session = open_session(config(tmp_path))
    try:
        versions = row_history(session, "t", "12").versions
    finally:
        session.close()
    assert [(v.row["n"], v.row["note"], v.changed) for v in versions] == [(12, "new", ["n"])]
    rows = table.ask("SELECT n, note, __ended_by FROM history.public.t ORDER BY __from_position")
    assert rows == [(10, LONG, "u"), (11, LONG, "u"), (11, "new", "d"), (12, "new", None)]


@pytest.mark.parametrize("seed", seeds(2))
def test_current_history_and_every_past_moment_equal_the_model_whatever_the_key_was(tmp_path: Path, seed: int) -> None:
    chance = Random(seed)
    table = Table(tmp_path, partitions=chance.choice([1, 2, 3]))
    for _ in range(chance.randrange(8, 20)):
        for _ in range(chance.randrange(1, 5)):
            _change(table, chance)
        if not table.events:
            continue
        table.commit()
        if chance.random() < 0.25:
            table.key = chance.choice(KEYS)
        if chance.random() < 0.3:
            table.land()
            assert table.current() == table.shown[-1]
        if chance.random() < 0.3 and not table.pending:
            table.fold()
            assert table.current() == table.shown[-1]
    table.land()
    assert table.current() == table.shown[-1]
    _check_past(table, chance)
    table.fold()
    assert table.current() == table.shown[-1]
    _check_past(table, chance)
    assert rebuild_table(Lake(str(tmp_path / "lake")), SOURCE, lambda _: True, T).error is None
    assert table.current() == table.shown[-1]


def _check_past(table: Table, chance: Random) -> None:
    session = open_session(config(table.folder))
    try:
        for number, shown in enumerate(table.shown, 1):
            at = f"SELECT id, n, name, note FROM lake.at('t', 'tx:{number:05d}')"
            assert sorted(session.connection.execute(at).fetchall()) == shown, f"history at {number}"
    finally:
        session.close()
    for number in chance.sample(range(1, len(table.shown) + 1), 3):
        assert sorted(table.ask("FROM t", f"tx:{number:05d}")) == table.shown[number - 1], f"as of {number}"


def _change(table: Table, chance: Random) -> None:
    some = chance.choice(list(table.rows)) if table.rows else None
    kind = chance.choices(("insert", "update", "note", "move", "delete", "truncate"), (8, 4, 2, 4, 4, 0.4))[0]
    fresh = 1000 * (table.last + 1) + chance.randrange(1000)
    while any(r["n"] == fresh for r in table.rows.values()):
        fresh += 1
    if kind == "insert" or some is None:
        table.insert(fresh)
    elif kind == "truncate":
        table.truncate()
    elif kind == "delete":
        table.delete(some)
    elif kind == "move":
        table.update(some, n=fresh)
    elif kind == "note":
        table.update(some, note=f"note {fresh}")
    else:
        table.update(some, name=f'name \\ "{fresh}" é')


def test_rows_of_a_table_that_lost_its_key_are_of_another_version_and_a_truncate_is_not(tmp_path: Path) -> None:
    kafka = MemoryKafka()
    kafka.create_topic("pos.public.t")
    sink = make_sink(kafka, tmp_path)
    row = {"id": 1, "n": 1}
    sent = (
        event("t", row, inline=True),
        event("t", None, op="t", inline=True),
        (None, event("t", row, inline=True)[1]),
        event("t", None, op="t", inline=True),
    )
    for key, value in sent:
        kafka.produce("pos.public.t", 0, key, value)
        sink.run(until_caught_up=True)
    keyed, truncate, bare, later = (r["__schema_id"] for r in log_rows(tmp_path, "t"))
    assert keyed == truncate != bare == later
