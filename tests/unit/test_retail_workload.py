"""The parts of the workload that need no database: its pace, its counts, its mix."""

from __future__ import annotations

from random import Random

import pytest

from cdc_lake.errors import UnavailableError, UsageError
from cdc_lake.local.retail.shop import Refused, Shop
from cdc_lake.local.retail.transactions import MIX
from cdc_lake.local.retail.workload import Pacer, Stats, Workload


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_pace_does_not_wait_for_the_last_transaction_to_end() -> None:
    clock = Clock()
    pacer = Pacer(10, clock=clock)
    assert [round(pacer.next(), 3) for _ in range(3)] == [0, 0.1, 0.2]
    clock.now += 0.5
    assert round(pacer.next(), 3) == -0.2
    assert pacer.skipped == 0


def test_a_backlog_beyond_its_bound_is_skipped_and_counted() -> None:
    clock = Clock()
    pacer = Pacer(10, backlog=1, clock=clock)
    clock.now += 3
    late = pacer.next()
    assert -1 <= late <= 0
    assert pacer.skipped == 21


def test_net_rows_are_inserts_less_deletes() -> None:
    rows = {"orders": {"insert": 5, "update": 9, "delete": 2}}
    stats = Stats(1.0, {"sale": 5, "cancel": 2}, rows, (), 0, 0, 0, 0, 0)
    assert stats.net_rows("orders") == 3
    assert stats.net_rows("stores") == 0
    assert stats.transactions == 7


def test_the_mix_adds_up_to_a_hundred() -> None:
    assert sum(weight for _, weight in MIX.values()) == 100


def test_an_empty_shop_refuses_instead_of_failing() -> None:
    shop = Shop.__new__(Shop)
    shop.products, shop.customers = [], []
    for choose in (shop.product, shop.customer):
        with pytest.raises(Refused):
            choose(Random(1))


@pytest.mark.parametrize(("rate", "workers"), [(0, 1), (-1, 1), (5, 0)])
def test_a_rate_or_a_number_of_workers_that_cannot_work_is_refused(rate: float, workers: int) -> None:
    with pytest.raises(UsageError):
        Workload("postgresql://nowhere", rate=rate, workers=workers)


def test_a_database_that_is_away_is_named_without_its_password() -> None:
    with pytest.raises(UnavailableError) as caught:
        Workload("postgresql://shop:hunter2@127.0.0.1:1/pos")
    assert "hunter2" not in str(caught.value.as_dict())
