"""Retention, erasure and maintenance do to a lake on an object store what they do to the same lake in a folder."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from deltalake._internal import DeltaFileSystemHandler

from cdc_lake.config import load_config
from cdc_lake.events import TableId
from cdc_lake.land.layout import open_store
from cdc_lake.query.session import open_session
from tests.commands import fold, run
from tests.lake_model import Feed
from tests.object_store import BUCKET, SECRET, Gate, object_store

ORDERS = TableId("public", "orders")
_VIEWS = ("current.public.orders", "changes.public.orders", "history.public.orders")
# What differs from run to run.
_OWN = ("seconds", "horizon", "bytes")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """One server for all tests; each has a prefix of its own."""
    with object_store(tmp_path_factory.mktemp("upkeep")) as gate:
        yield gate


@pytest.fixture
def lakes(tmp_path: Path, store: Gate, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two projects with the same lake: in a folder, and on the store."""
    monkeypatch.setenv("LAKE_SECRET", SECRET)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    feed = Feed(here, (ORDERS,))
    for number in range(1, 12):
        tx = feed.begin()
        if number <= 4:
            tx.insert(ORDERS, number, number, "a long text")
        tx.update(ORDERS, 1, number * 10)
        tx.commit()
        feed.land()
    fold(here)
    classes = "retention: {classes: {brief: {log: 1s}}, default: brief}\n"
    (here / "cdc-lake.yaml").write_text(f"lake: {{uri: ./lake}}\n{classes}")
    uri, options = f"s3://{BUCKET}/{uuid.uuid4().hex}", store.options(aws_secret_access_key="${LAKE_SECRET}")
    lake = f"lake: {{uri: '{uri}', options: {json.dumps(options)}}}\n"
    (there / "cdc-lake.yaml").write_text(lake + classes)
    # Pyarrow's wrapper of it hands over buffers, where it wants bytes.
    target = DeltaFileSystemHandler(uri, store.options())
    for file in sorted((here / "lake").rglob("*")):
        if file.is_file():
            stream: Any = target.open_output_stream(str(file.relative_to(here / "lake")), None)
            stream.write(file.read_bytes())
            stream.close()
    return here, there


def shown(folder: Path) -> list[list[tuple[Any, ...]]]:
    session = open_session(folder / "cdc-lake.yaml")
    try:
        return [session.connection.sql(f"SELECT * FROM {v} ORDER BY ALL").fetchall() for v in _VIEWS]
    finally:
        session.close()


def same(value: Any) -> Any:
    """A document without what differs from run to run."""
    if isinstance(value, dict):
        return {k: same(v) for k, v in value.items() if k not in _OWN}
    return [same(v) for v in value] if isinstance(value, list) else value


def both(lakes: tuple[Path, Path], *words: str, capfd: pytest.CaptureFixture[str]) -> Any:
    """What a command says of the lake in the folder; that of the one on the store is compared with it."""
    here, there = (run(folder, *words, capfd=capfd) for folder in lakes)
    assert SECRET not in json.dumps(there)
    assert (there[0], same(there[1])) == (0, same(here[1]))
    return here[1]


def test_older_changes_go_and_each_living_row_stays_as_a_starting_point(
    lakes: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    planned = both(lakes, "retention", "plan", capfd=capfd)["tables"][0]
    assert (planned["outcome"], planned["rows"] > planned["starts"] >= 4) == ("due", True)
    code, document = run(lakes[1], "retention", "apply", capfd=capfd)
    assert (code, "--alone" in document["error"]["next"]) == (1, True)
    done = both(lakes, "retention", "apply", "--alone", capfd=capfd)["tables"][0]
    assert (done["outcome"], done["rows"]) == ("done", planned["rows"])
    assert shown(lakes[1]) == shown(lakes[0])
    for folder in lakes:
        assert run(folder, "maintain", "--keep=0h", "--alone", capfd=capfd)[0] == 0
        assert run(folder, "rebuild", "orders", capfd=capfd)[0] == 0
    assert shown(lakes[1]) == shown(lakes[0])


def test_an_erased_row_is_in_no_file_of_a_log_on_the_store(
    lakes: tuple[Path, Path], store: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    for folder in lakes:
        assert run(folder, "erase", "orders", "3", "--now", "--alone", capfd=capfd)[0] == 0
    now = shown(lakes[1])
    assert now == shown(lakes[0])
    assert [row for view in now for row in view if row[0] == 3] == []
    objects = open_store(load_config(lakes[1] / "cdc-lake.yaml").lake_uri, store.options())
    infos = objects.get_file_info(pafs.FileSelector("", recursive=True))
    logs = [i.path for i in infos if i.path.endswith(".parquet") and "/log/" in i.path and "/_delta_log/" not in i.path]
    found = [pq.read_table(path, filesystem=objects, columns=["__key"])["__key"].to_pylist() for path in logs]
    keys = {key for some in found for key in some}
    assert '{"id":2}' in keys
    assert '{"id":3}' not in keys
