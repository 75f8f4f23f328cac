"""Views of the dashboard as files: `dashboard/<name>.sql`, one SELECT each, with how to show it in comments above it.

::

    -- title: Sales per minute
    -- kind: line
    -- x: minute
    -- y: sales
    -- series: channel
    -- unit: orders
    SELECT time_bucket(INTERVAL 1 minute, placed_at) AS minute, channel, count(*) AS sales
    FROM orders
    WHERE placed_at > CAST($page_time AS TIMESTAMPTZ) - INTERVAL 1 hour
    GROUP BY ALL

`$page_time` is the moment that the page shows: that of the newest transaction, or a past one that was asked for.
`$clock` is the time of day, or that past moment. A view with `parameter NAME:` lines is asked with a value for each;
what stands behind the colon is a SELECT of the values to choose from (`value`, and `label` if there is one).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from cdc_lake.errors import CdcLakeError, suggest
from cdc_lake.events import TableId

KINDS = ("figures", "line", "step", "bar", "heat", "table", "timeline")
PAGE_TIME, CLOCK = "page_time", "clock"
SUFFIX = ".sql"
SHIPPED = ("lake", "retail")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_HEADER = re.compile(r"--\s*([a-z]+)(?:[ \t]+([A-Za-z_]\w*))?:[ \t]*(.*)")
# What each kind has to be told.
_NEEDED = {"line": ("x", "y"), "step": ("x", "y"), "bar": ("x", "y"), "heat": ("x", "y", "value"), "timeline": ("x",)}


class ViewError(CdcLakeError):
    """A view's file is wrong: the view is shown with the error in its place, the others go on."""

    default_code = "view"


@dataclass(frozen=True, slots=True)
class View:
    """One view. `order` says where it stands on its page; `parameters` are names with the SQL of their values."""

    name: str
    sql: str
    title: str = ""
    kind: str = "table"
    about: str = ""
    page: str = "Overview"
    order: int = 100
    x: str | None = None
    y: str | None = None
    series: str | None = None
    value: str | None = None
    unit: str = ""
    key: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    rows: int = 500
    every: float = 0
    width: str = "half"
    parameters: tuple[tuple[str, str], ...] = ()
    error: CdcLakeError | None = field(default=None, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """What a page has to know to show it."""
        names = ("title", "kind", "about", "page", "order", "x", "y", "series", "value", "unit", "width")
        shown = {name: getattr(self, name) for name in names}
        return {"view": self.name, **shown, "key": list(self.key), "parameters": [p for p, _ in self.parameters]}

    def fits(self, tables: Sequence[TableId]) -> bool:
        """Whether all tables that it needs are there, and none of those that make it needless."""
        known = {str(t).lower() for t in tables} | {t.name.lower() for t in tables if t.schema == "public"}
        return all(n.lower() in known for n in self.needs) and not any(n.lower() in known for n in self.unless)


def load_views(folder: Path) -> list[View]:
    """The views that come with cdc_lake and those of a project's folder, in order; of one name, the project's.

    A project's file that holds no SQL takes the view of its name away. A file that is wrong is a view with an error.
    """
    found: dict[str, View] = {}
    for name, entry in _shipped():
        found[name] = parse_view(name, entry.read_text(encoding="utf-8"), entry.name)
    for file in view_files(folder):
        view = _load(file)
        found.pop(view.name, None)
        if view.sql or view.error is not None:
            found[view.name] = view
    return sorted(found.values(), key=lambda v: (v.order, v.name))


def view_files(folder: Path) -> list[Path]:
    """The files of a project's views, by name."""
    try:
        return sorted(f for f in folder.iterdir() if f.suffix == SUFFIX and f.is_file())
    except OSError:
        return []


def _load(file: Path) -> View:
    try:
        return parse_view(file.stem, file.read_text(encoding="utf-8"), str(file))
    except ViewError as error:
        return View(file.stem, "", title=file.stem, error=error)
    except (OSError, UnicodeDecodeError) as error:
        wrong = ViewError(f"{file} cannot be read.", why=str(error), next=f"check {file}")
        return View(file.stem, "", title=file.stem, error=wrong)


def parse_view(name: str, text: str, file: str) -> View:
    """The view that a file's text describes. Raises ViewError with the line that is wrong."""
    if not _NAME.fullmatch(name):
        why = "It is part of addresses: small letters, digits and _ make a name, and it begins with a letter."
        raise ViewError(f"{file} is no name for a view.", why=why, next=f"rename {file}")
    values: dict[str, Any] = {}
    parameters: list[tuple[str, str]] = []
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("--"):
            break
        found = _HEADER.fullmatch(line.strip())
        if found is None:
            continue
        try:
            if found[1] == "parameter" and found[2]:
                parameters.append((found[2], found[3].strip()))
            else:
                values[found[1]] = _value(found[1], found[2], found[3].strip())
        except ValueError as error:
            raise ViewError(
                f"{file}:{number}: `{found[1]}` is not valid.", why=str(error), next=f"edit {file}"
            ) from None
    sql = "\n".join(line for line in lines if not line.lstrip().startswith("--")).strip().rstrip(";")
    view = replace(View(name, sql and text.strip().rstrip(";"), title=name), parameters=tuple(parameters), **values)
    missing = [n for n in _NEEDED.get(view.kind, ()) if getattr(view, n) is None]
    if missing and sql:
        raise ViewError(
            f"{file}: a view of the kind {view.kind} needs `{missing[0]}`.",
            why="It names the column of the result that is shown there.",
            next=f"edit {file}: -- {missing[0]}: COLUMN",
        )
    return view


def _value(key: str, of: str | None, text: str) -> Any:
    if key not in _KEYS or of is not None:
        known = [*_KEYS, "parameter"]
        raise ValueError(suggest(key, known) or f"There are: {', '.join(known)}.")
    return _KEYS[key](text)


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(suggest(text, words) or f"There are: {', '.join(words)}.")
        return text

    return read


def _within(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdigit() or not least <= int(text) <= most:
            raise ValueError(f"It is a number from {least} to {most}.")
        return int(text)

    return read


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+) ?s(?:econds?)?", text)
    if found is None:
        raise ValueError("write it as `30 seconds`")
    return float(found[1])


_KEYS: dict[str, Callable[[str], Any]] = {
    "title": str,
    "kind": _one_of(*KINDS),
    "about": str,
    "page": str,
    "order": _within(0, 10_000),
    "x": str,
    "y": str,
    "series": str,
    "value": str,
    "unit": str,
    "key": _names,
    "needs": _names,
    "unless": _names,
    "rows": _within(1, 5_000),
    "every": _seconds,
    "width": _one_of("half", "full"),
}


def copy_views(folder: Path) -> list[dict[str, object]]:
    """Write the shipped views into a project's folder; one that is there is left as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    made: list[dict[str, object]] = []
    for name, entry in _shipped():
        target = folder / f"{name}{SUFFIX}"
        there = target.exists()
        if not there:
            target.write_text(entry.read_text(encoding="utf-8"), encoding="utf-8")
        made.append({"view": name, "file": str(target), "written": not there})
    return made


def _shipped() -> Iterator[tuple[str, Traversable]]:
    for group in SHIPPED:
        folder = files("cdc_lake.serve.dashboard").joinpath("views", group)
        for entry in sorted(folder.iterdir(), key=lambda e: e.name):
            if entry.name.endswith(SUFFIX):
                yield entry.name.removesuffix(SUFFIX), entry
