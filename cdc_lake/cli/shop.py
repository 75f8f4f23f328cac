"""`shop`: the made-up retailer of `init --template retail`, in the project's database."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from cdc_lake.cli import output
from cdc_lake.cli.shop_events import order, scan
from cdc_lake.errors import UsageError

_EXAMPLES = (
    "Examples:  cdc-lake shop load   ·   cdc-lake shop load --rows 500000   ·   cdc-lake shop trade --rate 50   ·   "
    "cdc-lake shop scan --rate 20 --speed 60   ·   cdc-lake shop order --rate 2"
)
_TELL_SECONDS = 10.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    shop = typer.Typer(no_args_is_help=True, help="A made-up retailer as a source to play with.", epilog=_EXAMPLES)
    for command in (load, trade, scan, order):
        shop.command(epilog=_EXAMPLES)(command)
    app.add_typer(shop, name="shop")


def load(
    rows: Annotated[int, typer.Option("--rows", min=200, help="About how many rows in all tables together.")] = 30_000,
) -> None:
    """Create the retailer's tables in the source's database, and fill them.

    A database that has tables of these names is left as it is.
    """
    from cdc_lake.local.retail import loader
    from cdc_lake.local.retail.rows import Size

    dsn = dsn_of_shop()
    loader.create_schema(dsn)
    loaded = loader.load(dsn, Size.for_rows(rows), progress=lambda table: output.say(f"Loading {table} …"))
    output.result({"loaded": loaded}, ["table", "rows"], [{"table": t, "rows": n} for t, n in loaded.items()])


def trade(
    rate: Annotated[float, typer.Option("--rate", min=0.1, help="Transactions a second.")] = 20,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0, help="End after this long [default: at Ctrl-C].")
    ] = None,
) -> None:
    """Let the shops trade: sales, deliveries, returns, price changes, until Ctrl-C."""
    from cdc_lake.local.retail.workload import Workload

    workload = Workload(dsn_of_shop(), seed=int(time.time()), rate=rate)
    with until_told() as told:
        workload.start()
        began = said = time.monotonic()
        while not told and (seconds is None or time.monotonic() - began < seconds):
            time.sleep(0.1)
            if time.monotonic() - said >= _TELL_SECONDS:
                said = time.monotonic()
                output.say(f"{workload.stats().transactions:,} transactions")
        done = workload.stop()
    output.say(f"{done.transactions:,} transactions in {done.seconds:.0f} s.")
    if output.as_json():
        output.emit({"transactions": done.transactions, "seconds": round(done.seconds, 1), "kinds": done.acknowledged})


@contextmanager
def until_told() -> Iterator[list[int]]:
    """A list that Ctrl-C and `kill` add to, so that what is being committed is finished."""
    told: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda given, _frame: told.append(given)) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def dsn_of_shop() -> str:
    """The address of the database that the shop is in. Raises UsageError where there is none."""
    config = output.settings()
    if not config.databases:
        raise UsageError(
            "The shop needs a database, and none is configured.",
            why="All sources of the configuration are of events.",
            next="add `source: {name: pos}` to cdc-lake.yaml",
        )
    return config.dsn(config.databases[0])
