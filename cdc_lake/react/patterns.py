"""The patterns of rules as SQL: what released events and a rule's memory say, and what it must remember then.

Each works on the table `<t>`: released events (`fresh`) and remembered rows (not fresh), in the order of event time.
`W` is the watermark: whatever is older has been released, or is late. A pattern decides only what no later event can
change, so that the slices in which it is evaluated make no difference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from cdc_lake.react.events import ORDER, event_name, identity
from cdc_lake.react.rulefile import Absence, Correlation, Rule, Sequence_, Threshold
from cdc_lake.sqltext import literal

_BY_KEY = f"PARTITION BY key ORDER BY {ORDER}"


@dataclass(frozen=True, slots=True)
class Slice:
    """One evaluation: the relation of rows, where to keep what is found on the way, and the watermark (`before` it)."""

    rows: str
    work: str
    watermark: int
    before: int


class Pattern(ABC):
    """One kind of pattern. `rule` is the rule it belongs to."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    @abstractmethod
    def work(self, s: Slice) -> Sequence[tuple[str, str]]:
        """Relations to make, in this order: (the end of its name, query)."""

    @abstractmethod
    def found(self, s: Slice) -> str:
        """A query: change, id, key, at (microseconds), evidence, evidence_count."""

    @abstractmethod
    def kept(self, s: Slice) -> str:
        """A query: the rows to remember, with columns of `events.COLUMNS`."""


def _emit(change: str, at: str, evidence: str, count: str = "1", id: str = "id") -> str:
    return f"SELECT '{change}' AS change, {id} AS id, key, {at} AS at_us, {evidence} AS evidence, {count} AS total"


class ThresholdPattern(Pattern):
    """Opened by the first event of a key that meets the condition, resolved by the next that does not."""

    def __init__(self, rule: Rule, one: Threshold) -> None:
        super().__init__(rule)
        self.one = one

    def work(self, s: Slice) -> Sequence[tuple[str, str]]:
        """What leads there."""
        named = identity(self.rule, event_name("ev"))
        lagged = f"SELECT *, coalesce(lag(hit) OVER (PARTITION BY key ORDER BY {ORDER}), false) AS was FROM {s.rows}"
        return [
            (
                "seen",
                f"""SELECT * EXCLUDE (id), last_value(CASE WHEN NOT fresh THEN id WHEN hit AND NOT was THEN {named} END
                IGNORE NULLS) OVER ({_BY_KEY} ROWS UNBOUNDED PRECEDING) AS id FROM ({lagged})""",
            )
        ]

    def found(self, s: Slice) -> str:
        """What opens and ends."""
        return f"""{_emit("opened", "et", "[ev]")} FROM {s.work}_seen WHERE fresh AND hit AND NOT was
            UNION ALL {_emit("resolved", "et", "[ev]")} FROM {s.work}_seen WHERE fresh AND was AND NOT hit"""

    def kept(self, s: Slice) -> str:
        """What later events need."""
        return f"""SELECT 'open' AS part, * EXCLUDE (part, fresh, was) FROM {s.work}_seen
            QUALIFY row_number() OVER (PARTITION BY key ORDER BY et DESC, pos DESC, ord DESC) = 1 AND hit"""


class SequencePattern(Pattern):
    """A chain of events, each the latest that precedes the next: if any chain is short enough, this one is.

    Chains that begin with the same event are one alert.
    """

    def __init__(self, rule: Rule, one: Sequence_) -> None:
        super().__init__(rule)
        self.one = one

    def work(self, s: Slice) -> Sequence[tuple[str, str]]:
        """What leads there."""
        # GROUPS: an event that two steps pick does not follow itself.
        before = f"({_BY_KEY} GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        query = f"SELECT * FROM {s.rows}"
        for number, stream in enumerate(self.one.steps):
            chain = "[ev]" if number == 0 else "CASE WHEN c IS NOT NULL THEN list_append(c, ev) END"
            last = f"last_value(c{number - 1} IGNORE NULLS) OVER {before} AS c" if number else "NULL AS c"
            query = f"""SELECT * EXCLUDE (c), CASE WHEN fresh AND stream = {literal(stream)} THEN {chain}
                WHEN part = 'chain' AND step = {number} THEN chain END AS c{number}
                FROM (SELECT *, {last} FROM ({query}))"""
        whole = f"c{len(self.one.steps) - 1}"
        named = identity(self.rule, event_name(f"{whole}[1]"))
        final = literal(self.one.steps[-1])
        return [
            ("chains", query),
            (
                "whole",
                f"""SELECT *, lag(match) OVER ({_BY_KEY}) AS previous FROM (
                SELECT *, CASE WHEN fresh THEN {named} ELSE id END AS match, CASE WHEN fresh THEN {whole} ELSE chain END
                    AS evidence FROM {s.work}_chains
                WHERE (part = 'matched' AND NOT fresh) OR (fresh AND stream = {final}
                    AND et - epoch_us({whole}[1]."at") <= {self.one.within}))""",
            ),
        ]

    def found(self, s: Slice) -> str:
        """What opens and ends."""
        opened = _emit("opened", "et", "evidence", "len(evidence)", id="match")
        return f"{opened} FROM {s.work}_whole WHERE fresh AND previous IS DISTINCT FROM match"

    def kept(self, s: Slice) -> str:
        """What later events need."""
        last = "QUALIFY row_number() OVER (PARTITION BY key ORDER BY et DESC, pos DESC, ord DESC) = 1"
        alive = f'epoch_us({{}}[1]."at") + {self.one.within} >= {s.watermark}'
        parts = [
            f"""SELECT 'chain' AS part, key, et, pos, ord, {n} AS step, c{n} AS chain, NULL AS id
            FROM {s.work}_chains WHERE c{n} IS NOT NULL AND {alive.format(f"c{n}")} {last}"""
            for n in range(len(self.one.steps) - 1)
        ]
        parts.append(
            f"""SELECT 'matched' AS part, key, et, pos, ord, NULL AS step, evidence AS chain, match AS id
            FROM {s.work}_whole WHERE {alive.format("evidence")} {last}"""
        )
        return " UNION ALL BY NAME ".join(f"({p})" for p in parts)


class AbsencePattern(Pattern):
    """Of each key, the first `after` behind the last `of` waits for the next `of`; opened when its time is over."""

    def __init__(self, rule: Rule, one: Absence) -> None:
        super().__init__(rule)
        self.one = one

    def work(self, s: Slice) -> Sequence[tuple[str, str]]:
        """What leads there."""
        ends = f"SELECT *, fresh AND stream = {literal(self.one.of)} AS ends FROM {s.rows}"
        order = f"PARTITION BY key ORDER BY {ORDER}, ends"
        counted = f"SELECT *, count(*) FILTER (ends) OVER ({order} ROWS UNBOUNDED PRECEDING) AS episode FROM ({ends})"
        first = "row_number() OVER (PARTITION BY key, episode ORDER BY et, pos, ord) = 1"
        due = f"a.et + {self.one.within}"
        named = identity(self.rule, event_name("a.ev"), key="a.key")
        return [
            ("episodes", counted),
            (
                "waits",
                f"""SELECT a.* EXCLUDE (id), coalesce(a.id, {named}) AS id, a.id IS NOT NULL AS was_open, {due} AS due,
                b.et AS ended, b.ev AS ending, coalesce(b.et, {s.watermark}) > {due} AS over
                FROM (SELECT * FROM {s.work}_episodes WHERE NOT ends QUALIFY {first}) a
                LEFT JOIN (SELECT * FROM {s.work}_episodes WHERE ends) b
                ON a.key = b.key AND b.episode = a.episode + 1""",
            ),
        ]

    def found(self, s: Slice) -> str:
        """What opens and ends."""
        return f"""{_emit("opened", "due", "[ev]")} FROM {s.work}_waits WHERE over AND NOT was_open
            UNION ALL {_emit("resolved", "ended", "[ending]")} FROM {s.work}_waits WHERE over AND ended IS NOT NULL"""

    def kept(self, s: Slice) -> str:
        """What later events need."""
        own = "part, fresh, ends, episode, was_open, due, ended, ending, over, id"
        return f"""SELECT 'waits' AS part, CASE WHEN over THEN id END AS id, * EXCLUDE ({own})
            FROM {s.work}_waits WHERE ended IS NULL"""


class CorrelationPattern(Pattern):
    """The latest event of each stream, all within the span. Matches that follow within it too are one alert."""

    def __init__(self, rule: Rule, one: Correlation) -> None:
        super().__init__(rule)
        self.one = one

    def work(self, s: Slice) -> Sequence[tuple[str, str]]:
        """What leads there."""
        until_now = f"({_BY_KEY}, stream ROWS UNBOUNDED PRECEDING)"
        latest = ", ".join(
            f"""last_value(CASE WHEN part <> 'matched' AND stream = {literal(name)}
            THEN {{'et': et, 'pos': pos, 'ord': ord, 'ev': ev}} END IGNORE NULLS) OVER {until_now} AS l{i}"""
            for i, name in enumerate(self.one.of)
        )
        names = [f"l{i}" for i in range(len(self.one.of))]
        there = " AND ".join(f"{n} IS NOT NULL" for n in names)
        oldest = f"least({', '.join(f'{n}.et' for n in names)})"
        return [
            ("latest", f"SELECT *, {latest} FROM {s.rows}"),
            (
                "matches",
                f"""SELECT *, lag(et) OVER ({_BY_KEY}, stream) AS previous FROM (
                SELECT *, list_sort([{", ".join(names)}]) AS evidence FROM {s.work}_latest
                WHERE part = 'matched' OR (fresh AND {there} AND et - {oldest} <= {self.one.within}))""",
            ),
        ]

    def found(self, s: Slice) -> str:
        """What opens and ends."""
        named = identity(self.rule, event_name("evidence[1].ev"))
        shown = "list_transform(evidence, lambda seen: seen.ev)"  # no column's name: `x.ev` would be of the column x
        opened = _emit("opened", "et", shown, str(len(self.one.of)), id=named)
        return f"""{opened} FROM {s.work}_matches
            WHERE fresh AND (previous IS NULL OR et - previous > {self.one.within})"""

    def kept(self, s: Slice) -> str:
        """What later events need."""
        alive = f"et + {self.one.within} >= {s.watermark}"
        last = "QUALIFY row_number() OVER (PARTITION BY {} ORDER BY et DESC, pos DESC, ord DESC) = 1"
        return f"""(SELECT 'latest' AS part, stream, key, et, pos, ord, ev FROM {s.work}_latest
            WHERE part <> 'matched' AND {alive} {last.format("key, stream")})
            UNION ALL BY NAME (SELECT 'matched' AS part, stream, key, et, pos, ord FROM {s.work}_matches
            WHERE {alive} {last.format("key")})"""


def pattern_of(rule: Rule) -> Pattern:
    """The rule's pattern."""
    from cdc_lake.react.anomalies import AnomalyPattern
    from cdc_lake.react.windows import CountPattern

    if rule.threshold is not None:
        return ThresholdPattern(rule, rule.threshold)
    if rule.count is not None:
        return CountPattern(rule, rule.count)
    if rule.sequence is not None:
        return SequencePattern(rule, rule.sequence)
    if rule.absence is not None:
        return AbsencePattern(rule, rule.absence)
    if rule.correlation is not None:
        return CorrelationPattern(rule, rule.correlation)
    if rule.anomaly is not None:
        return AnomalyPattern(rule, rule.anomaly)
    raise ValueError("a rule has a pattern")
