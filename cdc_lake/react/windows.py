"""Windows of event time: tumbling and hopping, `[start, start + window)`, counted from 1970 in UTC."""

from __future__ import annotations

from collections.abc import Sequence

from cdc_lake.react.events import ORDER, identity
from cdc_lake.react.patterns import Pattern, Slice
from cdc_lake.react.rulefile import Count, Rule
from cdc_lake.sqltext import ident

# Events that an alert shows; how many there were is counted.
SHOWN = 100


class CountPattern(Pattern):
    """Opened by the first of a row of windows that meets the condition, resolved by the first that does not.

    `at_least` is met by an event, so it opens with it; `having` is met by a whole window, so it opens when one ends.
    """

    def __init__(self, rule: Rule, one: Count) -> None:
        super().__init__(rule)
        self.one = one

    def work(self, s: Slice) -> Sequence[tuple[str, str]]:
        """What leads there."""
        step, size = self.one.step, self.one.window
        # The last window that an event is in; of a time before 1970 too.
        last = f"(et - ((et % {step}) + {step}) % {step})"
        starts = f"unnest(range({last} - {size - step}, {last} + 1, {step}))"
        fired = f"{s.work}_fired"
        follows = f"prior IS NOT NULL AND prior = start - {step}"
        named = identity(self.rule, "CAST(start AS VARCHAR)")
        return [
            (
                "windows",
                f"""SELECT *, row_number() OVER (PARTITION BY key, start ORDER BY {ORDER}) AS number
                FROM (SELECT *, {starts} AS start FROM {s.rows} WHERE fresh OR part = 'event')""",
            ),
            ("met", self._met(s)),
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
                coalesce(next = start + {step}, false) AS continues, start + {step + size} AS over
                FROM (SELECT *, lag(start) OVER w AS prior, lead(start) OVER w AS next FROM {fired}
                    WINDOW w AS (PARTITION BY key ORDER BY start))""",
            ),
        ]

    def _met(self, s: Slice) -> str:
        if self.one.at_least is not None:
            return f"""SELECT key, start, et AS met_at FROM {s.work}_windows
                WHERE fresh AND number = {self.one.at_least}"""
        values = {n for one in self.rule.used for n in self.rule.streams[one].values}
        named = "".join(f", {ident('v_' + n)} AS {ident(n)}" for n in sorted(values))
        end = f"start + {self.one.window}"
        # Names of ours must not hide the rule's own.
        return f"""SELECT __key AS key, __start AS start, __start + {self.one.window} AS met_at
            FROM (SELECT key AS __key, start AS __start{named} FROM {s.work}_windows
                WHERE {end} <= {s.watermark} AND {end} > {s.before})
            GROUP BY __key, __start HAVING (\n{self.one.having}\n)"""

    def found(self, s: Slice) -> str:
        """What opens and ends."""
        most = f"AND number <= {self.one.at_least}" if self.one.at_least is not None else ""
        events = f"""(SELECT key, start, list(ev ORDER BY {ORDER}) AS evs, count(*) AS total FROM {s.work}_windows
            WHERE true {most} GROUP BY ALL)"""
        return f"""SELECT 'opened' AS change, e.id, e.key, e.met_at AS at_us, w.evs[:{SHOWN}] AS evidence, w.total
            FROM {s.work}_episodes e JOIN {events} w ON e.key = w.key AND e.start = w.start WHERE e.opens
            UNION ALL SELECT 'resolved', id, key, over, [], 0 FROM {s.work}_episodes
            WHERE NOT continues AND over <= {s.watermark}"""

    def kept(self, s: Slice) -> str:
        """What later events need."""
        step, size = self.one.step, self.one.window
        last_end = f"et - ((et % {step}) + {step}) % {step} + {size}"
        return f"""(SELECT 'event' AS part, * EXCLUDE (part, fresh) FROM {s.rows}
            WHERE (fresh OR part = 'event') AND {last_end} > {s.watermark})
            UNION ALL BY NAME (SELECT 'fired' AS part, key, start AS et, id FROM {s.work}_episodes
            WHERE NOT continues AND over > {s.watermark})"""
