"""The dashboard in a real Chromium: what a person sees, reaches by keyboard, and what survives restarts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.serve.dashboard.server import Ready
from tests.dashboards import CHROMIUM, NO_CHROMIUM, browser, open_alert, server, until
from tests.shops import NOW, Shop

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)

AXE = Path(__file__).parents[1] / "vendor" / "axe.min.js"
SCRIPT = "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"
PAGES = ["overview", "stock", "product", "alerts", "pipeline", "sql"]
# The violations that count, by axe's own names of standards.
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop.open(tmp_path_factory.mktemp("shop"))
    for shelf in shelves(made):
        made.change(("inventory", shelf, {"on_hand": 20}))
        made.sell(shelf[0], shelf[1], 1)
    made.change(("stores", (1,), {"name": SCRIPT}))
    made.change(("products", (1,), {"name": SCRIPT}))
    open_alert(made.folder, "a1", SCRIPT, at=NOW + timedelta(minutes=3))
    open_alert(made.folder, "a2", "Milk is low", at=NOW + timedelta(minutes=4))
    return made


def shelves(shop: Shop) -> list[tuple[Any, ...]]:
    return sorted(k for k, v in shop.rows["inventory"].items() if v["reorder_point"] > 0)[:3]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def ready(shop: Shop) -> Iterator[Ready]:
    with server(shop.folder) as found:
        until(lambda: found.parts.board.get("shop_now"), 60)
        yield found


class Page:
    """One page and what its console said."""

    def __init__(self, page: Any, ready: Ready) -> None:
        self.page, self.ready, self.said = page, ready, list[str]()
        page.set_default_timeout(60_000)
        page.on("console", lambda m: self.said.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: self.said.append(str(e)))
        page.goto(ready.entry)
        page.wait_for_url(f"{ready.url}/")
        page.wait_for_selector(".card .figures dd")

    def go(self, name: str) -> None:
        """Show a page of the dashboard, and wait for its cards."""
        self.page.click(f"nav a[data-page={name}]")
        self.page.wait_for_selector(f"nav a[data-page={name}][aria-current=page]")
        self.page.wait_for_selector(".card")

    def figure(self, name: str) -> str:
        """One of the shop's figures."""
        return str(self.page.locator(".figures div", has_text=name).locator("dd").first.inner_text())

    def until(self, expression: str) -> None:
        """Wait until an expression of the page is true. (Playwright's own way is an eval, which the page forbids.)"""
        until(lambda: self.page.evaluate(f"Boolean({expression})"), 120)


@pytest.fixture
def page(chromium: Any, ready: Ready) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, timezone_id="UTC")
    made = Page(context.new_page(), ready)
    yield made
    assert made.said == []
    context.close()


def test_the_token_is_gone_from_the_address_and_each_page_shows_its_views(page: Page) -> None:
    assert "token" not in page.page.url
    for name in PAGES:
        page.go(name)
        assert page.page.locator(".card h2").count() > 0
        assert page.page.locator(".wrong:visible").count() == 0
        assert page.page.title().lower().startswith(name)


def test_a_name_that_is_a_script_is_shown_and_not_run(page: Page) -> None:
    for name in PAGES:
        page.go(name)
        page.until("document.querySelector('.card')")
    page.go("stock")
    page.until("[...document.querySelectorAll('option')].some((o) => o.text.includes('<script>'))")
    page.go("alerts")
    page.until("document.querySelector('[data-alert=a1]')")
    assert SCRIPT in page.page.locator("[data-alert=a1]").inner_text()
    assert page.page.evaluate("window.owned") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(scheme: str, chromium: Any, ready: Ready) -> None:
    context = chromium.new_context(color_scheme=scheme, reduced_motion="reduce", bypass_csp=True)
    one = Page(context.new_page(), ready)
    one.page.add_script_tag(path=str(AXE))
    found = []
    for name in PAGES:
        one.go(name)
        one.page.wait_for_timeout(300)
        for twin in one.page.locator("details.twin summary").all():
            twin.click()
        run = "(tags) => axe.run(document, {runOnly: tags, resultTypes: ['violations']})"
        for violation in one.page.evaluate(run, STANDARDS)["violations"]:
            places = [node["target"] for node in violation["nodes"]]
            found.append(f"{name}: {violation['id']}: {violation['help']}: {places[:3]}")
    context.close()
    assert not found, "\n".join(found)


def test_the_slider_moves_the_whole_page_to_the_past_and_escape_back(page: Page) -> None:
    assert page.figure("Sales in an hour") == "3"
    page.page.focus("#slider")
    page.page.keyboard.press("Home")
    page.until("document.body.classList.contains('past') && !document.body.classList.contains('reading')")
    page.until("document.querySelector('.figures dd').textContent === '0'")
    assert "at=2026-11-24T12" in page.page.url
    assert page.page.get_attribute("#live", "aria-pressed") == "false"
    assert page.page.inner_text("#status-text") == "The past"
    page.go("alerts")
    page.until("document.querySelector('.alerts .empty')")
    page.page.keyboard.press("Escape")
    page.until("!document.body.classList.contains('past') && document.querySelectorAll('[data-alert]').length === 2")
    page.go("overview")
    page.until("document.querySelector('.figures dd').textContent === '3'")


def test_an_address_with_a_moment_opens_at_that_moment(page: Page) -> None:
    page.page.goto(f"{page.ready.url}/#/overview?at=2026-11-24T12:02:30Z")
    page.page.reload()
    page.until("document.querySelector('.figures dd')?.textContent === '1'")
    assert page.page.evaluate("document.body.classList.contains('past')")


def test_every_plot_has_a_twin_as_a_table_with_its_values(page: Page) -> None:
    for name in PAGES:
        page.go(name)
        page.page.wait_for_timeout(200)
        for card in page.page.locator(".card[data-view]:not(.kind-table)").all():
            card.locator("details.twin summary").click()
            card.locator("details.twin td").first.wait_for()


FOCUSED = """(() => { const on = document.activeElement;
    return on.id || on.dataset.page || on.className || on.tagName; })()"""


def test_all_is_reached_by_keyboard(page: Page) -> None:
    seen = set()
    for _ in range(60):
        page.page.keyboard.press("Tab")
        seen.add(page.page.evaluate(FOCUSED))
    assert {"skip", "overview", "sql", "live", "slider", "span", "exact", "scroll", "sort"} <= seen
    page.page.focus("nav a[data-page=sql]")
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector("textarea")
    page.page.focus("textarea")
    page.page.keyboard.press("Control+a")
    page.page.keyboard.type("SELECT count(*) AS stores FROM stores")
    page.page.keyboard.press("Control+Enter")
    page.until("document.querySelector('.said').textContent.startsWith('1 row')")


def test_sql_that_is_refused_says_why(page: Page) -> None:
    page.go("sql")
    page.page.fill("textarea", "FROM read_csv('/etc/passwd')")
    page.page.click("button.primary")
    page.until("document.querySelector('.said.wrong')?.textContent.includes('read_csv is not allowed')")
    page.said.clear()  # the browser itself notes an answer of 422


def test_an_alert_is_looked_into_and_acknowledged(page: Page) -> None:
    page.go("alerts")
    alert = page.page.locator("[data-alert=a2]")
    alert.locator("summary").click()
    alert.locator(".evidence td").first.wait_for()
    alert.get_by_role("button", name=re.compile("^Acknowledge")).click()
    page.until("document.querySelector('[data-alert=a2] .chip').textContent === 'acknowledged'")
    page.page.get_by_role("button", name=re.compile("^Silence 1 h")).first.click()
    page.page.get_by_role("button", name=re.compile("^End now")).wait_for()


def test_a_phone_shows_it_without_scrolling_sideways(chromium: Any, ready: Ready) -> None:
    context = chromium.new_context(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    one = Page(context.new_page(), ready)
    for name in PAGES:
        one.go(name)
        assert one.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert one.said == []
    context.close()


def test_what_lands_is_on_the_page_and_a_restart_of_the_server_is_survived(chromium: Any, tmp_path: Path) -> None:
    shop = Shop.open(tmp_path)
    shelf = shelves(shop)[0]
    shop.change(("inventory", shelf, {"on_hand": 20}))
    with server(tmp_path) as first:
        port = first.listener.getsockname()[1]
        until(lambda: first.parts.board.get("shop_now"), 60)
        context = chromium.new_context(timezone_id="UTC")
        one = Page(context.new_page(), first)
        assert one.figure("Sales in an hour") == "0"
        shop.sell(shelf[0], shelf[1], 1)
        one.until("document.querySelector('.figures dd').textContent === '1'")
    one.until("document.querySelector('#status').classList.contains('lost')")
    assert "old" in one.page.inner_text("#status-text")
    assert one.figure("Sales in an hour") == "1"
    shop.sell(shelf[0], shelf[1], 1)
    with server(tmp_path, f"127.0.0.1:{port}"):
        one.until("document.querySelector('.figures dd').textContent === '2'")
        one.until("!document.querySelector('#status').classList.contains('lost')")
    context.close()
