"""Empty shelves and the sales they cost: a marimo notebook over the lake of a shop.

marimo edit notebooks/explore_stockouts.py                                    in the browser, every cell to change
marimo run notebooks/explore_stockouts.py -- --config path/to/cdc-lake.yaml   as a page, over a lake of your choice
python notebooks/explore_stockouts.py                                         as a program: says what was found
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Empty shelves, and the sales they cost")


@app.cell
def _():
    import charts
    import marimo as mo
    import shop_lake

    return charts, mo, shop_lake


@app.cell
def _(mo):
    mo.md("""
    # Empty shelves, and the sales they cost

    A database knows which shelves are empty now. `history.public.inventory` knows since when, how often before, and
    for how long. What that costs is an estimate: what the store sold of the product in a day of the last 30, times
    the days without it, at the price of today. A shelf of which nothing was sold costs nothing; a customer who took
    another product instead is counted as lost. Moments are UTC; money is in the shops' currency.
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
def _(lake):
    # A shelf is empty from the version in which it came to hold nothing to the one in which it held something again.
    outages = lake.ask(
        """
        WITH version AS (
            SELECT store_id, product_id, on_hand = 0 AS empty, __valid_from, __valid_to, __from_position,
                   coalesce(lag(on_hand = 0) OVER shelf, false) AS was_empty
            FROM history.public.inventory
            WINDOW shelf AS (PARTITION BY store_id, product_id ORDER BY __from_position)
        ), run AS (
            SELECT *, count(*) FILTER (WHERE empty AND NOT was_empty)
                OVER (PARTITION BY store_id, product_id ORDER BY __from_position) AS number
            FROM version
        ), outage AS (
            SELECT store_id, product_id, min(__valid_from) AS began,
                   CASE WHEN bool_or(__valid_to IS NULL) THEN NULL ELSE max(__valid_to) END AS ended
            FROM run WHERE empty GROUP BY store_id, product_id, number
        ), sold AS (
            SELECT o.store_id, l.product_id, sum(l.quantity) / 30.0 AS per_day
            FROM order_lines l
            JOIN orders o ON o.order_id = l.order_id
            WHERE o.status <> 'cancelled' AND o.placed_at > (SELECT max(placed_at) FROM orders) - INTERVAL '30 days'
            GROUP BY o.store_id, l.product_id
        )
        SELECT s.name AS store, p.name AS product, began AT TIME ZONE 'UTC' AS began, ended AT TIME ZONE 'UTC' AS ended,
               coalesce(sold.per_day, 0) AS per_day, coalesce(sold.per_day, 0) * p.price AS lost_per_day,
               CAST((p.attributes -> 'supplier') ->> 'lead_days' AS integer) AS lead_days
        FROM outage
        JOIN stores s ON s.store_id = outage.store_id
        JOIN products p ON p.product_id = outage.product_id
        LEFT JOIN sold ON sold.store_id = outage.store_id AND sold.product_id = outage.product_id
        ORDER BY began, store, product
        """
    )
    upto = lake.upto()
    empty_now = [row for row in outages if row["ended"] is None]
    return empty_now, outages, upto


@app.cell
def _(mo):
    mo.md("""
    ## How many shelves are empty
    """)
    return


@app.cell
def _(charts, empty_now, outages, upto):
    _moves = sorted(
        [(row["began"], 1) for row in outages] + [(row["ended"], -1) for row in outages if row["ended"] is not None]
    )
    _curve = {}
    _empty = 0
    for _moment, _step in _moves:
        _empty += _step
        _curve[_moment] = _empty
    _first = min(_curve, default=upto)
    _back = sum(row["ended"] is not None for row in outages)
    empty_chart, _axes = charts.canvas(
        f"{len(empty_now):,} shelves are empty; {_back:,} that were are filled again",
        "Shelves that hold nothing, from history.public.inventory. Those before the first point were found so.",
        x="Commit in PostgreSQL (UTC)",
        y="Empty shelves",
    )
    charts.steps(
        _axes,
        list(_curve) or [upto],
        list(_curve.values()) or [0],
        until=max(upto, _first),
        text=charts.thousands,
    )
    _axes.set_ylim(bottom=0)
    empty_chart
    return (empty_chart,)


@app.cell
def _(mo):
    mo.md("""
    ## What it costs
    """)
    return


@app.cell
def _(charts, empty_now):
    _lost, _shelves = {}, {}
    for _row in empty_now:
        _lost[_row["product"]] = _lost.get(_row["product"], 0.0) + float(_row["lost_per_day"])
        _shelves[_row["product"]] = _shelves.get(_row["product"], 0) + 1
    _top = sorted((product for product in _lost if _lost[product] > 0), key=lambda product: -_lost[product])[:12]
    _day = sum(_lost.values())
    _until = sum(float(row["lost_per_day"]) * (row["lead_days"] or 0) for row in empty_now)
    lost_chart, _axes = charts.canvas(
        f"Empty shelves cost {_day:,.0f} a day, {_until:,.0f} until suppliers deliver"
        if _day
        else "Nothing that sells is missing from a shelf",
        f"Expected sales per day of what is missing, the first {len(_top)} products.",
        x="Lost sales per day",
        y="",
        height=1.5 + 0.27 * max(len(_top), 2),
    )
    _names = [f"{product} ({_shelves[product]} {'shelf' if _shelves[product] == 1 else 'shelves'})" for product in _top]
    charts.rows_of_bars(
        _axes, _names, {"lost": [_lost[product] for product in _top]}, [charts.RED], text="{:,.1f}".format
    )
    lost_chart
    return (lost_chart,)


@app.cell
def _(mo):
    mo.md("""
    ## The shelves that were empty longest
    """)
    return


@app.cell
def _(charts, outages, upto):
    _length = {id(row): (row["ended"] or upto) - row["began"] for row in outages}
    _longest = sorted(
        outages, key=lambda row: (-round(_length[id(row)].total_seconds() / 60), -float(row["lost_per_day"]))
    )[:15]
    _hours = sorted(length.total_seconds() / 3600 for length in _length.values())
    _typical = charts.duration(_hours[len(_hours) // 2] * 3600) if _hours else ""
    span_chart, _axes = charts.canvas(
        f"Half of the empty shelves wait {_typical} or longer" if outages else "No shelf was ever empty",
        f"Until a shelf is filled again: the {len(_longest)} longest of {len(outages):,} times, red where it lasts.",
        x="Commit in PostgreSQL (UTC)",
        y="",
        height=1.5 + 0.27 * max(len(_longest), 2),
    )
    charts.spans(
        _axes,
        [f"{row['store'].partition(',')[0]}: {row['product']}" for row in _longest],
        [row["began"] for row in _longest],
        [row["ended"] or upto for row in _longest],
        [row["ended"] is None for row in _longest],
    )
    span_chart
    return (span_chart,)


@app.cell
def _(empty_now, mo):
    mo.ui.table(
        [{**row, "lost_per_day": round(float(row["lost_per_day"]), 2)} for row in empty_now],
        page_size=10,
        selection=None,
        label="Shelves that are empty now",
    )
    return


@app.cell
def _(empty_chart, lost_chart, span_chart, lake, mo, shop_lake):
    shop_lake.tell(mo, lake, (empty_chart, lost_chart, span_chart))
    return


if __name__ == "__main__":
    app.run()
