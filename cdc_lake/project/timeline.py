"""All transactions that ended, from the first to the last: what positions mean as times, LSNs and transaction ids."""

from __future__ import annotations

from cdc_lake.land.tables import TRANSACTIONS
from cdc_lake.project.files import LogFiles, scan


def timeline_sql(log: LogFiles | None) -> str:
    """A query: tx_id, pos, lsn, source_ts, lsns, shown_ts of every transaction; a redelivered END changes nothing.

    `source_ts` is the commit time in whole milliseconds, as END has it. A clock can be set back, positions cannot:
    `shown_ts` is the greatest commit time so far, and so never decreases along the positions. `lsns` counts the commit
    LSNs that were seen: more than one means that the source has used the id twice.
    """
    ends = f"""SELECT tx_id, min(__offset) + 1 AS pos, arg_min(lsn, __offset) AS lsn,
        arg_min(source_ts, __offset) AS source_ts, count(DISTINCT lsn) AS lsns
        FROM {scan(log.paths if log is not None else (), TRANSACTIONS)} WHERE status = 'END' GROUP BY tx_id"""
    return f"SELECT *, max(source_ts) OVER (ORDER BY pos ROWS UNBOUNDED PRECEDING) AS shown_ts FROM ({ends})"
