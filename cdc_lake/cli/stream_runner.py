"""What the commands of `stream` do together: the loop wired to signals, models checked, explained and replayed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from cdc_lake.cli import output
from cdc_lake.cli.rules_runner import Stopper, connection, opened
from cdc_lake.cli.stream_posts import Outlets
from cdc_lake.cli.stream_topics import Topics
from cdc_lake.cli.witness import witnessed
from cdc_lake.config import Config
from cdc_lake.errors import CdcLakeError, UsageError
from cdc_lake.query.merged import Merged, merge
from cdc_lake.query.news import News
from cdc_lake.react.stream.explain import explain
from cdc_lake.react.stream.modelfile import Model, find_model, load_model, model_files
from cdc_lake.react.stream.replay import Replayed, replay
from cdc_lake.react.stream.run import Streams, form_of, table_of
from cdc_lake.react.stream.shape import check

# How often to look whether something has landed: one look costs a stat of a folder.
_LOOK_SECONDS = 0.2


@dataclass(slots=True)
class Done:
    """What a run did: rows and late events of each model, and the errors of those that stand still."""

    found: dict[str, dict[str, int]] = field(default_factory=dict)
    errors: list[CdcLakeError] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    interrupted: bool = False


def chosen(config: Config, names: Sequence[str] | None) -> list[Model]:
    """The named models, or all. Raises UsageError for an unknown one, and when there are none at all."""
    models = [load_model(f) for f in _files(config, names)]
    return [find_model(models, n) for n in names] if names else models


def _files(config: Config, names: Sequence[str] | None) -> list[Any]:
    files = model_files(config.streams_folder)
    if not files:
        raise UsageError(
            f"There are no models in {config.streams_folder}.",
            why="A model is a file there, as sales_per_hour.sql.",
            next="write one as docs/how-to/stream.md shows, then: cdc-lake stream check",
            code="no_models",
        )
    for name in names or ():
        if name not in [f.stem for f in files]:
            find_model([load_model(f) for f in files], name)  # raises, with the near one
    return [f for f in files if not names or f.stem in names]


def checked(config: Config, names: Sequence[str] | None) -> list[tuple[str, CdcLakeError | None]]:
    """Each model's file, checked on its own: one that is wrong does not hide what is wrong with others."""
    found: list[tuple[str, CdcLakeError | None]] = []
    files = _files(config, names)
    with opened(config) as logs:
        for file in files:
            try:
                check(connection(logs), load_model(file), logs)
            except CdcLakeError as error:
                found.append((file.stem, error))
            else:
                found.append((file.stem, None))
    return found


def run_models(config: Config, names: Sequence[str] | None, *, until_caught_up: bool) -> Done:
    """Keep models up until they have caught up, or until told to stop.

    Raises the error of a model that is refused: none runs then.
    """
    models = chosen(config, names)
    with opened(config) as logs:
        shapes = [check(connection(logs), model, logs) for model in models]
    stopper, streams, topics, outlets = Stopper(), Streams(config, models), Topics(config), Outlets(config)
    outlets.open(shapes)
    stopper.install()
    with witnessed(config) as witness, closing(topics), closing(outlets), witness.models(shapes, streams.outcomes):
        streams.told = witness.batches(config, "stream")
        if not until_caught_up:
            outlets.start()
            _loop(config, streams, topics, outlets, stopper)
        streams.round(final=True)
        topics.deliver(streams)
        outlets.finish()
    found = {name: {"rows": r.rows, "late": r.late} for name, r in streams.running.items()}
    errors = [r.error for r in streams.failed if r.error is not None]
    sent = {name: topics.sent.get(name, 0) + outlets.sent.get(name, 0) for name in (*topics.sent, *outlets.sent)}
    return Done(found, [*errors, *topics.errors.values(), *outlets.errors], sent, stopper.interrupted)


def _loop(config: Config, streams: Streams, topics: Topics, outlets: Outlets, stopper: Stopper) -> None:
    news, told = News(config), set[str]()
    while not stopper.asked.is_set():
        if news.arrived():
            streams.round()
            outlets.wake()
            topics.deliver(streams)
        elif topics.errors and topics.due():
            topics.deliver(streams)
        for one in streams.failed:
            if one.shape.name not in told and one.error is not None:
                told.add(one.shape.name)
                output.say(
                    f"The model {one.shape.name} stands still; others go on. {one.error.message} {one.error.why}"
                )
        stopper.asked.wait(_LOOK_SECONDS)


def explained(config: Config, name: str) -> list[tuple[str, str]]:
    """What a model does, and where it is."""
    (model,) = chosen(config, [name])
    with opened(config) as logs:
        shape = check(connection(logs), model, logs)
        log = merge(connection(logs), logs, shape.sources)
        place = table_of(config, shape).place()
        said = explain(shape)
        if place is None:
            return [*said, ("state", f"not run yet; it would begin at {shape.model.start}")]
        state = f"at position {place.position}, {log.cut - place.position} behind the cut"
        if isinstance(log, Merged) and log.behind:
            state += f"; it waits for {log.held.source}, which is at {log.held.since or 'its beginning'}"
        if place.form != form_of(shape):
            state += f"; its rows are those of another form of it: cdc-lake stream replay {name}"
        return [*said, ("state", state)]


def replayed(config: Config, name: str, moment: str | None, *, dry_run: bool) -> Replayed:
    """A model's rows made again."""
    (model,) = chosen(config, [name])
    with opened(config) as logs:
        shape = check(connection(logs), model, logs)
        return replay(config, merge(connection(logs), logs, shape.sources), shape, moment, write=not dry_run)
