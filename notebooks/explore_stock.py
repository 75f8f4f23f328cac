"""What is on the shelves: a marimo notebook over the lake of a shop.

marimo edit notebooks/explore_stock.py                                    in the browser, every cell to change
marimo run notebooks/explore_stock.py -- --config path/to/cdc-lake.yaml   as a page, over a lake of your choice
python notebooks/explore_stock.py                                         as a program: says what was found
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="What is on the shelves")


@app.cell
def _():
    import sys

    import charts
    import marimo as mo
    import shop_lake

    return charts, mo, shop_lake, sys


@app.cell
def _(mo):
    mo.md("""
    # What is on the shelves

    Questions of a retailer, asked of the lake: where is the stock, where does it run out, how did one shelf and one
    price move. `inventory`, `stores` … are the tables of the source as they are now; `changes.public.inventory` has
    every event of a table. Moments are UTC; money is in the shops' currency.

    The lake is that of `--config`, else of the environment variable `CDC_LAKE_CONFIG`, else of the nearest
    `cdc-lake.yaml`. There is none yet? `make demo` writes one, and `make demo KEEP=1` one that goes on living.
    """)
    return


@app.cell
def _(mo):
    again = mo.ui.refresh(options=["5s", "30s", "5m"], label="Read the lake again")
    again
    return (again,)


@app.cell
def _(again, mo, shop_lake, sys):
    again.value  # a connection stays at the moment it was opened: reading again means opening again
    try:
        lake = shop_lake.open_lake(mo.cli_args().get("config"))
    except shop_lake.NoLake as error:
        if not mo.running_in_notebook():
            sys.exit(f"Error: {error}")
        mo.stop(True, mo.callout(mo.md(f"**{error.message}**\n\n{error.why}\n\nNext: `{error.next}`"), kind="danger"))

    def ask(sql, *values):
        """The answer of the lake, a dict for each row."""
        cursor = lake.connection.execute(sql, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    mo.md(f"{lake.describe()}.")
    return ask, lake


@app.cell
def _(mo):
    mo.md("""
    ## Stock by store

    A shelf is one product in one store. It is low when it holds less than its reorder point.
    """)
    return


@app.cell
def _(ask):
    stores = ask(
        """
        SELECT s.name AS store, s.region, count(*) AS shelves, sum(i.on_hand) AS pieces,
               sum(i.on_hand * p.cost) AS worth_at_cost,
               count(*) FILTER (WHERE i.on_hand < i.reorder_point) AS low,
               count(*) FILTER (WHERE i.on_hand = 0) AS empty
        FROM inventory i
        JOIN stores s ON s.store_id = i.store_id
        JOIN products p ON p.product_id = i.product_id
        GROUP BY s.store_id, s.name, s.region
        ORDER BY low DESC, s.name
        """
    )
    return (stores,)


@app.cell
def _(charts, stores):
    _worst = stores[:15]
    _low, _shelves = (sum(row[name] for row in stores) for name in ("low", "shelves"))
    low_chart, _axes = charts.canvas(
        f"{_low / _shelves:.1%} of all shelves are low; {_worst[0]['store']} has the most, {_worst[0]['low']}",
        f"Shelves below their reorder point, the {len(_worst)} worst of {len(stores)} stores.",
        x="Shelves below the reorder point",
        y="",
        height=4.6,
    )
    charts.rows_of_bars(
        _axes,
        [row["store"] for row in _worst],
        {
            "empty": [row["empty"] for row in _worst],
            "low, not empty": [row["low"] - row["empty"] for row in _worst],
        },
        [charts.RED, charts.ORANGE],
    )
    low_chart
    return (low_chart,)


@app.cell
def _(charts, stores):
    _worth = {}
    for _row in stores:
        _worth[_row["region"]] = _worth.get(_row["region"], 0) + float(_row["worth_at_cost"])
    _regions = sorted(_worth, key=_worth.get, reverse=True)
    _total = sum(_worth.values())
    worth_chart, _axes = charts.canvas(
        f"{_regions[0]} holds {_worth[_regions[0]] / _total:.0%} of the stock, which is worth {_total:,.0f}",
        "Pieces on hand times what the product costs today, per region.",
        x="Worth of the stock at cost",
        y="",
        height=0.9 + 0.32 * len(_regions),
    )
    charts.rows_of_bars(_axes, _regions, {"worth": [_worth[region] for region in _regions]}, [charts.BLUE])
    worth_chart
    return (worth_chart,)


@app.cell
def _(mo, stores):
    mo.ui.table(stores, page_size=10, selection=None, label="Every store")
    return


@app.cell
def _(mo):
    mo.md("""
    ## What to order

    The shelves of a store that are low, those that miss most first, with what the store sold of the product in 7 days
    and the days its supplier needs.
    """)
    return


@app.cell
def _(mo, stores):
    store_choice = mo.ui.dropdown(sorted(row["store"] for row in stores), value=stores[0]["store"], label="Store")
    store_choice
    return (store_choice,)


@app.cell
def _(ask, mo, store_choice):
    shortages = ask(
        """
        SELECT p.name AS product, p.category, i.on_hand, i.reorder_point, coalesce(sold.pieces, 0) AS sold_in_7_days,
               CAST((p.attributes -> 'supplier') ->> 'lead_days' AS integer) AS lead_days
        FROM inventory i
        JOIN stores s ON s.store_id = i.store_id
        JOIN products p ON p.product_id = i.product_id
        LEFT JOIN (
            SELECT o.store_id, l.product_id, sum(l.quantity) AS pieces
            FROM order_lines l
            JOIN orders o ON o.order_id = l.order_id
            WHERE o.placed_at > (SELECT max(placed_at) FROM orders) - INTERVAL '7 days'
            GROUP BY o.store_id, l.product_id
        ) sold ON sold.store_id = i.store_id AND sold.product_id = i.product_id
        WHERE s.name = ? AND i.on_hand < i.reorder_point
        ORDER BY i.on_hand - i.reorder_point, sold_in_7_days DESC, p.name
        """,
        store_choice.value,
    )
    mo.ui.table(shortages, page_size=10, selection=None, label=f"{len(shortages)} low shelves in {store_choice.value}")
    return


@app.cell
def _(ask, charts):
    short = ask(
        """
        SELECT p.name AS product, count(*) FILTER (WHERE i.on_hand < i.reorder_point) AS low, count(*) AS stores,
               sum(i.reorder_point - i.on_hand) FILTER (WHERE i.on_hand < i.reorder_point) AS pieces_missing
        FROM inventory i
        JOIN products p ON p.product_id = i.product_id
        GROUP BY p.product_id, p.name
        HAVING count(*) FILTER (WHERE i.on_hand < i.reorder_point) > 0
        ORDER BY pieces_missing DESC, p.name
        """
    )
    _top = short[:12]
    short_chart, _axes = charts.canvas(
        f"{_top[0]['product']} is short most: {_top[0]['pieces_missing']} pieces in {_top[0]['low']} stores"
        if short
        else "No product is short anywhere",
        f"Pieces missing up to the reorder point over all stores, the first {len(_top)} of {len(short)} products.",
        x="Missing pieces",
        y="",
    )
    charts.rows_of_bars(
        _axes, [row["product"] for row in _top], {"pieces": [row["pieces_missing"] for row in _top]}, [charts.ORANGE]
    )
    short_chart
    return (short_chart,)


@app.cell
def _(mo):
    mo.md("""
    ## The life of one shelf

    A database knows what a shelf holds now. `changes.public.inventory` knows every sale and every delivery that
    brought it there. To choose from: the shelves that moved most since the capture began.
    """)
    return


@app.cell
def _(ask, mo):
    _moved = ask(
        """
        SELECT s.name || ': ' || p.name AS shelf, c.store_id, c.product_id
        FROM (
            SELECT store_id, product_id, count(*) AS events FROM changes.public.inventory
            WHERE __op <> 'd' GROUP BY store_id, product_id
            ORDER BY events DESC, store_id, product_id LIMIT 50
        ) c
        JOIN stores s ON s.store_id = c.store_id
        JOIN products p ON p.product_id = c.product_id
        ORDER BY c.events DESC, c.store_id, c.product_id
        """
    )
    _shelves = {row["shelf"]: (row["store_id"], row["product_id"]) for row in _moved}
    shelf_choice = mo.ui.dropdown(_shelves, value=next(iter(_shelves)), label="Shelf")
    shelf_choice
    return (shelf_choice,)


@app.cell
def _(ask, charts, shelf_choice):
    shelf_events = ask(
        """
        SELECT __source_ts AT TIME ZONE 'UTC' AS moment, on_hand, reorder_point,
               on_hand - lag(on_hand) OVER (ORDER BY __offset) AS difference
        FROM changes.public.inventory
        WHERE store_id = ? AND product_id = ? AND __op <> 'd'
        ORDER BY __offset
        """,
        *shelf_choice.value,
    )
    _deliveries = sum((row["difference"] or 0) > 5 for row in shelf_events)
    _gone = -sum(min(row["difference"] or 0, 0) for row in shelf_events)
    shelf_chart, _axes = charts.canvas(
        f"{_gone} pieces left the shelf, {_deliveries} {'delivery' if _deliveries == 1 else 'deliveries'} came",
        f"{shelf_choice.selected_key}. A rise of more than five pieces counts as a delivery.",
        x="Commit in PostgreSQL (UTC)",
        y="Pieces on hand",
    )
    charts.steps(
        _axes,
        [row["moment"] for row in shelf_events],
        [row["on_hand"] for row in shelf_events],
        until=shelf_events[-1]["moment"],
        text=charts.thousands,
    )
    _axes.set_ylim(bottom=0)
    charts.level(_axes, shelf_events[-1]["reorder_point"], "reorder point")
    shelf_chart
    return (shelf_chart,)


@app.cell
def _(mo):
    mo.md("""
    ## The price of one product over time

    Receipts keep the price of their day; the list of prices keeps only the last one. `changes.public.products` has
    them all. To choose from: the products whose price changed most often.
    """)
    return


@app.cell
def _(ask, mo):
    _changed = ask(
        """
        SELECT arg_max(name, __offset) AS name, product_id
        FROM changes.public.products
        WHERE __op <> 'd'
        GROUP BY product_id
        ORDER BY count(*) DESC, product_id
        LIMIT 50
        """
    )
    _products = {f"{row['name']} (no. {row['product_id']})": row["product_id"] for row in _changed}
    product_choice = mo.ui.dropdown(_products, value=next(iter(_products)), label="Product")
    product_choice
    return (product_choice,)


@app.cell
def _(ask, charts, product_choice):
    prices = ask(
        """
        SELECT __source_ts AT TIME ZONE 'UTC' AS moment, price
        FROM changes.public.products
        WHERE product_id = ? AND __op <> 'd'
        ORDER BY __offset
        """,
        product_choice.value,
    )
    _first, _last = float(prices[0]["price"]), float(prices[-1]["price"])
    _way = f"{abs(_last / _first - 1):.0%} {'higher' if _last > _first else 'lower'}" if _last != _first else "the same"
    price_chart, _axes = charts.canvas(
        f"After {len(prices) - 1} changes the price is {_way}",
        f"{product_choice.selected_key}, from changes.public.products.",
        x="Commit in PostgreSQL (UTC)",
        y="Price of a piece",
    )
    charts.steps(
        _axes,
        [row["moment"] for row in prices],
        [float(row["price"]) for row in prices],
        until=prices[-1]["moment"],
        text="{:,.2f}".format,
    )
    price_chart
    return (price_chart,)


@app.cell
def _(mo):
    mo.md("""
    ## How old is what you see?

    From the commit of a stock movement in PostgreSQL (`__source_ts`) to the moment the sink wrote it
    (`__ingested_at`), over the last 15 minutes with changes. A sink that starts late shows as a slope.
    """)
    return


@app.cell
def _(ask, charts):
    waits = ask(
        """
        SELECT __source_ts AT TIME ZONE 'UTC' AS moment, epoch(__ingested_at - __source_ts) AS seconds
        FROM changes.public.inventory
        WHERE __op <> 'r' AND __source_ts > (
            SELECT max(__source_ts) FROM changes.public.inventory WHERE __op <> 'r'
        ) - INTERVAL '15 minutes'
        ORDER BY __source_ts
        """
    )
    fresh_chart, _axes = charts.canvas(
        charts.wait_finding("stock movements", [row["seconds"] for row in waits]),
        f"{len(waits):,} changes of inventory, a point each.",
        x="Commit in PostgreSQL (UTC)",
        y="Seconds until landed",
    )
    charts.points(_axes, [row["moment"] for row in waits], [row["seconds"] for row in waits])
    fresh_chart
    return (fresh_chart,)


@app.cell
def _(
    fresh_chart,
    lake,
    low_chart,
    mo,
    price_chart,
    shelf_chart,
    short_chart,
    worth_chart,
):
    if not mo.running_in_notebook():
        # As a program there is nobody to show charts to: their titles say what was found.
        print(lake.describe())
        for _chart in (low_chart, worth_chart, short_chart, shelf_chart, price_chart, fresh_chart):
            print(f"- {_chart.axes[0].get_title(loc='left').strip()}")
    return


if __name__ == "__main__":
    app.run()
