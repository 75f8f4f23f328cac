"""The page of benchmarks says what was measured, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import document, report
from benchmarks.__main__ import BENCHMARKS
from benchmarks.report import RESULTS, Report


def test_the_page_is_what_the_results_say() -> None:
    assert document.PAGE.read_text(encoding="utf-8") == document.page()


def test_every_result_is_of_a_benchmark_that_can_be_run_again() -> None:
    found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in RESULTS.glob("*.json")}
    assert found
    assert {name: BENCHMARKS[name].question for name in found} == {n: r["question"] for n, r in found.items()}


def test_figures_are_printed_kept_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(document, "RESULTS", tmp_path)
    found = Report("fold", "How fast?", 10)
    table = found.table("Of ten rows", **{"what": "", "rows/s": ",.0f"})
    table.add("a loop", 12345.6)
    table.add("nothing", None)
    found.note("On one machine.")
    found.save()
    assert "12,346" in capsys.readouterr().out
    page = document.page()
    assert "## How fast?" in page
    assert "| a loop | 12,346 |" in page
    assert "| nothing |  |" in page
    assert "- On one machine." in page
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        table.add("too few")
