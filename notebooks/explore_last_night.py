"""What changed last night, and who was affected: a marimo notebook over the lake of a shop.

marimo edit notebooks/explore_last_night.py                                    in the browser, every cell to change
marimo run notebooks/explore_last_night.py -- --config path/to/cdc-lake.yaml   as a page, over a lake of your choice
python notebooks/explore_last_night.py                                         as a program: says what was found
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="What changed last night, and who was affected")


@app.cell
def _():
    from datetime import timedelta

    import charts
    import marimo as mo
    import shop_lake

    return charts, mo, shop_lake, timedelta


@app.cell
def _(mo):
    mo.md("""
    # What changed last night, and who was affected

    The morning's question. `changes` has every event of every table, `history` what each row was before; so it can
    be said what is different now, and whom it concerns. People are shown by their number alone. Moments are UTC;
    money is in the shops' currency.
    """)
    return


@app.cell
def _(mo):
    again = mo.ui.refresh(options=["5s", "30s", "5m"], label="Read the lake again")
    again
    return (again,)


@app.cell
def _(again, mo, shop_lake):
    again.value  # a connection stays at the moment it was opened: reading again means opening again
    lake = shop_lake.open_in(mo)
    mo.md(f"{lake.describe()}.")
    return (lake,)


@app.cell
def _(mo):
    window_choice = mo.ui.dropdown(
        {"1 hour": 1, "12 hours": 12, "24 hours": 24, "7 days": 168}, value="12 hours", label="The last"
    )
    window_choice
    return (window_choice,)


@app.cell
def _(lake, timedelta, window_choice):
    upto = lake.upto()
    since = upto - timedelta(hours=window_choice.value)
    return since, upto


@app.cell
def _(mo):
    mo.md("""
    ## What happened

    Every change but those that a snapshot read.
    """)
    return


@app.cell
def _(lake, shop_lake, since):
    # No upper bound: the end of a transaction is stamped in milliseconds, and its last changes may bear a later time.
    _tables = " UNION ALL ".join(
        f"SELECT '{table}' AS \"table\", __source_ts AT TIME ZONE 'UTC' AS moment FROM changes.public.{table}"
        " WHERE __op <> 'r'"
        for table in shop_lake.TABLES
    )
    events = lake.ask(
        f"""
        SELECT "table", moment FROM ({_tables}) WHERE moment > $1 ORDER BY moment
        """,
        since,
    )
    return (events,)


@app.cell
def _(charts, events, timedelta, upto, window_choice):
    # What is shown begins with the first change: an hour of trade in a window of twelve is no empty picture.
    _first = events[0]["moment"] if events else upto
    _width = max((upto - _first) / 30, timedelta(seconds=1))
    _places = [_first + _width * number for number in range(31)]
    _tables = sorted({row["table"] for row in events})
    _counts = {table: [0] * 31 for table in _tables}
    for _row in events:
        _counts[_row["table"]][min(int((_row["moment"] - _first) / _width), 30)] += 1
    _most = max(_tables, key=lambda table: sum(_counts[table]), default="")
    _share = sum(_counts[_most]) / len(events) if events else 0
    events_chart, _axes = charts.canvas(
        f"{len(events):,} rows changed in {window_choice.selected_key}, {_share:.0%} of them in {_most}"
        if events
        else f"Nothing changed in {window_choice.selected_key}",
        f"Changed rows per {charts.duration(_width.total_seconds())} and table, up to {upto:%d %B %Y, %H:%M} UTC.",
        x="Commit in PostgreSQL (UTC)",
        y="Changed rows",
    )
    charts.columns_of_bars(
        _axes, _places, _counts, charts.SERIES[: len(_tables)], width=_width.total_seconds() / 86_400 * 0.92
    )
    events_chart
    return (events_chart,)


@app.cell
def _(mo):
    mo.md("""
    ## Prices: yesterday and now
    """)
    return


@app.cell
def _(lake, since):
    prices = lake.ask(
        """
        SELECT product_id, arg_max(name, __from_position) AS product, arg_min(price, __from_position) AS before,
               arg_max(price, __from_position) AS after
        FROM history.public.products
        WHERE __valid_to IS NULL OR __valid_to AT TIME ZONE 'UTC' > $1
        GROUP BY product_id
        HAVING before <> after AND bool_or(__valid_to IS NULL)
        ORDER BY abs(after / before - 1) DESC, product_id
        """,
        since,
    )
    return (prices,)


@app.cell
def _(charts, prices):
    _shown = prices[:14]
    _dearer = sum(row["after"] > row["before"] for row in prices)
    prices_chart, _axes = charts.canvas(
        f"Of {len(prices):,} products with another price, {_dearer:,} are dearer than before"
        if prices
        else "No price is another one than before",
        f"The {len(_shown)} largest changes in per cent: grey was before, red is dearer and blue cheaper now.",
        x="Price of a piece",
        y="",
        height=1.6 + 0.3 * max(len(_shown), 2),
    )
    charts.before_and_after(
        _axes,
        [row["product"] for row in _shown],
        [float(row["before"]) for row in _shown],
        [float(row["after"]) for row in _shown],
        text="{:,.2f}".format,
    )
    prices_chart
    return (prices_chart,)


@app.cell
def _(mo):
    mo.md("""
    ## Who was affected

    Customers, each counted once for a reason. Orders without a customer are those of the tills.
    """)
    return


@app.cell
def _(lake, prices, since):
    affected = lake.ask(
        """
        WITH waiting AS (
            SELECT o.order_id, o.customer_id, l.product_id
            FROM orders o JOIN order_lines l ON l.order_id = o.order_id
            WHERE o.status = 'paid' AND o.customer_id IS NOT NULL
        ), reason AS (
            SELECT customer_id, 'waits for what costs something else now' AS why FROM waiting
            WHERE product_id IN (SELECT unnest($2::INTEGER[]))
            UNION ALL
            SELECT customer_id, 'waits for what was delisted' FROM waiting WHERE product_id IS NULL
            UNION ALL
            SELECT customer_id, 'order was cancelled' FROM history.public.orders
            WHERE status = 'cancelled' AND __op = 'u' AND __valid_from AT TIME ZONE 'UTC' > $1
            UNION ALL
            SELECT o.customer_id, 'got money back' FROM payments p JOIN orders o ON o.order_id = p.order_id
            WHERE p.amount < 0 AND o.status <> 'cancelled' AND p.paid_at AT TIME ZONE 'UTC' > $1
            UNION ALL
            SELECT o.customer_id, 'order was sent' FROM history.public.orders o
            WHERE o.status = 'shipped' AND o.__op = 'u' AND o.__valid_from AT TIME ZONE 'UTC' > $1
            UNION ALL
            SELECT CAST(__key ->> 'customer_id' AS BIGINT), 'asked to be forgotten' FROM changes.public.customers
            WHERE __op = 'd' AND __source_ts AT TIME ZONE 'UTC' > $1
        )
        SELECT DISTINCT why, customer_id FROM reason WHERE customer_id IS NOT NULL ORDER BY why, customer_id
        """,
        since,
        [row["product_id"] for row in prices],
    )
    return (affected,)


@app.cell
def _(affected, charts):
    _counts = {}
    for _row in affected:
        _counts[_row["why"]] = _counts.get(_row["why"], 0) + 1
    _order = sorted(_counts, key=lambda why: -_counts[why])
    _people = len({row["customer_id"] for row in affected})
    affected_chart, _axes = charts.canvas(
        f"{_people:,} {'customer was' if _people == 1 else 'customers were'} affected"
        if _people
        else "Nobody was affected",
        "Customers by reason; one may have several.",
        x="Customers",
        y="",
        height=1.5 + 0.35 * max(len(_order), 2),
    )
    charts.rows_of_bars(_axes, _order, {"customers": [_counts[why] for why in _order]}, [charts.BLUE])
    affected_chart
    return (affected_chart,)


@app.cell
def _(affected, mo):
    mo.ui.table(affected, page_size=10, selection=None, label="Customers who were affected, by number")
    return


@app.cell
def _(affected_chart, events_chart, prices_chart, lake, mo, shop_lake):
    shop_lake.tell(mo, lake, (affected_chart, events_chart, prices_chart))
    return


if __name__ == "__main__":
    app.run()
