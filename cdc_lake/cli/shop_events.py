"""`shop scan` and `shop order`: the made-up retailer's events, at the speed that is asked for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cdc_lake.cli import output
from cdc_lake.errors import CdcLakeError, UsageError

if TYPE_CHECKING:
    from cdc_lake.local.retail.demand import Demand

_TICK_SECONDS = 0.2
_TELL_SECONDS = 10.0
_PARTITIONS = 4

Seed = Annotated[int, typer.Option("--seed", help="The same seed makes the same messages.")]
Speed = Annotated[float, typer.Option("--speed", min=0.01, help="Made-up seconds in a second.")]
Begin = Annotated[str | None, typer.Option("--from", metavar="TIME", help="When it begins there [default: now].")]
Seconds = Annotated[float | None, typer.Option("--seconds", min=0, help="End after this long [default: at Ctrl-C].")]
Stores = Annotated[int, typer.Option("--stores", min=1, help="How many, where the source has none.")]
Products = Annotated[int, typer.Option("--products", min=10, help="How many, where the source has none.")]


def scan(
    *,
    rate: Annotated[float, typer.Option("--rate", min=0.01, help="Purchases a second at an average moment.")] = 5,
    speed: Speed = 1,
    seconds: Seconds = None,
    begin: Begin = None,
    seed: Seed = 1,
    stores: Stores = 20,
    products: Products = 750,
    deliveries: Annotated[
        bool, typer.Option("--deliveries/--no-deliveries", help="Fill shelves that run low, or leave it to others.")
    ] = True,
) -> None:
    """Let scanners of the stores send purchases, restocks, returns, transfers and adjustments to Kafka, as CloudEvents.

    Demand follows weekday, hour, season and promotions. Some messages come late, twice, out of order, from a clock that
    is ahead, or broken.
    """
    from cdc_lake.consume.send import KafkaSender
    from cdc_lake.local.retail.scans import TOPIC, Scanners

    config = output.settings()
    scanners = Scanners(_demand(seed, stores, products), rate, deliveries=deliveries)
    sender = KafkaSender(config.bootstrap, TOPIC, config.kafka.options if config.kafka else {}, partitions=_PARTITIONS)
    sent = 0
    try:

        def tick(start: datetime, end: datetime) -> None:
            nonlocal sent
            for message in scanners.between(start, end):
                sender.send(message.key, message.value, message.headers)
                sent += 1
            sender.flush()

        _run(tick, _moment(begin), speed, seconds, lambda: f"{sent:,} messages to {TOPIC}")
    finally:
        sender.close()
    _done({"topic": TOPIC, "messages": sent, "kinds": dict(sorted(scanners.made.items()))})


def order(
    *,
    rate: Annotated[float, typer.Option("--rate", min=0.01, help="Orders a second at an average moment.")] = 1,
    speed: Speed = 1,
    seconds: Seconds = None,
    begin: Begin = None,
    seed: Seed = 1,
    stores: Stores = 20,
    products: Products = 750,
) -> None:
    """Let customers order in the web shop: each order and its event are written to the source in one transaction.

    The events go through the outbox: examples/retail/connectors/outbox.json sends them to Kafka.
    """
    from cdc_lake.cli.shop import dsn_of_shop
    from cdc_lake.local.retail.loader import connect
    from cdc_lake.local.retail.web import WebShop, create_outbox, write

    dsn = dsn_of_shop()
    if create_outbox(dsn):
        output.say("Made the outbox. Next, elsewhere: cdc-lake connector register connectors/outbox.json")
    shop, kinds = WebShop(_demand(seed, stores, products), rate, _ids("customers", "customer_id")), Counter[str]()
    with connect(dsn) as connection:

        def tick(start: datetime, end: datetime) -> None:
            for event in shop.between(start, end):
                write(connection, event)
                kinds[event.type] += 1

        _run(tick, _moment(begin), speed, seconds, lambda: f"{kinds.total():,} events in the outbox")
    _done({"events": kinds.total(), "kinds": dict(sorted(kinds.items()))})


def _run(
    tick: Callable[[datetime, datetime], None],
    begin: datetime,
    speed: float,
    seconds: float | None,
    words: Callable[[], str],
) -> None:
    """Call `tick` with one span of made-up time after the other, until it is over or somebody stops it."""
    from cdc_lake.cli.shop import until_told

    with until_told() as told:
        started = said = time.monotonic()
        at = begin
        while not told:
            now = time.monotonic()
            passed = now - started if seconds is None else min(now - started, seconds)
            end = begin + timedelta(seconds=passed * speed)
            if end > at:
                tick(at, end)
                at = end
            if seconds is not None and passed >= seconds:
                return
            if now - said >= _TELL_SECONDS:
                said = now
                output.say(words())
            time.sleep(_TICK_SECONDS)


def _done(document: dict[str, object]) -> None:
    if output.as_json():
        output.emit(document)
        return
    output.table(["", ""], [[name, value] for name, value in _rows(document)])


def _rows(document: dict[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from value.items()
        else:
            yield name, value


def _moment(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--from {text} is no time.", why="A time is ISO 8601.", next="--from 2026-11-24T08:00:00Z"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _demand(seed: int, stores: int, products: int) -> Demand:
    """Over the source's own stores and products, where it has them."""
    from cdc_lake.local.retail.demand import Demand

    return Demand(
        seed,
        _ids("stores", "store_id") or range(1, stores + 1),
        _ids("products", "product_id") or range(1, products + 1),
    )


def _ids(table: str, column: str) -> Sequence[int]:
    from cdc_lake.cli.shop import dsn_of_shop
    from cdc_lake.local.retail.loader import connect

    try:
        with connect(dsn_of_shop()) as connection:
            if connection.execute("SELECT to_regclass(%s) IS NULL", [table]).fetchone() == (True,):
                return []
            rows = connection.execute(f"SELECT {column} FROM {table} ORDER BY 1".encode()).fetchall()
            return [row[0] for row in rows]
    except CdcLakeError:
        return []
