"""What people did through the dashboard: a row each, written before they hear that it was done."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from cdc_lake.land.layout import audit_path
from cdc_lake.land.store import DeltaStore
from cdc_lake.land.tables import AUDIT

_LONGEST = 2_000


@dataclass(frozen=True, slots=True)
class Act:
    """One act: what, to what, with what detail, by whom, from which address, and what came of it."""

    what: str
    target: str
    detail: str
    by: str
    address: str
    outcome: str


class Audit:
    """The audit of one source. Delivery: a row each time `write` returns."""

    def __init__(self, root: str, source: str, options: Mapping[str, str] | None) -> None:
        self._path, self._store = audit_path(root, source), DeltaStore(options)

    def write(self, act: Act) -> str:
        """Append a row; its id. Raises LakeError when it cannot be written."""
        row = {name: getattr(act, name)[:_LONGEST] for name in Act.__slots__}
        id = uuid.uuid4().hex[:12]
        rows = pa.Table.from_pylist([row | {"id": id, "recorded_at": datetime.now(UTC)}], AUDIT)
        self._store.append(self._path, self._store.refresh(self._path, None), rows, description="{}", transactions={})
        return id
