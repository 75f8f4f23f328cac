"""The four promises under faults chosen by a seed, thousands of times; see `tests.simulation.run`.

One seed is one run: `SEED=17 python -m pytest tests/simulation/test_simulation.py` replays it, `SEEDS=100000` asks for
more of them.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.simulation.run import CRASH_POINTS, simulate

ONE = os.environ.get("SEED")
COUNT = int(os.environ.get("SEEDS", "2000"))
SIZE = 50
BATCHES = [range(int(ONE), int(ONE) + 1)] if ONE else [range(n, min(n + SIZE, COUNT)) for n in range(0, COUNT, SIZE)]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Stores that fail by design say so thousands of times."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seeds", BATCHES, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_whatever_goes_wrong_each_record_is_landed_once_and_readers_see_whole_transactions(seeds: range) -> None:
    seen: Counter[str] = Counter()
    for seed in seeds:
        seen += simulate(seed)
    if len(seeds) == SIZE:
        assert seen["reads"] > SIZE // 12


@pytest.mark.skipif(ONE is not None, reason="one seed has few faults")
def test_every_kind_of_fault_happens() -> None:
    seen: Counter[str] = Counter()
    for seed in range(120):
        seen += simulate(seed)
    wanted = {f"killed at {point}" for point in CRASH_POINTS}
    wanted |= {f"the store failed {step}" for step in ("before the data file", "before the commit", "after the commit")}
    wanted |= {"killed between steps", "rebalance", "a late writer was fenced"}
    assert wanted <= seen.keys()


@pytest.mark.slow
def test_the_promises_hold_in_many_more_runs() -> None:
    for seed in range(COUNT, COUNT + 20_000):
        simulate(seed)
