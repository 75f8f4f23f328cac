"""`sql`: keys pressed on a real terminal, and scripts; what it draws."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cdc_lake.cli import main as cli
from cdc_lake.cli import output
from cdc_lake.cli.plot import Points, draw, read_points
from cdc_lake.cli.shell_commands import COMMANDS
from cdc_lake.errors import UsageError
from cdc_lake.events import TableId
from tests.lake_model import Feed
from tests.terminals import Terminal, terminal

ORDERS = TableId("public", "orders")
# What the prompt sends when it begins to read keys.
READY = "\x1b[?2004h"
LONG = "SELECT count(*) FROM range(10000000) a, range(100000) b WHERE hash(a.range * b.range) % 7 = 3;"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shop")
    feed = Feed(made, (ORDERS, TableId("hr", "staff old")))
    for key in range(3):
        tx = feed.begin()
        tx.insert(ORDERS, key, key * 10, None if key == 1 else "ä")
        tx.insert(TableId("hr", "staff old"), key, 1, None)
        tx.commit()
    feed.land()
    (made / "cdc-lake.yaml").write_text("source: {name: pos}\n")
    return made


class Keys:
    """A person at the shell: types, and reads what comes behind it."""

    def __init__(self, screen: Terminal) -> None:
        self._screen = screen

    def type(self, keys: str, until: str, *, then: str = "") -> str:
        before = len(self._screen.text)
        self._screen.type(keys)
        text = self._screen.until(until, seconds=30, after=before)
        text = self._screen.until(then, seconds=30, after=text.index(until, before))[before:]
        return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", text)

    def enter(self, line: str, until: str) -> str:
        """Type a line, read what it brings, and wait until the prompt takes keys again."""
        return self.type(f"{line}\r", until, then=READY)


def test_a_session_at_the_keyboard(folder: Path) -> None:
    with terminal(folder, "sql", size=(24, 80), env={"PAGER": "", "NO_COLOR": ""}) as screen:
        screen.until(READY, seconds=60)
        keys = Keys(screen)

        # Several lines, and the time it took.
        keys.type("SELECT 40\r", "->")
        assert re.search(r"42\s+1 row · \d+ ms", keys.enter("+ 2 AS n;", " ms"))

        # Tab: a table, then its column, by what stands behind the cursor.
        keys.type("FROM ord\t", "ers")
        keys.type(" SELECT max(qt\t", "y")
        assert re.search(r"\b20\s+1 row", keys.enter(");", "1 row"))

        # A slip is shown under the place where it stands, and the shell goes on.
        slip = keys.enter("FROM orders WHERE nte = 1;", "next:")
        line, caret = re.findall(r"(LINE 1: .*?)\r?\n( *\^+)", slip)[0]
        assert line[caret.index("^") :].startswith("nte")
        assert 'Did you mean "note"?' in slip

        # Ctrl-C stops a query, whose progress was shown, and the same session answers at once.
        keys.type(f"{LONG}\r", "s · Ctrl-C stops it")
        keys.type("\x03", "Stopped.", then=READY)
        keys.enter("SELECT 1;", "1 row")
        keys.type("SELECT dropped\x03", "lake>", then=READY)

        # The past, said by the prompt, and back.
        keys.type("\\asof tx:00002\r", READY, then="lake @ tx:00002>")
        assert re.search(r"\b2\s+1 row", keys.enter("SELECT count(*) FROM orders;", "1 row"))
        keys.enter("\\asof tx:9", "has no transaction 9")
        assert re.search(r"\b2\s+1 row", keys.enter("SELECT count(*) FROM orders;", "1 row"))
        keys.type("\\asof now\r", READY, then="lake>")
        assert re.search(r"\b3\s+1 row", keys.enter("SELECT count(*) FROM orders;", "1 row"))

        # The pager takes what is longer than the screen.
        keys.type("FROM range(100);\r", "\r\n:")
        keys.type("q", "100 rows", then=READY)

        screen.type("\x04")
        assert screen.ends(seconds=30) == 0
        assert "Traceback" not in screen.text

    assert LONG in (folder / ".cdc-lake" / "sql_history").read_text()
    assert (folder / ".cdc-lake" / "sql_history").stat().st_mode & 0o077 == 0


def test_a_later_session_has_the_history_and_no_colours_where_none_are_wanted(folder: Path) -> None:
    (folder / ".cdc-lake").mkdir(exist_ok=True)
    (folder / ".cdc-lake" / "sql_history").write_text("\n# 2026-11-24 10:00:00\n+SELECT 'earlier' AS w;\n")
    with terminal(folder, "sql", size=(24, 80), env={"PAGER": "no-such-pager", "NO_COLOR": "1"}) as screen:
        screen.until(READY, seconds=60)
        keys = Keys(screen)
        assert "earlier" in keys.enter("\x1b[A", "1 row")
        keys.type("FROM range(100);\r", "more lines: Enter, or q")
        keys.enter("q", "100 rows")
        screen.type("\\q\r")
        assert screen.ends(seconds=30) == 0
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", screen.text), "colours"


@pytest.fixture
def script(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.chdir(folder)
    yield Script(capfd, monkeypatch)
    output.configure(config=None, as_json=False, verbosity=0)


class Script:
    """Statements and commands on stdin."""

    def __init__(self, capfd: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capfd, self._patch = capfd, patch

    def __call__(self, text: str, *flags: str, code: int = 0) -> tuple[str, str]:
        self._patch.setattr(sys, "stdin", io.StringIO(text))
        with pytest.raises(SystemExit) as stop:
            cli.main(["sql", *flags])
        out, err = self._capfd.readouterr()
        assert int(stop.value.code or 0) == code, err
        return out, err


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "explore.md"
SCREENS = re.findall(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("screen", SCREENS, ids=lambda text: text.splitlines()[0])
def test_the_page_shows_what_the_shell_prints(script: Script, screen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "18")
    typed = [line[6:] for line in screen.splitlines() if line.startswith(("lake> ", "   -> "))]
    shown = [line for line in screen.splitlines() if line[:6] not in ("lake> ", "   -> ")]
    out, err = script("\n".join(typed), code=1 if "Error: " in screen else 0)
    assert [line.rstrip() for line in (out + err).splitlines() if line.strip()] == shown


ROWS = "SELECT id, note FROM orders WHERE id < 2 ORDER BY id;"


def test_each_format_shows_the_same_rows(script: Script) -> None:
    assert script(f"\\format csv\n{ROWS}")[0] == "id,note\n0,ä\n1,\n"
    assert script(f"\\format jsonl\n{ROWS}")[0] == '{"id":0,"note":"ä"}\n{"id":1,"note":null}\n'
    assert json.loads(script(ROWS, "--json")[0]) == [{"id": 0, "note": "ä"}, {"id": 1, "note": None}]
    assert script(f"\\format markdown\n{ROWS}")[0] == "| id | note |\n| --- | --- |\n| 0 | ä |\n| 1 |  |\n"
    assert script(f"\\x\n{ROWS}")[0] == "  id = 0\nnote = ä\n\n  id = 1\nnote = NULL\n"
    table = script(ROWS)[0].split()
    assert table == ["id", "note", "integer", "varchar", "─" * 17, "0", "ä", "1", "NULL"]


def test_the_commands_say_what_there_is(script: Script) -> None:
    out, err = script("\\d\n\\d orders\n\\d history.public.orders\n\\l\n\\dn\n\\?")
    assert re.search(r"^ *orders +3 +id, qty, note", out, re.M)
    assert 'hr."staff old"' in out
    assert re.search(r"id +INTEGER +yes", out)
    assert "The same table: changes.public.orders, history.public.orders" in err
    assert "__valid_to" in out
    assert re.search(r"history +\d+ +each version", out)
    assert re.search(r"hr +1", out)
    assert [name for name in COMMANDS if f"  {name} " not in out] == []
    out = script("\\d changes\n\\dt h*ORD*")[0]
    assert [w for w in out.split() if "." in w and w.endswith("orders")] == [
        "changes.public.orders",
        "history.public.orders",
    ]


def test_a_result_goes_to_a_file_by_its_ending_and_a_file_of_statements_runs(script: Script, folder: Path) -> None:
    (folder / "one.sql").write_text(f"\\o out.parquet\n{ROWS}\n\\o out.md\n{ROWS}\nSELECT 'printed' AS w;")
    assert "printed" in script("\\i one.sql")[0]
    assert pq.read_table(folder / "out.parquet").to_pylist() == [{"id": 0, "note": "ä"}, {"id": 1, "note": None}]
    assert (folder / "out.md").read_text().startswith("| id | note |")
    (folder / "round.sql").write_text("\\i round.sql")
    assert "again and again" in script("\\i round.sql", code=2)[1]


def test_only_the_first_rows_are_shown_and_that_is_said(script: Script) -> None:
    shown = script("\\rows 2\nSELECT id FROM orders ORDER BY id;")[0]
    assert "The first 2 rows" in shown
    assert re.search(r"^ *2$", shown, re.M) is None


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("\\plt", 2, 'Did you mean "\\plot"?'),
        ("\\d oders", 2, 'Did you mean "orders"?'),
        ("\\format jsn", 2, 'Did you mean "json"?'),
        ("\\rows many", 2, "no number of rows"),
        ("\\timing perhaps", 2, "neither on nor off"),
        ("\\asof yesterday", 2, "no moment"),
        ("\\i nothing.sql", 2, "cannot be read"),
        ("\\o no/such/folder/x.csv\nSELECT 1;", 2, "cannot be written"),
        ("\\dt nothing*", 2, "No table is called like"),
        ("\\plot", 2, "no query to plot"),
        ("\\plot SELECT 1, 2, 3", 2, "takes two columns"),
        ("\\plot SELECT 1, 'x'", 2, "takes numbers"),
        ("SELECT nosuch(1);", 1, "^^^"),
        ("SELECT 1;\nSELECT\n  id,\n  oders.x\nFROM orders;", 1, "LINE 3:   oders.x"),
    ],
)
def test_a_slip_in_a_script_ends_it_with_its_code(script: Script, line: str, code: int, words: str) -> None:
    out, err = script(f"{line}\nSELECT 'never';", code=code)
    assert words in err
    assert "Traceback" not in err
    assert "never" not in out


def test_a_plot_of_names_has_a_bar_for_each() -> None:
    bars = draw(Points("region", "sales", ("north", "süd", "日本"), (8.0, 4.0, -2.0)), 40, 20)
    assert [line.split()[0] for line in bars.splitlines()] == ["region", "north", "süd", "日本"]
    lengths = [line.count("█") for line in bars.splitlines()[1:]]
    assert (lengths[0], lengths[2] in range(lengths[1] // 2, lengths[1])) == (2 * lengths[1], True)
    assert all(len(line) <= 40 for line in bars.splitlines())


@pytest.mark.parametrize(
    ("x", "ends"),
    [
        ((1, 2, 3), ("1", "3")),
        ((date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)), ("2026-01-01", "2026-03-01")),
        (
            tuple(datetime(2026, 1, 1, h, tzinfo=UTC) for h in (1, 2, 3)),
            ("2026-01-01 01:00:00+00:00", "2026-01-01 03:00:00+00:00"),
        ),
    ],
)
def test_a_plot_over_a_scale_is_a_line_between_its_ends(x: tuple[object, ...], ends: tuple[str, str]) -> None:
    plot = draw(read_points(("at", "price"), list(zip(x, (10, 20, 15), strict=True))), 70, 14).splitlines()
    assert plot[-1].strip().startswith(ends[0])
    assert plot[-1].endswith(ends[1])
    assert (plot[0].strip(), plot[1].strip().split()[0], len(plot)) == ("price", "20", 14)
    drawn = [line for line in plot if re.search(r"[\u2801-\u28ff]", line)]
    assert len(drawn) == 11


def test_what_cannot_be_drawn_is_left_out_or_refused() -> None:
    points = read_points(("x", "y"), [(1, None), (None, 2), (3, float("nan")), (4, 5)])
    assert (points.x, points.y) == ((4,), (5.0,))
    assert read_points(("y",), [(7,), (8,)]).x == (1, 2)
    with pytest.raises(UsageError, match="nothing to plot"):
        read_points(("x", "y"), [])
