"""A model's rows made again from a point of the past: the same ones, or it is said which are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from cdc_lake.config import Config
from cdc_lake.land.reading import read_rows
from cdc_lake.land.tables import STREAM_LATE
from cdc_lake.query.merged import Ordered
from cdc_lake.react.engine import Memory
from cdc_lake.react.places import Place
from cdc_lake.react.stream.run import empty_rows, form_of, kept_from, memories_of, remember, start_of, steps, table_of
from cdc_lake.react.stream.shape import Shape
from cdc_lake.react.watch import CHUNK
from cdc_lake.sqltext import ident


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay made behind the position `after` and up to `upto`. `missing` are rows that the table did not have,
    `extra` those that only the table had; `examples` are some of both. `anew` says that there was no table of this form
    to compare with."""

    after: int
    upto: int
    rows: int
    late: int
    same: int
    missing: int
    extra: int
    examples: Sequence[dict[str, object]]
    anew: bool

    @property
    def differs(self) -> bool:
        """Whether the table had other rows."""
        return bool(self.missing or self.extra)


def replay(
    config: Config, log: Ordered, shape: Shape, moment: str | None, *, write: bool, chunk: int = CHUNK
) -> Replayed:
    """Make a model's rows again behind `moment` (without: all), and with `write` put them in the place of those that
    are there, in one commit with the position. Raises MomentError, ModelError, LakeError.
    """
    table = table_of(config, shape)
    known = table.place()
    anew = known is None or known.form != form_of(shape)
    since = known.since if known is not None and not anew else start_of(log, shape)
    upto = log.cut if known is None else known.position
    after = since if moment is None or anew else max(since, log.position(moment))
    after = min(after, upto)
    if after == since and since < kept_from(log, shape):
        since = after = min(kept_from(log, shape), upto)
    memory = remember(log, shape, since, after, chunk=chunk) if shape.remembers else Memory(after, log.clock(after))
    made, late = [empty_rows(shape)], [STREAM_LATE.empty_table()]
    for step in steps(log, shape, memory, upto, chunk=chunk):
        made.append(step.rows.cast(made[0].schema))
        late += [step.late.cast(STREAM_LATE)] if step.late is not None else []
        memory = step.memory
    rows, aside = pa.concat_tables(made), pa.concat_tables(late)
    stored = table.rows.open()
    there = read_rows(stored) if stored is not None and not anew else empty_rows(shape)
    found = _compared(rows, there, after, upto, aside.num_rows, anew=anew)
    if write:
        memory = Memory(upto, memory.clock, memory.rows)
        if shape.remembers:
            memories_of(config, shape).save(shape, memory)
        whole = anew or after == since
        table.replace(rows, aside, after, Place(upto, since, form_of(shape)), whole=whole)
    return found


def _compared(rows: pa.Table, there: pa.Table, after: int, upto: int, late: int, *, anew: bool) -> Replayed:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("made", rows)
        con.register("stored", there)
        names = ", ".join(ident(n) for n in rows.column_names)
        old = f"SELECT {names} FROM stored WHERE __position > {after}"
        new = f"SELECT {names} FROM made"
        query = "SELECT '{}' AS what, * FROM ({} EXCEPT ALL {})"
        con.execute(
            f"""CREATE TABLE differing AS {query.format("missing", new, old)}
            UNION ALL {query.format("extra", old, new)}"""
        )
        ((missing, extra),) = con.execute(
            "SELECT count(*) FILTER (what = 'missing'), count(*) FILTER (what = 'extra') FROM differing"
        ).fetchall()
        examples = con.sql("FROM differing ORDER BY __position, __id, what LIMIT 10").to_arrow_table().to_pylist()
    same = rows.num_rows - int(missing)
    return Replayed(after, upto, rows.num_rows, late, same, int(missing), int(extra), examples, anew)
