"""Made-up demand with the shape of real one: by weekday, hour and season, skewed over stores and products, promoted.

All of it is a function of the seed and of time: the same seed gives the same demand, wherever it is asked for.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import accumulate
from random import Random

from cdc_lake.local.retail.zipf import Zipf, by_popularity

# Shares of the average, Monday first, and by hour; each averages to one.
_WEEKDAYS = (0.80, 0.82, 0.88, 0.95, 1.25, 1.50, 0.80)
_TILL_HOURS = (0, 0, 0, 0, 0, 0, 0.3, 0.9, 1.4, 1.7, 1.9, 2.1, 2.3, 2.0, 1.8, 1.8, 2.0, 2.3, 2.0, 1.2, 0.3, 0, 0, 0)
_WEB_HOURS = (
    0.4,
    0.2,
    0.1,
    0.1,
    0.1,
    0.2,
    0.4,
    0.7,
    0.9,
    1.0,
    1.1,
    1.2,
    1.3,
    1.2,
    1.1,
    1.1,
    1.2,
    1.3,
    1.6,
    2.0,
    2.3,
    2.2,
    1.5,
    0.8,
)
# The days before Christmas, over the wave of the year.
_PEAK_DAY, _PEAK_WIDTH, _PEAK, _WAVE = 354, 9.0, 1.1, 0.12


@dataclass(frozen=True, slots=True)
class Promotion:
    """A product that sells `factor` times as often from `first` to `last`, for `price_cents` in place of its own."""

    product: int
    first: date
    last: date
    factor: float
    price_cents: int


@dataclass(slots=True)
class Demand:
    """Who buys what, where, when. Products and stores are ids; the most popular ones are chosen by the seed."""

    seed: int
    stores: Sequence[int]
    products: Sequence[int]
    _busy: Zipf[int] = field(init=False)
    _ranked: list[int] = field(init=False)
    _days: dict[date, list[float]] = field(default_factory=dict)
    _weeks: dict[date, list[Promotion]] = field(default_factory=dict)
    _prices: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._busy = Zipf(by_popularity(self.stores, self.seed), skew=0.5)
        self._ranked = by_popularity(self.products, self.seed)

    def level(self, at: datetime, *, online: bool = False) -> float:
        """How much is bought at a moment, of which the year's average is about one."""
        hours = _WEB_HOURS if online else _TILL_HOURS
        day = at.timetuple().tm_yday
        distance = min(abs(day - _PEAK_DAY), 366 - abs(day - _PEAK_DAY))
        season = (
            1 + _WAVE * math.sin(2 * math.pi * (day - 100) / 365) + _PEAK * math.exp(-((distance / _PEAK_WIDTH) ** 2))
        )
        into = at.minute / 60
        hour = hours[at.hour] * (1 - into) + hours[(at.hour + 1) % 24] * into
        return _WEEKDAYS[at.weekday()] * hour * season

    def store(self, rng: Random) -> int:
        """A store, busy ones more often."""
        return self._busy.pick(rng)

    def product(self, rng: Random, at: datetime) -> int:
        """A product, popular ones and those of a promotion more often."""
        heights = self._heights(at.date())
        return self._ranked[min(bisect(heights, rng.random() * heights[-1]), len(heights) - 1)]

    def price_cents(self, product: int, at: datetime) -> int:
        """What a product costs at a moment."""
        on = at.date()
        offers = [p.price_cents for p in self.promotions(on) if p.product == product and p.first <= on <= p.last]
        return min(offers, default=self._price(product))

    def promotions(self, on: date) -> list[Promotion]:
        """The promotions of the week of a day: one product in forty, for a few days each."""
        monday = on - timedelta(days=on.weekday())
        known = self._weeks.get(monday)
        if known is not None:
            return known
        rng = Random(f"{self.seed}:promotions:{monday}")
        found = []
        for product in rng.sample(self._ranked, max(1, len(self._ranked) // 40)):
            first = monday + timedelta(days=rng.randrange(3))
            price = max(5, self._price(product) * rng.choice((70, 75, 80, 90)) // 100)
            last = first + timedelta(days=rng.randint(2, 4))
            found.append(Promotion(product, first, last, rng.uniform(2, 6), price))
        self._weeks = {monday: found}
        return found

    def _price(self, product: int) -> int:
        if product not in self._prices:
            self._prices[product] = int(100 * math.exp(Random(f"{self.seed}:price:{product}").gauss(1.4, 0.8))) + 29
        return self._prices[product]

    def _heights(self, on: date) -> list[float]:
        known = self._days.get(on)
        if known is None:
            factors = {p.product: p.factor for p in self.promotions(on) if p.first <= on <= p.last}
            weights = (factors.get(p, 1.0) / rank**0.8 for rank, p in enumerate(self._ranked, start=1))
            known = self._days[on] = list(accumulate(weights))
            if len(self._days) > 16:
                self._days.pop(next(iter(self._days)))
        return known


def arrivals(rng: Random, mean: float) -> int:
    """How many of what comes at random come in a span in which `mean` are expected (Poisson)."""
    if mean > 60:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, count, product = math.exp(-mean), 0, rng.random()
    while product > limit:
        count += 1
        product *= rng.random()
    return count
