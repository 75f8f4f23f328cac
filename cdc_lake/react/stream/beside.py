"""Changes that meet tables of another source.

Sources share no order. But each batch of events has written down how far the other sources had landed by then, so which
version of a row an event meets is a fact, the same for whoever evaluates it later. A change of a database meets the
version of the last transaction of the other source that was committed no later, by the clocks of both (the greatest
commit time so far). Either is evaluated when all transactions up to there are complete.
"""

from __future__ import annotations

from cdc_lake.query.placed import NEVER, Log, Placed
from cdc_lake.react.stream.shape import Shape
from cdc_lake.sqltext import literal


def beside_sql(placed: Placed, shape: Shape) -> str:
    """A query (position, landed): of each transaction, the position of the source beside it that its changes meet."""
    source = next(iter(shape.beside.values()))
    if placed.log.events:
        return f"SELECT pos AS position, {_at(source)} AS landed FROM {placed.ends} WHERE pos > 0"
    told = f"SELECT us, max(pos) AS pos FROM ({_clock(_named(placed.log, source))}) GROUP BY us"
    return f"""SELECT t.position, coalesce(o.pos, 0) AS landed FROM {placed.clock} t
        ASOF LEFT JOIN ({told}) o ON t.clock >= o.us"""


def met(log: Log, shape: Shape, after: int, upto: int) -> int:
    """The last position, at most `upto`, up to which all that the changes meet has landed and is complete."""
    for source in set(shape.beside.values()):
        other = _named(log, source)
        if not log.events:
            # What comes next may have been committed as late as the last one.
            query = f"SELECT max(pos) FROM ({_clock(log)}) WHERE pos <= {upto} AND us < {other.clock(other.cut)}"
            upto = _one(log, query)
            continue
        first = _one(
            log,
            f"""SELECT min(__offset) + 1 FROM {log.ends}
            WHERE __offset >= {after} AND {_at(source)} > {_bound(other)}""",
        )
        upto = min(upto, first - 1) if first else upto
    return max(upto, after)


def seen_at(log: Log, source: str, position: int) -> int:
    """How far a source is that the last transaction at or before `position` met; 0 before the first."""
    if not log.events:
        other = _named(log, source)
        return _one(log, f"SELECT max(pos) FROM ({_clock(other)}) WHERE us <= {log.clock(position)}")
    return _one(log, f"SELECT max({_at(source)}) FROM {log.ends} WHERE __offset < {position}")


def kept_beside(log: Log, shape: Shape) -> int:
    """The position behind which changes meet only what is kept of the tables beside them."""
    kept = 0
    for alias, source in shape.beside.items():
        other = _named(log, source)
        start = next(t.log.start for t in other.state.tables if t.table == shape.tables[alias])
        if start and log.events:
            kept = max(kept, _one(log, f"SELECT max(__offset) + 1 FROM {log.ends} WHERE {_at(source)} < {start}"))
        elif start:
            first = f"SELECT min(us) FROM ({_clock(other)}) WHERE pos >= {start}"
            kept = max(kept, _one(log, f"SELECT max(pos) FROM ({_clock(log)}) WHERE us < ({first})"))
    return kept


def _named(log: Log, source: str) -> Log:
    return next(g for g in log.beside if g.source == source)


def _clock(log: Log) -> str:
    """A query (pos, us): the clock of a source at each of its complete transactions."""
    return f"SELECT pos, coalesce(epoch_us(shown_ts), {NEVER}) AS us FROM ({log.timeline}) WHERE pos <= {log.cut}"


def _one(log: Log, query: str) -> int:
    ((found,),) = log.con.execute(query).fetchall()
    return int(found or 0)


def _at(source: str) -> str:
    """SQL over the END of a batch."""
    seen = """from_json(data_collections, '[{"source":"VARCHAR","position":"BIGINT"}]')"""
    return f"coalesce(list_filter({seen}, lambda x: x.source = {literal(source)})[1].position, 0)"


def _bound(other: Log) -> int:
    """The position up to which everything of a source is here and complete, as far as this session sees it."""
    if other.state.cut.stalled or other.state.transactions is None:
        return other.cut
    return max(other.cut, *other.state.transactions.positions.values(), 0)
