"""Key changes that a set statement cannot settle, folded one event at a time.

A key change arrives as a delete at the old key (header newkey) and a create at the new one (header oldkey). Two cases
need the order of single events: the create leaves values out (they travel from the old key), and a row moves to a key
that another row leaves later in the same transaction (a swap, a set-wise shift): that delete means the older row. Only
the keys of such cases, and those their rows came from, are folded here; the result joins the statement as a relation.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from cdc_lake.project.current import View, base_select
from cdc_lake.project.headers import NEW_KEY, OLD_KEY, names
from cdc_lake.sqltext import literal

_MOVE = f"({names(NEW_KEY)} OR {names(OLD_KEY)})"
_GROUP = "coalesce(__tx_id, epoch_us(__source_ts)::VARCHAR) AS grp"

# Where a value that an image leaves out is found: another image and its schema, or None for the base.
_Place = tuple[str, str | None] | None


@dataclass(slots=True)
class _Row:
    """A row of a key as it stands: its last image (None: the base's row), and what that image leaves out."""

    origin: str | None
    image: str | None = None
    schema_id: str | None = None
    held: dict[int, _Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Event:
    key: str
    op: str
    image: str | None
    schema_id: str | None
    other: str | None
    group: str
    marks: tuple[int, ...]


def settle(con: duckdb.DuckDBPyConnection, view: View, name: str) -> str | None:
    """Make the table `name` (k, alive, c0, c1, …, unknown, img, sid) of keys that need it; None when there are none.

    `img` and `sid` are the row's last image and its schema, null where the base has it.
    """
    if not view.tail.facts.moves:
        return None
    keys = _keys_in_question(_read_moves(con, view))
    if not keys:
        return None
    con.execute(f"CREATE OR REPLACE TABLE {name}_keys AS SELECT unnest(?::VARCHAR[]) AS k", [sorted(keys)])
    states = _fold(_read_events(con, view, f"{name}_keys"), _read_base_keys(con, view, f"{name}_keys"))
    _write(con, view, name, {k: states.get(k, []) for k in keys})
    con.execute(f"DROP TABLE {name}_keys")
    return name


def _read_moves(con: duckdb.DuckDBPyConnection, view: View) -> list[tuple[Any, ...]]:
    held = f"op = 'c' AND {view.shapes.may_hold_mark('img')}" if view.shapes.toastable else "false"
    rows = view.after_truncate(f"({view.placed(_MOVE, ('__headers AS headers', _GROUP))})")
    steps = f"WITH {view.truncated} " if view.tail.clears else ""
    return con.execute(
        f"""{steps}SELECT k, op, headers, grp, {held} FROM {rows} AS p
        WHERE k IS NOT NULL ORDER BY pos_tx, pos_order, off"""
    ).fetchall()


def _keys_in_question(moves: Sequence[tuple[Any, ...]]) -> set[str]:
    """Keys whose moves need single events, and the keys their rows came from."""
    came_from: dict[str, set[str]] = defaultdict(set)
    arrived: set[tuple[str, str]] = set()
    found: set[str] = set()
    for key, op, headers, group, held in moves:
        if op == "d":
            if (group, key) in arrived:
                found.add(key)
            continue
        arrived.add((group, key))
        old = other_key(headers)
        if old is not None:
            came_from[key].add(old)
        if held:
            found.add(key)
    waiting = list(found)
    while waiting:
        for old in came_from[waiting.pop()] - found:
            found.add(old)
            waiting.append(old)
    return found


def other_key(headers: str | None) -> str | None:
    """The other key of a key change, as the JSON text that the log has in `__key`; None when it is none."""
    found = json.loads(headers) if headers else {}
    text = found.get(NEW_KEY) or found.get(OLD_KEY)
    return _unwrapped(text) if isinstance(text, str) else None


def _unwrapped(text: str) -> str:
    """The payload's own text: parsing and printing it again could change a number's digits."""
    if not text.startswith('{"schema":'):
        return text
    _, end = json.JSONDecoder().raw_decode(text, len('{"schema":'))
    return text[end:].removeprefix(',"payload":')[:-1]


def _read_events(con: duckdb.DuckDBPyConnection, view: View, keys: str) -> list[_Event]:
    where = f"__op <> 't' AND __key IN (SELECT k FROM {keys})"
    rows = view.after_truncate(f"({view.placed(where, ('__headers AS headers', _GROUP, '__tx_id AS tx'))})")
    once = f"""(SELECT * FROM {rows} AS p QUALIFY tx IS NULL OR
        row_number() OVER (PARTITION BY pos_tx, pos_order ORDER BY off) = 1)"""
    carry = ["k", "op", "img", "sid", "headers", "grp", "bare", "pos_tx", "pos_order", "off"]
    decoded = view.shapes.decoded(once, "img", "sid", carry, marks=True)
    marks = ", ".join(f"CASE WHEN u{i} THEN {i} END" for i in view.shapes.toastable)
    steps = f"WITH {view.truncated} " if view.tail.clears else ""
    found = con.execute(
        f"""{steps}SELECT k, op, img, sid, headers, grp, bare, [{marks}]::INTEGER[] AS marks FROM ({decoded})
        ORDER BY pos_tx, pos_order, off"""
    ).fetchall()
    return [_event(row) for row in found]


def _event(row: tuple[Any, ...]) -> _Event:
    key, op, image, schema_id, headers, group, bare, marks = row
    other = other_key(headers)
    # Only an update without a before-image and a moved row leave values out; elsewhere the text is the user's own.
    partial = (op == "u" and bare) or (op == "c" and other is not None)
    return _Event(key, op, image, schema_id, other, group, tuple(i for i in marks if i is not None) if partial else ())


def _read_base_keys(con: duckdb.DuckDBPyConnection, view: View, keys: str) -> set[str]:
    if view.base is None:
        return set()
    steps = f"WITH {view.truncated} " if view.tail.clears else ""
    wanted = f"SELECT k FROM {keys}"
    found = con.execute(
        f"""{steps}SELECT k FROM ({base_select(view, f"{view.base_condition} AND {view.base.key} IN ({wanted})")})"""
    ).fetchall()
    return {k for (k,) in found}


def _fold(events: Iterable[_Event], base_keys: set[str]) -> dict[str, list[_Row]]:
    """The rows of each key after all events: at most one, once a transaction has ended.

    Each key's events are taken in their order; between keys only one order matters: a create waits for the delete it
    continues. So the result is the same where key changes cross partitions and nothing orders those.
    """
    state = _State({k: [_Row(origin=k)] for k in base_keys})
    for event in events:
        state.queues[event.key].append(event)
        if event.op == "d" and event.other is not None:
            state.to_come[event.key, event.other] += 1
    for key in list(state.queues):
        state.run(key)
    return state.rows


class _State:
    def __init__(self, rows: dict[str, list[_Row]]) -> None:
        self.rows = rows
        self.queues: dict[str, deque[_Event]] = defaultdict(deque)
        self.to_come: Counter[tuple[str, str]] = Counter()
        self._left: dict[tuple[str, str], deque[_Row]] = defaultdict(deque)
        self._groups: dict[str, str] = {}

    def run(self, key: str) -> None:
        """Take all events of `key`, and of other keys as far as it waits for them."""
        waiting: list[tuple[str, tuple[str, str] | None]] = [(key, None)]
        while waiting:
            current, wanted = waiting[-1]
            queue = self.queues[current]
            if not queue or (wanted is not None and self._left[wanted]):
                waiting.pop()
                if not queue:
                    self._end_transaction(current)
                continue
            needed = self._needed(queue[0])
            if needed is not None and all(needed[0] != k for k, _ in waiting):
                waiting.append((needed[0], needed))
            else:
                self._apply(queue.popleft())

    def _needed(self, event: _Event) -> tuple[str, str] | None:
        """The move whose delete must come before this create; None when nothing need come before."""
        if event.op != "c" or event.other is None:
            return None
        move = (event.other, event.key)
        return move if not self._left[move] and self.to_come[move] > 0 else None

    def _end_transaction(self, key: str) -> None:
        # A key is unique between transactions. What is left over was delivered twice without an identity to tell.
        del self.rows.setdefault(key, [])[:-1]

    def _apply(self, event: _Event) -> None:
        if self._groups.get(event.key) != event.group:
            self._end_transaction(event.key)
            self._groups[event.key] = event.group
        here = self.rows[event.key]
        if event.op == "d":
            gone = here.pop(0) if here else None
            if event.other is not None:
                move = (event.key, event.other)
                self.to_come[move] -= 1
                self._left[move].append(gone or _Row(None))
        elif event.op == "u":
            here.append(_after(here.pop() if here else None, event))
        elif event.op == "r":
            here[:] = [_after(None, event)]
        else:
            left = self._left[event.other or "", event.key]
            here.append(_after(left.popleft() if event.other is not None and left else None, event))


def _after(before: _Row | None, event: _Event) -> _Row:
    row = _Row(before.origin if before else None, event.image, event.schema_id)
    for i in event.marks:
        if before is None or before.image is None:
            row.held[i] = None
        else:
            row.held[i] = before.held.get(i, (before.image, before.schema_id))
    return row


def _write(con: duckdb.DuckDBPyConnection, view: View, name: str, states: dict[str, list[_Row]]) -> None:
    """Type the settled rows, once, into the table `name`."""
    ends = [(k, rows[-1] if rows else None) for k, rows in sorted(states.items())]
    text = pa.string()
    main = pa.table(
        {
            "k": pa.array([k for k, _ in ends], text),
            "alive": pa.array([r is not None for _, r in ends]),
            "img": pa.array([r.image if r else None for _, r in ends], text),
            "sid": pa.array([r.schema_id if r else None for _, r in ends], text),
            "origin": pa.array([r.origin if r else None for _, r in ends], text),
            "held": pa.array([sorted(r.held) if r else [] for _, r in ends], pa.list_(pa.int32())),
        }
    )
    places = [(k, i, p) for k, r in ends if r for i, p in r.held.items() if p is not None]
    other = pa.table(
        {
            "k": pa.array([k for k, _, _ in places], text),
            "i": pa.array([i for _, i, _ in places], pa.int32()),
            "img": pa.array([p[0] for _, _, p in places], text),
            "sid": pa.array([p[1] for _, _, p in places], text),
        }
    )
    con.register("settled_main", main)
    con.register("settled_other", other)
    try:
        con.execute(f"CREATE OR REPLACE TABLE {name} AS {_typed(view, sorted({i for _, i, _ in places}))}")
    finally:
        con.unregister("settled_main")
        con.unregister("settled_other")


def _typed(view: View, elsewhere: Sequence[int]) -> str:
    carry = ["k", "alive", "img", "sid", "origin", "held"]
    main = view.shapes.decoded("settled_main", "img", "sid", carry)
    other = view.shapes.decoded("settled_other", "img", "sid", ["k", "i"])
    base = _none_or_base(view)
    joins = " ".join(
        f"LEFT JOIN (SELECT k, c{i} AS v FROM other WHERE i = {i}) x{i} ON x{i}.k = m.k" for i in elsewhere
    )
    values, unknown = [], []
    for i, column in enumerate(view.shapes.target.columns):
        held = f"list_contains(m.held, {i})"
        found = f"WHEN {held} AND x{i}.k IS NOT NULL THEN x{i}.v " if i in elsewhere else ""
        values.append(f"CASE WHEN m.img IS NULL THEN o.c{i} {found}WHEN {held} THEN o.c{i} ELSE m.c{i} END AS c{i}")
        name = literal(column.name)
        missing = f"{held} AND x{i}.k IS NULL" if i in elsewhere else held
        lost = f"(({missing}) OR m.img IS NULL) AND (o.k IS NULL OR list_contains(o.unknown, {name}))"
        unknown.append(f"CASE WHEN m.alive AND {lost} THEN {name} END")
    steps = f"{view.truncated}, " if view.tail.clears else ""
    return f"""WITH {steps}main AS ({main}), other AS ({other})
        SELECT m.k AS k, m.alive AS alive, {", ".join(values)},
        list_filter([{", ".join(unknown)}]::VARCHAR[], lambda x: x IS NOT NULL) AS unknown, m.img AS img, m.sid AS sid
        FROM main m {joins} LEFT JOIN ({base}) o ON o.k = m.origin"""


def _none_or_base(view: View) -> str:
    condition = f"{view.base_condition} AND {view.base.key} IN (SELECT origin FROM settled_main)" if view.base else ""
    return base_select(view, condition)
