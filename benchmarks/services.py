"""How fast services are: the inventory's read model from its log, and the way through a service: `… services`.

Rebuild: a log of scans (and one request in fifty) of one partition, in memory as the broker gives it, folded into a new
SQLite file by the retailer's inventory as it is: decoding, dropping what comes twice, the handler, the commits. What
reading Kafka adds is in `consume`. One process has one thread of it; partitions are rebuilt side by side.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from benchmarks.report import Report, say
from cdc_lake.consume.columns import header_json, record_batch
from cdc_lake.events import RecordBatch, TopicPartition
from cdc_lake.service.shard import Shard
from examples.retail.services.inventory import inventory
from examples.retail.services.topics import SHELVES

BATCH, SHELF_COUNT = 8_000, 100_000
_START = 1_760_000_000_000


def run(report: Report) -> None:
    """Fold the report's rows, in tenths, so that it is seen whether it slows down."""
    tp = TopicPartition(SHELVES.into, 0)
    table = report.table(
        f"Inventory of {SHELF_COUNT:,} shelves from its log",
        events=",.0f",
        seconds=".1f",
        **{"events/s": ",.0f", "events/s of this tenth": ",.0f", "MB of state": ",.0f", "MB resident": ",.0f"},
    )
    with tempfile.TemporaryDirectory(prefix="cdc-lake-bench-services-") as folder:
        file = Path(folder) / "shard.sqlite"
        shard = Shard(inventory(), tp, file)
        spent, done, last = 0.0, 0, (0.0, 0)
        for batch in log(tp, report.rows):
            began = time.perf_counter()
            applied = shard.apply(batch)
            while waiting := shard.waiting(BATCH):
                shard.was_sent(waiting[-1].n)
            spent, done = spent + time.perf_counter() - began, done + sum(applied.counts.values())
            if done - last[1] >= report.rows // 10 or done == report.rows:
                state = sum(f.stat().st_size for f in Path(folder).iterdir()) / 1e6
                resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
                table.add(done, spent, done / spent, (done - last[1]) / (spent - last[0]), state, resident)
                last = (spent, done)
        letters = shard.db.execute("SELECT count(*) FROM _letters").fetchone()[0]
        shard.close()
    say(f"{letters} dead letters")
    report.note("The time to make the events is not counted. Events to be sent are dropped as if they had been sent.")


def log(tp: TopicPartition, count: int) -> Iterator[RecordBatch]:
    """The log of a partition: goods come to each shelf before they leave, as often as not by the same product again."""
    chance = Random(7)
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        made = [record(n, chance) for n in numbers]
        yield record_batch(
            tp,
            start,
            numbers[-1] + 1,
            offsets=list(numbers),
            timestamps=[_START + n for n in numbers],
            keys=[key for key, _, _ in made],
            values=[value for _, value, _ in made],
            headers=[headers for _, _, headers in made],
        )


def record(n: int, chance: Random) -> tuple[bytes, bytes, str | None]:
    """Key, value and headers of the nth event."""
    shelf = n if n < SHELF_COUNT else int(SHELF_COUNT * chance.random() ** 3)
    store, product = shelf // 1_000 + 1, shelf % 1_000 + 1
    quantity, request = (40, False) if n < SHELF_COUNT or n % 20 == 0 else (1 + n % 3, n % 50 == 1)
    kind = "restock" if quantity == 40 else "purchase"
    data: dict[str, object] = {"store_id": store, "product_id": product, "quantity": quantity}
    if request:
        data |= {"order_id": f"order-{n}", "line_no": 1}
    else:
        data |= {"change": quantity if kind == "restock" else -quantity, "scanner_id": "s1"}
        data |= {"receipt": f"r{n}", "unit_price_cents": 250} if kind == "purchase" else {"purchase_order_id": None}
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"{n:032x}",
        "ce_source": f"/stores/{store}/scanners/1",
        "ce_type": "retail.stock.requested" if request else f"retail.{kind}",
        "ce_subject": f"{store}/{product}",
        "ce_time": "2025-10-01T08:00:00.000000Z",
        "ce_correlationid": f"{n:032x}",
        "content-type": "application/json",
    }
    key = f"{store}/{product}".encode()
    return key, json.dumps(data).encode(), header_json([(k, v.encode()) for k, v in headers.items()])
