"""A table that was compared, with all that explaining or repairing its differences needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cdc_lake.project.snapshot import SourceState, TableState
from cdc_lake.query.compare import Comparison, TableReport
from cdc_lake.query.source_side import SourceSide


@dataclass(frozen=True, slots=True)
class Found:
    """The very snapshots of the comparison are still open.

    `position` is the last transaction that the source's snapshot sees, in the lake's order, and 0 when nobody asked;
    `state` is read there, and `cut` is how far its transactions are complete. `table` is None when the lake holds
    nothing of the table.
    """

    comparison: Comparison
    report: TableReport
    state: SourceState
    table: TableState | None
    entry: Mapping[str, Any]
    side: SourceSide
    position: int
    cut: int
