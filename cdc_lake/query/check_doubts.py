"""The check of what no event told of the tables: does the lake show what the source shows there?"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cdc_lake.checks import Check, listed, many, ok, warn
from cdc_lake.query.doubts import Doubts

_COMMANDS = 3


def check_columns_told(doubts: Mapping[str, Doubts]) -> Check:
    """Judge the columns of each table (`schema.name`)."""
    name = "lake.columns"
    found = {t: d for t, d in doubts.items() if d.open and (d.unsure or d.converted or d.rekeyed)}
    if not found:
        return ok(name, f"{many(len(doubts), 'table')}, the values of all columns were told")
    columns = [f"{t}.{c}" for t, d in found.items() for c in dict.fromkeys((*d.unsure, *d.converted))]
    rekeyed = [t for t, d in found.items() if d.rekeyed]
    parts = [
        f"older rows may show another value in {listed(columns)}" if columns else "",
        f"older rows do not tell the key of {listed(rekeyed)}" if rekeyed else "",
    ]
    return warn(
        name,
        "; ".join(filter(None, parts)),
        why="ALTER TABLE made this so in the source, which sends no event for it.",
        fix=_verify(found),
    )


def check_source_tables(doubts: Mapping[str, Doubts], present: Mapping[str, int], captured: Collection[str]) -> Check:
    """Judge whether each table is the one its rows came from.

    `present` are the numbers (`pg_class.oid`) of the tables that the source has now, `captured` those that the
    configuration lands.
    """
    name = "lake.sources"
    now = {t: d.beside(present.get(t)) for t, d in doubts.items() if t in present or t in captured}
    gone = [t for t, d in now.items() if d.gone]
    anew = [t for t, d in now.items() if d.open and d.recreated]
    if not gone and not anew:
        return ok(name, f"{many(len(doubts), 'table')}, each the one its rows came from")
    parts = [
        f"no longer in the source: {listed(gone)}" if gone else "",
        f"dropped and made anew in the source: {listed(anew)}" if anew else "",
    ]
    fixes = [
        f'when that is meant, in cdc-lake.yaml: tables: {{"{gone[0]}": {{exclude: true}}}}' if gone else "",
        _verify(anew) if anew else "",
    ]
    return warn(
        name,
        "; ".join(filter(None, parts)),
        why="DROP TABLE and a new name send no event: the lake still shows the last rows of such a table.",
        fix="   and ".join(filter(None, fixes)),
    )


def _verify(tables: Collection[str]) -> str:
    some = " ".join(list(tables)[:_COMMANDS])
    return f"cdc-lake verify {some}   and, when rows differ: cdc-lake verify --repair {some}"
