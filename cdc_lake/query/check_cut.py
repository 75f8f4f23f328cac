"""The check of the cut that readers see: does it move?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cdc_lake.checks import Check, listed, ok, span, warn


def check_cut(cut: Mapping[str, Any], *, waiting_records: int | None) -> Check:
    """Judge a source's cut (`Cut.as_dict`). `waiting_records` are in Kafka and not landed; None: not known.

    A cut that waits for events which are still on their way is none that stands.
    """
    name = "lake.cut"
    waits = cut["waits_for"]
    if waits and not waiting_records:
        missing = listed(
            f"transaction {w['tx_id']}: {w['missing']} of {w['expected']} events of {w['table']}" for w in waits
        )
        return warn(
            name,
            f"waits for {missing}",
            why="Readers see nothing newer until these have landed: excluded from the sink, dead letters, or lost.",
            fix="cdc-lake dlq list   and, when nothing is there: cdc-lake verify",
        )
    if cut["tx_id"] is None:
        return ok(name, "nothing of the stream is at the cut yet, or the source sends no transaction metadata")
    age = cut.get("age_seconds")
    return ok(name, f"transaction {cut['tx_id']}" + (f", {span(age)} old" if age is not None else ""))
