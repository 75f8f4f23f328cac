"""`stream run` into a topic of a real broker: each row once for those who read what is committed, also after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition

from tests.integration.conftest import RunningStack
from tests.lake_model import Feed
from tests.unit.test_rules_run import SALES, go_on

pytestmark = pytest.mark.stack
POINTS = ("topic:before-commit", "topic:after-commit")


def committed(stack: RunningStack, topic: str) -> list[str]:
    """The ids of the events that a reader of committed records sees."""
    consumer = KafkaConsumer(
        bootstrap_servers=stack.bootstrap, enable_auto_commit=False, isolation_level="read_committed"
    )
    try:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        found: list[str] = []
        for _ in range(20):
            polled = consumer.poll(timeout_ms=500)
            found += [dict(r.headers)["ce_id"].decode() for records in polled.values() for r in records]
            if not polled and found:
                break
        return found
    finally:
        consumer.close()


def test_rows_reach_a_topic_once_though_the_sender_is_killed(stack: RunningStack, tmp_path: Path) -> None:
    topic, model = f"low_{uuid.uuid4().hex[:10]}", f"low_{uuid.uuid4().hex[:10]}"
    (tmp_path / "cdc-lake.yaml").write_text(f"lake: {{uri: ./lake}}\nkafka: {{bootstrap: '{stack.bootstrap}'}}\n")
    (tmp_path / "streams").mkdir()
    (tmp_path / "streams" / f"{model}.sql").write_text(f"-- topic: {topic}\nSELECT id, qty FROM changes.sales\n")
    feed = Feed(tmp_path, (SALES,))
    go_on(feed, 6)
    for point in (*POINTS, ""):
        command = [sys.executable, "-m", "cdc_lake", "-q", "stream", "run", "--until-caught-up"]
        environment = {**os.environ, "CDC_LAKE_CRASH_AT": point}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=120)
        assert done.returncode == (-signal.SIGKILL if point else 0), done.stderr
        go_on(feed, 1)
    found = committed(stack, topic)
    assert len(found) == len(set(found)) == 8
