"""Charts of the notebooks: the title says what was found, the axes what is measured, in which unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import blended_transform_factory

INK, MUTED, GRID = "#22303c", "#6b7884", "#e3e8ec"
BLUE, LIGHT, ORANGE, RED = "#1f6f9c", "#a9cbe0", "#e08a2c", "#b8343a"
# Colours of parts that are told apart by nothing else; no more than these.
SERIES = (BLUE, ORANGE, LIGHT, RED, "#6b8f3c", "#7d5ba6", "#8c6d4f")
_AROUND = LinearSegmentedColormap.from_list("around", [RED, "#f7f3ef", BLUE])
_SHADES = LinearSegmentedColormap.from_list("revenue", ["#e6f0f6", LIGHT, BLUE, "#0b3550"])

Number = Callable[[float], str]
_STYLE: Any = {
    "figure.dpi": 110,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
}


def thousands(value: float) -> str:
    """1234567 as 1,234,567."""
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """A length of time in the unit that a person would choose."""
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}s"
    return f"{seconds:.0f} s"


def canvas(finding: str, how: str, *, x: str, y: str, height: float = 4.2) -> tuple[Figure, Axes]:
    """An empty chart: the finding as its title, below it how to read it; `x` and `y` name the axes with their unit."""
    plt.rcParams.update(_STYLE)
    figure, axes = plt.subplots(figsize=(9.5, height), layout="constrained")
    axes.set_title(f"{finding}\n", loc="left", fontsize=12.5, fontweight="bold", color=INK)
    axes.annotate(how, (0, 1), (0, 7), xycoords="axes fraction", textcoords="offset points", fontsize=9.5, color=MUTED)
    axes.set(xlabel=x, ylabel=y)
    # The notebook shows the figure that a cell returns; left open it would be shown twice.
    plt.close(figure)
    return figure, axes


def rows_of_bars(
    axes: Axes,
    names: Sequence[str],
    parts: Mapping[str, Sequence[float | Decimal]],
    colours: Sequence[str],
    *,
    text: Number = thousands,
) -> None:
    """A horizontal bar per name, the first on top, stacked of `parts`, with the sum at its end."""
    places = range(len(names))
    ends = [0.0] * len(names)
    for (label, exact), colour in zip(parts.items(), colours, strict=True):
        values = [float(value) for value in exact]
        axes.barh(places, values, left=ends, color=colour, label=label, height=0.72)
        ends = [end + value for end, value in zip(ends, values, strict=True)]
    for place, end in zip(places, ends, strict=True):
        axes.annotate(text(end), (end, place), (4, 0), textcoords="offset points", va="center", fontsize=9, color=INK)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.margins(x=0.08, y=0.01)
    axes.grid(axis="x")
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))
    if len(parts) > 1:
        axes.legend(frameon=False, loc="lower right")


def columns_of_bars(
    axes: Axes,
    places: Sequence[datetime],
    parts: Mapping[str, Sequence[float]],
    colours: Sequence[str],
    *,
    width: float,
) -> None:
    """A vertical bar for each moment, stacked of `parts`; `width` in days."""
    ends = [0.0] * len(places)
    for (label, values), colour in zip(parts.items(), colours, strict=True):
        axes.bar(_numbers(places), values, bottom=ends, width=width, align="edge", color=colour, label=label)
        ends = [end + value for end, value in zip(ends, values, strict=True)]
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))
    time_axis(axes)
    axes.set_ylim(top=1.14 * max([*ends, 1.0]))  # room for the legend
    if parts:
        axes.legend(frameon=False, loc="upper left", ncols=len(parts))


def heat_map(
    figure: Figure,
    axes: Axes,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    unit: str,
) -> None:
    """A field per row and column, darker for more, empty for nothing; a logarithmic scale where a few outshine all."""
    there = sorted(value for line in values for value in line if value)
    low, high = (there[0], there[-1]) if there else (0.1, 1.0)
    skewed = bool(there) and high > 20 * there[len(there) // 2]
    norm: Normalize = LogNorm(low, high) if skewed and high > low else Normalize(0, high)
    shown = [[value or float("nan") for value in line] for line in values]
    image = axes.imshow(shown, aspect="auto", cmap=_SHADES, norm=norm)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_xticks([n - 0.5 for n in range(1, len(columns))], minor=True)
    axes.set_yticks([n - 0.5 for n in range(1, len(rows))], minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=30, format=FuncFormatter(lambda value, _: thousands(value)))
    bar.set_label(unit + (", logarithmic" if skewed else ""), color=MUTED)
    bar.outline.set_visible(False)


def index_map(
    figure: Figure,
    axes: Axes,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    unit: str,
) -> None:
    """A field per row and column with its number in it: 100 is as everywhere, blue is more, red is less."""
    reach = max([abs(value - 100) for line in values for value in line] or [1.0]) or 1.0
    image = axes.imshow(values, aspect="auto", cmap=_AROUND, norm=Normalize(100 - reach, 100 + reach))
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            ink = "white" if abs(value - 100) > 0.7 * reach else INK
            axes.annotate(f"{value:.0f}", (x, y), ha="center", va="center", fontsize=9, color=ink)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=30)
    bar.set_label(unit, color=MUTED)
    bar.outline.set_visible(False)


def changes_of(axes: Axes, names: Sequence[str], values: Sequence[float], *, text: Number) -> None:
    """A horizontal bar per name, to the right for more and to the left for less than before."""
    places = range(len(names))
    axes.barh(places, values, color=[BLUE if value >= 0 else RED for value in values], height=0.72)
    for place, value in zip(places, values, strict=True):
        side = (4, "left") if value >= 0 else (-4, "right")
        axes.annotate(text(value), (value, place), (side[0], 0), textcoords="offset points", va="center", ha=side[1],
                      fontsize=9, color=INK)  # fmt: skip
    axes.axvline(0, color=MUTED, linewidth=0.8)
    _named_rows(axes, names)
    axes.margins(x=0.15)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))


def before_and_after(
    axes: Axes, names: Sequence[str], before: Sequence[float], after: Sequence[float], *, text: Number
) -> None:
    """Two points per name with a line between them: what was, in grey, and what is now."""
    for place, (was, now) in enumerate(zip(before, after, strict=True)):
        colour = RED if now > was else BLUE
        axes.plot([was, now], [place, place], color=colour, linewidth=2, alpha=0.6, zorder=1)
        axes.plot([was], [place], "o", color=MUTED, markersize=6)
        axes.plot([now], [place], "o", color=colour, markersize=7)
        change = f"{text(was)} → {text(now)}"
        axes.annotate(change, (max(was, now), place), (9, 0), textcoords="offset points", va="center", fontsize=9)
    _named_rows(axes, names)
    axes.margins(x=0.22, y=0.08)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def estimates(
    axes: Axes, names: Sequence[str], values: Sequence[float], errors: Sequence[float], *, nothing: float = 0.0
) -> None:
    """A point per name with the range that holds the truth in 95 of 100 cases; a dashed line where nothing is told."""
    for place, (value, error) in enumerate(zip(values, errors, strict=True)):
        sure = abs(value - nothing) > error
        axes.errorbar([value], [place], xerr=[error], fmt="o", color=BLUE if sure else MUTED, capsize=3, markersize=6)
        axes.annotate(f"{value:+.1f}", (value, place), (0, 7), textcoords="offset points", ha="center", fontsize=9)
    axes.axvline(nothing, color=ORANGE, linewidth=1.2, linestyle="--")
    _named_rows(axes, names)
    axes.margins(y=0.12)


def cloud(axes: Axes, x: Sequence[float], y: Sequence[float], weights: Sequence[float]) -> None:
    """A point for each pair, larger for a larger weight."""
    largest = max(weights, default=1.0)
    axes.scatter(x, y, s=[14 + 150 * weight / largest for weight in weights], color=BLUE, alpha=0.45, linewidth=0)
    axes.axhline(0, color=GRID, linewidth=1)
    axes.axvline(0, color=GRID, linewidth=1)
    axes.grid()


def spans(
    axes: Axes,
    names: Sequence[str],
    begins: Sequence[datetime],
    ends: Sequence[datetime],
    lasting: Sequence[bool],
) -> None:
    """A bar in time per name, red where it lasts still."""
    for place, (begin, end, still) in enumerate(zip(begins, ends, lasting, strict=True)):
        left, right = _numbers([begin, end])
        axes.barh([place], [right - left], left=[left], height=0.6, color=RED if still else LIGHT)
    _named_rows(axes, names)
    axes.margins(x=0.02)
    time_axis(axes)


def _named_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.tick_params(length=0)


def steps(axes: Axes, moments: Sequence[datetime], values: Sequence[float], until: datetime, *, text: Number) -> None:
    """A value that holds until it changes, drawn on to `until`; the first and the last one are written beside it."""
    axes.step(_numbers([*moments, until]), [*values, values[-1]], where="post", color=BLUE, linewidth=1.8)
    axes.plot(_numbers(moments), values, "o", color=BLUE, markersize=3.5)
    for moment, value, place in ((moments[0], values[0], (-6, 8)), (until, values[-1], (6, -3))):
        axes.annotate(text(value), (moment, value), place, textcoords="offset points", fontweight="bold", color=INK)
    axes.margins(x=0.07, y=0.15)
    axes.grid(axis="y")
    time_axis(axes)


def level(axes: Axes, value: float, name: str) -> None:
    """A dashed line across, with its name."""
    axes.axhline(value, color=ORANGE, linewidth=1.2, linestyle="--")
    _beside(axes, value, f"{name}: {value:,.0f}", ORANGE)


def time_axis(axes: Axes) -> None:
    """Moments on the x axis, no more words than needed."""
    locator = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def points(axes: Axes, moments: Sequence[datetime], seconds: Sequence[float]) -> None:
    """A point for each measured wait; half of them lie below the first line, 95 % below the second."""
    axes.plot(_numbers(moments), seconds, ".", color=BLUE, markersize=4, alpha=0.5, markeredgewidth=0)
    for share, colour in ((0.5, ORANGE), (0.95, RED)) if seconds else ():
        value = quantile(seconds, share)
        axes.axhline(value, color=colour, linewidth=1.2)
        _beside(axes, value, f"{share:.0%}: {value:.1f} s", colour)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    time_axis(axes)


def wait_finding(what: str, seconds: Sequence[float]) -> str:
    """The title of a chart of `points`."""
    if not seconds:
        return f"No {what} since the capture began"
    half, most = quantile(seconds, 0.5), quantile(seconds, 0.95)
    return f"Half of the {what} are in the lake {half:.1f} s after their commit, 95% after {most:.1f} s"


def quantile(values: Sequence[float], share: float) -> float:
    """The value that is not exceeded by `share` of the values, of which there must be some."""
    return sorted(values)[max(math.ceil(len(values) * share) - 1, 0)]


def _beside(axes: Axes, value: float, text: str, colour: str) -> None:
    """Words to the right of a line across."""
    place = blended_transform_factory(axes.transAxes, axes.transData)
    axes.annotate(text, (1, value), (4, 0), xycoords=place, textcoords="offset points", va="center", color=colour)


def _numbers(moments: Sequence[datetime]) -> list[float]:
    return list(date2num(moments))  # type: ignore[no-untyped-call]
