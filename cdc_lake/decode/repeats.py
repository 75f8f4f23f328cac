"""Which events are there already: messages that were sent again, with the source and id of an earlier one.

Remembered are the last million events of each topic at least, by a hash of their key with the place of their first
message. Whoever begins to read a topic takes them from the log. A message is a repetition when an event of its key was
first seen elsewhere, or before it in its partition: read once more after a failure, it is itself again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import duckdb
import pyarrow as pa

# Of each topic; a place takes 40 bytes.
REMEMBERED = 1_000_000
# So many times as many are there before the older ones are forgotten.
_SLACK = 1.2


class Repeats:
    """Marks messages of events that were seen before. `landed` gives keys and places of the events of a topic that
    landed last, as columns of the log; None: nothing has."""

    def __init__(
        self,
        duck: duckdb.DuckDBPyConnection,
        landed: Callable[[str], pa.Table | None] = lambda _: None,
        *,
        limit: int = REMEMBERED,
    ) -> None:
        self._duck, self._landed, self._limit = duck, landed, limit
        self._fresh: set[str] = set()
        duck.execute("CREATE TABLE seen (topic VARCHAR, h UBIGINT, g UBIGINT, part INTEGER, off BIGINT)")

    def forget(self, topics: Iterable[str]) -> None:
        """Look into the log again before the next message of these topics: others may have landed some."""
        self._fresh -= set(topics)

    def mark(self, found: pa.Table) -> pa.Array:
        """For each of `found` (topic, part, off, key; in this order), whether its event is there already; remembers the
        others."""
        self._refresh(found)
        self._duck.register("found_events", found.select(["topic", "part", "off", "key"]))
        try:
            marked = self._duck.sql(
                """WITH f AS MATERIALIZED (
                    SELECT *, md5_number_lower(key) AS h, md5_number_upper(key) AS g, row_number() OVER () AS n
                    FROM found_events),
                before AS (SELECT DISTINCT n FROM f JOIN seen s USING (topic, h, g)
                    WHERE s.part <> f.part OR s.off < f.off),
                first AS (SELECT topic, h, g, min(n) AS n FROM f WHERE key IS NOT NULL GROUP BY ALL)
                SELECT f.key IS NOT NULL AND (b.n IS NOT NULL OR first.n IS NULL) AS again, f.*
                FROM f LEFT JOIN before b ON b.n = f.n LEFT JOIN first ON first.n = f.n ORDER BY f.n"""
            ).to_arrow_table()
        finally:
            self._duck.unregister("found_events")
        self._remember(marked)
        again: pa.Array = marked["again"].combine_chunks()
        return again

    def _remember(self, marked: pa.Table) -> None:
        self._duck.register("marked_events", marked)
        self._duck.execute(
            "INSERT INTO seen SELECT topic, h, g, part, off FROM marked_events WHERE NOT again AND key IS NOT NULL"
        )
        self._duck.unregister("marked_events")
        counts = self._duck.execute("SELECT count(*) FROM seen GROUP BY topic").fetchall()
        if any(count > self._limit * _SLACK for (count,) in counts):
            # What is deleted from a table, DuckDB goes on holding in memory; a new table has what is left.
            self._duck.execute(
                f"""CREATE TABLE younger AS SELECT topic, h, g, part, off FROM seen
                QUALIFY row_number() OVER (PARTITION BY topic ORDER BY rowid DESC) <= {self._limit} ORDER BY rowid;
                DROP TABLE seen; ALTER TABLE younger RENAME TO seen"""
            )

    def _refresh(self, found: pa.Table) -> None:
        for topic in found["topic"].unique().to_pylist():
            if topic in self._fresh:
                continue
            self._fresh.add(topic)
            rows = self._landed(topic)
            if rows is None:
                continue
            self._duck.register("landed_events", rows)
            self._duck.execute(
                """INSERT INTO seen SELECT DISTINCT __topic, md5_number_lower(__key), md5_number_upper(__key),
                __partition, __offset FROM landed_events EXCEPT SELECT * FROM seen"""
            )
            self._duck.unregister("landed_events")
