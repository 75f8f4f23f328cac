"""The running sink's line: calm, of all sinks together, and never in the way of what else is said."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

import pytest

from cdc_lake.cli import output, sink_line
from cdc_lake.cli.sink_line import Line, describe, together
from cdc_lake.errors import PartitionFenced
from cdc_lake.events import TableId, TopicPartition
from cdc_lake.progress import Progress

ORDERS, ITEMS = TableId("public", "orders"), TableId("public", "items")
SCRIPT = """
import time
from cdc_lake.cli import output, sink_line
from cdc_lake.progress import Progress
sink_line._TERMINAL_SECONDS = 0.01
progress = Progress()
line = sink_line.Line([progress])
for events in (10, 20, 30):
    progress.events = events
    time.sleep(0.02)
    line.look(progress)
output.say("Maintained.")
"""


def test_elsewhere_than_on_a_terminal_it_is_one_line_each_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress()
    line = Line([progress])
    for step in range(301):  # a hundred turns of the loop a second, for a while
        now = 1000.0 + step / 10
        progress.events = step * 50
        line.look(progress)
    told = capfd.readouterr().err.splitlines()
    assert told == [f"0 tables · {n:,} events · 500/s" for n in (5_000, 10_000, 15_000)]


def test_on_a_terminal_it_is_rewritten_in_place_and_other_words_stand_alone() -> None:
    parent, child = pty.openpty()
    subprocess.run([sys.executable, "-c", SCRIPT], stderr=child, check=True)
    os.close(child)
    text = os.read(parent, 10_000).decode()
    os.close(parent)
    assert text.count("\n") == 1
    assert text.count("\r\x1b[K") == 4
    assert text.endswith("\r\x1b[KMaintained.\r\n")


def test_quiet_means_quiet(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sink_line, "_PIPE_SECONDS", 0.0)
    output.configure(config=None, as_json=False, verbosity=-1)
    try:
        Line([Progress()]).look(Progress())
    finally:
        output.configure(config=None, as_json=False, verbosity=0)
    assert capfd.readouterr().err == ""


def test_several_sinks_are_told_of_together() -> None:
    stopped = PartitionFenced("Another writer.")
    first = Progress(events=10, dead=1, tables={ORDERS}, lag=5, last_commit=time.monotonic() - 60)
    second = Progress(events=5, tables={ITEMS}, lag=7, last_commit=time.monotonic(), waiting="waiting for the broker")
    second.stopped[TopicPartition("t", 0)] = stopped
    text = describe(together([first, second]), 3)
    assert text.startswith("2 tables · 15 events · 3/s · lag 12 · last commit 0.")
    assert text.endswith(
        " · 1 dead letter, see cdc-lake dlq list · 1 partition stopped: partition_fenced"
        " · waiting for the broker, see cdc-lake doctor"
    )
    second.lag = None
    assert "lag" not in describe(together([first, second]), 3)
