"""Alerts, and what rules and streaming models remember, without the erased rows: an alert stays, and no longer says
whose it was."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake
from deltalake.exceptions import DeltaError

from cdc_lake.crashpoints import reach
from cdc_lake.erase.log import explained
from cdc_lake.land.layout import alerts_path, remove_all, rule_states_path, stream_states_path
from cdc_lake.land.reading import read_rows
from cdc_lake.land.store import WRITER
from cdc_lake.land.tables import ALERTS
from cdc_lake.project.lake import Lake

_TITLE = "Its contents were erased"


def erase_alerts(lake: Lake, source: str, changes: Mapping[str, Collection[tuple[str, int]]]) -> int:
    """Take changes (per table, the log's text of the key and the LSN) out of alerts and out of what rules remember; the
    number of alert rows that changed. Raises LakeError.

    Comes before the log is emptied, which knows the keys: killed in between, the next run does it again. What rules
    remember is made anew from the log by the next evaluation. A rule over several sources has its alerts and its memory
    with one of them, so those of all sources are looked through.
    """
    if not any(changes.values()):
        return 0
    names = {(table, key, lsn) for table, found in changes.items() for key, lsn in found}
    return sum(_erase_at(lake, home, names) for home in sorted({source, *lake.sources()}))


def _erase_at(lake: Lake, source: str, names: Collection[tuple[Any, ...]]) -> int:
    _forget(lake, source)
    path = alerts_path(lake.root, source)
    delta = lake.open(path)
    if delta is None:
        return 0
    rows = read_rows(delta).to_pylist()
    found = [r for r in rows if any(_name(e) in names for e in r["evidence"] or ())]
    ids = {r["id"] for r in found if r["change"] != "late"}
    # What a person or the rule said of such an alert later has its key too.
    changed = [r for r in rows if r in found or r["id"] in ids]
    if not changed:
        return 0
    kept = [_emptied(r, names) if r in changed else r for r in rows]
    reach("erase:before-alerts")
    try:
        # Rows that are appended meanwhile are in other files, and stay.
        write_deltalake(delta, pa.Table.from_pylist(kept, ALERTS), mode="overwrite", writer_properties=WRITER)
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise explained(path, error) from error
    reach("erase:after-alerts")
    return len(changed)


def _name(event: Mapping[str, Any]) -> tuple[Any, ...]:
    return event["table"], event["key"], event["lsn"]


def _emptied(row: dict[str, Any], names: Collection[tuple[Any, ...]]) -> dict[str, Any]:
    evidence = [{**e, "key": None, "values": None} if _name(e) in names else e for e in row["evidence"] or ()]
    return {**row, "key": "{}", "title": _TITLE, "note": None, "evidence": evidence}


def _forget(lake: Lake, source: str) -> None:
    for path in (rule_states_path(lake.root, source), stream_states_path(lake.root, source)):
        try:
            remove_all(path, lake.options)
        except FileNotFoundError:
            continue
        except (DeltaError, OSError) as error:
            if "://" not in path:
                raise explained(path, error) from error
