"""A running sink as those see it who watch it: numbers and readiness over HTTP, its log by machine, live changes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.projects import Project, make_project
from tests.terminals import terminal

Eventually = Callable[..., Any]


@pytest.fixture
def project(stack: Any, database: Any, tmp_path: Path) -> Iterator[Project]:
    database.execute(
        "create table stores (id int primary key, name text)", "insert into stores values (1, 'Oslo'), (2, 'Bergen')"
    )
    with make_project(tmp_path / "shop", database.dsn, stack.bootstrap, stack.connect_url) as made:
        made.register()
        yield made


def lines(project: Project) -> list[dict[str, Any]]:
    """What the sink logged; a line that is no JSON object fails the test."""
    return [json.loads(line) for line in project.log("sink.log").splitlines()]


def landed(address: str) -> float:
    """How many events of the table the sink says have landed."""
    families = text_string_to_metric_families(httpx.get(f"http://{address}/metrics").raise_for_status().text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "cdc_lake_events_landed_total" and sample.labels["table"] == "public.stores"
    )


def test_a_sink_tells_its_numbers_its_readiness_and_each_flush_to_machines(
    project: Project, database: Any, eventually: Eventually
) -> None:
    sink = project.start("sink", "run", "--metrics", "127.0.0.1:0", "--log", "json", log_file="sink.log")

    def address() -> str:
        (found,) = [line["address"] for line in lines(project) if line["message"] == "serving"]
        return str(found)

    try:
        eventually(lambda: "serving" in project.log("sink.log"), "the sink to serve", seconds=120)
        url = f"http://{address()}"
        eventually(lambda: httpx.get(f"{url}/readyz").status_code == 200, "the sink to be ready", seconds=120)
        eventually(lambda: landed(address()) == 2, "the snapshot to be counted", seconds=120)
        database.execute("insert into stores values (3, 'Bodø')")
        eventually(lambda: landed(address()) == 3, "the new row to be counted", seconds=120)
        assert httpx.get(f"{url}/healthz").status_code == 200

        project.ok("connector", "pause", project.name)
        eventually(lambda: httpx.get(f"{url}/readyz").status_code == 503, "the sink to be unready", seconds=120)
        checks = httpx.get(f"{url}/readyz").json()["checks"]
        assert [c["check"] for c in checks if not c["ok"]] == ["source"]
        project.ok("connector", "resume", project.name)
        eventually(lambda: httpx.get(f"{url}/readyz").status_code == 200, "the sink to be ready again", seconds=120)
    finally:
        sink.send_signal(signal.SIGTERM)
        assert sink.wait(60) == 0
    said = lines(project)
    flushes = [line for line in said if line["message"] == "flushed"]
    assert len({line["run_id"] for line in said}) == 1
    assert [line["batch_id"] for line in flushes] == sorted({line["batch_id"] for line in flushes})
    assert all({"ts", "level", "logger"} <= line.keys() for line in said)
    assert sum(line["events"] for line in flushes) >= 3
    assert flushes[-1]["source"] == project.name


def test_changes_are_followed_on_a_terminal_until_ctrl_c(project: Project, database: Any) -> None:
    project.ok("sink", "run", "--until-caught-up")
    sink = project.start("sink", "run")
    try:
        with terminal(project.folder, "changes", "stores", "--follow") as screen:
            assert "Oslo" in screen.until("Bergen")
            database.execute("update stores set name = 'Tromsø' where id = 1")
            assert "update" in screen.until("name=Tromsø")
            screen.type("\x03")
            assert screen.ends() == 130
            assert "Traceback" not in screen.text
    finally:
        sink.send_signal(signal.SIGTERM)
        assert sink.wait(60) == 0
