"""What a thousand open pages cost one `cdc-lake serve`, and how soon each of them has a sale that was committed.

The server is a process of its own over a retailer's lake, the pages are connections that read its events as a browser
does. A sale is committed to the lake every second; when a page has the figure that counts it, it has seen it.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil

from benchmarks.report import Report, say
from tests.shops import Shop

_PAGES, _SALES, _WARM = (1, 100), 20, 3
_EVERY_SECONDS, _PATIENCE_SECONDS = 1.0, 60.0
_OPENED_AT_ONCE = 50
_ROOT = Path(__file__).resolve().parent.parent


def run(report: Report) -> None:
    """`rows` are the pages of the largest measurement."""
    table = report.table(
        f"A sale a second, {_SALES} sales",
        **{
            "pages": ",d",
            "p50, s": ".2f",
            "p99, s": ".2f",
            "worst, s": ".2f",
            "memory, MB": ",.0f",
            "of a page, KB": ",.0f",
            "CPU, %": ".0f",
            "sent, MB/s": ".2f",
        },
    )
    with tempfile.TemporaryDirectory(prefix="cdc-lake-dashboard-") as folder:
        shop = Shop.open(Path(folder), rows=3_000)
        _stock_up(shop)
        for pages in (*(p for p in _PAGES if p < report.rows), report.rows):
            with _served(Path(folder)) as (process, entry):
                table.add(pages, *asyncio.run(_measure(shop, process, entry, pages)))
                say(f"{pages} pages")
    report.note("From the end of the commit of the lake to the page's end of the connection; of all sales, all pages.")


def _stock_up(shop: Shop) -> None:
    for shelf in sorted(shop.rows["inventory"])[:2]:
        shop.change(("inventory", shelf, {"on_hand": 1_000_000}), at=datetime.now(UTC))


@contextmanager
def _served(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    command = [sys.executable, "-m", "cdc_lake", "--json", "serve", "--address", "127.0.0.1:0"]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield psutil.Process(server.pid), json.loads(server.stdout.readline())["entry"]  # type: ignore[union-attr]
        finally:
            server.terminate()


class Pages:
    """Connections that read events, and when each saw how many sales."""

    def __init__(self, entry: str) -> None:
        self._url = urlsplit(entry)
        self._token = parse_qs(self._url.query)["token"][0]
        self.seen: dict[int, list[float]] = {}
        self.newest, self.bytes = 0, 0
        self._tasks: list[asyncio.Task[None]] = []
        self._ready = 0

    async def open(self, count: int) -> None:
        """Open so many, and wait until each has its first figures."""
        gate = asyncio.Semaphore(_OPENED_AT_ONCE)
        self._tasks = [asyncio.create_task(self._page(gate)) for _ in range(count)]
        async with asyncio.timeout(_PATIENCE_SECONDS * 3):
            while self._ready < count:
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Close them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _page(self, gate: asyncio.Semaphore) -> None:
        async with gate:
            reader, writer = await asyncio.open_connection(self._url.hostname, self._url.port, limit=1 << 22)
            request = (
                f"GET /api/events HTTP/1.1\r\nHost: {self._url.netloc}\r\nAuthorization: Bearer {self._token}\r\n\r\n"
            )
            writer.write(request.encode())
            await writer.drain()
            first = True
            while first:
                first = not self._read(await reader.readline())
        self._ready += 1
        while line := await reader.readline():
            self._read(line)

    def _read(self, line: bytes) -> bool:
        self.bytes += len(line)
        if not line.startswith(b'data: {"view": "shop_now"'):
            return False
        sales = int(json.loads(line[6:])["rows"][0][0])
        self.seen.setdefault(sales, []).append(time.monotonic())
        self.newest = max(self.newest, sales)
        return True


async def _measure(shop: Shop, process: psutil.Process, entry: str, count: int) -> tuple[float, ...]:
    lonely = Pages(entry)
    await lonely.open(1)
    empty = process.memory_info().rss
    await lonely.close()
    pages = Pages(entry)
    await pages.open(count)
    committed: dict[int, float] = {}
    for _ in range(_WARM):
        await _sell(shop, pages, committed, count)
    committed.clear()
    begun, busy, sent = time.monotonic(), _busy(process), pages.bytes
    for _ in range(_SALES):
        await _sell(shop, pages, committed, count)
    spent, used = time.monotonic() - begun, _busy(process) - busy
    held, brought = process.memory_info().rss, (pages.bytes - sent) / spent / 1e6
    delays = sorted(at - committed[n] for n, times in pages.seen.items() if n in committed for at in times)
    await pages.close()
    each = max(0, held - empty) / count / 1e3
    late = delays[len(delays) * 99 // 100]
    return statistics.median(delays), late, delays[-1], held / 1e6, each, used / spent * 100, brought


def _busy(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _sell(shop: Shop, pages: Pages, committed: dict[int, float], count: int) -> None:
    """Commit a sale, and wait until all pages have seen it; then until the second is over."""
    begun, number = time.monotonic(), pages.newest + 1
    await asyncio.to_thread(_sale, shop)
    committed[number] = time.monotonic()
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while len(pages.seen.get(number, ())) < count:
            await asyncio.sleep(0.01)
    await asyncio.sleep(max(0.0, _EVERY_SECONDS - (time.monotonic() - begun)))


def _sale(shop: Shop) -> None:
    store, product = sorted(shop.rows["inventory"])[0]
    shop.sell(store, product, 1, at=datetime.now(UTC))
