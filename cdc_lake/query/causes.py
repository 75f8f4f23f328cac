"""Why rows differ, as far as the lake knows: what `verify` says beside its numbers."""

from __future__ import annotations

from cdc_lake.project.limits import unsent
from cdc_lake.query.found import Found
from cdc_lake.query.losses import losses
from cdc_lake.sqltext import ident


def explain(found: Found, slot: str | None = None) -> str | None:
    """The causes that are known, in words; None when none is. `slot` is the connector's replication slot."""
    if found.table is None:
        return "the lake holds nothing of this table"
    causes = [_unseen_columns(found), *losses(found, slot)]
    return "; ".join(c for c in causes if c) or None


def _unseen_columns(found: Found) -> str | None:
    shown = {p.name for p in found.comparison.columns} | unsent(found.entry).keys()
    absent = sorted(c["name"] for c in found.entry["columns"] if c["name"] not in shown)
    return f"columns the lake has not seen yet: {', '.join(ident(a) for a in absent)}" if absent else None
