"""What models and rules evaluate at once, for those who tell of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cdc_lake.errors import CdcLakeError
from cdc_lake.events import TableId


@dataclass(frozen=True, slots=True)
class Batch:
    """The positions (`after`, `upto`] of a source, evaluated between two times of `time.monotonic` and committed.

    `rows` are those of a model, or the findings of rules. With an `error` those stand still that could not go on.
    """

    source: str
    names: tuple[str, ...]
    tables: frozenset[TableId]
    after: int
    upto: int
    times: tuple[float, float]
    rows: int
    late: int = 0
    error: CdcLakeError | None = None


Told = Callable[[Batch], None]
