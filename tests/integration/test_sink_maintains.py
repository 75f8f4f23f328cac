"""A sink that runs keeps its lake in shape: files are merged and folded while people trade, and nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from cdc_lake.cli import caretaker
from cdc_lake.cli.caretaker import Caretaker, maintain_command
from cdc_lake.cli.sink_runner import build_sink
from cdc_lake.config import load_config
from cdc_lake.events import TableId
from cdc_lake.land.layout import current_path, log_path
from cdc_lake.local.retail.loader import create_schema, load
from cdc_lake.local.retail.rows import Size
from cdc_lake.local.retail.workload import Workload
from tests.integration.conftest import Database, RunningStack, wait_for
from tests.projects import Project, make_project

INVENTORY = TableId("public", "inventory")


@pytest.fixture
def shop(stack: RunningStack, database: Database, tmp_path: Path) -> Iterator[Project]:
    create_schema(database.dsn)
    load(database.dsn, Size.for_rows(1500))
    with make_project(tmp_path / "shop", database.dsn, stack.bootstrap, stack.connect_url) as project:
        project.register()
        yield project


def operations(path: str) -> list[str]:
    """What the commits of a Delta table did, oldest first."""
    return [str(entry["operation"]) for entry in reversed(DeltaTable(path).history())]


def test_a_running_sink_merges_its_files_and_folds(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caretaker, "_LEAST_SECONDS", 0.0)
    file = shop.folder / "cdc-lake.yaml"
    config = load_config(file)
    sink = build_sink(config, config.all_sources[0])
    lands = threading.Thread(target=sink.run, kwargs={"until_caught_up": False})
    workload = Workload(shop.dsn, rate=50)
    log, current = (p(config.lake_uri, shop.name, INVENTORY) for p in (log_path, current_path))
    lands.start()
    try:
        with Caretaker(lambda: sink.progress.commits, maintain_command(str(file), 256)):
            workload.start()
            # Maintenance has what the processors have left, which is little beside other tests.
            wait_for(
                lambda: DeltaTable.is_deltatable(log) and "OPTIMIZE" in operations(log),
                "files to be merged",
                seconds=300,
            )
            merged = sink.progress.commits
            wait_for(lambda: sink.progress.commits > merged, "the sink to go on", seconds=60)
    finally:
        workload.stop()
        sink.stop()
        lands.join()
    assert DeltaTable(current).version() >= 0, "folded"
    shop.ok("sink", "run", "--until-caught-up")
    assert shop.verify()["ok"]
