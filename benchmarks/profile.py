"""Where the processor's time of each landed event goes: by thread, as the system counts it, and by function.

`py-spy` tells the names of the sink's own threads and, fifty times a second, which function each of them is in. What
librdkafka, DuckDB, Arrow and delta-rs do on threads of their own is told by the names that they give them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks import source, volume
from benchmarks.report import Report
from cdc_lake.local.stack import Stack

_RATE, _LOOK_SECONDS, _TOP = 50, 0.05, 12
_STACK = re.compile(r"thread \((\d+)\)(?:: ([^;]*))?(.*) (\d+)")
_FRAME = re.compile(r"([^; ]+) \((cdc_lake/[^:;]+):\d+\)")
# A thread's name, and what its work is called.
_PARTS = (
    (r"rdk:.*", "librdkafka: fetch, decompress, parse"),
    (r"MainThread", "the sink's loop: poll, hand over"),
    (r"decode_.*", "decoding, on its own thread"),
    (r"land_.*|commit_.*", "landing: Arrow to Delta"),
    (r"tokio.*", "delta-rs: Parquet and commit"),
    (r"jemalloc.*", "memory of Arrow"),
)


def run(ends: Any, _stack: Stack, report: Report) -> None:
    prefix, folder = "profiled", Path(tempfile.mkdtemp(prefix="cdc-lake-profile-"))
    try:
        volume.snapshot(ends.bootstrap, prefix, report.rows)
        config = source.project(ends, folder, ends.dsn, prefix)
        stacks = folder / "stacks.txt"
        used, comms = _run(config, stacks)
        names, samples = _read(stacks.read_text())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    title = f"`sink run` with confluent, {report.rows:,} events of a snapshot, plain JSON: CPU by thread"
    parts: dict[str, float] = defaultdict(float)
    for thread, seconds in used.items():
        parts[_part(names.get(thread) or comms[thread])] += seconds
    _show(report, title, "thread", parts)
    functions: dict[str, float] = defaultdict(float)
    for thread, found in samples.items():
        for function, count in found.items():
            functions[function] += used.get(thread, 0.0) * count / found.total()
    _show(report, "The sink's own threads, by the innermost function of the product", "function", functions)
    report.note("Sampling slows the sink down; what it does before the first event (imports) is counted too.")


def _run(config: Path, stacks: Path) -> tuple[dict[int, float], dict[int, str]]:
    """CPU seconds and names of the system, by thread, of a sink that lands all there is."""
    sink = [sys.executable, "-m", "cdc_lake", "--config", str(config), "sink", "run", "--until-caught-up"]
    program = str(Path(sys.executable).with_name("py-spy"))
    spy = [program, "record", "--rate", str(_RATE), "--format", "raw", "--threads", "-o", str(stacks), "--", *sink]
    used, comms = dict[int, float](), dict[int, str]()
    with subprocess.Popen(spy, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as recorder:
        while True:
            for process in psutil.Process(recorder.pid).children():
                _look(process, used, comms)
            try:
                code = recorder.wait(_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
    if code:
        raise SystemExit(f"py-spy: exit {code}")
    return used, comms


def _look(process: psutil.Process, used: dict[int, float], comms: dict[int, str]) -> None:
    try:
        for thread in process.threads():
            used[thread.id] = thread.user_time + thread.system_time
            if thread.id not in comms:
                comms[thread.id] = Path(f"/proc/{process.pid}/task/{thread.id}/comm").read_text().strip()
    except (psutil.Error, OSError):  # it has just ended
        return


def _read(raw: str) -> tuple[dict[int, str], dict[int, Counter[str]]]:
    """Names of threads, and how often each was in which function."""
    names, samples = dict[int, str](), dict[int, Counter[str]]()
    for line in raw.splitlines():
        found = _STACK.fullmatch(line)
        if found is None:
            continue
        thread, name, stack, count = int(found[1]), found[2] or "", found[3], int(found[4])
        if name:
            names[thread] = name
        inner = _FRAME.findall(stack)
        function = f"`{inner[-1][0]}` ({inner[-1][1]})" if inner else "imports and the interpreter"
        samples.setdefault(thread, Counter())[function] += count
    return names, samples


def _part(name: str) -> str:
    return next((part for pattern, part in _PARTS if re.fullmatch(pattern, name)), "DuckDB and others: JSON to columns")


def _show(report: Report, title: str, what: str, parts: Mapping[str, float]) -> None:
    most, total = sorted(parts.items(), key=lambda part: -part[1]), sum(parts.values())
    table = report.table(title, **{what: "", "µs an event": ".2f", "share": ".0%"})
    for name, seconds in most[:_TOP]:
        table.add(name, seconds / report.rows * 1e6, seconds / total)
    rest = sum(seconds for _, seconds in most[_TOP:])
    if rest:
        table.add("all others", rest / report.rows * 1e6, rest / total)
    table.add("in all", total / report.rows * 1e6, 1.0)
