"""Draw docs/how-to/dashboard.png: the dashboard of a retailer in the middle of a day's trade.

Best of a world that trades: `cdc-lake demo --keep`, and after some minutes
python scripts/screenshot_dashboard.py --project .cdc-lake/demo; without a project the lake is made, with a fixed seed
and the browser's clock set to its hour. With `--all FOLDER` all pages are drawn into it, in all sizes. Needs Chromium.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.dashboards import browser, open_alert, server, until  # noqa: E402
from tests.shops import NOW, Shop  # noqa: E402

_MINUTES = 58
_SIZES: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1280, "height": 1000}},
    "dark": {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True},
}
_PAGES = ("overview", "stock", "product", "alerts", "pipeline", "sql")


def trade(folder: Path) -> datetime:
    """A shop that has been selling for an hour; when the last transaction was committed."""
    rng, shop = random.Random(7), Shop.open(folder, rows=3_000)  # noqa: S311  # a made-up shop
    shelves = sorted(shop.rows["inventory"])
    weights = [1 / (1 + n) ** 0.8 for n in range(len(shelves))]
    rng.shuffle(shelves)
    at = NOW
    for minute in range(_MINUTES):
        for _ in range(rng.choice([4, 5, 6, 7, 9]) + minute // 15):
            at = max(at, NOW + timedelta(minutes=minute, seconds=rng.randrange(60)))
            _one(shop, rng, rng.choices(shelves, weights)[0], at)
    # A lake in shape, as the sink keeps it: not a file for each transaction.
    subprocess.run([sys.executable, "-m", "cdc_lake", "-q", "maintain"], cwd=folder, check=True, capture_output=True)
    for n, (title, severity) in enumerate(_ALERTS):
        open_alert(folder, f"{n}f3a9c2e7b10", title, at=at - timedelta(minutes=3 * n + 1), severity=severity)
    return at


_ALERTS = (
    ("Ashborough, Granary Way has none left of Classic Basmati Rice, 1 kg", "critical"),
    ("Organic Fish Flakes, 5 kg: sold out, and not restocked within 3 days", "warning"),
    ("Sales online are 62 % below what this hour brings", "warning"),
)


def _one(shop: Shop, rng: random.Random, shelf: tuple[Any, ...], at: datetime) -> None:
    store, product = shelf
    held = shop.rows["inventory"][shelf]["on_hand"]
    if held < 1:
        shop.change(("inventory", shelf, {"on_hand": rng.randrange(12, 40)}), at=at)
    elif rng.random() < 0.02:
        price = shop.rows["products"][product,]["price"]
        shop.change(("products", (product,), {"price": round(price * 95 / 100, 2)}), at=at)
    else:
        channel = "online" if rng.random() < 0.3 else "pos"
        shop.sell(store, product, min(held, rng.choice([1, 1, 2, 3])), at=at, channel=channel)


@contextmanager
def _pages(folder: Path, now: datetime | None, size: dict[str, Any]) -> Iterator[tuple[Any, str]]:
    with server(folder) as ready, browser() as chromium:
        context = chromium.new_context(**size, timezone_id="UTC")
        page = context.new_page()
        page.set_default_timeout(120_000)
        if now is not None:
            page.clock.set_fixed_time(now + timedelta(seconds=2))
        page.goto(ready.entry)
        page.wait_for_url(f"{ready.url}/")
        yield page, ready.url


def _draw(page: Any, url: str, name: str, file: Path, *, whole: bool) -> None:
    page.goto(f"{url}/#/{name}")
    page.wait_for_selector(".card")
    until(lambda: not page.evaluate("!!document.querySelector('.awaits')"), 120)
    page.wait_for_timeout(700)  # what is drawn is drawn in the next frames
    page.screenshot(path=file, full_page=whole)
    with Image.open(file) as drawn:  # of few colours, a third of the size
        drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description="Draw the dashboard.")
    parser.add_argument("--project", type=Path, help="a project whose lake is shown, as it is now")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="draw all pages into it, in all sizes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = asked.project or Path(made)
        now = None if asked.project else trade(folder)
        if asked.all is None:
            with _pages(folder, now, _SIZES["wide"]) as (page, url):
                _draw(page, url, "overview", ROOT / "docs" / "how-to" / "dashboard.png", whole=False)
            return
        asked.all.mkdir(parents=True, exist_ok=True)
        for size, options in _SIZES.items():
            with _pages(folder, now, options) as (page, url):
                for name in _PAGES:
                    _draw(page, url, name, asked.all / f"{name}-{size}.png", whole=True)


if __name__ == "__main__":
    main()
