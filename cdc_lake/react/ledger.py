"""The alerts of one source: an append-only Delta table of what became of them, and how far each rule is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from cdc_lake.land.layout import alerts_path
from cdc_lake.land.store import Store
from cdc_lake.land.tables import ALERTS
from cdc_lake.react.places import Moved, PlacedTable, Words

Row = Mapping[str, object]
_WORDS = Words("rule", "rules", "Alerts", "rules", code="rules_fenced")


class Ledger(PlacedTable):
    """The alerts of one source.

    Delivery: each finding is committed once, with its rule's position.
    """

    def __init__(
        self, root: str, source: str, options: Mapping[str, str] | None = None, *, store: Store | None = None
    ) -> None:
        super().__init__(alerts_path(root, source), _WORDS, store, options)

    def write(self, rows: Sequence[Row], moved: Moved) -> None:
        """As `commit`, of rows that are not a table yet."""
        self.commit(pa.Table.from_pylist([dict(r) for r in rows], ALERTS), moved)

    def add(self, rows: Sequence[Row]) -> None:
        """Write what a person decided."""
        self.write(rows, {})
