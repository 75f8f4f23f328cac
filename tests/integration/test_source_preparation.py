"""A source is looked at, refused or prepared: against a real PostgreSQL, without Kafka."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from cdc_lake.capture import prepare
from cdc_lake.capture.catalogue import read_catalogue
from cdc_lake.capture.postgres import open_source
from cdc_lake.capture.preflight import survey
from cdc_lake.capture.wanted import Wanted, work_out
from cdc_lake.config import Config
from cdc_lake.config_source import Source
from cdc_lake.connector_file import ConnectorFile, load_connector
from cdc_lake.errors import ConfigError, SourceError, UnavailableError
from cdc_lake.events import TableId
from cdc_lake.local.stack import Stack
from cdc_lake.sqltext import ident
from tests.integration.conftest import wait_for

pytestmark = pytest.mark.stack

POS = load_connector(Path(__file__).parents[2] / "connectors" / "pos.json")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A PostgreSQL of this module's own, because its settings are changed."""
    stack = Stack(tmp_path_factory.mktemp("source") / ".cdc-lake")
    stack.start("postgres")
    yield stack
    stack.down(wipe=True)


def address(server: Stack) -> str:
    """The administrator's address: the whole stack has more parts than run here."""
    return str(server.state.parts()["postgres"]["dsn"])


class Place:
    """An empty database, a project folder, and a source named like the database."""

    def __init__(self, admin: str, folder: Path) -> None:
        self.name = f"s_{uuid.uuid4().hex[:8]}"
        self.dsn = urlsplit(admin)._replace(path=f"/{self.name}").geturl()
        self.source = Source(name=self.name, dsn=self.dsn)
        self.config = Config.model_validate({"source": self.source.model_dump(), "root": folder})
        self.role = f"cdc_lake_{self.name}"

    def run(self, *statements: str, user: str | None = None, password: str | None = None) -> list[tuple[Any, ...]]:
        """The rows of the last statement."""
        rows: list[tuple[Any, ...]] = []
        parts = {"user": user, "password": password} if user else {}
        with psycopg.connect(self.dsn, autocommit=True, **parts) as connection:  # type: ignore[arg-type]
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def connector(self, **settings: str) -> ConnectorFile:
        config = {**POS.config, "publication.name": "p", "slot.name": self.name}
        return ConnectorFile(self.name, {**config, **{k.replace("_", "."): v for k, v in settings.items()}})

    def look(self, connector: ConnectorFile | None = None) -> Wanted:
        with open_source(self.dsn) as connection:
            return work_out(self.config, self.source, connector or self.connector(), connection, make_secret=False)

    def prepare(self, connector: ConnectorFile | None = None) -> list[str]:
        """Prepare the source; the statements that ran, as shown."""
        with open_source(self.dsn) as connection:
            chosen = connector or self.connector()
            wanted = work_out(self.config, self.source, chosen, connection, make_secret=True)
            prepare.execute(connection, wanted.plan.statements)
        return [str(s) for s in wanted.plan.statements]

    def secret(self) -> str:
        file = self.config.state_folder / "secrets" / f"{self.name}.properties"
        assert file.stat().st_mode & 0o777 == 0o600
        return dict(line.split("=", 1) for line in file.read_text().splitlines())["password"]

    def published(self) -> set[str]:
        return {f"{s}.{t}" for s, t in self.run("select schemaname, tablename from pg_publication_tables")}


@pytest.fixture
def place(server: Stack, tmp_path: Path) -> Iterator[Place]:
    admin = address(server)
    found = Place(admin, tmp_path)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"create database {ident(found.name)}".encode())
    yield found
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"drop database {ident(found.name)} with (force)".encode())
        connection.execute(f"drop role if exists {ident(found.role)}".encode())


def refused(place: Place, connector: ConnectorFile | None = None) -> SourceError:
    with pytest.raises(SourceError) as error:
        place.look(connector)
    assert error.value.next
    return error.value


def test_preparing_twice_runs_nothing_the_second_time(place: Place) -> None:
    place.run("create table orders (id int primary key)")
    assert place.prepare()
    assert place.prepare() == []


def test_names_of_any_spelling_are_prepared(place: Place) -> None:
    names = ['"Order Lines, all"', '"a""b"', '"dot.ted"', '"größe"', '"select"', '"semi;colon"', '"it\'s"', '"%s"']
    place.run(*(f"create table {name} (id int primary key)" for name in names))
    place.prepare()
    assert place.prepare() == []
    published = {t for t in place.published() if not t.startswith("cdc_lake.")}
    assert published == {"public." + name[1:-1].replace('""', '"') for name in names}


def test_the_role_reads_exactly_the_captured_tables(place: Place) -> None:
    place.run("create table orders (id int primary key)", "create table private (id int primary key)")
    place.prepare(place.connector(table_exclude_list=r"public\.private"))
    as_role = {"user": place.role, "password": place.secret()}
    assert place.run("select count(*) from orders", **as_role) == [(0,)]
    for statement in ("select * from private", "insert into orders values (1)", "create table x (id int)"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            place.run(statement, **as_role)
    rights = place.run(f"select rolsuper, rolcreatedb, rolreplication from pg_roles where rolname = '{place.role}'")
    assert rights == [(False, False, True)]


def test_the_role_can_beat_and_signal(place: Place) -> None:
    place.run("create table orders (id int primary key)")
    place.prepare()
    as_role = {"user": place.role, "password": place.secret()}
    for _ in range(2):
        place.run(POS.config["heartbeat.action.query"], **as_role)
    assert place.run("select count(*) from cdc_lake.heartbeat") == [(1,)]
    place.run("insert into cdc_lake.signals values ('1', 'x', '')", "delete from cdc_lake.signals", **as_role)


def test_the_publication_follows_the_tables(place: Place) -> None:
    place.run("create table a (id int primary key)", "create table b (id int primary key)")
    place.prepare()
    place.run("create table c (id int primary key)")
    place.prepare(place.connector(table_exclude_list=r"public\.a"))
    assert place.published() == {"public.b", "public.c", "cdc_lake.heartbeat", "cdc_lake.signals"}
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        place.run("select * from a", user=place.role, password=place.secret())


def test_a_publication_with_other_options_is_set_right(place: Place) -> None:
    place.run("create table a (id int primary key)", "create publication p for table a with (publish = 'insert')")
    place.prepare()
    options = place.run(
        "select pubupdate, pubdelete, pubtruncate, pubviaroot, pubgencols::text from pg_publication where pubname = 'p'"
    )
    assert options == [(True, True, True, True, "s")]


@pytest.mark.parametrize("scope", ["for all tables", "for tables in schema public"])
def test_a_publication_that_lists_no_tables_is_refused(place: Place, scope: str) -> None:
    place.run("create table a (id int primary key)", f"create publication p {scope}")
    assert refused(place).code == "publication"


def test_a_lost_secrets_file_gives_the_role_a_new_password(place: Place) -> None:
    place.run("create table a (id int primary key)")
    place.prepare()
    first = place.secret()
    (place.config.state_folder / "secrets" / f"{place.name}.properties").unlink()
    assert place.prepare() == [f"ALTER ROLE {ident(place.role)} PASSWORD '********'"]
    assert place.secret() != first
    assert place.run("select 1", user=place.role, password=place.secret()) == [(1,)]


def test_a_password_changed_by_somebody_else_is_set_back(place: Place) -> None:
    place.run("create table a (id int primary key)")
    place.prepare()
    place.run(f"alter role {ident(place.role)} password 'other'")
    assert len(place.prepare()) == 1
    assert place.run("select 1", user=place.role, password=place.secret()) == [(1,)]


def test_no_statement_holds_the_password(place: Place) -> None:
    place.run("create table a (id int primary key)")
    with open_source(place.dsn) as connection:
        wanted = work_out(place.config, place.source, place.connector(), connection, make_secret=True)
    password = place.secret()
    assert not any(password in s.sql or password in str(s) for s in wanted.plan.statements)
    assert not any("SCRAM" in str(s) for s in wanted.plan.statements)
    assert wanted.config["database.password"].startswith("${file:")


def test_a_rehearsal_writes_nothing(place: Place) -> None:
    place.run("create table a (id int primary key)")
    assert place.look().plan.statements
    assert not place.config.state_folder.exists()
    assert place.run("select 1 from pg_namespace where nspname = 'cdc_lake'") == []


def test_publishing_a_table_without_key_breaks_its_updates_and_is_refused(place: Place) -> None:
    place.run("create table log (line text)", "insert into log values ('x')", "create publication q for table log")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        place.run("update log set line = 'y'")
    error = refused(place)
    assert (error.code, "public.log" in error.message) == ("no_replica_identity", True)
    assert 'ALTER TABLE "public"."log" REPLICA IDENTITY FULL;' in error.next


def test_the_statement_of_the_refusal_is_the_cure(place: Place) -> None:
    place.run("create table log (line text)", "insert into log values ('x')")
    place.run(refused(place).next.removeprefix("in the source: ").partition(";")[0])
    place.prepare()
    place.run("update log set line = 'y'", "delete from log")


def test_columns_that_differ_in_case_alone_are_refused_before_they_end_the_connector(place: Place) -> None:
    place.run('create table t (id int primary key, "A" int, a int)')
    error = refused(place)
    assert (error.code, '"A" and "a" of table public.t' in error.message) == ("column_case", True)
    statement = error.next.removeprefix("in the source: ").partition(";")[0]
    place.run(statement.replace("…", "b"))
    place.prepare()


def test_a_table_without_key_may_be_left_out(place: Place) -> None:
    place.run("create table log (line text)", "create table a (id int primary key)")
    assert [str(t.id) for t in place.look(place.connector(table_exclude_list=r"public\.log")).survey.tables] == [
        "public.a"
    ]


@pytest.mark.parametrize(
    ("make", "cure"),
    [
        ("alter table t replica identity nothing", "DEFAULT"),
        ("alter table t drop constraint t_pkey, add primary key (id) deferrable", "FULL"),
        (
            "create unique index u on t (n); alter table t replica identity using index u; drop index u",
            "DEFAULT",
        ),
    ],
)
def test_every_unusable_identity_is_refused_with_its_cure(place: Place, make: str, cure: str) -> None:
    place.run("create table t (id int primary key, n int not null)", *make.split("; "))
    error = refused(place)
    assert error.code == "no_replica_identity"
    assert f"REPLICA IDENTITY {cure};" in error.next


def test_one_partition_without_identity_is_enough_to_refuse(place: Place) -> None:
    place.run(
        "create table sales (id int, d date, primary key (id, d)) partition by range (d)",
        "create table sales_24 partition of sales for values from ('2024-01-01') to ('2025-01-01')",
        "alter table sales_24 replica identity nothing",
    )
    assert "public.sales_24" in refused(place).message


def test_partitions_are_published_through_their_root(place: Place) -> None:
    place.run(
        "create table sales (id int, d date, primary key (id, d)) partition by range (d)",
        "create table sales_24 partition of sales for values from ('2024-01-01') to ('2025-01-01')",
    )
    wanted = place.look()
    assert [str(t.id) for t in wanted.survey.tables] == ["public.sales"]
    assert "sales_24" not in wanted.config["table.include.list"]
    place.prepare()
    assert "public.sales" in place.published()


def test_virtual_columns_are_left_out_and_stored_ones_are_published(place: Place) -> None:
    place.run(
        "create table t (id int primary key, s int generated always as (id * 2) stored,"
        " v int generated always as (id * 3) virtual)"
    )
    wanted = place.look()
    assert wanted.config["column.exclude.list"] == r"public\.t\.v"
    assert any("public.t.v" in warning for warning in wanted.survey.warnings)


def test_a_virtual_column_under_identity_full_breaks_updates_and_is_refused(place: Place) -> None:
    place.run(
        "create table t (id int primary key, v int generated always as (id * 3) virtual)",
        "alter table t replica identity full",
        "insert into t values (1)",
        "create publication q for table t",
    )
    with pytest.raises(psycopg.Error):
        place.run("update t set id = 2")
    assert "virtual generated column" in refused(place).message


def test_a_slot_of_another_database_is_refused(place: Place, server: Stack) -> None:
    place.run("create table a (id int primary key)")
    with psycopg.connect(address(server), autocommit=True) as other:
        other.execute("select pg_create_logical_replication_slot('elsewhere', 'pgoutput')")
        try:
            assert "belongs to the database" in refused(place, place.connector(slot_name="elsewhere")).message
        finally:
            other.execute("select pg_drop_replication_slot('elsewhere')")


def test_lists_that_match_no_table_show_what_there_is(place: Place) -> None:
    place.run("create table orders (id int primary key)")
    error = refused(place, place.connector(table_include_list=r"sales\..*"))
    assert (error.code, "public.orders" in error.why) == ("no_tables", True)


def test_a_user_without_the_rights_is_told_how_to_hand_the_statements_on(place: Place) -> None:
    place.run("create table a (id int primary key)", f"create role {ident(place.role)} login password 'x'")
    dsn = urlsplit(place.dsn)
    weak = dsn._replace(netloc=f"{place.role}:x@{dsn.hostname}:{dsn.port}").geturl()
    with open_source(weak) as connection:
        statement = prepare.Statement("CREATE SCHEMA cdc_lake", "create the schema cdc_lake")
        with pytest.raises(SourceError) as error:
            prepare.execute(connection, [statement])
    assert error.value.code == "permission_denied"
    assert "--dry-run" in error.value.next


def test_a_failed_preparation_leaves_nothing_behind(place: Place) -> None:
    twice = [prepare.Statement("CREATE SCHEMA half", "create a schema")] * 2
    with open_source(place.dsn) as connection, pytest.raises(SourceError):
        prepare.execute(connection, twice)
    assert place.run("select 1 from pg_namespace where nspname = 'half'") == []


def test_a_preparation_that_a_deadlock_ended_is_begun_again(place: Place) -> None:
    place.run("create table a (id int)", "create table b (id int)")
    waiting = "select 1 from pg_locks where relation = 'b'::regclass and not granted"
    with psycopg.connect(place.dsn) as other, ThreadPoolExecutor() as pool, open_source(place.dsn) as connection:
        other.execute("set deadlock_timeout = '60s'")  # it is ours that finds it, and ends
        other.execute("lock table b")
        statements = [prepare.Statement(f"LOCK TABLE {t}", f"lock {t}") for t in ("a", "b")]
        prepared = pool.submit(prepare.execute, connection, [*statements, prepare.Statement("CREATE SCHEMA c", "c")])
        wait_for(lambda: place.run(waiting), "the preparation to wait for b")
        other.execute("lock table a")
        other.commit()
        prepared.result()
    assert place.run("select 1 from pg_namespace where nspname = 'c'") == [(1,)]


def test_a_wrong_password_is_named_and_not_shown(place: Place) -> None:
    dsn = urlsplit(place.dsn)
    wrong = dsn._replace(netloc=f"postgres:hunter2@{dsn.hostname}:{dsn.port}").geturl()
    with pytest.raises(SourceError) as error:
        open_source(wrong)
    assert error.value.code == "wrong_password"
    assert "hunter2" not in f"{error.value.message}{error.value.why}{error.value.next}"


def test_a_database_that_does_not_exist_is_named(place: Place) -> None:
    with pytest.raises(SourceError, match='no database "nowhere"'):
        open_source(urlsplit(place.dsn)._replace(path="/nowhere").geturl())


def test_a_database_that_is_down_is_unavailable() -> None:
    with pytest.raises(UnavailableError) as error:
        open_source("postgresql://postgres:hunter2@127.0.0.1:1/pos")
    assert "127.0.0.1:1/pos" in error.value.message
    assert "hunter2" not in f"{error.value.message}{error.value.why}{error.value.next}"


def test_an_address_that_cannot_be_read_is_not_shown() -> None:
    with pytest.raises(ConfigError) as error:
        open_source("postgres//user:hunter2@host")
    assert "hunter2" not in f"{error.value.message}{error.value.why}{error.value.next}"


def test_the_catalogue_has_types_as_sql_writes_them(place: Place) -> None:
    place.run(
        "create type mood as enum ('sad', 'ok')",
        "create domain price as numeric(10, 2)",
        "create domain fair_price as price check (value > 0)",
        "create table t (b int, a int, name varchar(20) not null default 'x', p fair_price, m mood, ms mood[],"
        " tags numeric(5, 1)[], ps price[], id int generated always as identity, gone int,"
        " twice int generated always as (a * 2) stored, primary key (a, b))",
        "alter table t drop column gone",
        "alter table t replica identity full",
    )
    found = read_catalogue(place.dsn, [TableId("public", "t"), TableId("public", "missing")])
    assert [(t["schema"], t["table"], t["replica_identity"]) for t in found] == [("public", "t", "f")]
    columns = {c["name"]: c for c in found[0]["columns"]}
    assert list(columns) == ["b", "a", "name", "p", "m", "ms", "tags", "ps", "id", "twice"]
    assert (columns["a"]["key_position"], columns["b"]["key_position"], columns["m"]["key_position"]) == (1, 2, None)
    assert (columns["name"]["type"], columns["name"]["not_null"]) == ("character varying(20)", True)
    assert columns["name"]["default_expr"] == "'x'::character varying"
    assert (columns["p"]["typtype"], columns["p"]["base_type"], columns["p"]["base_typname"]) == (
        "d",
        "numeric(10,2)",
        "numeric",
    )
    assert (columns["m"]["typtype"], columns["ms"]["element_typname"], columns["ms"]["element_typtype"]) == (
        "e",
        "mood",
        "e",
    )
    assert (columns["tags"]["element_typname"], columns["tags"]["element_type"]) == ("numeric", "numeric(5,1)")
    assert (columns["ps"]["element_type"], columns["ps"]["base_type"]) == ("price", "numeric(10,2)")
    assert (columns["id"]["identity"], columns["twice"]["generated"], columns["twice"]["default_expr"]) == (
        "a",
        "s",
        None,
    )


def test_the_catalogue_of_all_tables_has_no_system_tables(place: Place) -> None:
    place.run("create table a (id int primary key)", "create view v as select * from a")
    assert [t["table"] for t in read_catalogue(place.dsn)] == ["a"]


def test_a_server_that_is_not_logical_is_refused_with_the_statement(server: Stack, place: Place) -> None:
    place.run("create table a (id int primary key)", "alter system set wal_level = 'replica'")
    server.stop("postgres")
    server.start("postgres")
    try:
        error = refused(place)
        assert (error.code, "ALTER SYSTEM SET wal_level = 'logical'" in error.next) == ("wal_level", True)
        place.run("alter system reset wal_level", "select pg_reload_conf()")
        pending = refused(place)
        assert "waits for a restart" in pending.why
    finally:
        place.run("alter system reset wal_level")
        server.stop("postgres")
        server.start("postgres")
    with open_source(place.dsn) as connection:
        assert survey(connection, place.connector()).server.wal_level == "logical"
