"""`query`, `tables`, `fold` and `sql` from the command line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc_lake.cli import main as cli
from cdc_lake.cli import output
from cdc_lake.events import TableId
from tests.lake_model import Feed, append_ends, end_row

ORDERS = TableId("public", "orders")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    feed = Feed(tmp_path, (ORDERS,))
    for key in range(3):
        tx = feed.begin()
        tx.insert(ORDERS, key, key * 10, "ä")
        tx.commit()
    feed.land()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    output.configure(config=None, as_json=False, verbosity=0)


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    out, err = capfd.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.mark.parametrize("flags", [("--format", "json"), ("--json",)])
def test_query_prints_a_list_of_objects(
    folder: Path, capfd: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    code, out, _ = run(capfd, "query", "SELECT id, note FROM orders WHERE id < 2 ORDER BY id", *flags)

    assert (code, json.loads(out)) == (0, [{"id": 0, "note": "ä"}, {"id": 1, "note": "ä"}])


def test_query_prints_a_table_for_a_person(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "query", "SELECT id, qty FROM orders ORDER BY id")

    assert (code, [line.split() for line in out.splitlines() if "2" in line]) == (0, [["2", "20"]])


def test_query_reads_a_file_or_stdin(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "q.sql").write_text("SELECT count(*) AS n FROM orders;")
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT max(id) AS m FROM orders"))

    assert run(capfd, "query", "-f", "q.sql", "--format", "csv")[:2] == (0, "n\n3\n")
    assert run(capfd, "query", "-", "--format", "csv")[:2] == (0, "m\n2\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("query", "FROM oders"), 1, 'Did you mean "orders"?'),
        (("query", "SELEC 1"), 1, "^"),
        (("query",), 2, "Give one query"),
        (("query", "SELECT 1", "-f", "q.sql"), 2, "Give one query"),
        (("query", "-f", "missing.sql"), 2, "missing.sql cannot be read"),
        (("query", "SELECT 1", "--format", "jsn"), 2, 'Did you mean "json"?'),
        (("query", "SELECT 1", "--as-of", "2026-01-01"), 2, "before the log of pos begins"),
        (("query", "SELECT 1", "--as-of", "2027-01-01"), 2, "after what the lake holds of pos"),
        (("query", "SELECT 1", "--as-of", "yesterday"), 2, "'yesterday' is no moment"),
        (("query", "SELECT 1", "--as-of", "tx:9"), 2, "has no transaction 9"),
        (("fold", "oders"), 2, 'Did you mean "orders"?'),
    ],
)
def test_a_slip_is_answered_in_words(
    folder: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, words: str
) -> None:
    found, out, err = run(capfd, *arguments)

    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err


def test_a_number_that_is_a_transaction_and_an_lsn_is_asked_back(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    append_ends(folder, [end_row(100, "1002", {}, lsn=1003)])
    code, out, err = run(capfd, "query", "SELECT 1", "--as-of", "1002")

    assert (code, out) == (2, "")
    assert "--as-of tx:1002 or --as-of lsn:1002" in err


def test_an_error_is_json_when_json_was_asked_for(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "query", "FROM oders", "--json")

    assert (code, err) == (1, "")
    assert json.loads(out)["error"]["code"] == "sql"


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_a_reader_that_leaves_early_is_no_error(folder: Path, form: str) -> None:
    command = f"'{sys.executable}' -m cdc_lake query 'FROM range(100000)' --format {form} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)

    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_query_says_what_a_stalled_cut_waits_for(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    feed = Feed(folder, (ORDERS,))
    feed.offsets = {(ORDERS, p): 10 for p in range(2)}
    feed.transactions, feed.ends = 3, 6
    tx = feed.begin()
    tx.insert(ORDERS, 9, 9, None)
    tx.insert(ORDERS, 10, 9, None)
    tx.commit()
    feed.pending[ORDERS].pop()
    feed.land()

    code, out, err = run(capfd, "query", "SELECT count(*) AS n FROM orders", "--format", "table")
    assert (code, "3" in out) == (0, True)
    assert "the cut waits for transaction 00004: 1 of 2 rows of public.orders have not landed" in err


def test_tables_and_fold_say_what_is_there(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = json.loads(run(capfd, "tables", "--json")[1])["tables"]
    code, out, _ = run(capfd, "fold", "--json")
    after = json.loads(run(capfd, "tables", "--json")[1])["tables"]

    assert [(t["table"], t["key"], t["rows_landed"], t["unfolded"]) for t in before] == [
        ("public.orders", ["id"], 3, 3)
    ]
    assert (code, [(t["table"], t["outcome"], t["rows"]) for t in json.loads(out)["tables"]]) == (
        0,
        [("public.orders", "folded", 3)],
    )
    assert [t["unfolded"] for t in after] == [0]


def test_sql_runs_a_script_and_ends_with_its_first_error(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "SELECT count(*) AS n\nFROM orders;\n\\d orders\nSELEC 1;\nSELECT 'never';\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(script))
    code, out, err = run(capfd, "sql")

    assert code == 1
    assert "INTEGER" in out
    assert "never" not in out
    assert "syntax error" in err
