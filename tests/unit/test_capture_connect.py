"""The client of Connect's REST interface: patient with a worker that is busy, plain when there is none."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from cdc_lake.capture.connect import ConnectClient
from cdc_lake.errors import ConnectorError, UnavailableError

Handler = Callable[[httpx.Request], httpx.Response]
URL = "http://someone:hunter2@connect.test:8083"


def client(handler: Handler) -> ConnectClient:
    return ConnectClient(URL, transport=httpx.MockTransport(handler))


def answer(routes: dict[str, object]) -> Handler:
    def handle(request: httpx.Request) -> httpx.Response:
        found = routes.get(f"{request.method} {request.url.path}")
        if found is None:
            return httpx.Response(404, json={"error_code": 404, "message": "not found"})
        return httpx.Response(200, json=found)

    return handle


def test_a_worker_that_does_not_answer_is_named_without_its_credentials() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno 111] Connection refused", request=request)

    with client(refuse) as connect, pytest.raises(UnavailableError) as error:
        connect.plugins()
    assert "http://connect.test:8083" in error.value.message
    assert "hunter2" not in f"{error.value.message}{error.value.why}{error.value.next}"
    assert error.value.next


def test_a_real_closed_port_is_unavailable_too() -> None:
    with ConnectClient("http://127.0.0.1:1") as connect, pytest.raises(UnavailableError):
        connect.names()


def test_something_else_on_the_port_is_recognised() -> None:
    def page(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="<html>hello</html>")

    with client(page) as connect, pytest.raises(UnavailableError, match="not Kafka Connect"):
        connect.plugins()


def test_a_lost_connection_is_tried_again() -> None:
    calls: list[str] = []

    def flaky(request: httpx.Request) -> httpx.Response:
        calls.append(request.url.path)
        if len(calls) == 1:
            raise httpx.ReadError("reset", request=request)
        return httpx.Response(200, json=["pos"])

    with client(flaky) as connect:
        assert connect.names() == ["pos"]
    assert len(calls) == 2


def test_a_rebalancing_worker_is_waited_for() -> None:
    calls: list[int] = []

    def busy(_: httpx.Request) -> httpx.Response:
        calls.append(1)
        if len(calls) < 3:
            return httpx.Response(409, json={"error_code": 409, "message": "rebalance expected"})
        return httpx.Response(200, json={"name": "pos", "config": {}})

    with client(busy) as connect:
        connect.put_config("pos", {})
    assert len(calls) == 3


def test_an_unknown_connector_suggests_the_near_one() -> None:
    with client(answer({"GET /connectors": ["pos", "hr"]})) as connect:
        for call in (connect.status, connect.pause, connect.delete, connect.offsets):
            with pytest.raises(ConnectorError) as error:
                call("poss")
            assert error.value.why == 'Did you mean "pos"?'


def test_a_name_with_a_slash_stays_one_part_of_the_path() -> None:
    seen: list[bytes] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path)
        return httpx.Response(200, json={"a": "b"})

    with client(handle) as connect:
        connect.config("a/b c")
    assert seen == [b"/connectors/a%2Fb%20c/config"]


def test_a_status_runs_only_when_all_tasks_run() -> None:
    def status(*tasks: str) -> dict[str, object]:
        listed = [{"id": i, "state": s, "worker_id": "w", "trace": "T"} for i, s in enumerate(tasks)]
        return {"connector": {"state": "RUNNING", "worker_id": "w"}, "tasks": listed}

    for tasks, running, failure in (
        ((), False, None),
        (("RUNNING",), True, None),
        (("RUNNING", "UNASSIGNED"), False, None),
        (("FAILED",), False, "T"),
    ):
        with client(answer({"GET /connectors/pos/status": status(*tasks)})) as connect:
            found = connect.status("pos")
        assert (found.running, found.failure) == (running, failure), tasks


def test_validation_tells_refused_settings_and_all_known_names() -> None:
    configs = [
        {
            "definition": {"name": "slot.name"},
            "value": {"name": "slot.name", "errors": ["bad"], "recommended_values": ["a"]},
        },
        {"definition": {"name": "plugin.name"}, "value": {"name": "plugin.name", "errors": []}},
    ]
    routes: dict[str, object] = {"PUT /connector-plugins/x.Y/config/validate": {"configs": configs}}
    with client(answer(routes)) as connect:
        found = connect.validate({"connector.class": "x.Y"})
    assert [(e.name, e.errors, e.allowed) for e in found.errors] == [("slot.name", ("bad",), ("a",))]
    assert found.known == {"slot.name", "plugin.name"}


def test_a_refusal_keeps_connects_own_words() -> None:
    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"error_code": 400, "message": "Connectors must be in the STOPPED state"})

    with client(handle) as connect, pytest.raises(ConnectorError) as error:
        connect.reset_offsets("pos")
    assert "STOPPED state" in error.value.why


def test_an_unreadable_secrets_file_is_explained() -> None:
    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(500, json={"error_code": 500, "message": "Could not read properties from file /run/x"})

    with client(handle) as connect, pytest.raises(ConnectorError) as error:
        connect.put_config("pos", {})
    assert (error.value.code, "/run/x" in error.value.message) == ("secrets_unreadable", True)


def test_waiting_ends_at_its_deadline_with_the_last_status() -> None:
    with client(answer({})) as connect:
        assert connect.wait("pos", lambda status: status is not None, seconds=0.01) is None
