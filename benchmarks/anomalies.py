"""How many planted anomalies are found, and how many alarms are false: `python -m benchmarks anomalies`.

Hourly sales of shops for 26 weeks, seeded: a profile of the week with closed hours, a size of each shop, demand that
drifts by the week, and counts that vary more than chance alone (negative binomial, variance μ + μ²/40). Into the last
18 weeks outages, dips and surges of two to four hours are planted at hours that expect at least eight sales. The rule
is the `anomaly` pattern as it is shipped, evaluated on these events by the same SQL. An anomaly is found when an alert
opens in it or within the hour behind it; every other alert is false.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.report import Report, say
from cdc_lake.query.placed import NEVER, Placed
from cdc_lake.react.engine import Compiled, Finding, Memory, advance
from cdc_lake.react.rulefile import load_rule

HOUR, WEEK, WEEKS, TRAINED = 3_600_000_000, 168, 26, 8
START = 2_922 * 7 * 24 * HOUR  # a whole number of weeks after 1970, in 2026
KINDS = {"outage (to nothing)": 0.0, "dip (to a third)": 1 / 3, "surge (threefold)": 3.0}
SENSITIVITIES = (3, 4, 5, 6)
_RULE = """title: Sales of {{shop}}
key: [shop]
streams: {{sales: {{table: sales, values: [qty], time: sold}}}}
anomaly: {{of: sales, value: sum(qty), every: 1 hour, sensitivity: {sensitivity}}}
"""


@dataclass(frozen=True, slots=True)
class Planted:
    """An anomaly of a shop: hours [start, end)."""

    shop: int
    start: int
    end: int
    kind: str


def run(report: Report) -> None:
    """The figures for as many shops as make the report's rows of hours."""
    shops = max(5, report.rows // (WEEKS * WEEK))
    sales, planted = simulate(np.random.default_rng(7), shops)
    folder = Path(tempfile.mkdtemp(prefix="cdc-lake-bench-anomalies-"))
    weeks = shops * (WEEKS - TRAINED)
    table = report.table(
        f"{shops} shops, {WEEKS} weeks of hours, {len(planted)} planted anomalies",
        **{"sensitivity": ".0f", "precision": ".1%", "recall": ".1%"},
        **{f"recall of {kind}": ".1%" for kind in KINDS},
        **{"false alarms per shop and week": ".3f", "false alarms per 10,000 hours": ".2f"},
    )
    for sensitivity in SENSITIVITIES:
        file = folder / "sales.yaml"
        file.write_text(_RULE.format(sensitivity=sensitivity))
        alerts = [f for f in evaluate(file, sales) if f.change == "opened"]
        found, false = judge(alerts, planted)
        kinds = [sum(p in found for p in planted if p.kind == k) / sum(p.kind == k for p in planted) for k in KINDS]
        right = len(alerts) - false
        per_week = false / weeks
        table.add(
            sensitivity, right / max(1, len(alerts)), len(found) / len(planted), *kinds, per_week, per_week / WEEK * 1e4
        )
    report.note(
        f"Alerts of the first {TRAINED} weeks count as false where nothing is planted; nothing is planted there."
    )


def simulate(chance: np.random.Generator, shops: int) -> tuple[np.ndarray[Any, Any], list[Planted]]:
    """Sales per shop and hour, and what was planted into them."""
    hours = np.arange(24)
    day = np.where((hours >= 8) & (hours < 20), 6 + 5 * np.sin((hours - 8) / 12 * np.pi) + 4 * (hours >= 16), 0.0)
    week = np.concatenate([day * factor for factor in (0.8, 0.8, 0.9, 1.0, 1.3, 1.6, 0.0)])
    size = chance.lognormal(0.8, 0.6, shops)
    drift = np.exp(np.cumsum(chance.normal(0, 0.03, (shops, WEEKS)), axis=1))
    mean = (size[:, None, None] * drift[:, :, None] * week).reshape(shops, WEEKS * WEEK)
    planted = list(_plant(chance, mean))
    for one in planted:
        mean[one.shop, one.start : one.end] *= KINDS[one.kind]
    sales = chance.poisson(mean * chance.gamma(40, 1 / 40, mean.shape))
    return sales, planted


def _plant(chance: np.random.Generator, mean: np.ndarray[Any, Any]) -> Iterator[Planted]:
    for shop in range(len(mean)):
        busy = np.flatnonzero(mean[shop] >= 8)
        busy = busy[busy >= TRAINED * WEEK]
        taken: list[int] = []
        for kind in (*KINDS, *KINDS):
            if len(busy) == 0:
                return
            start, length = int(chance.choice(busy)), int(chance.integers(2, 5))
            if all(abs(start - other) > WEEK // 2 for other in taken):
                taken.append(start)
                yield Planted(shop, start, start + length, kind)


def evaluate(file: Path, sales: np.ndarray[Any, Any]) -> list[Finding]:
    """What the rule in a file finds: an event for each shop and hour with sales, all committed as they happen."""
    shops, hours = np.nonzero(sales)
    events = pa.table({"shop": shops, "hour": hours, "qty": sales[shops, hours]})
    rule = load_rule(file)
    one, length = Compiled.of(rule, {"sales": "public.sales"}), sales.shape[1]
    with duckdb.connect() as con:
        con.execute("ATTACH ':memory:' AS lake; CREATE SCHEMA lake.internal; SET TimeZone = 'UTC'")
        con.register("events", events)
        con.execute(
            f"""CREATE TABLE changes AS SELECT 'c' AS __op, hour::VARCHAR AS __tx_id, shop AS __tx_order, hour AS __lsn,
            json_object('shop', shop) AS __key, hour + 1 AS __position, shop, qty,
            make_timestamptz({START} + hour * {HOUR}) AS sold FROM events"""
        )
        con.execute(
            f"""CREATE TABLE clock AS SELECT i + 1 AS position, {START} + (i - 1) * {HOUR} AS before,
            {START} + i * {HOUR} AS clock FROM range({length + 1}) t(i)"""
        )
        placed = Placed(cast(Any, None), 0, length + 1, "clock", NEVER, START + length * HOUR, "")
        found, _ = advance(con, one, Memory(0, NEVER), placed, {"sales": "changes"})
    say(f"{rule.anomaly.sensitivity if rule.anomaly else 0}: {len(found)} findings")
    return found


def judge(alerts: list[Finding], planted: list[Planted]) -> tuple[set[Planted], int]:
    """The anomalies that were found, and how many alerts are of none."""
    hours = {(p.shop, hour): p for p in planted for hour in range(p.start, p.end + 1)}
    found, false = set[Planted](), 0
    for alert in alerts:
        ended = (cast(int, alert.at) - START) // HOUR
        hit = hours.get((int(alert.key.partition(":")[2].rstrip("}")), ended - 1))
        if hit is None:
            false += 1
        else:
            found.add(hit)
    return found, false
