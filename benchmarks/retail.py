"""From COMMIT in PostgreSQL to what a retailer sees of it: the dashboard, the alert, the purchase order.

300 stores sell at a rate of changes, and shelves run empty by it. Everything runs as the demo runs it, each part a
process: PostgreSQL, Debezium, Kafka, sink, rules, streaming model, two services, dashboard; all share the machine.
"""

from __future__ import annotations

import asyncio
import bisect
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from benchmarks.dashboard import Pages
from benchmarks.report import Cell, Report, say, spread
from cdc_lake.capture.register import register
from cdc_lake.cli.demo_ask import ask_lake
from cdc_lake.cli.demo_stage import Stage
from cdc_lake.cli.demo_world import MODEL, RULE, Dashboard, World
from cdc_lake.config import Config
from cdc_lake.local.retail.loader import connect, create_schema, load
from cdc_lake.local.retail.rows import Size
from cdc_lake.local.retail.shop import Refused, Shop
from cdc_lake.local.retail.transactions import restock, sale
from cdc_lake.local.retail.workload import Pacer
from cdc_lake.react.alerts import Alerts

SIZE = Size(stores=300, products=750, customers=2_000, inventory=15_000, orders=2_000)
# Rows that one transaction of the trade below changes, on average: an order, a payment, 2.5 lines and shelves.
CHANGES, RESTOCKS = 7.0, 0.1
WORKERS, WARM_SECONDS, SECONDS, PATIENCE_SECONDS = 4, 10.0, 40.0, 120.0
_REORDERS = f"""\
SELECT epoch(r.__source_ts) - epoch(i.__source_ts) AS delay
FROM changes.events.reorders r
JOIN streams.{MODEL} m ON m.__id = r.correlationid
JOIN changes.public.inventory i ON i.__partition = m."partition" AND i.__offset = m."offset"
WHERE r.type = 'retail.reorder.requested' AND r.__op <> 'a' AND epoch(i.__source_ts) BETWEEN ? AND ?"""


def run(report: Report) -> None:
    """`rows` are the changes a second."""
    table = report.table(
        f"Seconds from commit, {SIZE.stores} stores, {SECONDS:.0f} s",
        **{"until": "s", "changes/s": ",.0f", "seen": ",d", "p50": ".2f", "p99": ".2f", "worst": ".2f"},
    )
    with tempfile.TemporaryDirectory(prefix="cdc-lake-retail-") as folder:
        stage, world = Stage(Path(folder)), World.here()
        try:
            config, dsn, dashboard = _open(stage, world)
            for row in asyncio.run(_measure(config, dsn, dashboard, report.rows)):
                table.add(*row)
        finally:
            stage.end(lambda line: None)
            stage.stack.down(wipe=True)
    report.note(
        "The dashboard: to the arrival of the event that counts the sale at an open page. The alert: to the look, five "
        "a second, that finds it in the lake. The order: to the time that Kafka gave its event."
    )


def _open(stage: Stage, world: World) -> tuple[Config, str, Dashboard]:
    config = stage.prepare(events=world.topics, more=world.files())
    dsn = stage.stack.up(say).dsn
    create_schema(dsn)
    # Orders of the last hour are counted by the page: at the beginning there are none.
    load(dsn, SIZE, now=datetime.now(UTC) - timedelta(hours=2))
    world.make_topics(config.bootstrap)
    stage.start("sink", "sink", "run")
    register(config, config.connector_file(config.all_sources[0]), seconds=300, say=lambda line: None)
    stage.wait("the snapshot", lambda: _landed(config), seconds=300, say=say)
    stage.run("fold")
    dashboard = world.open(stage, config)
    if dashboard is None or not world.services:
        raise SystemExit(" ".join(world.left_out))
    stage.wait("the rule", lambda: world.ready(config), seconds=120, say=say)
    stage.wait("the dashboard", lambda: dashboard.ask("/api/views/shop_now") is not None, seconds=120, say=say)
    return config, dsn, dashboard


def _landed(config: Config) -> bool:
    # The last table of the snapshot, in the order in which the connector reads them, is not known: all are waited for.
    wanted = (("stores", SIZE.stores), ("inventory", SIZE.inventory), ("payments", SIZE.orders))
    try:
        return all(ask_lake(config, f"SELECT count(*) FROM {name}").rows[0][0] >= rows for name, rows in wanted)
    except Exception:  # a table is not there yet
        return False


async def _measure(config: Config, dsn: str, dashboard: Dashboard, rate: int) -> list[tuple[Cell, ...]]:
    pages, alerts, trade = Pages(dashboard.entry), _Alerts(config), _Trade(dsn, rate / CHANGES)
    await pages.open(1)
    alerts.start()
    trade.start()
    await asyncio.sleep(WARM_SECONDS + SECONDS)
    sales = trade.stop()
    until = time.monotonic() + PATIENCE_SECONDS
    while pages.newest < len(sales) and time.monotonic() < until:
        await asyncio.sleep(0.2)
    await asyncio.sleep(5)  # what the last changes still cause is outside of what is counted
    alerts.stop()
    await pages.close()
    # Monotonic times of the trade and the pages; those in the lake are of the clock.
    begun, ended = trade.begun + WARM_SECONDS, trade.begun + WARM_SECONDS + SECONDS
    offset = time.time() - time.monotonic()
    counted = [at for at in sales if begun <= at <= ended]
    reached = len(counted) / SECONDS * CHANGES
    numbers = sorted(pages.seen)
    shown = [
        min(pages.seen[numbers[bisect.bisect_left(numbers, n)]]) - at
        for n, at in enumerate(sales, 1)
        if begun <= at <= ended and n <= pages.newest
    ]
    found = ask_lake(config, _REORDERS, [begun + offset, ended + offset]).rows
    told = [seen - at for at, seen in alerts.seen.values() if begun + offset <= at <= ended + offset]
    orders = [float(delay) for (delay,) in found]
    rows = {"the dashboard": shown, "the alert": told, "the purchase order": orders}
    return [
        (name, reached, len(delays), *(spread(delays) if delays else (None, None, None)))
        for name, delays in rows.items()
    ]


class _Alerts(threading.Thread):
    """When each alert was first found in the lake, beside when the change behind it was committed."""

    def __init__(self, config: Config) -> None:
        super().__init__(daemon=True)
        self._alerts, self._end = Alerts(config), threading.Event()
        self.seen: dict[str, tuple[float, float]] = {}

    def run(self) -> None:
        while not self._end.wait(0.2):
            for alert in self._alerts.all("rule = ?", [RULE]):
                opened = alert["opened_at"]
                if isinstance(opened, datetime):
                    self.seen.setdefault(str(alert["id"]), (opened.timestamp(), time.time()))

    def stop(self) -> None:
        self._end.set()
        self.join()


class _Trade:
    """Sales, and deliveries to shelves that run low; nothing takes a sale back, so that the page's count only grows."""

    def __init__(self, dsn: str, rate: float) -> None:
        self._dsn, self._rate, self._pacer, self._end = dsn, rate, Pacer(rate), threading.Event()
        with connect(dsn) as connection:
            self._shop = Shop(connection, 1)
        self._sales: list[float] = []
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(WORKERS)]
        self.begun = 0.0

    def start(self) -> None:
        self._pacer, self.begun = Pacer(self._rate), time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[float]:
        """When the COMMIT of each sale was sent."""
        self._end.set()
        for thread in self._threads:
            thread.join()
        return sorted(self._sales)

    def _work(self, number: int) -> None:
        rng = Random(number)
        with connect(self._dsn) as connection:
            while not self._end.wait(max(self._pacer.next(), 0)):
                kind = restock if rng.random() < RESTOCKS else sale
                try:
                    kind(connection, self._shop, rng)
                except Refused:
                    connection.rollback()
                    continue
                at = time.monotonic()
                connection.commit()
                if kind is sale:
                    self._sales.append(at)
