"""What was lost on the way from the source, or waits there: the causes of differences that lie before the log."""

from __future__ import annotations

from collections.abc import Iterator

from cdc_lake.land.dead_letters import WAITING, DeadLetters
from cdc_lake.land.tables import repair_topic
from cdc_lake.project.limits import caveats
from cdc_lake.query.found import Found
from cdc_lake.sqltext import ident

_LOOKED_AT = 10_000


def losses(found: Found, slot: str | None) -> list[str]:
    """Each known cause in words. `slot` is the connector's replication slot."""
    return [
        *_lost_slot(found, slot),
        *_dead_letters(found),
        *_waits(found),
        *_unknown_values(found),
        *_connector_losses(found),
    ]


def _lost_slot(found: Found, slot: str | None) -> Iterator[str]:
    if slot is None:
        return
    query = "SELECT coalesce(wal_status, '') FROM pg_replication_slots WHERE slot_name = %s"
    row = found.side.connection.execute(query, (slot,)).fetchone()
    if row is None:
        yield f"the replication slot {slot} is gone: what the source did since then was not captured"
    elif row[0] == "lost":
        yield f"the replication slot {slot} is lost: PostgreSQL no longer has the changes that came next"


def _dead_letters(found: Found) -> Iterator[str]:
    table = found.table
    if table is None:
        return
    own = repair_topic(found.state.source)
    topics = ({f.topic for f in table.log.own} | {t for t, _ in table.log.positions}) - {None, own}
    letters = DeadLetters(found.state.lake.root, found.state.source, found.state.lake.options).all()
    waiting = sum(x.state == WAITING and x.tp.topic in topics for x in letters)
    if waiting:
        yield f"dead letters of it that wait for a decision: {waiting}, see cdc-lake dlq list"


def _waits(found: Found) -> Iterator[str]:
    for wait in found.state.cut.waits:
        if wait.table == str(found.report.table):
            yield f"{wait.missing} of {wait.expected} events of transaction {wait.tx_id} have not landed"


def _unknown_values(found: Found) -> Iterator[str]:
    """Large values that updates left out and the log never saw."""
    shapes = found.table.shapes if found.table is not None else None
    if shapes is None or not shapes.keyed or not found.report.different:
        return
    query = f"SELECT DISTINCT k FROM differences WHERE kind = 'different' LIMIT {_LOOKED_AT}"
    hashes = [k for (k,) in found.comparison.con.execute(query).fetchall()]
    names = sorted({n for _, unknown in found.comparison.in_lake(hashes, ["l.unknown"]) for n in unknown or ()})
    if names:
        yield f"values that the log has never seen, for no event held them, in {', '.join(ident(n) for n in names)}"


def _connector_losses(found: Found) -> Iterator[str]:
    """What Debezium is known to lose of the types of columns in which examples differ."""
    differing = {n for e in found.report.examples if e["kind"] == "different" for n in e["columns"]}
    for column in found.entry["columns"]:
        if column["name"] in differing:
            for caveat in caveats(column.get("base_type") or column["type"]):
                yield f"perhaps the connector's loss in {ident(column['name'])}: {caveat}"
