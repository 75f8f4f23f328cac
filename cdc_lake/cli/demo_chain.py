"""One sale of the demo, followed to the alert and the purchase order that came of it by the ids that each names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from cdc_lake.capture.checks.slot import lsn
from cdc_lake.cli.demo_ask import ask_lake, ask_source
from cdc_lake.cli.demo_world import MODEL, RULE
from cdc_lake.config import Config
from cdc_lake.errors import CdcLakeError

_SOLD = """\
SELECT o.order_id, o.xmin::text AS transaction, o.placed_at, l.quantity, l.product_name, l.product_id, o.store_id,
    s.name AS store
FROM orders o JOIN order_lines l USING (order_id) JOIN stores s USING (store_id) WHERE o.order_id = %s"""
_CHANGE = """\
SELECT __tx_id AS transaction, __lsn AS lsn, __topic || '/' || __partition || '/' || __offset AS place,
    __source_ts AS at, __ingested_at AS landed_at, on_hand, reorder_point
FROM changes.public.inventory WHERE __tx_id = ? AND store_id = ? AND product_id = ?"""
_ALERT = """\
SELECT id, rule, title, recorded_at AS at, evidence FROM lake.alerts
WHERE rule = ? AND json_extract(key, '$.store_id') = ? AND json_extract(key, '$.product_id') = ?
    AND len(list_filter(evidence, lambda e: e.tx_id = ?)) > 0"""
# The row's time in Kafka is the one that the event says which answers it.
_EVENTS = f"""\
WITH made AS (
    SELECT __id FROM streams.{MODEL} WHERE topic || '/' || "partition" || '/' || "offset" = ?
), scan AS (
    SELECT s.* FROM changes.events.scans s JOIN made ON s.causationid = made.__id
    WHERE s.type = 'retail.purchase' AND s.__op <> 'a'
)
SELECT made.__id AS row_id, scan.time AS row_at,
    scan.id AS scan_id, scan.quantity AS sold, scan.correlationid AS scan_correlation, scan.causationid AS scan_cause,
    scan.__source_ts AS scan_at,
    r.id AS order_id, r.purchase_order_id AS number, r.quantity, r.on_hand, r.threshold,
    r.correlationid AS order_correlation, r.causationid AS order_cause, r.__source_ts AS order_at
FROM made, scan JOIN changes.events.reorders r ON r.correlationid = scan.correlationid
WHERE r.type = 'retail.reorder.requested' AND r.__op <> 'a'"""
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """One step of a chain: what happened when, under which id; what it names as its cause, and the correlation."""

    step: str
    at: datetime
    what: str
    id: str
    cause: str = ""
    correlation: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """What followed from one sale: `events` are its rows of `_EVENTS`, None where no services run."""

    sale: Row
    changes: Sequence[Row]
    alerts: Sequence[Row]
    events: Sequence[Row] | None

    @property
    def ok(self) -> bool:
        """Whether there is one of each, each names the one before as its cause, and came after it."""
        if len(self.changes) != 1 or len(self.alerts) != 1 or (self.events is not None and len(self.events) != 1):
            return False
        sale, change, alert = self.sale, self.changes[0], self.alerts[0]
        held = [
            change["transaction"] == sale["transaction"],
            change["on_hand"] == 0,
            any((e["tx_id"], e["lsn"]) == (change["transaction"], change["lsn"]) for e in alert["evidence"]),
            sale["placed_at"] <= change["at"] <= change["landed_at"] <= alert["at"],
        ]
        for e in self.events or ():
            held += [
                e["scan_cause"] == e["row_id"] == e["scan_correlation"],
                e["order_cause"] == e["scan_id"],
                e["order_correlation"] == e["scan_correlation"],
                e["sold"] == sale["quantity"],
                e["on_hand"] == 0 and e["on_hand"] < e["threshold"],
                change["at"] <= e["row_at"] <= e["scan_at"] <= e["order_at"],
            ]
        return all(held)

    @property
    def alert_id(self) -> str:
        """The alert."""
        return str(self.alerts[0]["id"])

    @property
    def order_number(self) -> str | None:
        """The purchase order; None where no services run."""
        return str(self.events[0]["number"]) if self.events else None

    def links(self) -> list[Link]:
        """The steps, in the order in which they came."""
        sale = self.sale
        transaction = f"transaction {sale['transaction']}"
        what = (
            f"order {sale['order_id']} takes the last {sale['quantity']} of {sale['product_name']} in {sale['store']}"
        )
        found = [Link("sale", sale["placed_at"], what, transaction)]
        shelf = f"store {sale['store_id']}, product {sale['product_id']}"
        for c in self.changes:
            what = f"{shelf}: {c['on_hand']} left, and {c['reorder_point']} is its reorder point"
            found.append(Link("change", c["at"], what, c["place"], f"{transaction}, LSN {lsn(c['lsn'])}"))
        for a in self.alerts:
            told = f"{a['rule']}: {a['title']}"
            evidence = ", ".join(f"transaction {e['tx_id']}, LSN {lsn(e['lsn'])}" for e in a["evidence"])
            found.append(Link("alert", a["at"], told, a["id"], evidence))
        for e in self.events or ():
            place = self.changes[0]["place"] if self.changes else ""
            found += _links_of(e, place)
        return sorted(found, key=lambda link: link.at)


def _links_of(e: Row, place: str) -> list[Link]:
    needed = f"{e['on_hand']} on hand, {e['threshold']} needed"
    what = f"retail.reorder.requested: {e['number']} for {e['quantity']} pieces: {needed}"
    correlation = str(e["scan_correlation"])
    return [
        Link("row", e["row_at"], f"of the streaming model {MODEL}, an event for services", e["row_id"], place),
        Link("scan", e["scan_at"], f"retail.purchase of {e['sold']}", e["scan_id"], e["scan_cause"], correlation),
        Link("reorder", e["order_at"], what, e["order_id"], e["order_cause"], str(e["order_correlation"])),
    ]


class Follower:
    """Looks for what came of a sale; `complete` as soon as everything did that is to come."""

    def __init__(self, config: Config, dsn: str, order: int, *, services: bool) -> None:
        (self._sale,) = ask_source(dsn, _SOLD, [order]).records()
        self._config = config
        self._changes: Sequence[Row] = ()
        self._alerts: Sequence[Row] = ()
        self._events: Sequence[Row] | None = () if services else None

    def complete(self) -> bool:
        """Look again."""
        sale = self._sale
        shelf = [sale["store_id"], sale["product_id"]]
        self._changes = self._changes or self._ask(_CHANGE, [sale["transaction"], *shelf])
        if not self._changes:
            return False
        self._alerts = self._alerts or self._ask(_ALERT, [RULE, *shelf, sale["transaction"]])
        if self._events is not None:
            self._events = self._events or self._ask(_EVENTS, [self._changes[0]["place"]])
        return bool(self._alerts) and self._events != ()

    @property
    def chain(self) -> Chain:
        """What was found."""
        return Chain(self._sale, self._changes, self._alerts, self._events)

    def _ask(self, sql: str, values: list[object]) -> Sequence[Row]:
        try:
            return tuple(ask_lake(self._config, sql, values).records())
        except (CdcLakeError, duckdb.CatalogException, duckdb.BinderException):
            return ()  # a table or a column that nothing has landed in yet
