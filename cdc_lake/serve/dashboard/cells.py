"""Rows of a result as JSON text: exact, bounded, and such that a browser reads what was meant.

Values are those of `query --format json` (dates ISO 8601, decimals as text, bytes base64), but that an integer which a
browser's numbers cannot hold is text, and so is JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cdc_lake.query.formats import rows
from cdc_lake.query.run import Result
from cdc_lake.query.values import Raw, dumps

_EXACT = 1 << 53
MOST_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class Cells:
    """The columns (name and DuckDB's type) and rows of a result, both as JSON text. `truncated`: there were more."""

    columns: str
    rows: str
    count: int
    truncated: bool


def read_cells(result: Result, most_rows: int, most_bytes: int = MOST_BYTES) -> Cells:
    """The first rows of a result, up to two limits; the rest is not read. Raises SqlError."""
    kinds = [{"name": n, "type": str(t)} for n, t in zip(result.columns, result.types, strict=True)]
    found: list[str] = []
    size, truncated = 0, False
    try:
        for row in rows(result):
            text = f"[{','.join(dumps(_safe(v)) for v in row)}]"
            size += len(text)
            if len(found) >= most_rows or size > most_bytes:
                truncated = True
                break
            found.append(text)
    finally:
        result.close()
    return Cells(json.dumps(kinds, ensure_ascii=False), f"[{','.join(found)}]", len(found), truncated)


def _safe(value: Any) -> Any:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | list | dict):
        return value
    if isinstance(value, int):
        return value if -_EXACT <= value <= _EXACT else str(value)
    if isinstance(value, list):
        return [_safe(v) for v in value]
    return {k: _safe(v) for k, v in value.items()}
