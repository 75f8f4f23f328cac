"""A tier on an object store: what is moved there is read there, and without it what is folded is still shown."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cdc_lake.events import TableId
from cdc_lake.query.session import open_session
from tests.commands import fold, run
from tests.lake_model import Feed
from tests.object_store import BUCKET, SECRET, Gate, object_store

ORDERS = TableId("public", "orders")
_VIEWS = ("current.public.orders", "changes.public.orders", "history.public.orders")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """One server for all tests; each has a prefix of its own."""
    with object_store(tmp_path_factory.mktemp("tier")) as gate:
        yield gate


@pytest.fixture
def feed(tmp_path: Path, store: Gate, monkeypatch: pytest.MonkeyPatch) -> Feed:
    """Some rows with a history, folded; the tier is on the store, its secret named by reference."""
    monkeypatch.setenv("COLD_SECRET", SECRET)
    made = Feed(tmp_path, (ORDERS,))
    for number in range(1, 12):
        tx = made.begin()
        if number <= 4:
            tx.insert(ORDERS, number, number, "a long text")
        tx.update(ORDERS, 1, number * 10)
        tx.commit()
        made.land()
    fold(tmp_path)
    options = store.options(aws_secret_access_key="${COLD_SECRET}", max_retries="1", retry_timeout="2s")
    tier = f"{{after: 1s, uri: 's3://{BUCKET}/{uuid.uuid4().hex}', options: {json.dumps(options)}}}"
    text = f"lake: {{uri: {tmp_path}/lake}}\nretention: {{classes: {{c: {{tier: {tier}}}}}, default: c}}\n"
    (tmp_path / "cdc-lake.yaml").write_text(text)
    return made


def shown(folder: Path, *views: str) -> dict[str, list[tuple[Any, ...]]]:
    session = open_session(folder / "cdc-lake.yaml")
    try:
        return {v: session.connection.sql(f"SELECT * FROM {v} ORDER BY ALL").fetchall() for v in views}
    finally:
        session.close()


def test_what_was_moved_to_a_store_is_read_there_as_it_was(feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    before = shown(feed.folder, *_VIEWS)
    _, life = run(feed.folder, "history", "orders", "1", capfd=capfd)
    code, document = run(feed.folder, "retention", "apply", capfd=capfd)
    assert (code, document["tiers"][0]["outcome"], document["tiers"][0]["rows"]) == (0, "done", 13)
    assert SECRET not in json.dumps(document)
    assert shown(feed.folder, *_VIEWS) == before
    assert run(feed.folder, "history", "orders", "1", capfd=capfd)[1] == life
    code, document = run(feed.folder, "maintain", capfd=capfd)
    assert (code, [s["step"] for p in document["tables"] for s in p["steps"] if p["part"] == "tier"]) == (
        0,
        ["compact"],
    )
    assert run(feed.folder, "rebuild", "orders", capfd=capfd)[0] == 0
    assert shown(feed.folder, *_VIEWS) == before
    assert run(feed.folder, "erase", "orders", "2", "--now", capfd=capfd)[0] == 0
    kept = "(FROM changes.public.orders WHERE id = 2)"
    assert shown(feed.folder, kept) == {kept: []}


def test_without_the_store_what_is_folded_is_shown_and_the_rest_names_it(
    feed: Feed, store: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    current = shown(feed.folder, "current.public.orders")
    assert run(feed.folder, "retention", "apply", capfd=capfd)[0] == 0
    store.take()
    assert shown(feed.folder, "current.public.orders") == current
    code, rows = run(feed.folder, "query", "SELECT count(*) AS n FROM orders", capfd=capfd)
    assert (code, rows) == (0, [{"n": len(current["current.public.orders"])}])
    store.set(down=True)
    try:
        assert run(feed.folder, "query", "SELECT count(*) AS n FROM orders", capfd=capfd)[1] == rows
        assert shown(feed.folder, "current.public.orders") == current
        with pytest.raises(duckdb.Error, match=r"older changes of public\.orders cannot be read"):
            shown(feed.folder, "changes.public.orders")
        code, document = run(feed.folder, "history", "orders", "1", capfd=capfd)
        assert (code, document["error"]["code"]) == (1, "tier_away")
        assert SECRET not in json.dumps(document)
        assert run(feed.folder, "tables", capfd=capfd)[0] == 0
    finally:
        store.set(down=False)
    assert len(shown(feed.folder, "changes.public.orders")["changes.public.orders"]) == 15
