"""The prices notebook estimates the elasticity by which the sales were made, and says how sure it is."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
STEPS = (0.90, 0.95, 0.97, 1.03, 1.05, 1.12)


@pytest.fixture
def elasticity(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(NOTEBOOKS))
    sys.modules.pop("elasticity", None)
    import elasticity

    return elasticity


def sales(
    elasticity: Any, true: float, *, seed: int, changes: int = 300, shift: float = 1.0, noise: float = 0.0
) -> list[Any]:
    """Changes of prices; each piece falls behind the change with the chance that the elasticity `true` gives."""
    rng = Random(seed)
    made = []
    for _ in range(changes):
        step, before, after = rng.choice(STEPS), rng.randint(500, 2_000), rng.randint(500, 2_000)
        odds = after / before * shift * step**true * rng.lognormvariate(0, noise)
        pieces = rng.randint(0, 240)
        behind = sum(rng.random() < odds / (1 + odds) for _ in range(pieces))
        made.append(elasticity.Change(10.0, 10.0 * step, pieces - behind, behind, before, after))
    return made


@pytest.mark.parametrize("true", [-1.5, 0.0, 0.8])
def test_the_estimate_finds_the_elasticity_by_which_the_sales_were_made(elasticity: Any, true: float) -> None:
    found = elasticity.estimate(sales(elasticity, true, seed=1))
    assert abs(found.value - true) < found.error < 0.6
    assert found.sure == (true != 0)


def test_what_moves_all_products_whose_price_changed_is_not_taken_for_an_effect(elasticity: Any) -> None:
    found = elasticity.estimate(sales(elasticity, 0.0, seed=2, shift=1.7))
    assert not found.sure
    assert found.factor(1.0) == pytest.approx(1.7, rel=0.1)


def test_products_that_differ_for_other_reasons_make_the_range_wider(elasticity: Any) -> None:
    calm = elasticity.estimate(sales(elasticity, -1.0, seed=3))
    wild = elasticity.estimate(sales(elasticity, -1.0, seed=3, noise=1.0))
    assert wild.error > 1.5 * calm.error


def test_nothing_is_estimated_from_too_little(elasticity: Any) -> None:
    up = [elasticity.Change(10.0, 11.0, 5, 4, 100, 100)] * 5
    assert elasticity.estimate([]) is None
    assert elasticity.estimate(up) is None, "prices that only rise cannot be told from what else changed"
    assert elasticity.estimate([elasticity.Change(10.0, step * 10, 0, 0, 100, 100) for step in STEPS]) is None
