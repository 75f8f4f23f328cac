"""Dead letters by their class: decided ones go when they are old, and the cut never notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.config import load_config
from cdc_lake.config_retention import RetentionClass
from cdc_lake.connector_file import ConnectorFile
from cdc_lake.events import TableId
from cdc_lake.land import layout
from cdc_lake.land.dead_letters import DROPPED, REPLAYED, DeadLetters
from cdc_lake.land.tables import DEAD_LETTERS
from cdc_lake.query.session import open_session
from cdc_lake.replay import replay
from cdc_lake.retain.policy import Policy
from tests.commands import fold, run
from tests.lake_model import SOURCE, Feed, append

ORDERS = TableId("public", "orders")
TOPIC = f"{SOURCE}.{ORDERS}"
POINTS = ("retention:before-letters-commit", "retention:after-letters-commit")
_LONG_AGO, _SECRET = datetime(2026, 1, 1, tzinfo=UTC), b"CANARY-Jane-Doe"
_BRIEF = "retention: {classes: {brief: {log: forever, dlq: 30d}}, default: brief}\n"


def letter(offset: int, when: datetime = _LONG_AGO, topic: str = TOPIC) -> dict[str, Any]:
    where = {"id": f"{topic}/0/{offset}", "topic": topic, "partition": 0, "offset": offset}
    contents = {"key": _SECRET, "value": _SECRET, "headers": '{"who": "CANARY-Jane-Doe"}'}
    return where | contents | {"timestamp": when, "ingested_at": when, "error_class": "decode", "reason": "no JSON"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A replayed, a dropped and a waiting letter of old, each in a file of its own, and a dropped one of today."""
    feed = Feed(tmp_path, (ORDERS,))
    for number in range(1, 4):
        tx = feed.begin()
        tx.insert(ORDERS, number, number, None)
        tx.commit()
    feed.land()
    fold(tmp_path)
    for row in (letter(101), letter(102), letter(103), letter(104, datetime.now(UTC))):
        append(tmp_path, layout.dead_letters_path(str(tmp_path / "lake"), SOURCE), [row], DEAD_LETTERS)
    letters = letters_of(tmp_path)
    first, second, _, last = letters.all()
    letters.decide([first], REPLAYED)
    letters.decide([second, last], DROPPED)
    (tmp_path / "cdc-lake.yaml").write_text(f"lake: {{uri: {tmp_path}/lake}}\n{_BRIEF}")
    return tmp_path


def letters_of(folder: Path) -> DeadLetters:
    return DeadLetters(str(folder / "lake"), SOURCE)


def kept(folder: Path) -> list[tuple[int, str, bool]]:
    found = [(x.offset, x.state, (x.key, x.value, x.headers) != (None, None, None)) for x in letters_of(folder).all()]
    return sorted(found)


def shown(folder: Path) -> list[list[tuple[Any, ...]]]:
    session = open_session(load_config(folder / "cdc-lake.yaml", environ={}))
    try:
        views = ("current.public.orders", "(SELECT * EXCLUDE (age_seconds) FROM lake.cut)")
        return [session.connection.sql(f"SELECT * FROM {v} ORDER BY ALL").fetchall() for v in views]
    finally:
        session.close()


ALL = [(101, "replayed", True), (102, "dropped", True), (103, "waiting", True), (104, "dropped", True)]
LEFT = [(102, "dropped", False), (103, "waiting", True), (104, "dropped", True)]


def test_replayed_letters_go_and_dropped_ones_lose_their_contents_as_it_was_planned(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = shown(folder)
    code, document = run(folder, "retention", "plan", capfd=capfd)
    (planned,) = document["dead_letters"]
    assert (code, planned["table"], planned["outcome"], planned["letters"]) == (0, "public.orders", "due", 2)
    assert (planned["keeps"], planned["bytes"], planned["until"] < planned["horizon"]) == ("30d", 112, True)
    assert kept(folder) == ALL
    code, document = run(folder, "retention", "apply", capfd=capfd)
    assert (code, document["dead_letters"][0]["outcome"], document["dead_letters"][0]["letters"]) == (0, "done", 2)
    assert kept(folder) == LEFT
    assert shown(folder) == before
    assert run(folder, "retention", "apply", capfd=capfd)[1]["dead_letters"][0]["outcome"] == "nothing"
    assert kept(folder) == LEFT


def test_a_dropped_letter_goes_whole_once_the_log_begins_behind_it(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    early = letter(0)
    append(folder, layout.dead_letters_path(str(folder / "lake"), SOURCE), [early], DEAD_LETTERS)
    letters = letters_of(folder)
    letters.decide([x for x in letters.all() if x.offset == 0], DROPPED)
    settings = (folder / "cdc-lake.yaml").read_text()
    run(folder, "retention", "apply", capfd=capfd)
    assert (0, "dropped", False) in kept(folder)
    (folder / "cdc-lake.yaml").write_text(settings.replace("log: forever", "log: 1s"))
    letters.decide([x for x in letters.all() if x.state == "waiting"], DROPPED)
    code, document = run(folder, "retention", "apply", capfd=capfd)
    assert (code, document["tables"][0]["outcome"], document["dead_letters"][0]["letters"]) == (0, "done", 2)
    assert [offset for offset, *_ in kept(folder)] == [102, 103, 104]


@pytest.mark.parametrize("hold", ["true", "[1]"])
def test_letters_of_a_table_with_anything_under_hold_stay(
    folder: Path, hold: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with (folder / "cdc-lake.yaml").open("a") as file:
        file.write(f"tables: {{public.orders: {{hold: {hold}}}}}")
    code, document = run(folder, "retention", "apply", capfd=capfd)
    assert (code, document["dead_letters"][0]["outcome"]) == (0, "held")
    assert kept(folder) == ALL


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_point_all_of_them_or_none_are_gone(
    folder: Path, point: str, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "cdc_lake", "--config", "cdc-lake.yaml", "retention", "apply"]
    environment = {**os.environ, "CDC_LAKE_CRASH_AT": point}
    killed = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert kept(folder) == (ALL if point == POINTS[0] else LEFT)
    assert run(folder, "retention", "apply", capfd=capfd)[0] == 0
    assert kept(folder) == LEFT


def test_letters_of_a_topic_without_a_table_go_by_the_class_of_its_name(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = layout.dead_letters_path(str(folder / "lake"), SOURCE)
    append(folder, path, [letter(1, topic=f"{SOURCE}.shop.nowhere")], DEAD_LETTERS)
    letters = letters_of(folder)
    letters.decide([x for x in letters.all() if x.offset == 1], DROPPED)
    document = run(folder, "retention", "apply", capfd=capfd)[1]
    assert {r["table"]: r["letters"] for r in document["dead_letters"]} == {"public.orders": 2, "shop.nowhere": 1}
    assert (1, "dropped", False) in kept(folder)


def test_a_letter_without_contents_is_not_replayed_into_an_empty_change(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(folder, "retention", "apply", capfd=capfd)
    letters = letters_of(folder)
    connector = ConnectorFile("pos", {"topic.prefix": SOURCE})
    (done,) = replay(letters, [x for x in letters.all() if x.offset == 102], connector)
    assert (done.outcome, done.reason) == ("dead", "its contents were kept for as long as its class says")


def test_letters_are_kept_for_as_long_as_the_log_when_nothing_else_is_said() -> None:
    kinds = [RetentionClass(log="7d"), RetentionClass(log="forever"), RetentionClass(log="forever", dlq="30d")]
    days = [p.days if p is not None else None for p in (Policy.of("x", k, hold=False).dlq for k in kinds)]
    assert days == [7, None, 30]
