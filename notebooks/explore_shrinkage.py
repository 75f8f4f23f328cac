"""Stock that left without a sale: a marimo notebook over the lake of a shop.

marimo edit notebooks/explore_shrinkage.py                                    in the browser, every cell to change
marimo run notebooks/explore_shrinkage.py -- --config path/to/cdc-lake.yaml   as a page, over a lake of your choice
python notebooks/explore_shrinkage.py                                         as a program: says what was found
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Stock that left without a sale")


@app.cell
def _():
    import charts
    import marimo as mo
    import shop_lake

    return charts, mo, shop_lake


@app.cell
def _(mo):
    mo.md("""
    # Stock that left without a sale

    Theft, breakage, a wrong delivery note: sooner or later somebody counts a shelf and finds less than the books
    say. The database is corrected, and the correction looks like any other change. The lake tells it from a sale: a
    sale writes the order and takes the stock in one transaction, and every change names its transaction. What left
    a shelf in a transaction that sold nothing of it is shrinkage.

    Worth is at today's cost; what was delisted since has none. Moments are UTC; money is in the shops' currency.
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
    losses = lake.ask(
        """
        WITH moved AS (
            SELECT store_id, product_id, __tx_id, __valid_from,
                   lag(on_hand) OVER (PARTITION BY store_id, product_id ORDER BY __from_position) - on_hand AS pieces
            FROM history.public.inventory
        ), placed AS (
            SELECT DISTINCT order_id, store_id FROM changes.public.orders WHERE __op <> 'd' AND store_id IS NOT NULL
        ), sold AS (
            SELECT placed.store_id, l.product_id, l.__tx_id, sum(l.quantity) AS pieces
            FROM changes.public.order_lines l
            JOIN placed ON placed.order_id = l.order_id
            WHERE l.__op = 'c'
            GROUP BY placed.store_id, l.product_id, l.__tx_id
        ), lost AS (
            SELECT moved.store_id, moved.product_id, moved.__valid_from, moved.__tx_id,
                   moved.pieces - coalesce(sold.pieces, 0) AS pieces
            FROM moved
            LEFT JOIN sold ON sold.store_id = moved.store_id AND sold.product_id = moved.product_id
                AND sold.__tx_id = moved.__tx_id
            WHERE moved.pieces > coalesce(sold.pieces, 0)
        )
        SELECT __valid_from AT TIME ZONE 'UTC' AS moment, s.name AS store, p.name AS product, p.category, lost.pieces,
               lost.pieces * p.cost AS worth, lost.__tx_id AS transaction
        FROM lost
        JOIN stores s ON s.store_id = lost.store_id
        LEFT JOIN products p ON p.product_id = lost.product_id
        ORDER BY moment, store, product
        """
    )
    left = lake.ask(
        """
        SELECT sum(pieces) AS pieces FROM (
            SELECT lag(on_hand) OVER (PARTITION BY store_id, product_id ORDER BY __from_position) - on_hand AS pieces
            FROM history.public.inventory
        ) WHERE pieces > 0
        """
    )[0]["pieces"]
    upto = lake.upto()
    return left, losses, upto


@app.cell
def _(mo):
    mo.md("""
    ## How much is gone
    """)
    return


@app.cell
def _(charts, left, losses, upto):
    _curve = {}
    _gone = 0.0
    for _row in losses:
        _gone += float(_row["worth"] or 0)
        _curve[_row["moment"]] = _gone
    _pieces = sum(row["pieces"] for row in losses)
    gone_chart, _axes = charts.canvas(
        f"{_pieces:,} pieces worth {_gone:,.0f} left without a sale: {_pieces / int(left):.1%} of all that left"
        if losses
        else "Every piece that left a shelf was sold",
        "Worth at cost of what left a shelf in a transaction that sold nothing of it, summed up.",
        x="Commit in PostgreSQL (UTC)",
        y="Worth at cost, summed up",
    )
    charts.steps(_axes, list(_curve) or [upto], list(_curve.values()) or [0.0], until=upto, text=charts.thousands)
    _axes.set_ylim(bottom=0)
    gone_chart
    return (gone_chart,)


@app.cell
def _(mo):
    mo.md("""
    ## Where
    """)
    return


@app.cell
def _(charts, losses):
    _worth, _counts = {}, {}
    for _row in losses:
        _worth[_row["store"]] = _worth.get(_row["store"], 0.0) + float(_row["worth"] or 0)
        _counts.setdefault(_row["store"], set()).add(_row["transaction"])
    _top = sorted(_worth, key=lambda store: -_worth[store])[:12]
    _all = sum(_worth.values()) or 1.0
    where_chart, _axes = charts.canvas(
        f"{_top[0]} lost the most, {_worth[_top[0]] / _all:.0%} of the worth" if _top else "No store lost anything",
        f"Worth at cost by store, the first {len(_top)} of {len(_worth)} where something is missing.",
        x="Worth at cost",
        y="",
        height=1.5 + 0.27 * max(len(_top), 2),
    )
    _names = [f"{store} ({len(_counts[store])} {'count' if len(_counts[store]) == 1 else 'counts'})" for store in _top]
    charts.rows_of_bars(_axes, _names, {"worth": [_worth[store] for store in _top]}, [charts.RED])
    where_chart
    return (where_chart,)


@app.cell
def _(mo):
    mo.md("""
    ## What
    """)
    return


@app.cell
def _(charts, losses):
    _worth, _pieces = {}, {}
    for _row in losses:
        _category = _row["category"] or "delisted"
        _worth[_category] = _worth.get(_category, 0.0) + float(_row["worth"] or 0)
        _pieces[_category] = _pieces.get(_category, 0) + _row["pieces"]
    _order = sorted(_pieces, key=lambda category: -_worth[category])
    what_chart, _axes = charts.canvas(
        f"{_order[0]} is what disappears most" if _order else "Nothing disappeared",
        "Worth at cost by category.",
        x="Worth at cost",
        y="",
        height=1.5 + 0.27 * max(len(_order), 2),
    )
    _names = [
        f"{category} ({_pieces[category]:,} {'piece' if _pieces[category] == 1 else 'pieces'})" for category in _order
    ]
    charts.rows_of_bars(_axes, _names, {"worth": [_worth[category] for category in _order]}, [charts.ORANGE])
    what_chart
    return (what_chart,)


@app.cell
def _(losses, mo):
    mo.ui.table(losses, page_size=10, selection=None, label="Every loss, with the transaction that wrote it")
    return


@app.cell
def _(gone_chart, what_chart, where_chart, lake, mo, shop_lake):
    shop_lake.tell(mo, lake, (gone_chart, what_chart, where_chart))
    return


if __name__ == "__main__":
    app.run()
