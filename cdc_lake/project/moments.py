"""What a person calls a moment (a time, an LSN, a transaction), and the position it is in one source.

A position is the boundary behind a transaction (see `order`). A time or an LSN is the boundary behind the last
transaction before the first one that is later: clocks can be set back, so a later transaction may bear an earlier time,
and the boundary is still where the order says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb

from cdc_lake.errors import UsageError
from cdc_lake.project.files import LogFiles, scan
from cdc_lake.project.order import Cut
from cdc_lake.project.tail import Facts, Tail, placed
from cdc_lake.sqltext import literal

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_FORMS = (
    "A time is ISO 8601 (2026-11-24T18:30:00+01:00, without a zone UTC), an LSN is 0/16B3748 or lsn:23803720, "
    "a transaction is its id or tx:774."
)
# Transaction ids and LSNs have 64 bits.
_NUMBER = re.compile(r"[0-9]{1,20}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MomentError(UsageError):
    """A text that is no moment, or a moment the lake does not hold."""

    default_code = "as_of"


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment as a text may mean it. Exactly one of the three is set; a transaction id is the text that END has."""

    text: str
    time: datetime | None = None
    lsn: int | None = None
    tx: str | None = None


def read_moment(text: str) -> list[Moment]:
    """What `text` may mean: one thing, or a transaction and an LSN for a bare number. Raises MomentError."""
    bare = text.strip()
    form, _, rest = bare.partition(":")
    if form.lower() in ("tx", "lsn", "time"):
        return [_explicit(text, form.lower(), rest.strip())]
    if _NUMBER.fullmatch(bare):
        return [Moment(text, tx=bare), Moment(text, lsn=int(bare))]
    found = Moment(text, lsn=_lsn(bare)) if "/" in bare else Moment(text, time=_time(bare))
    return [_understood(found)]


def _explicit(text: str, form: str, rest: str) -> Moment:
    if form == "tx":
        return _understood(Moment(text, tx=rest or None))
    if form == "lsn":
        return _understood(Moment(text, lsn=int(rest) if _NUMBER.fullmatch(rest) else _lsn(rest)))
    return _understood(Moment(text, time=_time(rest)))


def _understood(moment: Moment) -> Moment:
    if moment.time is None and moment.lsn is None and moment.tx is None:
        raise MomentError(f"{moment.text!r} is no moment.", why=_FORMS, next="--as-of 2026-11-24T18:30:00Z")
    return moment


def _lsn(text: str) -> int | None:
    found = _LSN.fullmatch(text)
    return (int(found[1], 16) << 32) + int(found[2], 16) if found else None


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    try:
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError:
        return None


@dataclass(frozen=True, slots=True)
class Calendar:
    """What a source's moments are looked up in: the query of `timeline_sql`, the logs, and the cut."""

    source: str
    timeline: str
    logs: tuple[LogFiles, ...]
    cut: Cut

    @property
    def files(self) -> list[tuple[str, ...]]:
        """Those of each log. Raises LakeError when a tier cannot be read that has some."""
        return [tuple(log.paths) for log in self.logs]

    def ends(self, con: duckdb.DuckDBPyConnection, what: str, where: str = "true") -> tuple[Any, ...]:
        """One row about the transactions that meet `where`."""
        return con.execute(f"SELECT {what} FROM ({self.timeline}) WHERE {where}").fetchone() or ()


def find_position(con: duckdb.DuckDBPyConnection, calendar: Calendar, text: str) -> Cut:
    """The cut that `text` means in this source. `con` may be any connection whose time zone is UTC.

    Raises MomentError: it is no moment, may be several, is before the log begins, or after the cut.
    """
    readings = read_moment(text)
    if len(readings) > 1:
        readings = [_meant(con, calendar, readings)]
    moment = readings[0]
    position = _of_tx(con, calendar, moment) if moment.tx is not None else _boundary(con, calendar, moment)
    if position > calendar.cut.position:
        raise _after(calendar, moment)
    if position == 0:
        _check_snapshot(con, calendar, moment)
        return Cut()
    tx, lsn, when = calendar.ends(con, "tx_id, lsn, epoch_us(source_ts)", f"pos = {position}")
    return Cut(position, tx, lsn, _EPOCH + timedelta(microseconds=when) if when is not None else None, position)


def _meant(con: duckdb.DuckDBPyConnection, calendar: Calendar, readings: list[Moment]) -> Moment:
    """What a bare number means: a transaction the lake knows, or an LSN that lies within the log."""
    tx, lsn = readings
    is_tx = calendar.ends(con, "count(*)", _tx_condition(tx))[0] > 0
    first, last = calendar.ends(con, "min(lsn), max(lsn)")
    begin = _snapshot(con, calendar)[1] or first
    is_lsn = begin is not None and last is not None and begin <= (lsn.lsn or 0) <= last
    if is_tx and is_lsn:
        raise MomentError(
            f"{tx.text} is both a transaction and an LSN of {calendar.source}.",
            why="A bare number may mean either.",
            next=f"--as-of tx:{tx.text} or --as-of lsn:{tx.text}",
            code="as_of_ambiguous",
        )
    return lsn if is_lsn else tx


def _tx_condition(moment: Moment) -> str:
    # Logs hold the low 32 bits of a transaction id, `pg_current_xact_id()` all 64.
    text = moment.tx or ""
    low = str(int(text) % (1 << 32)) if _NUMBER.fullmatch(text) else text
    return f"tx_id IN ({literal(text)}, {literal(low)})"


def _of_tx(con: duckdb.DuckDBPyConnection, calendar: Calendar, moment: Moment) -> int:
    count, position, lsns = calendar.ends(con, "count(*), max(pos), max(lsns)", _tx_condition(moment))
    if count == 0:
        raise MomentError(
            f"The lake has no transaction {moment.tx} of {calendar.source}.",
            why=f"Only transactions that changed a captured table are known. {_reach(calendar)}",
            next="look in lake.transactions, or name a time or an LSN",
            code="as_of_unknown_transaction",
        )
    if count > 1 or lsns > 1:
        raise MomentError(
            f"{calendar.source} has had more than one transaction {moment.tx}.",
            why="PostgreSQL uses a transaction id again after four billion others.",
            next="name a time or an LSN: SELECT * FROM lake.transactions",
            code="as_of_ambiguous",
        )
    return int(position)


def _boundary(con: duckdb.DuckDBPyConnection, calendar: Calendar, moment: Moment) -> int:
    """The boundary before the first transaction that is later; 0 when that is the first of all."""
    if moment.time is not None:
        text = literal(moment.time.isoformat())
        later, newest = f"source_ts > {text}::TIMESTAMPTZ", f"max(source_ts) + to_milliseconds(1) > {text}::TIMESTAMPTZ"
    else:
        later, newest = f"lsn > {moment.lsn}", f"max(lsn) >= {moment.lsn}"
    (stop,) = calendar.ends(con, "min(pos)", later)
    # Nothing later has ended: whether the source did more until then is not known, except up to the newest itself.
    if stop is None and not calendar.ends(con, newest)[0]:
        raise _after(calendar, moment)
    if moment.time is not None:
        stop = min(filter(None, (stop, _same_millisecond(con, calendar, moment.time))), default=None)
    (position,) = calendar.ends(con, "max(pos)", "true" if stop is None else f"pos < {stop}")
    return position or 0


def _same_millisecond(con: duckdb.DuckDBPyConnection, calendar: Calendar, time: datetime) -> int | None:
    """The first transaction of the millisecond of `time` that is later: rows have the microseconds that END lacks."""
    begin = time.replace(microsecond=time.microsecond // 1000 * 1000)
    low, high = (f"{literal(t.isoformat())}::TIMESTAMPTZ" for t in (begin, begin + timedelta(milliseconds=1)))
    found = con.execute(f"SELECT pos, tx_id FROM ({calendar.timeline}) WHERE source_ts = {low}").fetchall()
    if not found:
        return None
    names = ", ".join(literal(tx) for _, tx in found)
    late = " UNION ".join(
        f"""SELECT __tx_id FROM {scan(files)} WHERE __tx_id IN ({names})
        AND __source_ts > {literal(time.isoformat())}::TIMESTAMPTZ AND __source_ts < {high}"""
        for files in calendar.files
        if files
    )
    later = {tx for (tx,) in con.execute(late).fetchall()} if late else set()
    return min((pos for pos, tx in found if tx in later), default=None)


def _snapshot(con: duckdb.DuckDBPyConnection, calendar: Calendar) -> tuple[datetime | None, int | None]:
    """The time and the LSN of the snapshot before the first transaction; None when there was none."""
    columns = ["__source_ts AS ts", "__lsn AS lsn"]
    parts = [
        placed(Tail(files, facts=Facts(1, 1)), "timeline", 0, columns, where="__op = 'r'")
        for files in calendar.files
        if files
    ]
    if not parts:
        return None, None
    micros, lsn = con.execute(
        f"""WITH timeline AS MATERIALIZED ({calendar.timeline})
        SELECT epoch_us(max(ts)), max(lsn) FROM ({" UNION ALL ".join(parts)})"""
    ).fetchone() or (None, None)
    return (_EPOCH + timedelta(microseconds=micros) if micros is not None else None), lsn


def _check_snapshot(con: duckdb.DuckDBPyConnection, calendar: Calendar, moment: Moment) -> None:
    time, lsn = _snapshot(con, calendar)
    if moment.time is not None:
        held = time is not None and moment.time >= time
    else:
        held = lsn is not None and (moment.lsn or 0) >= lsn
    if held:
        return
    first, micros = calendar.ends(con, "arg_min(tx_id, pos), epoch_us(arg_min(source_ts, pos))")
    begins = f"the first snapshot is of {time.isoformat()}" if time is not None else "there is no snapshot before it"
    when = f", committed {(_EPOCH + timedelta(microseconds=micros)).isoformat()}" if micros is not None else ""
    raise MomentError(
        f"{moment.text} is before the log of {calendar.source} begins.",
        why=f"Its first transaction is {first}{when}; {begins}.",
        next=f"--as-of {time.isoformat()}" if time is not None else f"--as-of tx:{first}",
        code="as_of_before_log",
    )


def _after(calendar: Calendar, moment: Moment) -> MomentError:
    return MomentError(
        f"{moment.text} is after what the lake holds of {calendar.source}.",
        why=_reach(calendar),
        next="land more: cdc-lake sink run --until-caught-up; or leave out the moment to read what is there",
        code="as_of_after_cut",
    )


def _reach(calendar: Calendar) -> str:
    cut = calendar.cut
    if cut.tx_id is None:
        return "No transaction is complete yet."
    when = f", committed {cut.source_ts.isoformat()}" if cut.source_ts is not None else ""
    lsn = f" (LSN {cut.lsn >> 32:X}/{cut.lsn & 0xFFFFFFFF:X})" if cut.lsn is not None else ""
    waits = "".join(
        f" It waits for transaction {w.tx_id}: {w.missing} of {w.expected} rows of {w.table} have not landed."
        for w in cut.waits[:1]
    )
    return f"It is complete up to transaction {cut.tx_id}{when}{lsn}.{waits}"
