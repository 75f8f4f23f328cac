"""How much demand answers a price: one number from many small before-and-after comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a product's price: the pieces of it, and of all products, that were sold before and after."""

    before: float
    after: float
    sold_before: int
    sold_after: int
    all_before: int
    all_after: int

    @property
    def step(self) -> float:
        """The change of the price, as a logarithm."""
        return math.log(self.after / self.before)

    @property
    def tells(self) -> bool:
        """Whether anything can be learnt of it: it was sold, and others were, on both sides."""
        return self.sold_before + self.sold_after > 0 and min(self.all_before, self.all_after) > 0 and self.step != 0

    def share_change(self) -> float:
        """By how much the product's share of all pieces changed, as a factor; half a piece is added on both sides."""
        return ((self.sold_after + 0.5) / (self.all_after + 1)) / ((self.sold_before + 0.5) / (self.all_before + 1))


@dataclass(frozen=True, slots=True)
class Estimate:
    """By how many per cent demand changes when the price rises by one, and the range of 95 in 100 cases around it."""

    value: float
    error: float
    changes: int
    shift: float

    @property
    def sure(self) -> bool:
        """Whether the range leaves out zero."""
        return abs(self.value) > self.error

    def factor(self, step: float, *, errors: float = 0.0) -> float:
        """By which factor demand is expected to change when the price changes by `step`, a factor too."""
        return math.exp(self.shift) * step ** (self.value + errors * self.error)


def estimate(changes: Sequence[Change]) -> Estimate | None:
    """The elasticity that makes what was sold most likely; None where too little can be learnt.

    Of the pieces of a product that were sold on both sides of a change, each falls on the second with the odds
    `all_after / all_before * exp(shift) * (after / before) ** elasticity`. What moves all products alike (a busy day,
    the season) is in the first factor, what moves those whose price changes, in whichever direction, is in the second:
    neither is taken for an effect of the price. Products differ for other reasons too: where they differ more than by
    chance, the range is wider in the same measure.
    """
    told = [c for c in changes if c.tells]
    if len(told) < 3 or len({c.step > 0 for c in told}) < 2:
        return None
    shift = value = 0.0
    for _ in range(100):
        sums = _sums(told, shift, value)
        determinant = sums.a * sums.c - sums.b**2
        if determinant < 1e-12:
            return None
        moves = (sums.c * sums.u - sums.b * sums.v) / determinant, (sums.a * sums.v - sums.b * sums.u) / determinant
        shift, value = shift + _bounded(moves[0]), value + _bounded(moves[1])
        if max(map(abs, moves)) < 1e-9:
            break
    scatter = max(sums.scatter / (len(told) - 2), 1.0)
    return Estimate(value, 1.96 * math.sqrt(scatter * sums.a / determinant), len(told), shift)


@dataclass(frozen=True, slots=True)
class _Sums:
    """The slope (u, v) of the likelihood, its curvature (a, b; b, c), how far the counts lie from those expected."""

    u: float
    v: float
    a: float
    b: float
    c: float
    scatter: float


def _sums(changes: Sequence[Change], shift: float, value: float) -> _Sums:
    u = v = a = b = c = scatter = 0.0
    for change in changes:
        odds = change.all_after / change.all_before * math.exp(shift + change.step * value)
        chance, pieces = odds / (1 + odds), change.sold_before + change.sold_after
        rest, weight = change.sold_after - pieces * chance, pieces * chance * (1 - chance)
        u, v = u + rest, v + rest * change.step
        a, b, c = a + weight, b + weight * change.step, c + weight * change.step**2
        scatter += rest**2 / weight if weight else 0.0
    return _Sums(u, v, a, b, c, scatter)


def _bounded(move: float) -> float:
    return max(-1.0, min(move, 1.0))
