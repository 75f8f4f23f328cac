"""What the dashboard shows: views as files, the shipped ones, each as JSON of its shape, now and in the past."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from cdc_lake.cli.shapes import schema_of
from cdc_lake.config_source import Source
from cdc_lake.events import TableId
from cdc_lake.serve.dashboard.app import Parts
from cdc_lake.serve.dashboard.evaluate import evaluate
from cdc_lake.serve.dashboard.pipeline_state import Rates
from cdc_lake.serve.dashboard.shapes import ERROR, SHAPES
from cdc_lake.serve.dashboard.viewfile import ViewError, copy_views, load_views, parse_view
from tests.dashboards import client, entered, open_alert
from tests.events import Warehouse, binary
from tests.shops import NOW, Shop
from tests.unit.test_docs import VIEWS

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "=cmd|'/c calc'!A1",
    "</script>",
    "Ü\u2028\u0000"[:2],
]
WITH_PARAMETERS = {"store_stock", "product_stock", "product_life"}


def shelves_of(shop: Shop) -> list[tuple[Any, ...]]:
    """Shelves that are full enough to sell from, always the same, not of the product with the odd name."""
    return sorted(k for k, v in shop.rows["inventory"].items() if v["reorder_point"] > 0 and k[1] > 1)[:3]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop.open(tmp_path_factory.mktemp("shop"))
    shelves = shelves_of(made)
    for shelf in shelves:
        made.change(("inventory", shelf, {"on_hand": 20}))
        made.sell(shelf[0], shelf[1], 1)
    store, product = shelves[0]
    made.change(("products", (product,), {"price": made.rows["products"][product,]["price"] + 1}))
    made.change(("inventory", (store, product), {"on_hand": 0}))
    made.change(("inventory", (store, product), {"on_hand": 30}))
    made.change(("stores", (1,), {"name": HOSTILE[0]}))
    made.change(("products", (1,), {"name": HOSTILE[2]}))
    return made


@pytest.fixture(scope="module")
def made(shop: Shop) -> Iterator[tuple[TestClient, Parts]]:
    open_alert(shop.folder, "alert-1", HOSTILE[1], at=NOW + timedelta(minutes=3))
    with client(shop.folder) as (web, parts):
        yield entered(web), parts


def get(web: TestClient, path: str, shape: str) -> Any:
    answer = web.get(path)
    assert answer.status_code == 200, answer.text
    jsonschema.validate(answer.json(), schema_of(SHAPES[shape], strict=True))
    return answer.json()


def view(web: TestClient, name: str, **given: str) -> list[dict[str, Any]]:
    query = "&".join(f"{k}={v}" for k, v in given.items())
    found = get(web, f"/api/views/{name}?{query}", "GET /api/views/{view}")
    assert found["error"] is None, found["error"]
    return [dict(zip([c["name"] for c in found["columns"]], row, strict=True)) for row in found["rows"]]


def test_each_view_is_json_of_its_shape_and_has_no_error(made: tuple[TestClient, Parts]) -> None:
    web, _ = made
    heads = get(web, "/api/views", "GET /api/views")["views"]
    assert {h["view"] for h in heads if h["parameters"]} == WITH_PARAMETERS
    for head in heads:
        found = get(web, f"/api/views/{head['view']}", "GET /api/views/{view}")
        assert found["error"] is None, (head["view"], found["error"])
        names = [c["name"] for c in found["columns"]]
        assert {head[k] for k in ("x", "y", "series", "value") if head[k]} <= set(names)
        assert set(head["key"]) <= set(names)


def test_the_state_has_all_views_at_one_cut(made: tuple[TestClient, Parts]) -> None:
    web, parts = made
    found = get(web, "/api/state", "GET /api/state")
    assert {v["view"] for v in found["views"]} == {v.name for v in parts.poller.views} - WITH_PARAMETERS
    assert found["state"]["error"] is None
    assert "public.orders" in found["state"]["tables"]


def test_the_pipeline_is_json_of_its_shape(made: tuple[TestClient, Parts], shop: Shop) -> None:
    found = get(made[0], "/api/pipeline", "GET /api/pipeline")
    landed = {t["table"]: t["rows_landed"] for t in found["tables"]}
    assert landed["public.stores"] == len(shop.rows["stores"]) + 1
    assert found["cuts"]["pos"]["waits_for"] == []


def test_figures_are_those_of_the_tables(made: tuple[TestClient, Parts], shop: Shop) -> None:
    (now,) = view(made[0], "shop_now")
    shelves = shop.rows["inventory"].values()
    assert now["Sales in an hour"] == 3
    assert now["Out of stock"] == sum(r["on_hand"] == 0 for r in shelves)
    assert now["Running low"] == sum(0 < r["on_hand"] < r["reorder_point"] for r in shelves)


def test_the_stock_of_a_store_is_that_of_the_table(made: tuple[TestClient, Parts], shop: Shop) -> None:
    store = next(iter(shop.rows["inventory"]))[0]
    found = {r["product_id"]: r["on_hand"] for r in view(made[0], "store_stock", store_id=str(store))}
    assert found == {p: r["on_hand"] for (s, p), r in shop.rows["inventory"].items() if s == store}


def test_reorders_are_the_shelves_below_their_point(made: tuple[TestClient, Parts], shop: Shop) -> None:
    low = [r for r in shop.rows["inventory"].values() if r["on_hand"] < r["reorder_point"]]
    assert len(view(made[0], "reorders")) == min(len(low), 200)


def test_where_purchase_orders_have_landed_they_are_the_reorders_on_their_way(tmp_path: Path) -> None:
    shop = Shop.open(tmp_path)
    store, product = next(iter(shop.rows["inventory"]))
    orders = Warehouse(tmp_path, {"retail.reorders": 1}, databases=(Source(name="pos"),))
    shop.config.write_text(
        "sources: [{name: pos}, {name: warehouse, events: [retail.reorders]}]\nlake: {uri: ./lake}\n"
    )
    asked = {"store_id": store, "product_id": product, "quantity": 9, "on_hand": 1, "threshold": 4}

    def tell(identity: str, kind: str, number: str) -> None:
        data = {"purchase_order_id": number, **asked}
        message = binary(identity, data, kind=f"retail.reorder.{kind}", time="2026-11-24T12:00:00Z")
        orders.put(message, topic="retail.reorders")

    for number in ("PO-1", "PO-2", "PO-3"):
        tell(f"asked-{number}", "requested", number)
    tell("came-2", "delivered", "PO-2")
    tell("asked-PO-1", "requested", "PO-1")  # sent again
    orders.land()
    with client(tmp_path) as (web, parts):
        assert {"purchase_orders"} == {v.name for v in parts.poller.views} & {"purchase_orders", "reorders"}
        found = view(entered(web), "purchase_orders")
    assert [(r["order"], r["pieces"], r["left_then"], r["needed"]) for r in found] == [
        ("PO-1", 9, 1, 4),
        ("PO-3", 9, 1, 4),
    ]
    assert found[0]["product"] == shop.rows["products"][product,]["name"]
    assert found[0]["store"] == shop.rows["stores"][store,]["name"]


def test_the_life_of_a_product_tells_its_prices_and_shelves(made: tuple[TestClient, Parts], shop: Shop) -> None:
    _, product = shelves_of(shop)[0]
    events = [r["event"] for r in view(made[0], "product_life", product_id=str(product))]
    assert {"price", "stock-out", "restocked", "listed"} <= set(events)
    stock = view(made[0], "product_stock", product_id=str(product))
    assert stock[-1]["pieces"] == sum(r["on_hand"] for (_, p), r in shop.rows["inventory"].items() if p == product)


def test_the_view_in_the_documents_can_be_shown(made: tuple[TestClient, Parts], shop: Shop) -> None:
    _, parts = made
    for block in VIEWS:
        one = parse_view("documented", block.text, str(block))
        found = json.loads(parts.poller.use(lambda session, moment, one=one: evaluate(session, one, moment)))  # type: ignore[misc]
        assert found["error"] is None
        assert found["rows"]


def test_alerts_about_a_product_are_in_its_life(made: tuple[TestClient, Parts]) -> None:
    events = view(made[0], "product_life", product_id="1")
    assert [e["what"] for e in events if e["event"] == "alert"] == [HOSTILE[1]]


def test_a_past_moment_moves_every_view(made: tuple[TestClient, Parts], shop: Shop) -> None:
    web, _ = made
    at = "2026-11-24T12:02:30+00:00"
    page = get(web, f"/api/state?at={at.replace('+', '%2B')}", "GET /api/state?at=")
    views = {v["view"]: v for v in page["views"]}
    assert page["at"] == at
    assert views["shop_now"]["rows"][0][0] == 1
    assert views["alerts"]["rows"] == []
    later = web.get("/api/state?at=2026-11-24T12:04:30Z").json()
    assert [len(v["rows"]) for v in later["views"] if v["view"] == "alerts"] == [1]
    then = view(web, "store_stock", at="2026-11-24T12:00:10Z", store_id="1")
    assert len(then) == sum(s == 1 for s, _ in shop.rows["inventory"])


def test_a_moment_that_is_none_is_told_in_words(made: tuple[TestClient, Parts]) -> None:
    for at in ("yesterday-ish", "1999-01-01", ""):
        answer = made[0].get("/api/state", params={"at": at})
        assert answer.status_code == 422
        jsonschema.validate(answer.json(), schema_of(ERROR, strict=True))


@pytest.mark.parametrize(
    "path",
    ["/api/views/oredrs", "/api/views/store_stock/parameters/x", "/api/alerts/none", "/api/views/shop_now?x=1"],
)
def test_what_is_not_there_is_told_with_words(path: str, made: tuple[TestClient, Parts]) -> None:
    answer = made[0].get(path)
    document = answer.json()
    error = document["error"]
    assert error["message"]
    assert answer.status_code in (200, 404)


def test_hostile_values_travel_as_values(made: tuple[TestClient, Parts]) -> None:
    options = get(made[0], "/api/views/store_stock/parameters/store_id", "GET /api/views/{view}/parameters/{parameter}")
    assert [1, HOSTILE[0]] in options["rows"]
    assert "javascript" not in made[0].get("/api/state").headers["content-type"]
    for value in ("1; DROP TABLE stores", "' OR 1=1 --", "1 UNION SELECT 1"):
        assert view(made[0], "store_stock", store_id=value) == []


def test_an_event_is_one_line_whatever_is_in_the_data(made: tuple[TestClient, Parts]) -> None:
    """A newline in a value would end the event."""
    _, parts = made
    parts.board.publish("probe", json.dumps({"x": "a\n\nevent: evil\r\ndata: x"}))
    entry = parts.board.after(0)
    while entry is not None:
        lines = entry.event.decode().split("\n")
        assert len(lines) == 5
        assert [line.partition(":")[0] for line in lines[:3]] == ["id", "event", "data"]
        entry = parts.board.after(entry.number)
    parts.board.keep([v.name for v in parts.poller.views] + ["state", "pipeline"])


# --- files


def test_headers_say_how_a_view_is_shown() -> None:
    headers = "-- title: T\n-- kind: line\n-- x: a\n-- y: b\n-- needs: orders, shop.items\n-- every: 5 seconds\n"
    text = headers + "-- parameter p: SELECT 1\nSELECT 1 AS a, 2 AS b"
    found = parse_view("v", text, "v.sql")
    assert (found.title, found.kind, found.x, found.every, found.parameters) == (
        "T",
        "line",
        "a",
        5,
        (("p", "SELECT 1"),),
    )
    assert found.fits([TableId("public", "orders"), TableId("shop", "items")])
    assert not found.fits([TableId("public", "orders")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-- titel: T\nSELECT 1", "titel"),
        ("-- kind: pie\nSELECT 1", "v.sql:1"),
        ("-- kind: line\nSELECT 1", "needs `x`"),
        ("-- rows: 10000000\nSELECT 1", "rows"),
        ("-- every: often\nSELECT 1", "every"),
    ],
)
def test_a_slip_in_a_file_is_named_with_its_line(text: str, words: str) -> None:
    with pytest.raises(ViewError, match=words):
        parse_view("v", text, "v.sql")


def test_a_projects_file_replaces_a_shipped_view_adds_one_or_takes_one_away(tmp_path: Path) -> None:
    (tmp_path / "shop_now.sql").write_text("-- title: Mine\nSELECT 1")
    (tmp_path / "reorders.sql").write_text("-- none\n")
    (tmp_path / "broken.sql").write_text("-- kind: pie\nSELECT 1")
    (tmp_path / "Bad Name.sql").write_text("SELECT 1")
    found = {v.name: v for v in load_views(tmp_path)}
    assert found["shop_now"].title == "Mine"
    assert "reorders" not in found
    assert found["broken"].error is not None
    assert found["Bad Name"].error is not None


def test_the_shipped_views_can_be_copied_and_are_then_the_same(tmp_path: Path) -> None:
    shipped = load_views(tmp_path / "none")
    assert {m["written"] for m in copy_views(tmp_path / "dashboard")} == {True}
    assert load_views(tmp_path / "dashboard") == shipped
    assert {m["written"] for m in copy_views(tmp_path / "dashboard")} == {False}


@given(st.text(max_size=200))
def test_no_text_of_a_file_is_more_than_an_error(text: str) -> None:
    with suppress(ViewError):
        parse_view("v", text, "v.sql")


def test_a_lake_of_other_tables_has_the_general_views_alone(tmp_path: Path) -> None:
    (tmp_path / "cdc-lake.yaml").write_text("lake: {uri: ./lake}\n")
    with client(tmp_path) as (web, _):
        entered(web)
        found = get(web, "/api/state", "GET /api/state")
        assert {v["view"] for v in found["views"]} == {"alerts", "changes_per_minute", "dead_letters"}
        assert [v["error"] for v in found["views"]] == [None] * 3
        assert found["state"]["tables"] == []


def test_a_file_that_is_edited_is_shown_at_the_next_look(tmp_path: Path) -> None:
    Shop.open(tmp_path)
    with client(tmp_path) as (web, parts):
        entered(web)
        (tmp_path / "dashboard").mkdir()
        (tmp_path / "dashboard" / "mine.sql").write_text("-- title: Mine\nSELECT count(*) AS stores FROM stores")
        (tmp_path / "dashboard" / "wrong.sql").write_text("SELECT * FROM nowhere")
        parts.poller.step()
        assert view(web, "mine")[0]["stores"] > 0
        wrong = web.get("/api/views/wrong").json()
        assert "no table nowhere" in wrong["error"]["message"]


# --- rates


def test_rates_are_those_of_the_last_minute() -> None:
    rates = Rates()
    assert rates.note({"a": 100}, 0) == {}
    assert rates.note({"a": 160}, 30) == {"a": 2.0}
    assert rates.note({"a": 160, "b": 5}, 60)["a"] == 1.0
    assert rates.note({"a": 160, "b": 5}, 200) == {"a": 0.0, "b": 0.0}
