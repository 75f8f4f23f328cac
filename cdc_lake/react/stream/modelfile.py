"""Streaming models as files: `streams/<name>.sql`, one SELECT each, with what SQL cannot say in comments above it.

::

    -- window: tumbling 1 hour
    -- lateness: 2 minutes
    SELECT store_id, window_start, count(*) AS orders, sum(total) AS sales
    FROM changes.orders
    WHERE __op = 'c'
    GROUP BY store_id, window_start
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from cdc_lake.errors import CdcLakeError, UsageError, suggest
from cdc_lake.react.durations import microseconds

# When an event was: what it says, else when Kafka took it.
EVENT_TIME = 'coalesce("time", __source_ts)'
SUFFIX = ".sql"
_FILE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_HEADER = re.compile(r"--\s*([a-z]+)(?:[ \t]+([A-Za-z_]\w*))?:[ \t]*(.*)")
_WINDOW = re.compile(r"(tumbling|hopping|session)\s+(.+?)(?:\s+every\s+(.+))?")
_MOST_WINDOWS = 1000
_DAY = 86_400_000_000


class ModelError(CdcLakeError):
    """A model's file is wrong, or cannot be kept up incrementally: nothing runs."""

    default_code = "model"


@dataclass(frozen=True, slots=True)
class Window:
    """Windows of event time, `[start, end)`, counted from 1970 in UTC; those of a session end `size` behind its last
    event. All in microseconds."""

    kind: Literal["tumbling", "hopping", "session"]
    size: int
    every: int

    @classmethod
    def of(cls, text: str) -> Self:
        """What a header says. Raises ValueError, in words for a person."""
        found = _WINDOW.fullmatch(text.strip())
        if found is None or (found[1] == "hopping") != (found[3] is not None):
            raise ValueError(
                "write it as `tumbling 1 hour`, `hopping 1 hour every 10 minutes` or `session 30 minutes` (the gap)"
            )
        size = microseconds(found[2])
        every = microseconds(found[3]) if found[3] is not None else size
        if not size or not every:
            raise ValueError("it must be longer than nothing")
        if size % every or size // every > _MOST_WINDOWS:
            raise ValueError(f"its length must be a whole multiple of `every`, at most {_MOST_WINDOWS} times")
        return cls(found[1], size, every)  # type: ignore[arg-type]  # the pattern has no other words


@dataclass(frozen=True, slots=True)
class Model:
    """One model. `name` is its file's; `times` are, by alias (empty: the only stream), expressions of event time."""

    name: str
    file: Path
    sql: str
    window: Window | None = None
    within: int | None = None
    lateness: int = 0
    ahead: int = _DAY
    start: str = "beginning"
    times: tuple[tuple[str, str], ...] = ()
    topic: str | None = None
    output: str | None = None
    key: tuple[str, ...] = ()

    def refused(self, what: str, why: str, *, at: int | None = None, wrong: bool = True) -> ModelError:
        """An error about this model, at a place in its SQL: it is `wrong`, or cannot be kept up incrementally."""
        line = "" if at is None else f":{self.sql.count(chr(10), 0, at) + 1}"
        return ModelError(
            f"{self.file}{line}: {what}",
            why=why,
            next=f"edit {self.file}, then: cdc-lake stream check {self.name}",
            code="model" if wrong else "model_not_incremental",
        )

    @property
    def core(self) -> str:
        """What its results depend on, beside the types of its columns. Comments, `start` and
        where its rows are sent are not among it."""
        window = None if self.window is None else [self.window.kind, self.window.size, self.window.every]
        return json.dumps([window, self.within, self.lateness, self.ahead, sorted(self.times)])


def digest(*parts: str) -> str:
    """Twelve hexadecimal digits that are others when any of `parts` is."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:12]


def model_files(folder: Path) -> list[Path]:
    """The files of models, by name."""
    try:
        return sorted(f for f in folder.iterdir() if f.suffix == SUFFIX and f.is_file())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ModelError(f"The folder {folder} cannot be read.", why=str(error), next=f"check {folder}") from None


def load_model(file: Path) -> Model:
    """The model in a file. Raises ModelError with the line that is wrong."""
    if not _FILE_NAME.fullmatch(file.stem):
        raise ModelError(
            f"{file.name} is no name for a model.",
            why="Its rows are read as streams.<name>: letters, digits and _ make a name, and it begins with a letter.",
            next=f"rename {file}",
        )
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} cannot be read.", why=str(error), next=f"check {file}") from None
    model, times = Model(file.stem, file, text), dict[str, str]()
    values: dict[str, object] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("--"):
            break
        found = _HEADER.fullmatch(line.strip())
        if found is None:
            continue
        key, alias, value = found[1], found[2], found[3].strip()
        try:
            if key == "time":
                times[alias or ""] = _some(value)
            else:
                values[key] = _value(key, alias, value)
        except ValueError as error:
            raise ModelError(f"{file}:{number}: `{key}` is not valid.", why=str(error), next=f"edit {file}") from None
    return Model(model.name, file, text, times=tuple(times.items()), **values)  # type: ignore[arg-type]  # of _KEYS


def _some(text: str) -> str:
    if not text:
        raise ValueError("it says nothing")
    return text


def _topic(text: str) -> str:
    if not _TOPIC.fullmatch(text):
        raise ValueError("letters, digits, dots, - and _ make the name of a topic, 249 of them at most")
    return text


_KEYS: dict[str, Callable[[str], object]] = {
    "window": Window.of,
    "within": microseconds,
    "lateness": microseconds,
    "ahead": microseconds,
    "start": _some,
    "topic": _topic,
    "output": _some,
    "key": lambda text: tuple(_some(name.strip()) for name in text.split(",")),
}


def _value(key: str, alias: str | None, text: str) -> object:
    if key not in _KEYS or alias is not None:
        known = [*_KEYS, "time"]
        raise ValueError(suggest(key, known) or f"There are: {', '.join(known)}; only `time` is of one stream.")
    return _KEYS[key](text)


def find_model(models: Sequence[Model], name: str) -> Model:
    """The model of that name. Raises UsageError."""
    for model in models:
        if model.name == name:
            return model
    known = [m.name for m in models]
    why = suggest(name, known) or (f"There are: {', '.join(known)}" if known else "There are no models.")
    raise UsageError(f"There is no model {name}.", why=why, next="cdc-lake stream check", code="no_model")
