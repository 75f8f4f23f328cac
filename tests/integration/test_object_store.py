"""The lake on an object store: the same promises, on a real S3-compatible server."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from cdc_lake.land import layout
from cdc_lake.land.probe import probe
from cdc_lake.land.remote_files import RemoteFiles, register
from cdc_lake.local.retail.loader import create_schema, load
from cdc_lake.local.retail.rows import Size
from cdc_lake.local.retail.workload import Workload
from tests.guarantees.test_landing import CRASH_POINTS, check, landed, more_landed
from tests.integration.conftest import Database, RunningStack, wait_for
from tests.object_store import BUCKET, SECRET, Gate, object_store
from tests.projects import Project, make_project


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """One server for all tests; each has a prefix of its own."""
    with object_store(tmp_path_factory.mktemp("objects")) as gate:
        yield gate


@pytest.fixture
def root() -> str:
    """Where a test's lake is."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def lake_section(root: str, options: dict[str, str]) -> str:
    """The configuration of a lake there, the secret by reference."""
    named = {**options, "aws_secret_access_key": "${LAKE_SECRET}"} if "aws_secret_access_key" in options else options
    return f"lake: {{uri: '{root}', options: {json.dumps(named)}}}\n"


@pytest.fixture
def shop(  # noqa: PLR0917 - fixtures
    stack: RunningStack,
    database: Database,
    tmp_path: Path,
    store: Gate,
    root: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Project]:
    """A small retail database behind a running connector, its lake on the object store."""
    monkeypatch.setenv("LAKE_SECRET", SECRET)
    with make_project(tmp_path / "project", database.dsn, stack.bootstrap, stack.connect_url) as project:
        with (project.folder / "cdc-lake.yaml").open("a") as config:
            config.write(lake_section(root, store.options()))
        create_schema(project.dsn)
        load(project.dsn, Size.for_rows(1000))
        project.register()
        yield project


def test_of_writers_that_race_for_a_version_the_store_takes_one_and_a_store_that_forgets_is_found_out(
    tmp_path: Path, store: Gate, root: str
) -> None:
    assert not probe(root, "pos", store.options()).error
    assert not probe(root, "pos", store.options()).doubled
    with object_store(tmp_path / "forgetful", checks=False) as forgetful:
        forgetful.set(forgets=True)
        found = probe(root, "pos", forgetful.options())
        assert found.doubled
        assert not found.error


def test_the_probe_leaves_nothing_behind(store: Gate, root: str) -> None:
    probe(root, "pos", store.options())
    assert layout.list_sources(root, store.options()) == []


def test_only_the_ranges_that_a_query_needs_are_fetched_and_only_of_the_lake(store: Gate, root: str) -> None:
    options = store.options()
    rng = random.Random(1)
    text = [rng.randbytes(100).hex() for _ in range(20_000)]
    rows = pa.table({"n": list(range(20_000)), "text": text})
    write_deltalake(f"{root}/t", rows, storage_options=options)
    write_deltalake(f"{root}-other", rows, storage_options=options)
    (file,) = DeltaTable(f"{root}/t", storage_options=options).file_uris()
    (other,) = DeltaTable(f"{root}-other", storage_options=options).file_uris()
    con = duckdb.connect()
    register(con, root, options)
    con.execute(f"SET allowed_directories=['{root}/']; SET enable_external_access=false; SET lock_configuration=true")
    store.take()
    assert con.execute("SELECT sum(n) FROM read_parquet(?)", [file]).fetchone() == (sum(range(20_000)),)
    assert store.take()["GET data"] <= 3
    assert con.execute("SELECT max(text) FROM read_parquet(?)", [file]).fetchone() == (max(text),)
    with pytest.raises(duckdb.Error):
        con.execute("SELECT * FROM read_parquet(?)", [other])
    with pytest.raises(duckdb.Error):
        con.execute("SELECT * FROM read_text('/etc/hostname')")


def test_threads_that_read_one_file_at_once_each_get_their_own_bytes(store: Gate, root: str) -> None:
    rng, files = random.Random(2), layout.open_store(root, store.options())
    with files.open_output_stream("file") as out:
        pq.write_table(pa.table({"bytes": [rng.randbytes(3 << 20)]}), out)
    with files.open_input_file("file") as whole:
        content = whole.read()
    file = RemoteFiles(root, store.options()).open(f"{root}/file")
    turns = threading.Barrier(4)
    found: dict[int, list[bytes]] = {}

    def read(number: int) -> None:
        found[number] = []
        for block in range(8):
            file.seek((block * 4 + number) * 1000)
            turns.wait()  # all have sought before anyone reads
            found[number].append(file.read(1000))
            turns.wait()

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, blocks in found.items():
        starts = [(block * 4 + number) * 1000 for block in range(8)]
        assert blocks == [content[start : start + 1000] for start in starts]


def test_a_sink_killed_again_and_again_lands_each_record_once_on_an_object_store(
    shop: Project,
) -> None:
    rng = random.Random(7)
    workload = Workload(shop.dsn, rate=30)
    workload.start()
    try:
        for _ in range(4):
            before = len(landed(shop))
            sink = shop.start("sink", "run", env={"CDC_LAKE__SINK__FLUSH_SECONDS": "0.2"})
            wait_for(partial(more_landed, shop, before), "the sink to land more", seconds=90)
            time.sleep(rng.random())  # not a wait: the moment of the kill must be any moment
            sink.send_signal(signal.SIGKILL)
            sink.wait()
    finally:
        workload.stop()
    check(shop)


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_sink_killed_at_a_named_point_goes_on_where_the_lake_is_on_an_object_store(shop: Project, point: str) -> None:
    workload = Workload(shop.dsn, rate=20)
    workload.start()
    try:
        sink = shop.start("sink", "run", env={"CDC_LAKE_CRASH_AT": point, "CDC_LAKE__SINK__FLUSH_SECONDS": "0.2"})
        assert sink.wait(timeout=120) == -signal.SIGKILL
    finally:
        workload.stop()
    check(shop)


def test_read_models_are_folded_maintained_rebuilt_and_read_there(shop: Project) -> None:
    shop.ok("sink", "run", "--until-caught-up")
    shop.ok("fold")
    Workload(shop.dsn, seed=3).perform("sale")
    check(shop)
    shop.ok("fold")
    assert shop.verify()["ok"]
    shop.ok("rebuild", "orders")
    shop.ok("maintain", "--alone")
    assert shop.verify()["ok"]
    assert shop.query("SELECT count(*) AS n FROM orders")[0]["n"] > 0
    assert shop.query("SELECT count(*) AS n FROM history.public.orders")[0]["n"] > 0
    assert shop.query("SELECT count(*) AS n FROM changes.public.orders")[0]["n"] > 0
    assert shop.ok("tables")
    assert '"lake.put_if_absent"' in shop.run("--json", "doctor").stdout


def test_a_sink_waits_for_a_store_that_is_away_for_a_while(shop: Project, store: Gate) -> None:
    shop.ok("sink", "run", "--until-caught-up")
    sink = shop.start("sink", "run", env={"CDC_LAKE__SINK__FLUSH_SECONDS": "0.2"})
    wait_for(lambda: "lag" in shop.log(), "the sink to read")
    workload = Workload(shop.dsn, rate=20)
    workload.start()
    store.set(down=True)
    try:
        time.sleep(8)  # not a wait: how long the store is away
    finally:
        store.set(down=False)
        workload.stop()
    before = len(landed(shop))
    wait_for(lambda: len(landed(shop)) > before or sink.poll() is not None, "the sink to land again")
    assert sink.poll() is None, shop.log()
    sink.send_signal(signal.SIGTERM)
    assert sink.wait(timeout=60) == 0
    check(shop)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"aws_secret_access_key": "no-such-canary-secret"}, "store_refused"),
        ({"aws_endpoint": "http://127.0.0.1:1"}, "store_away"),
        ({"aws_allow_http": "false"}, "store_plain_http"),
        ({"bucket": "no-such-bucket"}, "store_no_bucket"),
    ],
)
def test_what_is_wrong_with_a_store_is_named_with_the_way_out_and_without_the_secret(
    tmp_path: Path, store: Gate, root: str, change: dict[str, str], code: str
) -> None:
    bucket = change.get("bucket", BUCKET)
    options = {**store.options(), **{k: v for k, v in change.items() if k != "bucket"}}
    secret = options["aws_secret_access_key"]
    (tmp_path / "cdc-lake.yaml").write_text(lake_section(root.replace(BUCKET, bucket, 1), options))
    project = Project(tmp_path, "none", "", "")
    for command in (("query", "SELECT 1"), ("fold",), ("tables",)):
        done = project.run("--json", *command, env={"LAKE_SECRET": secret})
        assert done.returncode == 1, done.stdout + done.stderr
        error = json.loads(done.stdout)["error"]
        assert error["code"] == code
        assert error["next"]
        assert "Traceback" not in done.stderr
        assert secret not in done.stdout + done.stderr
