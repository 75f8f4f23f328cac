"""Run the checks of all stages: what depends on what, side by side, under one deadline.

Each area runs in a thread of its own and writes its findings as it goes. When time is up, what was found counts, and
what still hangs is a finding too.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cdc_lake.check_machine import check_versions
from cdc_lake.checks import Check, Findings, Skipped, Status, fail
from cdc_lake.cli import output
from cdc_lake.cli.doctor_area import Area, Say
from cdc_lake.cli.doctor_capture import check_capture
from cdc_lake.cli.doctor_lake import check_lake_and_topics
from cdc_lake.cli.doctor_registry import check_schemas
from cdc_lake.cli.stack_status import embedded_parts
from cdc_lake.config import Config
from cdc_lake.lineage.check import check_lineage
from cdc_lake.lineage.wish import home_folder
from cdc_lake.local.check_stack import check_stack
from cdc_lake.local.stack import Stack
from cdc_lake.serve.dashboard.check import check_serve
from cdc_lake.trace.check import check_traces


def examine(config: Config, *, seconds: float, say: Say) -> tuple[list[Check], list[Skipped]]:
    """All findings, and what could not be checked. Takes `seconds` at most; raises nothing for what it finds."""
    here = Findings()
    here.add(check_versions())
    here.add(check_stack(Stack(config.state_folder).status(), embedded_parts(config)))
    down = frozenset(c.name.partition(".")[2] for c in here.checks if c.status is Status.FAIL)
    work: dict[str, Callable[[Area], None]] = {
        "the source": check_capture,
        "the lake": check_lake_and_topics,
        "schemas": check_schemas,
        "those who are told": _check_told,
        "the dashboard": _check_dashboard,
    }
    areas = [Area(title, config, down, say) for title in work]
    threads = [
        threading.Thread(target=_guarded, args=(work[area.title], area), daemon=True, name=area.title) for area in areas
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for area, thread in zip(areas, threads, strict=True):
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            here.add(_unfinished(area, seconds))
        elif area.error is not None:
            here.add(_defect(area, area.error))
    every = [here, *(f for area in areas for f in list(area.findings))]
    return [c for f in every for c in list(f.checks)], [s for f in every for s in list(f.skipped)]


def _check_told(area: Area) -> None:
    """Whether systems that the environment names take what they are told: nothing to check where it names none."""
    findings = area.begin("who is told of the work")
    findings.add(check_traces(os.environ))
    findings.add(check_lineage(os.environ, Path(), home_folder()))


def _check_dashboard(area: Area) -> None:
    """Who reaches the dashboard: nothing to check where it was never used."""
    area.begin("the dashboard").add(check_serve(area.config))


def _guarded(work: Callable[[Area], None], area: Area) -> None:
    try:
        work(area)
    except Exception as error:
        area.error = error


def _unfinished(area: Area, seconds: float) -> Check:
    return fail(
        "doctor.deadline",
        f"still checking {area.doing or area.title} after {seconds:g} s",
        why="Something there takes connections and does not answer.",
        fix=f"cdc-lake doctor --timeout {seconds * 3:g}   and cdc-lake status",
    )


def _defect(area: Area, error: Exception) -> Check:
    if output.verbosity() >= 2:
        raise error
    return fail(
        "doctor.defect",
        f"while checking {area.doing or area.title}: {type(error).__name__}: {error}",
        why="The error was not foreseen. This is a defect in cdc-lake.",
        fix="cdc-lake doctor -vv   and report the traceback",
    )
