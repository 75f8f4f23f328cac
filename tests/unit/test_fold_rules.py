"""What a fold rewrites follows from the size of the change, not from that of the table."""

from __future__ import annotations

import pytest

from cdc_lake.project.rules import Cost, file_rows, patch_pays, small_files, whole_pays


def test_few_rows_are_rewritten_without_a_patch() -> None:
    assert not patch_pays(Cost(changed=10, patch=10, rewritten=150_000, folded=150_000))


def test_changes_that_touch_little_else_are_written_into_the_files() -> None:
    assert not patch_pays(Cost(changed=100_000, patch=100_000, rewritten=290_000, folded=10_000_000))


def test_changes_all_over_a_large_table_become_a_patch() -> None:
    assert patch_pays(Cost(changed=100_000, patch=100_000, rewritten=10_000_000, folded=10_000_000))


def test_a_patch_that_has_grown_to_a_share_of_the_table_is_merged_into_it() -> None:
    assert not patch_pays(Cost(changed=100_000, patch=1_250_000, rewritten=10_000_000, folded=10_000_000))


@pytest.mark.parametrize("change", [1_000, 10_000, 100_000])
def test_folding_random_changes_for_ever_writes_each_row_a_bounded_number_of_times(change: int) -> None:
    rows, written, patch = 10_000_000, 0, 0
    folds = 3 * rows // change // 8
    for _ in range(folds):
        patch += change
        if patch_pays(Cost(change, patch, rows, rows)):
            written += patch
        else:
            written, patch = written + rows, 0

    # A patch grows from nothing to an eighth of the table and is written each time; the table once in each round.
    assert written <= folds * change * (rows / change / 16 + 8 + 1)


def test_a_tables_files_stay_few_and_small_enough_for_recent_keys() -> None:
    assert file_rows(1_000) == file_rows(10_000_000) == 65_536
    assert 100_000_000 / file_rows(100_000_000) <= 200


def test_small_files_are_merged_when_there_are_too_many() -> None:
    assert small_files([10] * 8, 100, ()) == []
    assert small_files([10] * 9 + [80], 100, {0}) == []
    assert small_files([10] * 10 + [80], 100, {0}) == list(range(1, 10))


def test_as_many_changes_as_rows_are_not_looked_through() -> None:
    assert whole_pays(10, 10)
    assert not whole_pays(9, 10)
