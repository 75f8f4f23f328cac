"""SQL over HTTP when the lake is on an object store: the same answers, the same limits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc_lake.config import Config, load_config
from cdc_lake.query.guard import Limits, close_doors
from cdc_lake.query.run import SqlError
from cdc_lake.query.session import open_session
from cdc_lake.serve.dashboard.sql_box import SqlBox
from tests.dashboards import LIMITS
from tests.object_store import BUCKET, SECRET, Gate, object_store
from tests.shops import Shop


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gate, Path]]:
    """The server, and the folder that its bucket is."""
    folder = tmp_path_factory.mktemp("objects")
    with object_store(folder) as gate:
        yield gate, folder / "data" / BUCKET


@pytest.fixture(scope="module")
def config(store: tuple[Gate, Path], tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A shop whose lake is there, its secret by reference; beside the lake lies what is none of it."""
    gate, bucket = store
    folder = tmp_path_factory.mktemp("shop")
    shop = Shop.open(folder)
    shelf = next(k for k, v in shop.rows["inventory"].items() if v["on_hand"] > 2)
    shop.sell(shelf[0], shelf[1], 1)
    shutil.copytree(folder / "lake", bucket / "lake")
    (bucket / "other").mkdir()
    (bucket / "other" / "secret.csv").write_text("a\nb\n")
    named = {**gate.options(), "aws_secret_access_key": "${LAKE_SECRET}"}
    (folder / "cdc-lake.yaml").write_text(f"lake: {{uri: 's3://{BUCKET}/lake', options: {json.dumps(named)}}}\n")
    return load_config(folder / "cdc-lake.yaml", environ={"LAKE_SECRET": SECRET})


@pytest.fixture(scope="module")
def box(config: Config) -> Iterator[SqlBox]:
    made = SqlBox(config, LIMITS, lambda: 1)
    yield made
    made.close()


def test_a_select_is_answered_now_and_in_the_past(box: SqlBox) -> None:
    found = json.loads(box.ask("SELECT count(*) AS n FROM inventory", None))
    assert found["rows"][0][0] > 0
    joined = "SELECT count(*) FROM history.public.stores JOIN stores USING (store_id)"
    assert json.loads(box.ask(joined, None))["rows"][0][0] > 0
    assert json.loads(box.ask("FROM lake.at('orders', '2026-11-24 12:01') LIMIT 1", None))["rows"]
    assert json.loads(box.ask("SELECT count(*) FROM orders", "2026-11-24T12:00:30Z"))["rows"][0][0] > 0


def test_what_is_no_select_or_takes_too_much_is_ended_and_the_next_question_is_answered(box: SqlBox) -> None:
    for sql in (f"FROM read_csv('s3://{BUCKET}/other/secret.csv')", f"COPY stores TO 's3://{BUCKET}/lake/x.csv'"):
        with pytest.raises(SqlError):
            box.ask(sql, None)
    with pytest.raises(SqlError) as stop:
        box.ask("SELECT count(*) FROM range(100000000000) a, range(1000) b", None)
    assert stop.value.code == "sql_limit"
    assert json.loads(box.ask("SELECT count(*) FROM stores", None))["rows"][0][0] > 0


def test_the_session_itself_reaches_nothing_but_the_lake_though_the_text_is_not_looked_at(config: Config) -> None:
    session = open_session(config)
    try:
        close_doors(session, [config.lake_uri], Limits(256, 5))
        for sql in (
            f"FROM read_csv('s3://{BUCKET}/other/secret.csv')",
            f"FROM read_csv('s3://{BUCKET}/lake/../other/secret.csv')",
            "FROM read_text('/etc/passwd')",
            "FROM read_csv('https://example.com/x.csv')",
            f"COPY (SELECT 1) TO 's3://{BUCKET}/lake/x.csv'",
            "SET enable_external_access = true",
        ):
            with pytest.raises(Exception, match=r"disabled|lock|Cannot|cannot|writing"):
                session.connection.execute(sql).fetchall()
        assert session.connection.execute("SELECT count(*) FROM stores").fetchall()[0][0] > 0
    finally:
        session.close()
