"""What a person reads who asks how it is, or whom a command left with nothing: what is wrong, and what mends it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cdc_lake.cli.stack_status import show, stack_lines
from cdc_lake.config import load_config
from cdc_lake.land import layout
from tests.commands import said
from tests.lake_model import SOURCE, Feed
from tests.unit.test_rules_run import SALES, go_on

ROOT = Path(__file__).parents[2]
# What Connect says of the connector's state and of its task's; None: it has no such connector.
STATE: dict[str, tuple[str, str] | None] = {"now": ("RUNNING", "RUNNING")}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    class Connect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state = STATE["now"]
            self.send_response(200 if state else 404)
            self.end_headers()
            if state is None:
                self.wfile.write(b'{"error_code": 404, "message": "No status found"}')
                return
            connector, task = state
            where = {"worker_id": "127.0.0.1:1"}
            trace = {"trace": "java.lang.Exception: lost"} if task == "FAILED" else {}
            tasks = [{"id": 0, "state": task, **where, **trace}]
            answer = {"name": "pos", "connector": {"state": connector, **where}, "tasks": tasks, "type": "source"}
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Connect)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    (tmp_path / "connectors").mkdir()
    shutil.copy(ROOT / "connectors" / "pos.json", tmp_path / "connectors")
    url = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "cdc-lake.yaml").write_text(
        f"source: {{name: {SOURCE}, connector: connectors/pos.json}}\nlake: {{uri: ./lake}}\n"
        f"connect: {{url: '{url}'}}\n"
    )
    yield tmp_path
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, "No connector pos is registered. Next: cdc-lake connector register connectors/pos.json"),
        (("RUNNING", "FAILED"), "The connector pos has failed. Next: cdc-lake connector status pos"),
        (("PAUSED", "PAUSED"), "The connector pos is paused. Next: cdc-lake connector resume pos"),
        (("STOPPED", "STOPPED"), "The connector pos is stopped. Next: cdc-lake connector resume pos"),
    ],
)
@pytest.mark.parametrize("landed", [False, True])
def test_status_names_a_connector_that_captures_nothing_and_what_starts_it(
    project: Path, capfd: pytest.CaptureFixture[str], state: tuple[str, str] | None, words: str, landed: bool
) -> None:
    if landed:
        go_on(Feed(project, (SALES,)), 1)
    STATE["now"] = state
    told = said(project, "status", capfd=capfd)
    assert words in told
    assert "cdc-lake sink run" not in told


def test_status_says_nothing_of_a_connector_that_runs(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    STATE["now"] = ("RUNNING", "RUNNING")
    told = said(project, "status", capfd=capfd)
    assert "No table has landed yet.\nThe embedded postgres is stopped, kafka is stopped: nothing new lands" in told
    assert "connector" not in told
    go_on(Feed(project, (SALES,)), 1)
    assert "connector" not in said(project, "status", capfd=capfd)


def test_status_of_an_empty_lake_names_the_sink_where_nothing_else_is_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    show({"tables": []})
    assert capfd.readouterr().err == "No table has landed yet. Next: cdc-lake sink run\n"


def test_a_project_with_a_kafka_of_its_own_is_not_shown_an_embedded_stack(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    STATE["now"] = ("RUNNING", "RUNNING")
    assert "postgres" in said(project, "status", capfd=capfd)
    with (project / "cdc-lake.yaml").open("a") as file:
        file.write("kafka: {bootstrap: '127.0.0.1:1'}\n")
    assert "postgres" not in said(project, "status", capfd=capfd)


@pytest.mark.parametrize(
    ("kafka", "connect", "words"),
    [
        ("dead", "not answering", "kafka is dead, connect is not answering: nothing new lands, and nothing is lost."),
        ("running", "running", ""),
    ],
)
def test_status_says_which_part_of_the_embedded_stack_is_away_and_what_starts_it(
    tmp_path: Path, kafka: str, connect: str, words: str
) -> None:
    file = tmp_path / "cdc-lake.yaml"
    file.write_text("source: {name: pos, connector: connectors/pos.json, dsn: 'postgresql://127.0.0.1:1/pos'}\n")
    parts = {"postgres": {"state": "stopped"}, "kafka": {"state": kafka}, "connect": {"state": connect}}
    assert stack_lines(load_config(file), parts) == ([f"The embedded {words} Next: cdc-lake up"] if words else [])


def test_a_table_that_cannot_be_read_is_not_shown_as_an_empty_one_alone(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    STATE["now"] = ("RUNNING", "RUNNING")
    go_on(Feed(project, (SALES,)), 1)
    log = Path(layout.log_path(str(project / "lake"), SOURCE, SALES))
    (newest,) = (log / "_delta_log").glob("*0.json")
    newest.write_text(newest.read_text()[:40])
    told = said(project, "status", capfd=capfd)
    assert f"public.sales: The Delta table {log} cannot be read. Next: cdc-lake doctor" in told


def test_a_query_of_a_table_whose_file_is_gone_says_what_to_do_next(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    go_on(Feed(project, (SALES,)), 1)
    log = Path(layout.log_path(str(project / "lake"), SOURCE, SALES))
    for file in log.glob("*.parquet"):
        file.unlink()
    told = said(project, "query", "SELECT count(*) FROM changes.public.sales", capfd=capfd)
    assert "Error: public.sales cannot be read: a data file of it is missing or damaged." in told
    assert "\n  next: put the file back; if it belongs to the read model: cdc-lake rebuild public.sales" in told
