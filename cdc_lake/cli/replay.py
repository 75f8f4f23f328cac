"""`replay`: the events of a table between two moments once more, to stdout, a Delta table or a Kafka topic."""

from __future__ import annotations

import sys
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_lake.cli import output
from cdc_lake.errors import UsageError, suggest

if TYPE_CHECKING:
    from cdc_lake.config import Config
    from cdc_lake.query.window import Window

_EXAMPLES = (
    "Examples:  cdc-lake replay orders --from 2026-11-24T08:00:00Z --to 2026-11-24T09:00:00Z   ·   "
    "cdc-lake replay orders --from tx:774 --into topic:orders-again   ·   "
    "cdc-lake replay public.orders --into table:incident_42   ·   cdc-lake replay orders --dry-run"
)
_KINDS = ("table", "topic")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(replay)


@dataclass(frozen=True, slots=True)
class Into:
    """Where to: `kind` is stdout, table or topic."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


def replay(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="schema.table, or a table of public.")],
    *,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME|LSN|TX", help="Begin behind this moment [default: all].")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME|LSN|TX", help="End with this moment [default: the cut].")
    ] = None,
    into: Annotated[
        str | None, typer.Option("--into", metavar="table:NAME|topic:NAME", help="Where to [default: stdout].")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be replayed.")] = False,
) -> None:
    """Bring events of a table again, each once, in the order of the source.

    Moments are those of `--as-of`: what is shown as of --from is left out, what is shown as of --to is in. On stdout an
    event is one line of JSON. Into a table (of the lake, beside the log) events that are there already are not written
    again. Into a topic each record has the row's key, and in its headers the replay's id and the event's first place.
    """
    from cdc_lake.query.window import in_words, open_window

    config, to = output.settings(), _into(into)
    window = open_window(config, table, start, end)
    try:
        _refuse_own(to, window, config)
        output.say(in_words(window.table, window.counts))
        done = {} if dry_run else _WAYS[to.kind](window, to, config)
        if dry_run or to.kind != "stdout":
            _tell(window, to, done, dry_run=dry_run)
    finally:
        window.close()


def _into(text: str | None) -> Into:
    if text is None or text == "-":
        return Into("stdout")
    kind, _, name = text.partition(":")
    if kind in _KINDS and name:
        return Into(kind, name)
    hint = suggest(kind, _KINDS) if name else ""
    raise UsageError(
        f"--into {text} is no destination.",
        why=hint or "There are: table:NAME (a Delta table of the lake) and topic:NAME (a Kafka topic).",
        next=f"--into table:{name or text}",
    )


def _refuse_own(to: Into, window: Window, config: Config) -> None:
    """A captured topic is read by the sink: what is replayed into it would be landed as changes of the source."""
    from cdc_lake.connector_file import load_connector

    if to.kind != "topic":
        return
    prefixes = [
        c.topic_prefix + c.delimiter
        for source in config.databases
        if (file := config.connector_file(source)).is_file() and (c := load_connector(file))
    ]
    events = [topic for source in config.all_sources for topic in source.event_tables]
    if to.name in (*window.topics, *events) or to.name.startswith(tuple(prefixes)):
        raise UsageError(
            f"{to.name} is a topic that the sink reads.",
            why="The sink reads it: every event would land a second time, as a change that never was.",
            next=f"--into topic:replay.{to.name}",
        )


def _to_stdout(window: Window, _to: Into, _config: Config) -> dict[str, Any]:
    from cdc_lake.cli.progress import Meter
    from cdc_lake.cli.replay_records import lines

    meter = Meter("events", window.counts.events)
    for batch in window.raw():
        sys.stdout.write("".join(f"{line}\n" for line in lines(batch)))
        if not sys.stdout.isatty():
            meter.add(batch.num_rows)
    meter.end()
    return {}


def _to_table(window: Window, to: Into, _config: Config) -> dict[str, Any]:
    import pyarrow as pa

    from cdc_lake.cli.progress import Meter
    from cdc_lake.land.copies import Copy
    from cdc_lake.project.files import scan

    copy = Copy(window.root, window.source, window.table, to.name, window.options)
    known = scan(copy.files) if copy.files else None
    there = window.known(known) if known is not None else 0
    meter, written, waiting = Meter("events", window.counts.events - there), 0, list[pa.RecordBatch]()
    for batch in window.typed(without=known):
        waiting.append(batch)
        if sum(b.nbytes for b in waiting) >= _COMMIT_BYTES:
            copy.append(pa.Table.from_batches(waiting))
            waiting.clear()
        written += batch.num_rows
        meter.add(batch.num_rows)
    if waiting:
        copy.append(pa.Table.from_batches(waiting))
    meter.end()
    return {"path": copy.path, "written": written, "there_already": there}


def _to_topic(window: Window, to: Into, config: Config) -> dict[str, Any]:
    from cdc_lake.cli.progress import Meter
    from cdc_lake.cli.replay_records import records
    from cdc_lake.consume.send import KafkaSender

    name = uuid.uuid4().hex[:12]
    options = config.kafka.options if config.kafka else {}
    sender = KafkaSender(config.bootstrap, to.name, options)
    meter, sent = Meter("events", window.counts.events), 0
    try:
        for batch in window.raw():
            for key, value, headers in records(batch, window.table, name):
                sender.send(key, value, headers)
            sent += batch.num_rows
            meter.add(batch.num_rows)
        sender.flush()
    finally:
        meter.end()
        sender.close()
    return {"replay_id": name, "topic_made": sender.made, "written": sent}


_COMMIT_BYTES = 64 << 20
_WAYS = {"stdout": _to_stdout, "table": _to_table, "topic": _to_topic}


def _tell(window: Window, to: Into, done: dict[str, Any], *, dry_run: bool) -> None:
    counts = window.counts
    if output.as_json():
        document = {
            "table": str(window.table),
            "into": str(to),
            "dry_run": dry_run,
            "after_position": window.after,
            "until_position": window.until,
            "events": counts.events,
            "transactions": counts.transactions,
            "operations": dict(counts.operations),
            "first": counts.first.isoformat() if counts.first else None,
            "last": counts.last.isoformat() if counts.last else None,
        }
        output.emit({**document, **done})
        return
    if dry_run:
        words = {"c": "create", "u": "update", "d": "delete", "r": "read by a snapshot", "t": "truncate"}
        output.table(["operation", "events"], [[words[op], n] for op, n in counts.operations.items()])
        return
    rows = [[k.replace("_", " "), v] for k, v in {"into": str(to), **done}.items()]
    output.table(["", ""], rows)
