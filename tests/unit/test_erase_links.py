"""Rows that belong to an erased one go with it, and what belongs to somebody else by now stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cdc_lake.events import TableId
from cdc_lake.project.fold import rebuild_table
from cdc_lake.project.lake import Lake
from tests.commands import fold, run
from tests.lake_model import SOURCE, Feed, Transaction
from tests.unit.test_erase import CANARY, KEY, holding, query, rows_of

CUSTOMERS, ORDERS, LINES, VISITS = (TableId("public", n) for n in ("customers", "orders", "lines", "visits"))
# In the model's tables `qty` is a number: here it is the key of the row that a row belongs to.
CONFIG = """lake: {{uri: {folder}/lake}}
tables:
  "*.*": {{}}
  public.orders: {{belongs_to: {{qty: public.customers}}}}
  public.lines: {{belongs_to: {{qty: orders}}}}
  public.visits: {{belongs_to: {{qty: customers}}}}
"""


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    """The person has order 1; got 2 from customer 5, gave 3 to 5, deleted 4; 6 was always another's."""
    made = Feed(tmp_path, (CUSTOMERS, ORDERS, LINES), (VISITS,))
    tx = made.begin()
    for customer in (5, KEY):
        tx.insert(CUSTOMERS, customer, 0, CANARY if customer == KEY else "another")
    for order, owner in ((1, KEY), (2, 5), (3, KEY), (4, KEY), (6, 5)):
        tx.insert(ORDERS, order, owner, f"{CANARY} {order}" if owner == KEY else "another's")
        tx.insert(LINES, order * 10, order, f"{CANARY} line" if order in (1, 4) else "a line")
    tx.bag_insert(VISITS, {"id": 1, "qty": KEY, "note": None})
    tx.commit()
    actions: tuple[Callable[[Transaction], None], ...] = (
        lambda t: t.update(ORDERS, 2, KEY, f"{CANARY} got", touch=True),
        lambda t: t.update(ORDERS, 3, KEY, "a long text of the order", touch=True),
        lambda t: t.update(ORDERS, 3, 5),
        lambda t: t.delete(ORDERS, 4),
        lambda t: t.update(ORDERS, 3, 5),
        lambda t: t.delete(CUSTOMERS, KEY),
    )
    for action in actions:
        tx = made.begin()
        action(tx)
        tx.commit()
        made.land()
    fold(tmp_path)
    (tmp_path / "cdc-lake.yaml").write_text(CONFIG.format(folder=tmp_path))
    return made


def test_rows_of_other_tables_go_with_the_row_that_they_belong_to(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    _, planned = run(feed.folder, "erase", "customers", str(KEY), "--dry-run", capfd=capfd)
    code, document = run(feed.folder, "erase", "customers", str(KEY), "--now", capfd=capfd)
    assert (code, document["tables"]) == (0, planned["tables"])
    found = {t["table"]: (t["keys"], t["events"]) for t in document["tables"]}
    # Orders 1, 2 and 4 with their lines whole; of 3 the changes that were the person's.
    assert found == {"public.customers": (1, 2), "public.orders": (3, 7), "public.lines": (3, 3)}
    assert holding(feed.folder, CANARY) == []
    assert rows_of(feed, ORDERS) == [(3, 5, "a long text of the order"), (6, 5, "another's")]
    assert query(feed.folder, "SELECT count(*) FROM history.public.orders WHERE len(__unknown) > 0") == [(0,)]
    assert [r[0] for r in rows_of(feed, LINES)] == [30, 60]
    history = "SELECT id, qty, note FROM history.public.orders ORDER BY ALL"
    # A value that the order was given while it was the person's is the order's, and it still has it.
    assert query(feed.folder, history) == [*[(3, 5, "a long text of the order")] * 2, (6, 5, "another's")]
    before = rows_of(feed, ORDERS)
    for table in (ORDERS, LINES):
        rebuild_table(Lake(str(feed.folder / "lake")), SOURCE, lambda _: True, table)
    assert rows_of(feed, ORDERS) == before
    assert any(line.startswith("public.visits: it has no key") for line in document["not_reached"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("public.orders: {belongs_to: {qtty: public.customers}}", "public.orders has no column qtty."),
        ("public.orders: {belongs_to: {qty: public.custmers}}", "There is no table public.custmers."),
    ],
)
def test_a_link_that_cannot_be_is_named_before_anything_is_written(
    feed: Feed, settings: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (feed.folder / "cdc-lake.yaml").write_text(f"lake: {{uri: {feed.folder}/lake}}\ntables:\n  {settings}\n")
    code, document = run(feed.folder, "erase", "customers", str(KEY), capfd=capfd)
    assert (code, document["error"]["message"]) == (2, message)
    assert document["error"]["why"].startswith("Did you mean")
    assert holding(feed.folder, CANARY)


def test_a_row_that_belongs_to_one_of_its_own_table_is_followed_to_the_end(
    feed: Feed, capfd: pytest.CaptureFixture[str]
) -> None:
    tx = feed.begin()
    for key, boss in ((71, 71), (72, 71), (73, 72), (74, 5)):
        tx.insert(CUSTOMERS, key, boss, f"boss {boss}")
    tx.commit()
    feed.land()
    text = f"lake: {{uri: {feed.folder}/lake}}\ntables: {{public.customers: {{belongs_to: {{qty: customers}}}}}}\n"
    (feed.folder / "cdc-lake.yaml").write_text(text)
    code, document = run(feed.folder, "erase", "customers", "71", capfd=capfd)
    assert (code, [(t["table"], t["keys"]) for t in document["tables"]]) == (0, [("public.customers", 3)])
    assert [r[0] for r in rows_of(feed, CUSTOMERS)] == [5, 74]
