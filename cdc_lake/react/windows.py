"""Windows of event time: tumbling and hopping, `[start, start + window)`, counted from 1970 in UTC."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from cdc_lake.react.events import ORDER, identity
from cdc_lake.react.patterns import Pattern, Slice
from cdc_lake.react.rulefile import Count, Rule
from cdc_lake.sqltext import ident

# Events that an alert shows; how many there were is counted.
SHOWN = 100


class WindowPattern(Pattern):
    """Opened by the first of a row of windows that meets the condition, resolved by the first that does not."""

    def __init__(self, rule: Rule, size: int, step: int) -> None:
        super().__init__(rule)
        self.size, self.step = size, step

    @abstractmethod
    def met(self, s: Slice) -> Sequence[tuple[str, str]]:
        """Relations that lead to the last, `met` (key, start, met_at): windows that meet the condition now."""

    @abstractmethod
    def evidence(self, s: Slice) -> str:
        """A query: key, start, evs, total of the windows in `met`."""

    def last_start(self) -> str:
        """The start of the last window that an event is in; of a time before 1970 too."""
        return f"(et - ((et % {self.step}) + {self.step}) % {self.step})"

    def values(self) -> str:
        """The values of the rule's streams under their own names, which names of ours must not hide."""
        names = {n for one in self.rule.used for n in self.rule.streams[one].values}
        return "".join(f", {ident('v_' + n)} AS {ident(n)}" for n in sorted(names))

    def work(self, s: Slice) -> Sequence[tuple[str, str]]:
        """What leads there."""
        last = self.last_start()
        starts = f"unnest(range({last} - {self.size - self.step}, {last} + 1, {self.step}))"
        follows = f"prior IS NOT NULL AND prior = start - {self.step}"
        named = identity(self.rule, "CAST(start AS VARCHAR)")
        return [
            (
                "windows",
                f"""SELECT *, row_number() OVER (PARTITION BY key, start ORDER BY {ORDER}) AS number
                FROM (SELECT *, {starts} AS start FROM {s.rows} WHERE fresh OR part = 'event')""",
            ),
            *self.met(s),
            (
                "fired",
                f"""SELECT key, start, met_at, NULL AS old FROM {s.work}_met
                UNION ALL SELECT key, et, NULL, id FROM {s.rows} WHERE NOT fresh AND part = 'fired'""",
            ),
            (
                "episodes",
                f"""SELECT *, old IS NULL AND NOT ({follows}) AS opens,
                last_value(CASE WHEN old IS NOT NULL THEN old WHEN NOT ({follows}) THEN {named} END IGNORE NULLS)
                    OVER (PARTITION BY key ORDER BY start ROWS UNBOUNDED PRECEDING) AS id,
                coalesce(next = start + {self.step}, false) AS continues, start + {self.step + self.size} AS over
                FROM (SELECT *, lag(start) OVER w AS prior, lead(start) OVER w AS next FROM {s.work}_fired
                    WINDOW w AS (PARTITION BY key ORDER BY start))""",
            ),
        ]

    def found(self, s: Slice) -> str:
        """What opens and ends."""
        return f"""SELECT 'opened' AS change, e.id, e.key, e.met_at AS at_us, w.evs AS evidence, w.total
            FROM {s.work}_episodes e JOIN ({self.evidence(s)}) w ON e.key = w.key AND e.start = w.start WHERE e.opens
            UNION ALL SELECT 'resolved', id, key, over, [], 0 FROM {s.work}_episodes
            WHERE NOT continues AND over <= {s.watermark}"""

    def kept(self, s: Slice) -> str:
        """What later events need."""
        return f"""(SELECT 'event' AS part, * EXCLUDE (part, fresh) FROM {s.rows}
            WHERE (fresh OR part = 'event') AND {self.last_start()} + {self.size} > {s.watermark})
            UNION ALL BY NAME (SELECT 'fired' AS part, key, start AS et, id FROM {s.work}_episodes
            WHERE NOT continues AND over > {s.watermark})"""


class CountPattern(WindowPattern):
    """`at_least` is met by an event, so it opens with it; `having` is met by a window, so it opens when one ends."""

    def __init__(self, rule: Rule, one: Count) -> None:
        super().__init__(rule, one.window, one.step)
        self.one = one

    def met(self, s: Slice) -> Sequence[tuple[str, str]]:
        """Windows with enough events, or that ended and meet the condition."""
        if self.one.at_least is not None:
            query = f"""SELECT key, start, et AS met_at FROM {s.work}_windows
                WHERE fresh AND number = {self.one.at_least}"""
            return [("met", query)]
        end = f"start + {self.size}"
        query = f"""SELECT __key AS key, __start AS start, __start + {self.size} AS met_at
            FROM (SELECT key AS __key, start AS __start{self.values()} FROM {s.work}_windows
                WHERE {end} <= {s.watermark} AND {end} > {s.before})
            GROUP BY __key, __start HAVING (\n{self.one.having}\n)"""
        return [("met", query)]

    def evidence(self, s: Slice) -> str:
        """The events of the windows, up to the one that was enough."""
        most = f"number <= {self.one.at_least}" if self.one.at_least is not None else "true"
        return f"""SELECT key, start, list(ev ORDER BY {ORDER})[:{SHOWN}] AS evs, count(*) AS total
            FROM {s.work}_windows WHERE {most} GROUP BY ALL"""
