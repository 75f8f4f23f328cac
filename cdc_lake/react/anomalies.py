"""Anomalies: a series of buckets that leaves what it was at the same time of earlier seasons.

Each bucket is judged by what was known when it ended: the median of the same slot (hour of the week, say) in the
earlier seasons, and how far such forecasts were off lately, as the median of their absolute errors (MAD). Errors are
those of roots, for counts vary by the root of what they are. Medians, so that an anomaly of last week does
not hide the next, and raises no alarm when the series is as ever. Hours in which nothing happens, and nothing was
expected to, say nothing of how well others are forecast.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdc_lake.react.events import EVIDENCE, ORDER
from cdc_lake.react.patterns import Slice
from cdc_lake.react.rulefile import Anomaly, Rule
from cdc_lake.react.windows import SHOWN, WindowPattern

# What makes the MAD of a normal distribution its standard deviation.
_NORMAL = 1.4826
# Earlier seasons that a slot must have been seen in, at least.
_SEASONS = 3
# A series that never varied may still vary by so much of a unit.
_LEAST_SCALE = 0.5


def _root(value: str) -> str:
    """Counts vary by the root of what they are; their roots vary alike (Anscombe), and far less to one side."""
    return f"2 * sign({value}) * sqrt(abs({value}) + 0.375)"


class AnomalyPattern(WindowPattern):
    """Opened by the first bucket of a row that is out of bounds on one side or the other."""

    def __init__(self, rule: Rule, one: Anomaly) -> None:
        super().__init__(rule, one.every, one.every)
        self.one = one

    def met(self, s: Slice) -> Sequence[tuple[str, str]]:
        """Buckets that ended, each with its forecast."""
        one, slots = self.one, self.one.season // self.one.every
        bound = {"above": "score > {}", "below": "score < -{}", "both": "abs(score) > {}"}[one.direction]
        slot = f"(et % {one.season})"
        before = f"OVER (PARTITION BY key, {slot} ORDER BY et ROWS BETWEEN {one.history} PRECEDING AND 1 PRECEDING)"
        lately = f"OVER (PARTITION BY key ORDER BY et ROWS BETWEEN {one.history * slots} PRECEDING AND 1 PRECEDING)"
        return [
            ("sums", self._sums(s)),
            ("series", self._series(s)),
            (
                "forecasts",
                f"""SELECT *, CASE WHEN NOT fresh THEN known
                    WHEN x <> 0 OR expected <> 0 THEN {_root("x")} - {_root("expected")} END AS r FROM (
                SELECT *, CASE WHEN count(x) {before} >= {_SEASONS} THEN median(x) {before} END AS expected
                FROM {s.work}_series)""",
            ),
            (
                "scored",
                f"""SELECT *, r / greatest({_NORMAL} * median(abs(r)) {lately}, {_LEAST_SCALE}) AS score,
                count(r) {lately} AS forecasts FROM {s.work}_forecasts""",
            ),
            (
                "met",
                f"""SELECT key, et AS start, et + {self.size} AS met_at, x, expected, score FROM {s.work}_scored
                WHERE fresh AND forecasts >= least({slots}, 100) AND {bound.format(one.sensitivity)}""",
            ),
        ]

    def _sums(self, s: Slice) -> str:
        """The buckets that ended now and have events."""
        end = f"start + {self.size}"
        return f"""SELECT __key AS key, __start AS et, CAST((\n{self.one.value}\n) AS DOUBLE) AS x
            FROM (SELECT key AS __key, start AS __start{self.values()} FROM {s.work}_windows
                WHERE {end} <= {s.watermark} AND {end} > {s.before}) GROUP BY __key, __start"""

    def _series(self, s: Slice) -> str:
        """All buckets: remembered ones, and those that ended now, of each key from its first, without a gap."""
        ended = f"({s.watermark} - (({s.watermark} % {self.size}) + {self.size}) % {self.size} - {self.size})"
        known = f"SELECT key, et, x, r FROM {s.rows} WHERE NOT fresh AND part = 'bucket'"
        both = f"SELECT key, et, false AS new FROM ({known}) UNION ALL SELECT key, et, true FROM {s.work}_sums"
        firsts = f"""SELECT key, coalesce(max(et) FILTER (NOT new) + {self.size}, min(et)) AS first
            FROM ({both}) GROUP BY key"""
        every = f"SELECT key, unnest(range(first, {ended} + 1, {self.size})) AS et FROM ({firsts})"
        return f"""SELECT key, et, x, r AS known, false AS fresh FROM ({known})
            UNION ALL SELECT e.key, e.et, coalesce(n.x, 0), NULL, true
            FROM ({every}) e LEFT JOIN {s.work}_sums n ON e.key = n.key AND e.et = n.et"""

    def evidence(self, s: Slice) -> str:
        """What was expected, and the events of the bucket."""
        stated = "json_object('value', m.x, 'expected', m.expected, 'score', round(m.score, 1))"
        baseline = f"""CAST({{'stream': 'baseline', 'table': NULL, 'op': NULL, 'tx_id': NULL, 'tx_order': NULL,
            'lsn': NULL, 'key': NULL, 'at': make_timestamptz(m.start), 'values': CAST({stated} AS VARCHAR)}}
            AS {EVIDENCE})"""
        events = f"coalesce(list(w.ev ORDER BY {ORDER}) FILTER (w.ev IS NOT NULL), [])[:{SHOWN - 1}]"
        return f"""SELECT m.key, m.start, list_prepend({baseline}, {events}) AS evs, count(w.ev) AS total
            FROM {s.work}_met m LEFT JOIN {s.work}_windows w ON m.key = w.key AND m.start = w.start
            GROUP BY m.key, m.start, m.x, m.expected, m.score"""

    def kept(self, s: Slice) -> str:
        """What later events need."""
        most = self.one.history * (self.one.season // self.one.every)
        return f"""{super().kept(s)} UNION ALL BY NAME (SELECT 'bucket' AS part, key, et, x, r FROM {s.work}_forecasts
            QUALIFY row_number() OVER (PARTITION BY key ORDER BY et DESC) <= {most})"""
