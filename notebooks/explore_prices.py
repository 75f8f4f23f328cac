"""What a price does to demand: a marimo notebook over the lake of a shop.

marimo edit notebooks/explore_prices.py                                    in the browser, every cell to change
marimo run notebooks/explore_prices.py -- --config path/to/cdc-lake.yaml   as a page, over a lake of your choice
python notebooks/explore_prices.py                                         as a program: says what was found
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="What a price does to demand")


@app.cell
def _():
    import charts
    import elasticity
    import marimo as mo
    import shop_lake

    return charts, elasticity, mo, shop_lake


@app.cell
def _(mo):
    mo.md("""
    # What a price does to demand

    The list of prices keeps the last one; `history.public.products` has them all, with the moment of each change.
    Beside it, `order_lines` say what was sold before and after. Each change is a small experiment: did the
    product's share of all pieces sold fall when its price rose? Measured as a share, a busy day or the season is
    not taken for an effect.

    The elasticity says by how many per cent demand changes when the price rises by one. -1.5 means a price 1%
    higher sells 1.5% less. Few pieces tell little: the range says how little. It is no proof either, as prices are
    not changed by chance.
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
def _(elasticity, lake):
    found = lake.ask(
        """
        WITH version AS (
            SELECT product_id, name, category, price, __valid_from, __from_position, __op,
                   lag(price) OVER product AS last_price
            FROM history.public.products
            WINDOW product AS (PARTITION BY product_id ORDER BY __from_position)
        ), period AS (
            -- A price that the first snapshot found holds since we know of sales.
            SELECT product_id, name, category, price, last_price,
                   CASE WHEN last_price IS NULL AND __op = 'r' THEN TIMESTAMPTZ '1900-01-01'
                        ELSE __valid_from END AS began, __from_position
            FROM version WHERE last_price IS NULL OR last_price <> price
        ), change AS (
            SELECT row_number() OVER () AS change, product_id, name, category, last_price, price,
                   lag(began) OVER product AS started, began AS changed,
                   coalesce(lead(began) OVER product, TIMESTAMPTZ '2900-01-01') AS ended
            FROM period
            WINDOW product AS (PARTITION BY product_id ORDER BY __from_position)
            QUALIFY last_price IS NOT NULL
        ), line AS (
            SELECT l.product_id, o.placed_at, l.quantity
            FROM order_lines l
            JOIN orders o ON o.order_id = l.order_id
            WHERE o.status <> 'cancelled'
        ), own AS (
            SELECT product_id, placed_at,
                   sum(quantity) OVER (PARTITION BY product_id ORDER BY placed_at RANGE UNBOUNDED PRECEDING) AS pieces
            FROM line
        ), everything AS (
            SELECT placed_at, sum(quantity) OVER (ORDER BY placed_at RANGE UNBOUNDED PRECEDING) AS pieces FROM line
        ), edge AS (
            SELECT change, product_id, unnest(['start', 'change', 'end']) AS edge,
                   unnest([started, changed, ended]) AS moment
            FROM change
        ), upto AS (
            SELECT edge.change, edge.edge, coalesce(own.pieces, 0) AS own, coalesce(everything.pieces, 0) AS everything
            FROM edge
            ASOF LEFT JOIN own ON own.product_id = edge.product_id AND own.placed_at < edge.moment
            ASOF LEFT JOIN everything ON everything.placed_at < edge.moment
        )
        SELECT change.name AS product, change.category, change.last_price, change.price,
               change.changed AT TIME ZONE 'UTC' AS changed_at,
               middle.own - first.own AS sold_before, last.own - middle.own AS sold_after,
               middle.everything - first.everything AS all_before, last.everything - middle.everything AS all_after
        FROM change
        JOIN upto first ON first.change = change.change AND first.edge = 'start'
        JOIN upto middle ON middle.change = change.change AND middle.edge = 'change'
        JOIN upto last ON last.change = change.change AND last.edge = 'end'
        ORDER BY changed_at, product
        """
    )
    counts = ("sold_before", "sold_after", "all_before", "all_after")
    changes = [
        elasticity.Change(float(row["last_price"]), float(row["price"]), *(int(row[name]) for name in counts))
        for row in found
    ]
    return changes, found


@app.cell
def _(mo):
    mo.md("""
    ## All changes of a price
    """)
    return


@app.cell
def _(changes, charts, elasticity):
    _told = [change for change in changes if change.tells and change.sold_before + change.sold_after >= 5]
    _all = elasticity.estimate(changes)
    _range = f"between {_all.value - _all.error:.1f} and {_all.value + _all.error:.1f}" if _all else ""
    if _all is None:
        _finding = "No price was changed of anything that sells"
    elif _all.sure:
        _finding = f"A price 1% higher sells {abs(_all.value):.1f}% {'less' if _all.value < 0 else 'more'} ({_range})"
    else:
        _finding = f"No effect of the price can be told yet: the elasticity is {_range}"
    cloud_chart, _axes = charts.canvas(
        _finding,
        f"A point for each of {len(_told):,} changes of a price, larger the more pieces were sold (5 at least).",
        x="Change of the price (%)",
        y="Change of the share of all pieces sold (%)",
        height=4.8,
    )
    _price = [100 * (change.after / change.before - 1) for change in _told]
    charts.cloud(
        _axes,
        _price,
        [100 * (change.share_change() - 1) for change in _told],
        [change.sold_before + change.sold_after for change in _told],
    )
    if _all and _price:
        _line = [min(_price) + (max(_price) - min(_price)) * step / 40 for step in range(41)]
        for _errors, _style in ((0, "-"), (-1, ":"), (1, ":")):
            _expected = [100 * (_all.factor(1 + x / 100, errors=_errors) - 1) for x in _line]
            _axes.plot(_line, _expected, _style, color=charts.ORANGE)
        _axes.set_ylim(-105, 255)
    cloud_chart
    return (cloud_chart,)


@app.cell
def _(mo):
    mo.md("""
    ## By category
    """)
    return


@app.cell
def _(changes, charts, elasticity, found):
    _by = {}
    for _row, _change in zip(found, changes, strict=True):
        _by.setdefault(_row["category"], []).append(_change)
    _estimates = {category: elasticity.estimate(of) for category, of in _by.items()}
    _known = {category: e for category, e in _estimates.items() if e is not None and e.error < 30}
    _order = sorted(_known, key=lambda category: _known[category].value)
    _sure = [category for category in _order if _known[category].sure]
    category_chart, _axes = charts.canvas(
        f"{len(_sure) or 'None'} of {len(_order)} categories answer the price so that it can be told"
        if _order
        else "No category was sold often enough around a change of a price",
        "Elasticity with the range that holds the truth in 95 of 100 cases; grey ones cannot be told from none.",
        x="Elasticity: change of demand (%) for a price 1% higher",
        y="Category",
        height=1.6 + 0.4 * max(len(_order), 2),
    )
    charts.estimates(
        _axes,
        [f"{category} ({_known[category].changes} changes)" for category in _order],
        [_known[category].value for category in _order],
        [_known[category].error for category in _order],
    )
    category_chart
    return (category_chart,)


@app.cell
def _(found, mo):
    mo.ui.table(found, page_size=10, selection=None, label="Every change of a price")
    return


@app.cell
def _(category_chart, cloud_chart, lake, mo, shop_lake):
    shop_lake.tell(mo, lake, (category_chart, cloud_chart))
    return


if __name__ == "__main__":
    app.run()
