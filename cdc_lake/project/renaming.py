"""Rows that were sent under another key than the table has now: the key that they are shown by."""

from __future__ import annotations

from dataclasses import dataclass

from cdc_lake.project.headers import NEW_KEY, OLD_KEY, names, other_key
from cdc_lake.sqltext import literal


@dataclass(frozen=True, slots=True)
class Renaming:
    """`known` is a relation (era, k, name): under which key rows of `k`, sent in an era, are shown; others keep theirs.

    `era` is SQL over a log row. With `upto`, rows of later eras are left out.
    """

    known: str
    era: str
    upto: int | None = None

    def over(self, relation: str) -> str:
        """The log rows of `relation`, with these keys in `__key` and in the headers of key changes."""
        other = f"coalesce({other_key(NEW_KEY)}, {other_key(OLD_KEY)})"
        header = f"CASE WHEN {names(NEW_KEY)} THEN {literal(NEW_KEY)} ELSE {literal(OLD_KEY)} END"
        where = f"WHERE {self.era} <= {self.upto}" if self.upto is not None else ""
        return f"""(SELECT l.* EXCLUDE (sent_in, other_key) REPLACE (coalesce(m.name, l.__key) AS __key,
            CASE WHEN o.name IS NULL THEN __headers ELSE json_object({header}, o.name)::VARCHAR END AS __headers)
            FROM (SELECT *, {self.era} AS sent_in, {other} AS other_key FROM {relation} {where}) l
            LEFT JOIN {self.known} m ON m.era = l.sent_in AND m.k = l.__key
            LEFT JOIN {self.known} o ON o.era = l.sent_in AND o.k = l.other_key)"""
