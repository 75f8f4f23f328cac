"""The demo as a user runs it: what it says is true, and nothing of it is left behind, however it ends."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cdc_lake.cli.demo_ask import ask_lake, ask_source, question
from cdc_lake.cli.demo_stage import Stage
from cdc_lake.config import STATE_FOLDER, load_config
from cdc_lake.local.retail.loader import TABLES
from tests.shapes import check_shape

pytestmark = pytest.mark.stack

EXAMPLES = Path(__file__).parents[2] / "examples" / "retail"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """An empty folder with a space in its name; whatever is left of its demo at the end is stopped and deleted."""
    folder = tmp_path / "my shop"
    folder.mkdir()
    yield folder
    Stage(folder / STATE_FOLDER / "demo").clear(lambda line: None)


def processes(folder: Path) -> list[psutil.Process]:
    """All that runs for a folder, by its name in the arguments."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            named = any(str(folder) in word for word in process.cmdline())
            if named and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cdc_lake", "demo", *words]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(folder: Path, *words: str) -> tuple[int, str, str]:
    demo = start(folder, *words)
    out, err = demo.communicate(timeout=900)
    return demo.returncode, out, err


def wait_for_line(demo: subprocess.Popen[str], text: str) -> None:
    assert demo.stderr is not None
    for line in demo.stderr:
        if text in line:
            return
    pytest.fail(f"the demo ended without saying: {text}")


def assert_each_step_names_the_one_before(world: dict[str, Any]) -> None:
    assert world["left_out"] == []
    links = {link["step"]: link for link in world["chain"]}
    assert links.keys() == {"sale", "change", "alert", "row", "scan", "reorder"}
    assert links["sale"]["id"] in links["change"]["cause"]
    assert links["alert"]["cause"] == links["change"]["cause"]
    assert links["row"]["cause"] == links["change"]["id"]
    assert links["scan"]["cause"] == links["row"]["id"]
    assert links["reorder"]["cause"] == links["scan"]["id"]
    assert links["reorder"]["correlation"] == links["scan"]["correlation"] == links["row"]["id"]
    times = [datetime.fromisoformat(link["at"]) for link in world["chain"]]
    assert times == sorted(times)


def assert_the_dashboard_shows(world: dict[str, Any], logs: Path) -> None:
    """To who has the token, which no log holds."""
    dashboard = world["dashboard"]
    assert httpx.get(f"{dashboard['url']}/api/state", trust_env=False).status_code == 401
    with httpx.Client(base_url=dashboard["url"], trust_env=False, follow_redirects=True) as page:
        assert page.get(dashboard["entry"]).status_code == 200
        assert world["alert"] in {alert["id"] for alert in page.get("/api/alerts").json()["alerts"]}
        shown = page.get("/api/views/purchase_orders").json()["rows"]
        assert world["purchase_order"] in {row[0] for row in shown}
    token = dashboard["entry"].partition("token=")[2]
    assert not [log for log in logs.iterdir() if token in log.read_text(errors="replace")]


def test_the_demo_proves_what_it_says_and_a_kept_one_answers_until_it_is_stopped(
    project: Path, eventually: Any
) -> None:
    code, out, err = run(project, "--keep", "--json", "--rows", "4000")
    assert code == 0, err
    told = json.loads(out)
    check_shape("demo", told)
    assert told["ok"] is True
    assert {table["table"] for table in told["verify"]} >= {f"public.{name}" for name in TABLES}
    assert all(table["missing"] == table["extra"] == table["different"] == 0 for table in told["verify"])
    assert [question["equal"] for question in told["questions"]] == [True, True]
    assert all(question["rows"] > 0 for question in told["questions"])
    assert told["freshness"]["samples"] > 20
    assert told["freshness"]["missing"] == 0
    assert {event["op"] for event in told["price_history"]} >= {"u"}
    assert told["deleted"]["rows_in_current"] == 0
    assert told["deleted"]["events_in_changes"][-1]["op"] == "d"
    assert len(told["steps"]) > 8
    assert_each_step_names_the_one_before(told["world"])

    config = load_config(project / STATE_FOLDER / "demo" / "cdc-lake.yaml", environ={})
    dsn = config.dsn(config.all_sources[0])
    background = [p for p in processes(project) if "cdc_lake.local.retail.workload" in p.cmdline()]
    assert len(background) == 1
    assert_the_dashboard_shows(told["world"], project / STATE_FOLDER / "demo" / STATE_FOLDER / "logs")
    orders = "SELECT count(*) FROM orders"
    before = ask_lake(config, orders)
    eventually(lambda: ask_lake(config, orders) != before, "the kept demo to go on trading")
    background[0].terminate()
    background[0].wait(30)
    files = sorted(EXAMPLES.glob("*.sql"))
    assert len(files) >= 6
    texts = {file.stem: file.read_text() for file in files}
    texts |= {name: question(name) for name in ("low_stock", "sales_today")}
    for name, sql in texts.items():
        source = ask_source(dsn, sql)
        assert source.rows or name == "out_of_balance", name
        eventually(lambda sql=sql, source=source: ask_lake(config, sql) == source, f"the same answer to {name}")

    code, _, err = run(project, "--stop")
    assert code == 0, err
    assert processes(project) == []


def test_ctrl_c_stops_all_that_was_started(project: Path) -> None:
    demo = start(project, "--rows", "1000")
    wait_for_line(demo, "✓ Load a retailer")
    assert len(processes(project)) >= 3
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=120)
    assert demo.returncode == 130
    assert processes(project) == []


def test_a_closed_terminal_stops_all_that_was_started(project: Path) -> None:
    demo = start(project, "--rows", "1000")
    wait_for_line(demo, "Kafka")
    assert demo.stdout is not None
    assert demo.stderr is not None
    demo.stdout.close()
    demo.stderr.close()
    demo.send_signal(signal.SIGHUP)
    demo.wait(timeout=120)
    assert demo.returncode != 0
    assert processes(project) == []


def test_a_failure_stops_all_that_was_started_and_says_why(project: Path) -> None:
    demo = start(project, "--rows", "1000")
    wait_for_line(demo, "✓ Start the sink")
    (sink,) = [p for p in processes(project) if "sink" in p.cmdline()]
    sink.kill()
    _, err = demo.communicate(timeout=900)
    assert demo.returncode == 1
    assert "sink has ended by itself" in err
    assert "Traceback" not in err
    assert processes(project) == []


def test_a_part_of_the_world_that_fails_ends_the_demo_and_is_named(project: Path) -> None:
    demo = start(project, "--rows", "1000")
    wait_for_line(demo, "✓ Close the shops")
    rules: list[psutil.Process] = []
    last = time.monotonic() + 120
    while not rules and time.monotonic() < last and demo.poll() is None:
        rules = [p for p in processes(project) if "rules" in p.cmdline()]
    rules[0].kill()
    _, err = demo.communicate(timeout=900)
    assert demo.returncode == 1
    assert "rules has ended by itself" in err
    assert processes(project) == []


def test_what_a_killed_demo_left_running_is_stopped_on_demand(project: Path) -> None:
    demo = start(project, "--rows", "1000")
    wait_for_line(demo, "✓ Start PostgreSQL")
    demo.kill()
    demo.communicate()
    assert processes(project)
    second = start(project, "--stop")
    _, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert processes(project) == []


def test_a_second_demo_in_the_same_folder_is_refused_while_the_first_one_plays(project: Path) -> None:
    first = start(project, "--rows", "1000")
    wait_for_line(first, "✓ Clear away")
    code, _, err = run(project)
    assert code == 1
    assert "Another demo is running" in err
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=120)
    assert processes(project) == []
