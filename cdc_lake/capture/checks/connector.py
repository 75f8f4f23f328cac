"""Checks of a connector as Kafka Connect runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cdc_lake.capture.checks import settings
from cdc_lake.capture.checks.subject import Subject
from cdc_lake.capture.health import Health, task_error
from cdc_lake.capture.submit import Difference
from cdc_lake.checks import Check, Status, fail, failed, listed, ok, warn

# The settings are judged by what this version was seen to do.
_MEASURED = (3, 7)


def check_plugin(subject: Subject, plugins: Sequence[Mapping[str, Any]]) -> Check:
    """Does the worker have the connector's class, in a version that is known here?"""
    name, wanted = "connect.plugin", subject.connector.config["connector.class"]
    version = next((str(p.get("version", "")) for p in plugins if p.get("class") == wanted), None)
    if version is None:
        return fail(
            name,
            f"the worker has no {wanted}",
            why=f"It has {listed(p.get('class', '') for p in plugins) or 'no plugin'}.",
            fix="put Debezium's PostgreSQL connector on the worker's plugin.path and restart it; see what it has: "
            "cdc-lake connector plugins",
        )
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < _MEASURED:
        return warn(
            name,
            f"Debezium {version}",
            why=f"Settings and losses are known of {'.'.join(map(str, _MEASURED))}. Earlier versions ignore some "
            "settings, and may leave out the first part of a transaction that was open when they restarted.",
            fix="put a newer Debezium on the worker's plugin.path and restart it",
        )
    return ok(name, f"Debezium {version}")


def not_registered(subject: Subject) -> Check:
    """Connect knows no such connector."""
    return fail(
        "connector.registered",
        f"Connect runs no connector {subject.connector.name}",
        why="Nothing is captured.",
        fix=subject.register,
    )


def check_state(health: Health) -> list[Check]:
    """Connector and task as Connect sees them, and whether changes are read as the source sees it."""
    status = health.status
    name, shown = "connector.state", f"{status.state}" + "".join(f", task {t.id} {t.state}" for t in status.tasks)
    if status.failure is not None:
        problem = health.problem or task_error(status)
        return [failed(name, problem)]
    if status.state in ("PAUSED", "STOPPED"):
        paused = warn(
            name,
            shown,
            why="Nothing is captured meanwhile, and the source keeps its WAL for the connector.",
            fix=f"cdc-lake connector resume {status.name}",
        )
        return [paused]
    if not status.running:
        starting = warn(
            name,
            shown,
            why="It is starting, or no worker takes it.",
            fix=f"cdc-lake connector restart {status.name}",
        )
        return [starting]
    return [ok(name, shown), _reading(health)]


def _reading(health: Health) -> Check:
    if health.problem is not None:
        return failed("connector.reads", health.problem)
    if health.slot is None or health.slot.pid is None:
        return ok("connector.reads", "no change is read yet: a first snapshot is taken, or it is just starting")
    return ok("connector.reads", "changes are read")


def check_difference(subject: Subject, running: Mapping[str, str], difference: Difference) -> Check:
    """Does Connect run what the file says? What it runs is judged too: a mended file alone mends nothing."""
    name = "connector.differs"
    if not difference:
        return ok(name, "Connect runs what the file says")
    status = Status.FAIL if settings.worst(running) is Status.FAIL else Status.WARN
    return Check(
        name,
        status,
        listed(difference.lines()),
        "Connect runs something else than the file says"
        + (", with a setting that loses data." if status is Status.FAIL else "."),
        subject.register,
    )
