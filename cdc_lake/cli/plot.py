"""A result of two columns drawn in the terminal: bars for names, a line of dots for numbers and times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from rich.cells import cell_len, set_cell_size

from cdc_lake.errors import UsageError

_EIGHTHS = " ▏▎▍▌▋▊▉"
# The dots of a braille sign, by row and column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BARS = 200
_HELP = "\\plot SELECT x, y FROM … ORDER BY x"


@dataclass(frozen=True, slots=True)
class Points:
    """Pairs of a result: what stands below or beside, and the number that is drawn."""

    x_name: str
    y_name: str
    x: tuple[Any, ...]
    y: tuple[float, ...]

    @property
    def on_a_scale(self) -> bool:
        """Whether every `x` is a number or a moment."""
        return len(self.x) > 1 and all(isinstance(v, (int, float, date)) and not isinstance(v, bool) for v in self.x)


def read_points(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Points:
    """The pairs that can be drawn: rows with a null are left out. One column is drawn against its row's number.

    Raises UsageError when there are other than one or two columns, when the last holds no numbers, or nothing at all.
    """
    if len(columns) not in (1, 2):
        why = f"The result has {len(columns)} columns: {', '.join(columns[:8])}."
        raise UsageError("A plot takes two columns.", why=why, next=_HELP)
    pairs = [(i + 1, row[0]) if len(columns) == 1 else (row[0], row[1]) for i, row in enumerate(rows)]
    pairs = [(x, y) for x, y in pairs if x is not None and y is not None]
    if not pairs:
        raise UsageError("There is nothing to plot.", why="The result has no rows without a null.", next=_HELP)
    wrong = next((y for _, y in pairs if not _is_number(y)), None)
    if wrong is not None:
        raise UsageError(f"A plot takes numbers in {columns[-1]}.", why=f"It holds {wrong!s:.40}.", next=_HELP)
    drawn = [(x, float(y)) for x, y in pairs if math.isfinite(float(y))]
    x_name = "row" if len(columns) == 1 else columns[0]
    return Points(x_name, columns[-1], tuple(x for x, _ in drawn), tuple(y for _, y in drawn))


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, (bool, str))


def draw(points: Points, width: int, height: int) -> str:
    """The plot as lines of text, not wider than `width`."""
    return _line(points, width, height) if points.on_a_scale else _bars(points, width)


def _bars(points: Points, width: int) -> str:
    names = [str(x).replace("\n", " ") for x in points.x[:_BARS]]
    values = points.y[:_BARS]
    side = min(max([cell_len(n) for n in [*names, points.x_name]]), width // 3)
    numbers = [f"{v:,.6g}" for v in values]
    room = max(8, width - side - max(len(n) for n in numbers) - 4)
    low, high = min(0.0, *values), max(0.0, *values)
    zero = round(-low / (high - low) * room) if high > low else 0
    lines = [f"{set_cell_size(points.x_name, side)}  {points.y_name}"]
    for name, value, number in zip(names, values, numbers, strict=True):
        eighths = round(abs(value) / (high - low) * room * 8) if high > low else 0
        bar = "█" * (eighths // 8)
        drawn = " " * (zero if value >= 0 else zero - len(bar)) + bar
        drawn += _EIGHTHS[eighths % 8].strip() if value >= 0 else ""
        lines.append(f"{set_cell_size(name, side)}  {drawn} {number}")
    if len(points.x) > _BARS:
        lines.append(f"… {len(points.x) - _BARS:,} more")
    return "\n".join(lines) + "\n"


def _line(points: Points, width: int, height: int) -> str:
    x = [_as_number(v) for v in points.x]
    (x0, x1), (y0, y1) = _bounds(x), _bounds(points.y)
    rows = max(4, height - 3)
    ticks = {round((rows - 1) * i / 3): y1 - (y1 - y0) * round((rows - 1) * i / 3) / (rows - 1) for i in range(4)}
    labels = {row: _short(value, y1 - y0) for row, value in ticks.items()}
    side = max(len(label) for label in labels.values())
    columns = max(10, width - side - 3)
    cells = [[0] * columns for _ in range(rows)]
    places = sorted(
        (round((a - x0) / (x1 - x0) * (columns * 2 - 1)), round((y1 - b) / (y1 - y0) * (rows * 4 - 1)))
        for a, b in zip(x, points.y, strict=True)
    )
    for (a, b), (c, d) in zip(places, places[1:] or places, strict=False):
        _stroke(cells, a, b, c, d)
    lines = [f"{' ' * side}  {points.y_name}"]
    for i, row in enumerate(cells):
        signs = "".join(chr(0x2800 + c) if c else " " for c in row)
        lines.append(f"{labels.get(i, ''):>{side}} {'┤' if i in labels else '│'}{signs}")
    first, last = _moment(min(points.x), points.x), _moment(max(points.x), points.x)
    gap = max(1, columns - len(first) - len(last) - len(points.x_name))
    lines.append(f"{' ' * side} └{'─' * columns}")
    lines.append(f"{' ' * side}  {first}{' ' * (gap // 2)}{points.x_name}{' ' * (gap - gap // 2)}{last}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _stroke(cells: list[list[int]], a: int, b: int, c: int, d: int) -> None:
    """Dots from one place to another."""
    steps = max(abs(c - a), abs(d - b), 1)
    for i in range(steps + 1):
        x, y = a + round((c - a) * i / steps), b + round((d - b) * i / steps)
        cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _as_number(value: Any) -> float:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return float(value.toordinal()) if isinstance(value, date) else float(value)


def _short(value: float, span: float) -> str:
    """A number of an axis, with the digits that tell two marks apart."""
    digits = max(0, 1 - math.floor(math.log10(span)))
    return f"{value:,.{min(digits, 6)}f}"


def _moment(value: Any, among: Sequence[Any]) -> str:
    if isinstance(value, datetime):
        days = value.date() if all(v.time() == v.min.time() for v in among) else None
        return str(days) if days is not None else value.isoformat(sep=" ", timespec="seconds")
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
