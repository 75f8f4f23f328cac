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
    causes = [_unseen_columns(found), *_changed_columns(found), *losses(found, slot)]
    return "; ".join(c for c in causes if c) or None


def _unseen_columns(found: Found) -> str | None:
    shown = {p.name for p in found.comparison.columns} | unsent(found.entry).keys()
    absent = sorted(c["name"] for c in found.entry["columns"] if c["name"] not in shown)
    return f"columns the lake has not seen yet: {', '.join(ident(a) for a in absent)}" if absent else None


def _changed_columns(found: Found) -> list[str]:
    """What DDL did to rows without an event for each: PostgreSQL's log of changes does not hold it."""
    shapes = found.table.shapes if found.table is not None else None
    if shapes is None or found.report.ok:
        return []
    told = [
        (shapes.unsure, "older rows were given a value that no event tells, in"),
        (shapes.converted, "ALTER TABLE converted the values of older rows, which no event tells, in"),
    ]
    causes = [f"{words} {', '.join(ident(n) for n in names)}" for names, words in told if names]
    for key in shapes.lost_keys:
        causes.append(f"the key was {', '.join(ident(n) for n in key)} before: rows sent under it are still shown")
    return causes
