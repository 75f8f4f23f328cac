"""How long a committed order takes until readers see it, by watching: commit a sale, ask the lake until it is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from cdc_lake.local.retail.shop import Effect

Visible = Callable[[Collection[int]], Collection[int]]


@dataclass(frozen=True, slots=True)
class Freshness:
    """Seconds from just before COMMIT was sent to the end of the first query that saw the order.

    `missing` orders were committed and never seen: zero, unless something is broken.
    """

    samples: int
    missing: int
    p50: float
    p95: float
    worst: float


class Watch:
    """Hears of commits from the workload's threads; asks from its own.

    The question itself takes time, and so does waiting for one's turn to ask: both are part of the answer. `news` says
    whether to ask: a reader that asks while nothing has landed keeps the machine from landing it.
    """

    def __init__(
        self,
        visible: Visible,
        *,
        news: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        pause: float = 0.02,
    ) -> None:
        self._visible = visible
        self._news = news
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._pending: dict[int, float] = {}
        self._listening = False

    def committed(self, effect: Effect, before: float) -> None:
        """An effect whose COMMIT was sent at `before`; only sales count."""
        if effect.kind == "sale" and self._listening:
            with self._lock:
                self._pending[effect.key] = before

    def observe(self, seconds: float, *, grace: float = 60) -> Freshness:
        """Watch the orders of the next `seconds` until all are seen; those not seen after `grace` more are missing."""
        began = self._clock()
        self._listening = True
        taken: list[float] = []
        while True:
            now = self._clock()
            self._listening = now < began + seconds
            with self._lock:
                waiting = list(self._pending)
            if not self._listening and (not waiting or now > began + seconds + grace):
                return _summary(taken, len(waiting))
            if waiting and self._news():
                taken += self._look(waiting)
            time.sleep(self._pause)

    def _look(self, waiting: Collection[int]) -> list[float]:
        seen = self._visible(waiting)
        now = self._clock()
        with self._lock:
            return [now - self._pending.pop(order) for order in seen]


def _summary(taken: list[float], missing: int) -> Freshness:
    ordered = sorted(taken)
    if not ordered:
        return Freshness(0, missing, 0.0, 0.0, 0.0)
    # Nearest rank: a delay that was really seen, never one between two.
    return Freshness(len(ordered), missing, ordered[len(ordered) // 2], ordered[len(ordered) * 95 // 100], ordered[-1])
