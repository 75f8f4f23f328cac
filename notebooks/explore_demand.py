"""What sells where and when: a marimo notebook over the lake of a shop.

marimo edit notebooks/explore_demand.py                                    in the browser, every cell to change
marimo run notebooks/explore_demand.py -- --config path/to/cdc-lake.yaml   as a page, over a lake of your choice
python notebooks/explore_demand.py                                         as a program: says what was found
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="What sells where and when")


@app.cell
def _():
    import charts
    import marimo as mo
    import shop_lake

    return charts, mo, shop_lake


@app.cell
def _(mo):
    mo.md("""
    # What sells where and when

    Questions of a retailer, asked of the lake: which hours of the week bring the money, what does each region buy
    more of than the others, what rose and what fell since last week. `orders`, `stores` … are the tables of the
    source as they are now. Times are UTC; money is in the shops' currency; cancelled orders do not count.
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
    mo.md("""
    ## The week, hour by hour
    """)
    return


@app.cell
def _(lake, mo):
    _regions = [row["region"] for row in lake.ask("SELECT DISTINCT region FROM stores ORDER BY region")]
    region_choice = mo.ui.dropdown(["all regions", *_regions], value="all regions", label="Region")
    region_choice
    return (region_choice,)


@app.cell
def _(lake, region_choice):
    hours = lake.ask(
        """
        SELECT extract(isodow FROM o.placed_at AT TIME ZONE 'UTC') AS weekday,
               extract(hour FROM o.placed_at AT TIME ZONE 'UTC') AS hour, sum(o.total) AS revenue, count(*) AS orders
        FROM orders o
        JOIN stores s ON s.store_id = o.store_id
        WHERE o.status <> 'cancelled' AND (s.region = $1 OR $1 = 'all regions')
        GROUP BY 1, 2
        ORDER BY 1, 2
        """,
        region_choice.value,
    )
    return (hours,)


@app.cell
def _(charts, hours, region_choice):
    _days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    _field = {(int(row["weekday"]), int(row["hour"])): float(row["revenue"]) for row in hours}
    (_day, _hour), _most = max(_field.items(), key=lambda item: item[1], default=((1, 0), 0.0))
    _all = sum(_field.values()) or 1.0
    _finding = f"{_days[_day - 1]}, {_hour}:00 to {_hour + 1}:00, brings {_most / _all:.1%} of the week's revenue"
    week_chart, _axes = charts.canvas(
        _finding if hours else "Nothing was sold yet",
        f"Revenue by weekday and hour in {region_choice.value}, {sum(row['orders'] for row in hours):,} orders.",
        x="Hour of the day (UTC)",
        y="",
        height=3.6,
    )
    charts.heat_map(
        week_chart,
        _axes,
        _days,
        [str(hour) for hour in range(24)],
        [[_field.get((day, hour)) for hour in range(24)] for day in range(1, 8)],
        unit="Revenue",
    )
    week_chart
    return (week_chart,)


@app.cell
def _(mo):
    mo.md("""
    ## What a region buys more of

    100 is the share of the revenue that the category has in all regions together; 120 is a fifth more of it.
    """)
    return


@app.cell
def _(lake):
    shares = lake.ask(
        """
        SELECT s.region, p.category, sum(l.line_total) AS revenue
        FROM order_lines l
        JOIN orders o ON o.order_id = l.order_id
        JOIN stores s ON s.store_id = o.store_id
        JOIN products p ON p.product_id = l.product_id
        WHERE o.status <> 'cancelled'
        GROUP BY s.region, p.category
        ORDER BY s.region, p.category
        """
    )
    return (shares,)


@app.cell
def _(charts, shares):
    _of = {(row["region"], row["category"]): float(row["revenue"]) for row in shares}
    _regions, _categories = sorted({r for r, _ in _of}), sorted({c for _, c in _of})
    _total = sum(_of.values()) or 1.0
    _in_region = {r: sum(_of.get((r, c), 0.0) for c in _categories) for r in _regions}
    _of_category = {c: sum(_of.get((r, c), 0.0) for r in _regions) for c in _categories}
    _index = {
        (r, c): 100 * (_of.get((r, c), 0.0) / _in_region[r]) / (_of_category[c] / _total)
        for r in _regions
        for c in _categories
    }
    (_where, _what), _most = max(_index.items(), key=lambda item: item[1], default=(("", ""), 100.0))
    index_chart, _axes = charts.canvas(
        f"{_where} buys {_most / 100 - 1:.0%} more {_what.lower()} than all regions do"
        if shares
        else "Nothing was sold yet",
        "Share of a category in the revenue of a region, as an index: 100 is its share everywhere.",
        x="Category",
        y="Region",
        height=1.9 + 0.36 * len(_regions),
    )
    charts.index_map(
        index_chart, _axes, _regions, _categories, [[_index[r, c] for c in _categories] for r in _regions], unit="Index"
    )
    _axes.tick_params(axis="x", rotation=30)
    index_chart
    return (index_chart,)


@app.cell
def _(mo):
    mo.md("""
    ## What rose and what fell

    The last seven days against the seven before, by the names on the receipts.
    """)
    return


@app.cell
def _(lake):
    movers = lake.ask(
        """
        WITH line AS (
            SELECT l.product_name AS product, l.line_total AS amount, o.placed_at,
                   (SELECT max(placed_at) FROM orders) AS latest
            FROM order_lines l
            JOIN orders o ON o.order_id = l.order_id
            WHERE o.status <> 'cancelled'
        ), week AS (
            SELECT product, coalesce(sum(amount) FILTER (WHERE placed_at > latest - INTERVAL '7 days'), 0) AS now,
                   coalesce(sum(amount) FILTER (WHERE placed_at <= latest - INTERVAL '7 days'), 0) AS before
            FROM line
            WHERE placed_at > latest - INTERVAL '14 days'
            GROUP BY product
        )
        SELECT product, now, before, now - before AS change FROM week WHERE now <> before ORDER BY change DESC, product
        """
    )
    return (movers,)


@app.cell
def _(charts, movers):
    _shown = movers if len(movers) <= 16 else [*movers[:8], *movers[-8:]]
    _rose = sum(row["change"] > 0 for row in movers)
    movers_chart, _axes = charts.canvas(
        f"{_rose:,} products sold more than the week before, {len(movers) - _rose:,} sold less"
        if movers
        else "No product was sold in the last two weeks",
        "Revenue of 7 days less that of the 7 before: the products that rose and those that fell most.",
        x="Change of the revenue",
        y="",
        height=1.4 + 0.27 * max(len(_shown), 2),
    )
    charts.changes_of(
        _axes, [row["product"] for row in _shown], [float(row["change"]) for row in _shown], text="{:+,.0f}".format
    )
    movers_chart
    return (movers_chart,)


@app.cell
def _(index_chart, movers_chart, week_chart, lake, mo, shop_lake):
    shop_lake.tell(mo, lake, (index_chart, movers_chart, week_chart))
    return


if __name__ == "__main__":
    app.run()
