"""What no event told of a table: values that DDL gave to older rows, and that the table was made anew."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from cdc_lake.land.tables import LOG
from cdc_lake.project.files import scan
from cdc_lake.project.snapshot import TableState
from cdc_lake.project.tail import REPAIR, START


@dataclass(frozen=True, slots=True)
class Doubts:
    """`unsure` and `converted` columns as in `Shapes`; `recreated`: the log has rows of an earlier table of the name.

    `oid` is PostgreSQL's number of the table when its newest shape was seen, None when nobody was asked. `repaired`
    says that rows were put right since then, with which all of these are settled. `gone`: the source has no table of
    the name any more, so its last rows are shown and nothing puts them right. `rekeyed`: rows were sent under a key, or
    under none, that does not tell which of today's rows they are.
    """

    unsure: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()
    recreated: bool = False
    oid: int | None = None
    repaired: bool = False
    gone: bool = False
    rekeyed: bool = False

    def beside(self, number: int | None) -> Doubts:
        """With what the source says now: `number` is that of its table of the name, None when there is none."""
        if self.oid is None or number == self.oid:
            return self
        return replace(self, gone=True) if number is None else replace(self, recreated=True, repaired=False)

    @property
    def open(self) -> bool:
        """Whether rows may differ from the source's, and nothing has put them right."""
        told = not (self.unsure or self.converted or self.recreated or self.rekeyed)
        return not told and not self.repaired and not self.gone

    @property
    def words(self) -> str:
        """For a person; empty when none is open."""
        if self.gone:
            return "no longer in the source: its last rows are shown"
        parts = [
            f"no event tells older rows' {', '.join(self.unsure)}" if self.unsure else "",
            f"converted without events: {', '.join(self.converted)}" if self.converted else "",
            "dropped and made anew in the source" if self.recreated else "",
            "older rows do not tell its key of today" if self.rekeyed else "",
        ]
        return "; ".join(filter(None, parts)) if self.open else ""

    def as_dict(self, table: str) -> dict[str, Any]:
        """For `tables --json`; `next` is the command that settles them, None when none is open."""
        return {
            "unsure_columns": list(self.unsure),
            "converted_columns": list(self.converted),
            "recreated": self.recreated,
            "rekeyed": self.rekeyed,
            "gone": self.gone,
            "repaired": self.repaired,
            "next": f"cdc-lake verify --repair {table}" if self.open else None,
        }


def read_doubts(con: duckdb.DuckDBPyConnection, table: TableState) -> Doubts:
    """The doubts of `table`; its log is read only when there is one that a repair may have settled."""
    if table.shapes is None or table.error is not None:
        return Doubts()
    told = sorted((v for v in table.versions if v.kind in ("columns", "repair")), key=lambda v: v.recorded)
    # A repair compares with the table that is there, whatever its rows looked like before.
    numbers = [int(number) for v in told if (number := json.loads(v.definition).get("oid")) is not None]
    recreated = len(set(numbers)) > 1
    unsure, converted = tuple(table.shapes.unsure), tuple(table.shapes.converted)
    rekeyed = bool(table.shapes.lost_keys) or _in_and_out_of_keys(con, table)
    repaired = bool(unsure or converted or recreated or rekeyed) and _repaired(con, table)
    return Doubts(unsure, converted, recreated, numbers[-1] if numbers else None, repaired, rekeyed=rekeyed)


def _in_and_out_of_keys(con: duckdb.DuckDBPyConnection, table: TableState) -> bool:
    """Whether some rows were sent under a key and others under none; a truncate, which has none, tells nothing."""
    if len({v.key_definition is None for v in table.versions if v.kind == "connect"}) < 2:
        return False
    row = con.execute(
        f"""SELECT count(DISTINCT __key IS NULL) FROM {scan(table.log.paths, LOG)}
        WHERE __op IN ('c', 'u', 'r', 'd') AND NOT {REPAIR}"""
    ).fetchone()
    return bool(row and row[0] > 1)


def _repaired(con: duckdb.DuckDBPyConnection, table: TableState) -> bool:
    changed = max(v.recorded[0] for v in table.versions if v.kind in ("connect", "columns"))
    row = con.execute(
        f"""SELECT count(*) FROM {scan(table.log.paths, LOG)}
        WHERE {REPAIR} AND NOT {START} AND epoch_us(__ingested_at) > {changed}"""
    ).fetchone()
    return bool(row and row[0])
