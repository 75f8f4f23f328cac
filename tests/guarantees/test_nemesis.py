"""All promises at once, on the real parts, while they are killed, paused and restarted.

`NEMESIS=7 python -m pytest tests/guarantees/test_nemesis.py` chooses the seed; `make soak MINUTES=30` runs for so long;
with `NEMESIS_KEEP=FOLDER` the project is copied there at the moment a reader sees something wrong. `NEMESIS_STORE=s3`
has the lake on an S3-compatible server, which is killed, paused and restarted like the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.guarantees.test_landing import landed
from tests.integration.conftest import own_stack
from tests.nemesis import Nemesis
from tests.object_store import BUCKET, SECRET, Gate, object_store
from tests.projects import Project, make_project

pytestmark = pytest.mark.stack
SEED = int(os.environ.get("NEMESIS", "1"))
STORE = os.environ.get("NEMESIS_STORE", "folder")
MINUTES = float(os.environ.get("MINUTES", "30"))


@contextlib.contextmanager
def living(tmp_path: Path, *, on_s3: bool) -> Iterator[Nemesis]:
    """A system on a stack of its own."""
    with own_stack(tmp_path / "stack") as at, contextlib.ExitStack() as parts:
        with psycopg.connect(at.dsn, autocommit=True) as admin:
            admin.execute("CREATE DATABASE nemesis")
        dsn = at.dsn.rsplit("/", 1)[0] + "/nemesis"
        project = parts.enter_context(make_project(tmp_path / "project", dsn, at.bootstrap, at.connect_url))
        # In the project's folder, so that what is kept of it has the lake.
        store = parts.enter_context(object_store(project.folder / "objects")) if on_s3 else None
        if store is not None:
            use(store, project)
        made = Nemesis(project, at.stack, SEED, store)
        made.prepare()
        try:
            yield made
        finally:
            made.close()


def use(store: Gate, project: Project) -> None:
    """Put the lake of a project there."""
    options = {**store.options(), "aws_secret_access_key": "${LAKE_SECRET}"}
    with (project.folder / "cdc-lake.yaml").open("a") as config:
        config.write(f"lake: {{uri: 's3://{BUCKET}/nemesis', options: {json.dumps(options)}}}\n")


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the configuration of a lake on the store names."""
    monkeypatch.setenv("LAKE_SECRET", SECRET)


@pytest.fixture
def nemesis(tmp_path: Path) -> Iterator[Nemesis]:
    """A living shop on the store that was asked for."""
    with living(tmp_path, on_s3=STORE == "s3") as made:
        yield made


def survive(nemesis: Nemesis, seconds: float, *, troubles: int) -> None:
    """Run, heal, land the rest: nobody saw anything wrong, the lake equals the source, every record is there once."""
    nemesis.run(seconds)
    told, project = nemesis.told, nemesis.project
    print(
        f"seed {SEED}: {dict(told.done)}, {told.reads} reads, {told.transfers} transfers, {told.trade}", file=sys.stderr
    )
    assert told.wrong == [], f"seed {SEED}, after {dict(told.done)}"
    nemesis.heal()
    project.ok("sink", "run", "--until-caught-up")
    report = project.verify()
    assert report["ok"], f"seed {SEED}, after {dict(told.done)}: {report}"
    project.ok("fold")
    assert project.verify()["ok"], "after a fold"
    coordinates = landed(project)
    assert len(coordinates) == len(set(coordinates)), "a record has landed twice"
    newest = {(t, p): o for t, p, o in sorted(coordinates)}
    in_kafka = {c for c in project.coordinates_in_kafka() if c[2] <= newest.get(c[:2], -1)}
    assert in_kafka == set(coordinates), "a record is absent"
    assert sum(told.done.values()) >= troubles
    assert told.trade is not None
    assert told.trade.transactions > 0
    assert len(told.moments) > 1, "readers saw the lake move"


def test_a_living_shop_survives_a_while_of_kills_pauses_and_restarts(nemesis: Nemesis) -> None:
    survive(nemesis, 75, troubles=12)


@pytest.mark.slow
def test_a_living_shop_survives_kills_pauses_and_restarts_for_as_long_as_asked(nemesis: Nemesis) -> None:
    survive(nemesis, MINUTES * 60, troubles=int(MINUTES * 5))
