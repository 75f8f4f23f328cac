"""Events that meet tables of another source: as these had landed when the batch of the event did.

Sources share no order. But each batch of events has written down how far the other sources had landed by then, so which
version of a row an event meets is a fact, the same for whoever evaluates it later. An event is evaluated when all
transactions up to there are complete.
"""

from __future__ import annotations

from cdc_lake.query.placed import Log, Placed
from cdc_lake.react.stream.shape import Shape
from cdc_lake.sqltext import literal


def beside_sql(placed: Placed, shape: Shape) -> str:
    """A query (position, landed): of each batch, the position up to which the source beside it had landed then."""
    source = next(iter(shape.beside.values()))
    return f"SELECT pos AS position, {_at(source)} AS landed FROM {placed.ends} WHERE pos > 0"


def met(log: Log, shape: Shape, after: int, upto: int) -> int:
    """The last position, at most `upto`, up to which all that the events meet has landed and is complete."""
    for source in set(shape.beside.values()):
        bound = _bound(next(g for g in log.beside if g.source == source))
        rows = log.con.execute(
            f"""SELECT min(__offset) + 1 FROM {log.ends}
            WHERE __offset >= {after} AND {_at(source)} > {bound}"""
        ).fetchall()
        first = rows[0][0]
        upto = upto if first is None else min(upto, int(first) - 1)
    return max(upto, after)


def seen_at(log: Log, source: str, position: int) -> int:
    """How far a source had landed with the last batch at or before `position`; 0 before the first."""
    ((at,),) = log.con.execute(
        f"""SELECT max({_at(source)}) FROM {log.ends}
        WHERE __offset < {position}"""
    ).fetchall()
    return int(at or 0)


def kept_beside(log: Log, shape: Shape) -> int:
    """The position behind which events meet only what is kept of the tables beside them."""
    kept = 0
    for alias, source in shape.beside.items():
        other = next(g for g in log.beside if g.source == source)
        start = next(t.log.start for t in other.state.tables if t.table == shape.tables[alias])
        if start:
            ((last,),) = log.con.execute(
                f"""SELECT max(__offset) + 1 FROM {log.ends}
                WHERE {_at(source)} < {start}"""
            ).fetchall()
            kept = max(kept, int(last or 0))
    return kept


def _at(source: str) -> str:
    """SQL over the END of a batch."""
    seen = """from_json(data_collections, '[{"source":"VARCHAR","position":"BIGINT"}]')"""
    return f"coalesce(list_filter({seen}, lambda x: x.source = {literal(source)})[1].position, 0)"


def _bound(other: Log) -> int:
    """The position up to which everything of a source is here and complete, as far as this session sees it."""
    if other.state.cut.stalled or other.state.transactions is None:
        return other.cut
    return max(other.cut, *other.state.transactions.positions.values(), 0)
