"""Freshness is what was seen: first sight of each committed order, and those never seen are named."""

from __future__ import annotations

from collections.abc import Collection

from cdc_lake.local.retail.freshness import Watch
from cdc_lake.local.retail.shop import Effect


class Lake:
    """A clock that moves one second with each look, and orders that are visible three seconds after their commit."""

    def __init__(self) -> None:
        self.now = 0.0
        self.commits: dict[int, float] = {}
        self.lost: set[int] = set()
        self.watch = Watch(self.visible, clock=self.tick, pause=0)
        self.next_order = 1

    def tick(self) -> float:
        self.now += 0.5
        if self.next_order <= 40:
            self.commits[self.next_order] = self.now
            self.watch.committed(Effect("sale", {}, self.next_order), self.now)
            self.watch.committed(Effect("price", {}, 999), self.now)
            self.next_order += 1
        return self.now

    def visible(self, orders: Collection[int]) -> list[int]:
        return [o for o in orders if self.commits[o] + 3 <= self.now and o not in self.lost]


def test_a_delay_counts_from_the_commit_to_the_look_that_saw_it() -> None:
    lake = Lake()
    seen = lake.watch.observe(10)
    assert seen.missing == 0
    assert seen.samples > 5
    assert 3 <= seen.p50 <= seen.p95 <= seen.worst <= 5


def test_an_order_that_never_shows_is_missing_and_not_left_out() -> None:
    lake = Lake()
    lake.lost = {4, 5}
    seen = lake.watch.observe(10, grace=5)
    assert seen.missing == 2


def test_orders_of_before_and_after_the_watch_do_not_count() -> None:
    lake = Lake()
    lake.watch.committed(Effect("sale", {}, 1_000), 0.0)
    seen = lake.watch.observe(5, grace=20)
    assert seen.missing == 0
    assert seen.samples < 15


def test_nothing_seen_is_no_samples() -> None:
    lake = Lake()
    lake.next_order = 41
    assert lake.watch.observe(1).samples == 0
