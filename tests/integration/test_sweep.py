"""Generated schemas, types, transactions and DDL through the whole stack: the lake is the source, twice compared.

Once by `verify`, once by a comparison that shares no code with it: rows as text, from psycopg and from DuckDB. A seed
is one batch of tables behind one connector; `SWEEP=100 SWEEP_SEED=7 python -m pytest tests/integration/test_sweep.py`
runs more rounds of another.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import psycopg
import pytest

from cdc_lake.config import load_config
from cdc_lake.query.session import open_session
from cdc_lake.sqltext import ident
from tests.integration.conftest import Database, RunningStack
from tests.projects import Project, make_project

SEED = int(os.environ.get("SWEEP_SEED", "1"))
ROUNDS = int(os.environ.get("SWEEP", "3"))
TABLES = 8
NAMES = ("plain", "Mixed Case", "üñï", "select", "a-b.c", 'quo"te', "x" * 60, "bag")
SCHEMAS = ("public", "Other Schema", 'ß"-_$', "order")
LONG = "lang-ß-\U0001f600 " * 400

# Types, values of them as SQL, and how both sides print them alike.
TYPES: dict[str, tuple[str, ...]] = {
    "smallint": ("-32768", "0", "32767"),
    "integer": ("-2147483648", "7"),
    "bigint": ("9223372036854775807", "-9007199254740993"),
    "numeric(20,4)": ("1234567890123456.7891", "-0.0001"),
    "boolean": ("true", "false"),
    "text": ("''", "'null'", "'ünï \"q\" \\ x'", "repeat('0123456789ab', 700)", f"'{LONG}'"),
    "varchar(40)": ("'x'", "'  blank  '"),
    "date": ("'0044-03-15'", "'2026-02-28'", "'9999-12-31'"),
    "timestamp": ("'1999-12-31 23:59:59.999999'", "'2026-11-24 00:00:00'"),
    "uuid": ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",),
    "double precision": ("'1e300'", "-0.5", "0.1"),
    "integer[]": ("'{1,2,3}'", "'{}'", "'{NULL,5}'"),
}
KEYS = ("integer", "bigint", "text", "uuid")


def key_value(kind: str, number: int) -> str:
    """The key of a row as SQL."""
    if kind == "text":
        return f"'k{number} ü'"
    return f"'00000000-0000-4000-8000-{number:012d}'" if kind == "uuid" else str(number)


@dataclass
class Made:
    """A table as far as the generator knows it."""

    schema: str
    name: str
    keys: list[str]
    columns: dict[str, str] = field(default_factory=dict)
    numbers: int = 0
    numbered: bool = False

    @property
    def sql(self) -> str:
        return f"{ident(self.schema)}.{ident(self.name)}"

    @property
    def key_names(self) -> list[str]:
        """The columns of the first key, and the number that may take its place."""
        return [*(f"k{i}" for i in range(len(self.keys))), *(["number"] if self.keys else [])]

    def key(self, number: int) -> str:
        """The condition that names one row; without a key, one of those that may be equal."""
        if not self.keys:
            return f"ctid = (SELECT ctid FROM {self.sql} ORDER BY ctid LIMIT 1 OFFSET {number - 1})"
        return " AND ".join(f"k{i} = {key_value(kind, number)}" for i, kind in enumerate(self.keys))


class Generator:
    """Statements by chance. What PostgreSQL refuses is rolled back, and was a try."""

    def __init__(self, dsn: str, seed: int) -> None:
        self.chance = Random(seed)
        self.source = psycopg.connect(dsn, autocommit=True)
        self.tables: list[Made] = []
        self.done: Counter[str] = Counter()

    def create(self, number: int) -> Made:
        """A table with one to three key columns, every fourth one without, and some others."""
        chance = self.chance
        keys = [] if number % 4 == 3 else [chance.choice(KEYS) for _ in range(chance.choice([1, 1, 2, 3]))]
        made = Made(SCHEMAS[number // 2 % len(SCHEMAS)], NAMES[number], keys)
        for _ in range(chance.randint(1, 6)):
            made.columns[f"c{len(made.columns)}"] = chance.choice(list(TYPES))
        columns = [f"k{i} {kind}" for i, kind in enumerate(made.keys)]
        columns += [f"{c} {t} DEFAULT {chance.choice(TYPES[t])}" for c, t in made.columns.items()]
        self.run(f"CREATE SCHEMA IF NOT EXISTS {ident(made.schema)}", f"CREATE TABLE {made.sql} ({', '.join(columns)})")
        if made.keys:
            key = ", ".join(made.key_names[:-1])
            self.run(f"ALTER TABLE {made.sql} ADD number int NOT NULL, ADD CONSTRAINT key{number} PRIMARY KEY ({key})")
        if not made.keys or chance.random() < 0.3:
            self.run(f"ALTER TABLE {made.sql} REPLICA IDENTITY FULL")
        self.tables.append(made)
        return made

    def run(self, *statements: str) -> None:
        """Statements in one transaction."""
        with self.source.transaction():
            for statement in statements:
                self.source.execute(statement.encode())

    def transaction(self) -> None:
        """Some changes of some tables."""
        statements = [self.change(self.chance.choice(self.tables)) for _ in range(self.chance.randint(1, 5))]
        try:
            self.run(*statements)
        except psycopg.errors.UniqueViolation:
            self.done["rolled back"] += 1

    def change(self, made: Made) -> str:
        """One statement on a table."""
        chance, some = self.chance, self.chance.randint(1, max(made.numbers, 1))
        kind = chance.choices(("insert", "update", "delete", "move", "truncate", "all"), (45, 28, 9, 11, 1, 6))[0]
        self.done[kind] += 1
        if kind == "insert":
            made.numbers += 1
            values = [key_value(k, made.numbers) for k in made.keys] + [str(made.numbers)] * bool(made.keys)
            row = ", ".join([*values, *(self.value(t) for t in made.columns.values())])
            # Equal rows are rows of their own where there is no key.
            rows = [f"({row})"] * (1 if made.keys else chance.choice([1, 1, 2, 3]))
            return f"INSERT INTO {made.sql} ({', '.join([*made.key_names, *made.columns])}) VALUES {', '.join(rows)}"
        if kind == "delete":
            return f"DELETE FROM {made.sql} WHERE {made.key(some)}"
        if kind == "truncate":
            return f"TRUNCATE {made.sql}"
        if kind == "move" and made.keys:
            made.numbers += 1
            return f"UPDATE {made.sql} SET k0 = {key_value(made.keys[0], made.numbers)} WHERE {made.key(some)}"
        column = chance.choice(list(made.columns))
        where = "" if kind == "all" else f" WHERE {made.key(some)}"
        return f"UPDATE {made.sql} SET {column} = {self.value(made.columns[column])}{where}"

    def value(self, kind: str) -> str:
        return "NULL" if self.chance.random() < 0.15 else self.chance.choice(TYPES[kind])

    def alter(self, kind: str | None = None) -> None:
        """One change of a table's shape."""
        chance = self.chance
        kind = kind or chance.choice(["add", "add with default", "drop", "rename", "widen"])
        made = chance.choice([t for t in self.tables if t.keys or kind != "rekey"])
        self.done[kind] += 1
        name, number = chance.choice(list(made.columns)), sum(self.done.values())
        if kind.startswith("add"):
            new = chance.choice([t for t in TYPES if "[]" not in t])
            default = f" DEFAULT {chance.choice(TYPES[new])}" if kind == "add with default" else ""
            self.run(f"ALTER TABLE {made.sql} ADD n{number} {new}{default}")
            made.columns[f"n{number}"] = new
        elif kind == "drop" and len(made.columns) > 1:
            self.run(f"ALTER TABLE {made.sql} DROP {name}")
            del made.columns[name]
        elif kind == "rename":
            self.run(f"ALTER TABLE {made.sql} RENAME {name} TO r{number}")
            made.columns[f"r{number}"] = made.columns.pop(name)
        elif kind == "rekey":
            self.rekey(made)
        elif kind == "widen":
            narrow = [c for c, t in made.columns.items() if t in ("smallint", "integer")]
            for column in narrow[:1]:
                self.run(f"ALTER TABLE {made.sql} ALTER {column} TYPE bigint")
                made.columns[column] = "bigint"

    def rekey(self, made: Made) -> None:
        """Put the primary key on the number, or back."""
        name = f"key{NAMES.index(made.name)}"
        made.numbered = not made.numbered
        keys = "number" if made.numbered else ", ".join(made.key_names[:-1])
        self.run(f"ALTER TABLE {made.sql} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} PRIMARY KEY ({keys})")


def by_text(rows: list[tuple[Any, ...]]) -> list[str]:
    """Rows in an order and a form that do not depend on who read them."""
    return sorted(json.dumps([None if v is None else str(v) for v in row], ensure_ascii=False) for row in rows)


def in_source(source: psycopg.Connection[Any], made: Made, columns: list[str]) -> list[str]:
    """The table by psycopg."""
    return by_text(source.execute(f"SELECT {', '.join(columns)} FROM {made.sql}".encode()).fetchall())


def in_lake(lake: duckdb.DuckDBPyConnection, made: Made, columns: list[str]) -> list[str]:
    """The table by DuckDB."""
    return by_text(lake.execute(f"SELECT {', '.join(columns)} FROM current.{made.sql}").fetchall())


def compare(project: Project, generator: Generator, moment: str) -> None:
    """Both comparisons."""
    project.ok("sink", "run", "--until-caught-up")
    session = open_session(load_config(project.folder / "cdc-lake.yaml"))
    try:
        for made in generator.tables:
            columns = [*made.key_names, *made.columns]
            source, lake = in_source(generator.source, made, columns), in_lake(session.connection, made, columns)
            wrong = sorted(set(source) ^ set(lake))[:4]
            assert lake == source, f"seed {SEED}, {moment}, {made}, {dict(generator.done)}:\n" + "\n".join(wrong)
    finally:
        session.close()
    report = project.verify()
    wrong = [t for t in report["tables"] if t["missing"] or t["extra"] or t["different"]]
    assert report["ok"], f"seed {SEED}, {moment}, {dict(generator.done)}: {json.dumps(wrong)[:3000]}"


@pytest.mark.parametrize("seed", [SEED])
def test_a_generated_database_is_the_same_in_the_lake(
    stack: RunningStack, database: Database, tmp_path: Path, seed: int
) -> None:
    generator = Generator(database.dsn, seed)
    for number in range(TABLES):
        made = generator.create(number)
        generator.run(*[generator.change(made) for _ in range(3)])
    everywhere = {"table.include.list": ".*"}
    with make_project(tmp_path / "project", database.dsn, stack.bootstrap, stack.connect_url, everywhere) as project:
        project.register()
        for number in range(ROUNDS):
            for _ in range(25):
                generator.transaction()
            compare(project, generator, f"round {number}, before its DDL")
            for kind in (None, None, "rekey"):
                generator.alter(kind)
                for _ in range(8):
                    generator.transaction()
            compare(project, generator, f"round {number}, after its DDL")
            if number % 2 == 0:
                project.ok("fold")
    assert generator.done["move"] > 0
    assert generator.done["rekey"] > 0
    generator.source.close()
