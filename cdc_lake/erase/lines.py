"""Which rows of a log are changes of one row of the source, also under the keys that it had before or has now.

A key may have been that of several rows, one after the other: a swap, or a shift of all keys. So keys alone do not tell
a row; the lines of `history` do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import duckdb

from cdc_lake.project.headers import NEW_KEY, OLD_KEY, names, other_key
from cdc_lake.project.history import event_columns, group_steps, lineage_steps
from cdc_lake.project.life import Life, life_steps
from cdc_lake.sqltext import literal

# A row that a key has had, and the key: see `history.NODE`.
_Node = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Key:
    """A key that a row had, as the log shows it; `whole`: no other row ever had it, `gone`: no other has it now."""

    text: str
    whole: bool = True
    gone: bool = True


@dataclass(frozen=True, slots=True)
class Lines:
    """The keys of some rows; `nodes` are the rows of keys that others had too, in the DuckDB table `events`.

    Without keys, the rows that once had the key have those of `left_for` now.
    """

    keys: tuple[Key, ...]
    events: str
    nodes: tuple[_Node, ...] = ()
    left_for: tuple[str, ...] = ()

    @property
    def condition(self) -> str:
        """SQL that says of a log row whether it is theirs. Of a key that others had too, single events are."""
        whole = ", ".join(literal(k.text) for k in self.keys if k.whole)
        parts = [f"__key IN ({whole})"] if whole else []
        if self.nodes:
            chosen = ", ".join(f"({kid}, {inc})" for kid, inc in self.nodes)
            parts.append(
                f"""EXISTS (SELECT 1 FROM {self.events} e WHERE (e.kid, e.inc) IN ({chosen}) AND e.k = __key AND
                CASE WHEN __tx_id IS NOT NULL THEN e.tx = __tx_id AND e.pos_order = __tx_order
                    ELSE e.top = __topic AND e.part = __partition AND e.off = __offset END)"""
            )
        return f"({' OR '.join(parts) or 'false'})"


def find_lines(con: duckdb.DuckDBPyConnection, life: Life, log: str, texts: Iterable[str], events: str) -> Lines:
    """The lines of the rows that have the keys `texts`, or had them last; makes the table `events`.

    `log` is the relation of all log rows, `life` is of the same.
    """
    wanted = set(texts)
    related = _related(con, log, wanted)
    if related == wanted:
        return Lines(tuple(Key(k) for k in sorted(wanted)), events)
    _load(con, life, related, events)
    nodes: dict[_Node, tuple[str, int]] = {}
    came: dict[_Node, _Node] = {}
    for k, kid, inc, last, *origin in con.execute(
        f"SELECT k, kid, inc, max(id), any_value(from_kid), any_value(from_inc) FROM {events} GROUP BY ALL"
    ).fetchall():
        nodes[kid, inc] = k, last
        if origin[0] is not None:
            came[kid, inc] = origin[0], origin[1]
    chosen, left_for = _chosen(nodes, came, wanted)
    if left_for:
        return Lines((), events, left_for=tuple(sorted({nodes[n][0] for n in left_for})))
    unseen = related - {k for k, _ in nodes.values()}
    keys = [*(_key(k, nodes, chosen) for k in sorted({nodes[n][0] for n in chosen})), *map(Key, sorted(unseen))]
    whole = {k.text for k in keys if k.whole}
    return Lines(tuple(keys), events, tuple(sorted(n for n in chosen if nodes[n][0] not in whole)))


def _related(con: duckdb.DuckDBPyConnection, log: str, keys: set[str]) -> set[str]:
    """The keys, and all that key changes connect them with."""
    other = f"coalesce({other_key(NEW_KEY)}, {other_key(OLD_KEY)})"
    moved = con.execute(
        f"SELECT DISTINCT __key, {other} FROM {log} WHERE ({names(NEW_KEY)} OR {names(OLD_KEY)}) AND __key IS NOT NULL"
    ).fetchall()
    beside: dict[str, set[str]] = defaultdict(set)
    for one, two in moved:
        if two is not None:
            beside[one].add(two)
            beside[two].add(one)
    found, waiting = set(keys), set(keys)
    while waiting:
        waiting = set[str]().union(*(beside[k] for k in waiting)) - found
        found |= waiting
    return found


def _load(con: duckdb.DuckDBPyConnection, life: Life, keys: Iterable[str], events: str) -> None:
    mine = replace(life, keys=tuple(sorted(keys)))
    steps = [*life_steps(mine, event_columns(mine)), *group_steps(), *lineage_steps()]
    con.execute(
        f"""CREATE OR REPLACE TABLE {events} AS WITH RECURSIVE {", ".join(steps)}
        SELECT l.k, l.kid, l.inc, l.tx, l.pos_order, l.top, l.part, l.off, l.id, f.from_kid, f.from_inc
        FROM located l LEFT JOIN links f ON f.kid = l.kid AND f.inc = l.inc"""
    )


def _chosen(
    nodes: Mapping[_Node, tuple[str, int]], came: Mapping[_Node, _Node], wanted: set[str]
) -> tuple[set[_Node], set[_Node]]:
    """All that the rows were that have the keys or had them last; without such, what those that had them became."""
    goes = {origin: n for n, origin in came.items()}
    mine = {n for n, (k, _) in nodes.items() if k in wanted}
    ends = {n for n in mine if n not in goes}
    if mine and not ends:
        return set(), {_walk(n, goes)[-1] for n in mine}
    return {step for n in ends for step in _walk(n, came)}, set()


def _walk(start: _Node, step: Mapping[_Node, _Node]) -> list[_Node]:
    found = [start]
    while (following := step.get(found[-1])) is not None and following not in found:
        found.append(following)
    return found


def _key(text: str, nodes: Mapping[_Node, tuple[str, int]], chosen: set[_Node]) -> Key:
    mine = [n for n, (k, _) in nodes.items() if k == text]
    newest = max(mine, key=lambda n: nodes[n][1])
    return Key(text, whole=all(n in chosen for n in mine), gone=newest in chosen)
