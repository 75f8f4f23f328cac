"""What a model does, in words: what it reads, when its rows come about, what it remembers, and where it is."""

from __future__ import annotations

from cdc_lake.react.durations import spelled
from cdc_lake.react.stream.shape import OWN, Shape, time_of


def explain(shape: Shape) -> list[tuple[str, str]]:
    """Pairs of a word and what there is to say."""
    query, model = shape.query, shape.model
    several = len(shape.sources) > 1
    said = [
        ("reads", f"changes of {shape.tables[s.alias]} ({s.alias}{f' of {shape.owners[s.alias]}' if several else ''})")
        for s in query.streams
    ]
    said += [
        ("joins", f"{shape.tables[s.alias]} ({s.alias}) {_as_of(shape, s.alias)}; from its history")
        for s in query.tables
    ]
    said.append(("rows", _when(shape)))
    if query.timed:
        times = "; ".join(f"{time_of(query, s) or 'the commit'} ({s.alias})" for s in query.streams)
        said.append(("event time", times))
        clock = "the greatest commit time of the source so far"
        if len(shape.sources) > 1:
            clock = f"the least of the greatest commit times so far of {', '.join(shape.sources)}"
        said.append(("watermark", f"{clock}, less {spelled(model.lateness)}"))
        said.append(
            (
                "late events",
                f"behind the watermark, without a time, or more than {spelled(model.ahead)} ahead: not counted, each "
                "a row of lake.stream_late_events",
            )
        )
    if model.topic is not None:
        key = ", ".join(model.key) or "nothing"
        said.append(("sends", f"each row once to the topic {model.topic}, keyed by {key}"))
    if model.output is not None:
        said.append(("posts", f"each row at least once to the output {model.output}, oldest first"))
    said.append(("remembers", _kept(shape)))
    said.append(("columns", ", ".join(f"{n} {t}" for n, t in (*shape.columns, *OWN))))
    return said


def _as_of(shape: Shape, alias: str) -> str:
    if alias in shape.beside:
        source = shape.beside[alias]
        if not shape.landed:
            return f"as it was in {source} when the change was committed, by the clocks of both"
        return f"as it had landed from {source} when the event landed"
    return "as of the position of the event"


def _when(shape: Shape) -> str:
    model = shape.model
    if model.window is not None:
        kind, size = model.window.kind, spelled(model.window.size)
        span = {
            "tumbling": size,
            "hopping": f"{size} every {spelled(model.window.every)}",
            "session": f"gap {size}",
        }[kind]
        return f"one for each group of a {kind} window ({span}), when the watermark passes its end"
    if model.within is not None:
        alone = any(s.left for s in shape.query.streams)
        pairs = f"one for each pair of events at most {spelled(model.within)} apart, with the second of them"
        return pairs + ("; one for an event that met none, when that is over" if alone else "")
    return "one for each event (and match in the tables), at once"


def _kept(shape: Shape) -> str:
    if shape.fold is not None:
        parts = ", ".join(p.sql for p in shape.fold.parts) or "that it is there"
        return f"of each group of a window that has not ended: {parts}"
    if shape.remembers:
        span = spelled(shape.model.within or 0)
        return f"events until the watermark is {span} behind them: " + "; ".join(
            f"{alias}: {', '.join(n for n, _ in columns)}" for alias, columns in shape.kept.items()
        )
    return "nothing but its position"
