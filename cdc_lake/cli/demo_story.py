"""The demo's story, step by step, and what it found. Every claim is checked, none is assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from cdc_lake.cli.demo_ask import Result, ask_lake, ask_source, orders_in_lake, question, there
from cdc_lake.cli.demo_chain import Chain, Follower
from cdc_lake.cli.demo_stage import Stage
from cdc_lake.cli.demo_steps import Say, Step, Steps
from cdc_lake.cli.demo_world import Dashboard, World
from cdc_lake.config import Config
from cdc_lake.local.retail import loader
from cdc_lake.local.retail.freshness import Freshness, Watch
from cdc_lake.local.retail.rows import Size
from cdc_lake.local.retail.workload import Stats, Workload

RATE = 30
WATCH_SECONDS = 6
TableReport = Mapping[str, Any]
"""What `verify --json` says of one table."""
_ORDER = "SELECT 1 FROM orders WHERE order_id = ?"
_CUSTOMER = "SELECT 1 FROM customers WHERE customer_id = ?"
_EVENTS_OF_A_PRODUCT = """\
SELECT __op AS op, product_id, nullif(name, '') AS name, __source_ts AS at
FROM changes.public.products WHERE product_id = ? ORDER BY __offset"""
QUESTIONS = {"low_stock": "What is in stock, and where it runs out", "sales_today": "The day's sales of each store"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One question, asked of both databases in the same words."""

    name: str
    title: str
    sql: str
    source: Result
    lake: Result

    @property
    def equal(self) -> bool:
        """Whether both gave the same rows in the same order, with the same names."""
        return self.source == self.lake


@dataclass(frozen=True, slots=True)
class Deleted:
    """A product that was taken off the list: how often it is in `current`, and its events in `changes`."""

    product_id: int
    in_current: int
    events: Result


@dataclass(frozen=True, slots=True)
class Followed:
    """What came of one sale in the retailer's world; `dashboard` shows it, and is None where it is left out."""

    chain: Chain
    dashboard: Dashboard | None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Story:
    """What the demo found."""

    loaded: dict[str, int]
    traded: Stats
    freshness: Freshness
    answers: tuple[Answer, ...]
    prices: Result
    deleted: Deleted
    verified: tuple[TableReport, ...]
    followed: Followed
    steps: tuple[Step, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every claim held."""
        return (
            all(answer.equal for answer in self.answers)
            and self.freshness.missing == 0
            and self.deleted.in_current == 0
            and any(event["op"] == "d" for event in self.deleted.events.records())
            and not any(report[kind] for report in self.verified for kind in ("missing", "extra", "different"))
            and self.followed.chain.ok
        )


class Audience(Protocol):
    """Who is shown what the story finds, as soon as it is found."""

    def freshness(self, seen: Freshness) -> None: ...  # noqa: D102
    def answers(self, answers: Sequence[Answer]) -> None: ...  # noqa: D102
    def prices(self, prices: Result) -> None: ...  # noqa: D102
    def deleted(self, gone: Deleted) -> None: ...  # noqa: D102
    def verified(self, reports: Sequence[TableReport]) -> None: ...  # noqa: D102
    def followed(self, world: Followed) -> None: ...  # noqa: D102


class Teller:
    """Plays the story on a stage."""

    def __init__(self, stage: Stage, rows: int, show: Audience, world: World | None = None) -> None:
        self._stage = stage
        self._world = world or World.here()
        self._rows = rows
        self._show = show
        self._steps = Steps()

    def tell(self) -> Story:
        """All steps in order. Raises CdcLakeError when one fails; the stage is the caller's to clear up."""
        from cdc_lake.query.news import News

        config, dsn = self._set_up()
        loaded = self._load(dsn)
        watch = Watch(lambda orders: orders_in_lake(config, orders), news=News(config).arrived)
        with ExitStack() as ending:
            workload = self._open_shops(dsn, watch)
            ending.callback(workload.abandon)
            self._capture(config, workload)
            freshness = self._measure(watch)
            gone = self._close_shops(config, workload)
        traded = workload.stats()
        dashboard = self._world.open(self._stage, config)  # it starts while others answer
        return Story(
            loaded=loaded,
            traded=traded,
            freshness=freshness,
            answers=self._ask_both(config, dsn),
            prices=self._prices(config),
            deleted=self._gone(config, gone),
            verified=self._verify(),
            followed=self._follow(config, dsn, workload, dashboard),
            steps=tuple(self._steps.done),
            seconds=self._steps.seconds,
        )

    def _set_up(self) -> tuple[Config, str]:
        with self._steps.step("Clear away an earlier demo") as say:
            self._stage.clear(say)
            config = self._stage.prepare(events=self._world.topics, more=self._world.files())
        with self._steps.step("Start PostgreSQL, Kafka and Kafka Connect") as say:
            dsn = self._stage.stack.up(say).dsn
        return config, dsn

    def _load(self, dsn: str) -> dict[str, int]:
        with self._steps.step("Load a retailer") as say:
            loader.create_schema(dsn)
            loaded = loader.load(dsn, Size.for_rows(self._rows))
            say(", ".join(f"{count:,} {table}" for table, count in loaded.items()))
        return loaded

    def _open_shops(self, dsn: str, watch: Watch) -> Workload:
        with self._steps.step(f"Open the shops: {RATE} transactions a second from now on"):
            workload = Workload(dsn, rate=RATE, on_commit=watch.committed)
            workload.start()
        return workload

    def _capture(self, config: Config, workload: Workload) -> None:
        from cdc_lake.capture.register import register

        with self._steps.step("Start the sink"):
            self._world.make_topics(config.bootstrap)
            self._stage.start("sink", "sink", "run")
        with self._steps.step(
            "Register connectors/pos.json; the initial snapshot is taken while the shops are open"
        ) as say:
            seconds = 60 + self._rows / 1000
            register(config, config.connector_file(config.all_sources[0]), seconds=seconds, say=_headlines(say))
        with self._steps.step("Wait until the snapshot and the sales of now are in the lake") as say:
            sold = len(workload.stats().orders)
            self._stage.wait("a sale", lambda: len(workload.stats().orders) > sold, seconds=30, say=say)
            # A sale of now follows the whole snapshot in the stream: when it is seen, both have arrived.
            order = workload.stats().orders[sold]
            self._stage.wait("a live sale in the lake", lambda: there(config, _ORDER, order), seconds=seconds, say=say)
        with self._steps.step("Fold the snapshot into typed tables") as say:
            folded = self._stage.run("fold")["tables"]
            say(f"{sum(table['rows'] for table in folded):,} rows in {len(folded)} tables")

    def _measure(self, watch: Watch) -> Freshness:
        with self._steps.step(f"Watch for {WATCH_SECONDS} s how soon committed sales are seen in the lake"):
            seen = watch.observe(WATCH_SECONDS)
            self._stage.check()
        self._show.freshness(seen)
        return seen

    def _close_shops(self, config: Config, workload: Workload) -> int:
        with self._steps.step("Close the shops and wait until the lake has their last transaction") as say:
            gone = workload.perform("delist").key
            workload.stop()
            # The last transaction of all: when it is seen, so is everything before it.
            last = workload.perform("signup").key
            self._stage.wait("the last transaction", lambda: there(config, _CUSTOMER, last), seconds=60, say=say)
        return gone

    def _ask_both(self, config: Config, dsn: str) -> tuple[Answer, ...]:
        with self._steps.step("Ask PostgreSQL and the lake the same questions in the same words"):
            answers = tuple(
                Answer(name, title, sql, ask_source(dsn, sql), ask_lake(config, sql))
                for name, title, sql in ((name, title, question(name)) for name, title in QUESTIONS.items())
            )
        self._show.answers(answers)
        return answers

    def _prices(self, config: Config) -> Result:
        with self._steps.step("Look back at the prices of a product"):
            prices = ask_lake(config, question("price_history"))
        self._show.prices(prices)
        return prices

    def _gone(self, config: Config, product: int) -> Deleted:
        with self._steps.step("Look for a product that was deleted"):
            there = ask_lake(config, "SELECT count(*) FROM products WHERE product_id = ?", [product])
            gone = Deleted(product, there.rows[0][0], ask_lake(config, _EVENTS_OF_A_PRODUCT, [product]))
        self._show.deleted(gone)
        return gone

    def _verify(self) -> tuple[TableReport, ...]:
        with self._steps.step("Verify: compare every row of every table with the source"):
            reports = tuple(self._stage.run("verify", *(f"public.{name}" for name in loader.TABLES))["tables"])
        self._show.verified(reports)
        return reports

    def _follow(self, config: Config, dsn: str, workload: Workload, dashboard: Dashboard | None) -> Followed:
        stage, world = self._stage, self._world
        with self._steps.step(f"Start the retailer's world: {world.words}") as say:
            stage.wait("the rule's beginning", lambda: world.ready(config), seconds=60, say=say)
            if dashboard is not None:
                stage.wait("the dashboard", lambda: dashboard.ask("/api/session") is not None, seconds=60, say=say)
        with self._steps.step("Sell the last pieces of a shelf, and follow what comes of it") as say:
            follower = Follower(config, dsn, workload.perform("sell_out").key, services=world.services)
            stage.wait("all that comes of a sale", follower.complete, seconds=60, say=say, pause=0.4)
            chain = follower.chain
            if dashboard is not None:
                stage.wait(
                    "the alert and the order on the dashboard",
                    lambda: dashboard.shows(alert=chain.alert_id, order=chain.order_number),
                    seconds=60,
                    say=say,
                )
        followed = Followed(chain, dashboard, world.left_out)
        self._show.followed(followed)
        return followed


def _headlines(say: Say) -> Say:
    """Leaves out the indented details: SQL and settings, which `connector register` shows in full."""
    return lambda text: None if text.startswith(" ") else say(text)
