"""What a person does to a lake of `lake_model`: fold all of it, and run a command in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.cli import main as cli
from cdc_lake.cli import output
from cdc_lake.project.fold import fold_source
from cdc_lake.project.lake import Lake
from tests.lake_model import SOURCE


def fold(folder: Path) -> None:
    """Fold every table of the lake in a folder."""
    outcomes = {d.outcome for d in fold_source(Lake(str(folder / "lake")), SOURCE, lambda _table: True)}
    assert outcomes <= {"folded", "current"}


def run(folder: Path, *words: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    """A command of this process, and its JSON."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(["--config", str(folder / "cdc-lake.yaml"), "--json", *words])
    output.configure(config=None, as_json=False, verbosity=0)
    text = capfd.readouterr().out
    return int(stop.value.code or 0), json.loads(text) if text else None


def said(folder: Path, *words: str, capfd: pytest.CaptureFixture[str]) -> str:
    """A command of this process, and all that it prints for a person."""
    capfd.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["--config", str(folder / "cdc-lake.yaml"), *words])
    output.configure(config=None, as_json=False, verbosity=0)
    both = capfd.readouterr()
    return both.out + both.err
