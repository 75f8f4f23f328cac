"""Kafka Connect over its REST interface.

Every call has a timeout. An unreachable worker is tried again a few times and then an UnavailableError; a worker that
is rebalancing (409) is waited for until a deadline. Calls that change something are idempotent in Connect, so that
repeating one after a lost answer is safe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from cdc_lake.capture.failures import explain
from cdc_lake.errors import ConnectorError, UnavailableError, suggest

_REBALANCE_SECONDS = 60.0
_PAUSES = (0.2, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One task of a connector; `trace` is Java's stack trace when it failed."""

    id: int
    state: str
    worker: str
    trace: str = ""


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """What Connect says about a connector: RUNNING, PAUSED, STOPPED, FAILED, UNASSIGNED or RESTARTING."""

    name: str
    state: str
    worker: str
    tasks: tuple[TaskStatus, ...]
    trace: str = ""

    @property
    def failure(self) -> str | None:
        """The stack trace of the connector or of its first failed task; None when nothing failed."""
        if self.state == "FAILED":
            return self.trace
        return next((t.trace for t in self.tasks if t.state == "FAILED"), None)

    @property
    def running(self) -> bool:
        """Whether the connector and all of its tasks, at least one, run."""
        return self.state == "RUNNING" and bool(self.tasks) and all(t.state == "RUNNING" for t in self.tasks)

    def reached(self, state: str) -> bool:
        """Whether the connector and every task it has are in `state`; a stopped connector has none."""
        if state == "RUNNING":
            return self.running
        return self.state == state and all(t.state == state for t in self.tasks)


@dataclass(frozen=True, slots=True)
class FieldErrors:
    """One setting that Connect refuses, with its words and, where it knows them, the allowed values."""

    name: str
    errors: tuple[str, ...]
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Validation:
    """Connect's answer to a config: what it refuses, and the names of all settings it knows."""

    errors: tuple[FieldErrors, ...]
    known: frozenset[str]


class ConnectClient:
    """A worker's REST interface. Raises UnavailableError when it does not answer, ConnectorError when it refuses."""

    def __init__(self, url: str, *, timeout: float = 15.0, transport: httpx.BaseTransport | None = None) -> None:
        self._shown = _without_credentials(url)
        self._http = httpx.Client(base_url=url.rstrip("/"), timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._http.close()

    def plugins(self) -> list[dict[str, Any]]:
        """The connector plugins of the worker: `{"class", "type", "version"}`."""
        found: list[dict[str, Any]] = self._call("GET", "/connector-plugins")
        return found

    def names(self) -> list[str]:
        """Names of all connectors."""
        return sorted(self._call("GET", "/connectors"))

    def connectors(self) -> list[tuple[ConnectorStatus, dict[str, str]]]:
        """Status and configuration of every connector, by name."""
        answer = self._call("GET", "/connectors", params=[("expand", "info"), ("expand", "status")])
        return [
            (_status(name, entry["status"]), entry.get("info", {}).get("config", {}))
            for name, entry in sorted(answer.items())
            if "status" in entry
        ]

    def validate(self, config: Mapping[str, str]) -> Validation:
        """Let the plugin check a config; it may connect to the database, which can take as long as its timeouts."""
        plugin = quote(config["connector.class"], safe="")
        path = f"/connector-plugins/{plugin}/config/validate"
        answer = self._call("PUT", path, json=dict(config), timeout=90.0)
        errors: list[FieldErrors] = []
        known: set[str] = set()
        for entry in answer["configs"]:
            value = entry["value"]
            if entry.get("definition"):
                known.add(value["name"])
            if value["errors"]:
                allowed = tuple(str(v) for v in value.get("recommended_values") or ())
                errors.append(FieldErrors(value["name"], tuple(value["errors"]), allowed))
        return Validation(tuple(errors), frozenset(known))

    def config(self, name: str) -> dict[str, str] | None:
        """The configuration of a connector, references unresolved; None when there is no such connector."""
        found: dict[str, str] | None = self._call("GET", f"{_path(name)}/config", absent_is_none=True)
        return found

    def put_config(self, name: str, config: Mapping[str, str]) -> None:
        """Create the connector or give it a new configuration; it restarts its tasks by itself."""
        self._call("PUT", f"{_path(name)}/config", json=dict(config), timeout=90.0)

    def status(self, name: str) -> ConnectorStatus:
        """The connector's state; ConnectorError with a suggestion when there is none of that name."""
        found = self.find_status(name)
        if found is None:
            raise self.unknown(name)
        return found

    def find_status(self, name: str) -> ConnectorStatus | None:
        """The connector's state; None while Connect knows no such connector or has not assigned it yet."""
        answer = self._call("GET", f"{_path(name)}/status", absent_is_none=True)
        return None if answer is None else _status(name, answer)

    def pause(self, name: str) -> None:
        """Ask the connector to pause: its tasks stay and do nothing."""
        self._change(name, "PUT", "/pause")

    def resume(self, name: str) -> None:
        """Ask a paused or stopped connector to run."""
        self._change(name, "PUT", "/resume")

    def stop(self, name: str) -> None:
        """Ask the connector to stop: its tasks are shut down, its configuration and offsets stay."""
        self._change(name, "PUT", "/stop")

    def restart(self, name: str) -> None:
        """Restart the connector and all of its tasks."""
        self._change(name, "POST", "/restart?includeTasks=true&onlyFailed=false")

    def delete(self, name: str) -> None:
        """Remove the connector; its offsets, topics and replication slot stay."""
        self._change(name, "DELETE", "")

    def offsets(self, name: str) -> list[dict[str, Any]]:
        """Where the connector reads from next: `[{"partition": {…}, "offset": {…}}]`."""
        answer = self._call("GET", f"{_path(name)}/offsets", absent_is_none=True)
        if answer is None:
            raise self.unknown(name)
        found: list[dict[str, Any]] = answer["offsets"]
        return found

    def reset_offsets(self, name: str) -> None:
        """Forget the connector's offsets; Connect demands that it is stopped."""
        self._change(name, "DELETE", "/offsets")

    def wait(
        self, name: str, done: Callable[[ConnectorStatus | None], bool], *, seconds: float
    ) -> ConnectorStatus | None:
        """Poll the status until `done` says so; the last status seen when `seconds` have passed."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.find_status(name)
            if done(status) or time.monotonic() >= deadline:
                return status
            time.sleep(0.25)

    def unknown(self, name: str) -> ConnectorError:
        """The error for a name Connect does not know, with the nearest one it does."""
        names = self.names()
        hint = suggest(name, names)
        known = f"Connect runs: {', '.join(names)}." if names else "Connect runs no connector."
        return ConnectorError(
            f'There is no connector "{name}".', why=hint or known, next="cdc-lake connector list", code="no_connector"
        )

    def _change(self, name: str, method: str, action: str) -> None:
        if self._call(method, f"{_path(name)}{action}", absent_is_none=True, empty={}) is None:
            raise self.unknown(name)

    def _call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: list[tuple[str, str | int | float | bool | None]] | None = None,
        timeout: float | None = None,
        absent_is_none: bool = False,
        empty: Any = None,
    ) -> Any:
        deadline = time.monotonic() + _REBALANCE_SECONDS
        while True:
            answer = self._send(method, path, json=json, params=params, timeout=timeout)
            if answer.status_code == httpx.codes.CONFLICT and time.monotonic() < deadline:
                time.sleep(0.5)  # the worker's group is rebalancing, which ends by itself
                continue
            break
        if answer.status_code == httpx.codes.NOT_FOUND and absent_is_none:
            return None
        if answer.is_error:
            raise self._refused(method, path, answer)
        if not answer.content:
            return empty
        try:
            return answer.json()
        except ValueError:
            raise self._not_connect() from None

    def _send(self, method: str, path: str, *, json: Any, params: Any, timeout: float | None) -> httpx.Response:
        options: dict[str, Any] = {"json": json, "params": params}
        if timeout is not None:
            options["timeout"] = timeout
        for pause in (*_PAUSES, None):
            try:
                return self._http.request(method, path, **{k: v for k, v in options.items() if v is not None})
            except httpx.TransportError as error:
                if pause is None or isinstance(error, httpx.UnsupportedProtocol):
                    raise self._away(error) from None
                time.sleep(pause)
        raise AssertionError("the loop returns or raises")

    def _away(self, error: httpx.TransportError) -> UnavailableError:
        why = "it did not answer in time" if isinstance(error, httpx.TimeoutException) else str(error) or repr(error)
        return UnavailableError(
            f"Kafka Connect does not answer at {self._shown}.",
            why=why,
            next="cdc-lake status  (or check `connect.url` in cdc-lake.yaml)",
            code="connect_unavailable",
        )

    def _not_connect(self) -> UnavailableError:
        return UnavailableError(
            f"What answers at {self._shown} is not Kafka Connect.",
            why="The answer is not JSON.",
            next="check `connect.url` in cdc-lake.yaml",
            code="connect_unavailable",
        )

    def _refused(self, method: str, path: str, answer: httpx.Response) -> ConnectorError | UnavailableError:
        try:
            words = str(answer.json()["message"])
        except (ValueError, KeyError, TypeError):
            return self._not_connect()
        known = explain(words)
        if known.code != "task_failed":
            return ConnectorError(known.message, why=known.why, next=known.next, code=known.code)
        return ConnectorError(
            f"Kafka Connect refused {method} {path.partition('?')[0]} ({answer.status_code}).",
            why=known.message[:400] if words else "",
            next="cdc-lake connector list",
            code="connect_refused",
        )


def _path(name: str) -> str:
    return f"/connectors/{quote(name, safe='')}"


def _status(name: str, answer: Mapping[str, Any]) -> ConnectorStatus:
    connector = answer["connector"]
    tasks = tuple(
        TaskStatus(int(t["id"]), t["state"], t.get("worker_id", ""), t.get("trace", "")) for t in answer["tasks"]
    )
    return ConnectorStatus(name, connector["state"], connector.get("worker_id", ""), tasks, connector.get("trace", ""))


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
