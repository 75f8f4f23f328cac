"""Skewed choice: a few stores, products and customers make most of the trade, as in life."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import Generic, TypeVar

T = TypeVar("T")


class Zipf(Generic[T]):
    """Picks items with a weight of 1 / rank ** skew, the first item the most often."""

    def __init__(self, items: Sequence[T], skew: float = 0.9) -> None:
        self.items = items
        self._heights = list(accumulate(1 / rank**skew for rank in range(1, len(items) + 1)))

    def pick(self, rng: Random) -> T:
        """One item. IndexError when there are none."""
        return self.items[self._index(rng)]

    def pick_some(self, rng: Random, count: int) -> list[T]:
        """Up to `count` different items, in no order of rank."""
        chosen = {self._index(rng) for _ in range(count)}
        return [self.items[i] for i in chosen]

    def _index(self, rng: Random) -> int:
        return min(bisect(self._heights, rng.random() * self._heights[-1]), len(self.items) - 1)


def by_popularity(ids: Sequence[int], seed: int) -> list[int]:
    """The same ids, most popular first: an order that the loader and the workload share through the seed."""
    return sorted(ids, key=lambda number: Random(f"{seed}:{number}").random())
