"""The shared stack, and a project for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Database, RunningStack, database, eventually, stack
from tests.projects import Project, make_project

__all__ = ["database", "eventually", "stack"]


@pytest.fixture
def project(stack: RunningStack, database: Database, tmp_path: Path) -> Iterator[Project]:
    """A project on an empty database of the shared stack."""
    with make_project(tmp_path / "project", database.dsn, stack.bootstrap, stack.connect_url) as made:
        yield made
