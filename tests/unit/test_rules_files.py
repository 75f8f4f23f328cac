"""A rule that is wrong, or that cannot be evaluated change by change, is refused with the place and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_lake.config import Config
from cdc_lake.errors import CdcLakeError
from cdc_lake.events import TableId
from cdc_lake.query.placed import open_logs
from cdc_lake.react.durations import microseconds, spelled
from cdc_lake.react.rulefile import Rule, RuleError, load_rule, load_rules
from cdc_lake.react.run import open_connection
from cdc_lake.react.watch import check
from tests.lake_model import Feed, config

SALES, OTHER = TableId("public", "sales"), TableId("shop", "other")
GOOD = """title: t
key: [id]
streams:
  s:
    table: sales
    where: qty > 1
threshold: {of: s, when: qty < 3}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    feed = Feed(tmp_path, (SALES, OTHER))
    tx = feed.begin()
    tx.insert(SALES, 1, 1, "x")
    tx.insert(OTHER, 1, 1, "x")
    tx.commit()
    feed.land()
    return tmp_path


def rule(folder: Path, text: str, name: str = "low.yaml") -> Rule:
    file = folder / name
    file.write_text(text)
    return load_rule(file)


def refused(folder: Path, text: str, settings: Config | None = None) -> CdcLakeError:
    con = open_connection()
    try:
        logs = open_logs(con, settings or config(folder))
        with pytest.raises(CdcLakeError) as stop:
            check(con, rule(folder, text), logs, settings or config(folder))
        return stop.value
    finally:
        con.close()


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("threshold:", "treshold:"), 7, 'Did you mean "threshold"?'),
        (("    where: qty > 1", "    were: qty > 1"), 6, 'Did you mean "where"?'),
        (("of: s", "of: x"), 1, "names the stream x"),
        (("threshold: {of: s, when: qty < 3}", ""), 1, "exactly one of threshold, count"),
        (("{of: s, when: qty < 3}", "{of: s}"), 7, "`threshold.when` is missing"),
        (("threshold: {of: s, when: qty < 3}", "count: {of: s, window: soon, at_least: 2}"), 7, "no span of time"),
        (("threshold: {of: s, when: qty < 3}", "count: {of: s, window: 1h}"), 7, "`at_least` and `having`"),
        (
            ("threshold: {of: s, when: qty < 3}", "count: {of: s, window: 1h, every: 7 minutes, at_least: 2}"),
            7,
            "whole multiple",
        ),
        (("threshold: {of: s, when: qty < 3}", "absence: {after: s, of: s, within: 1h}"), 1, "different streams"),
        (("threshold: {of: s, when: qty < 3}", "sequence: {steps: [s], within: 1h}"), 7, "at least 2"),
        (("title: t", "title: t\nseverity: bad"), 2, "'info', 'warning' or 'critical'"),
    ],
)
def test_a_slip_in_a_file_is_named_with_its_line(
    tmp_path: Path, change: tuple[str, str], line: int, words: str
) -> None:
    with pytest.raises(RuleError) as stop:
        rule(tmp_path, GOOD.replace(*change))
    told = f"{stop.value.message} {stop.value.why}"
    assert stop.value.message.startswith(f"{tmp_path}/low.yaml:{line}: ")
    assert words in told
    assert stop.value.next == f"edit {tmp_path}/low.yaml"


@pytest.mark.parametrize("text", ["", "- 1\n", "a: [", "title: &a [*a]\n", "name: x\ntitle: t\n", "title: \xff\n"])
def test_what_is_no_rule_at_all_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RuleError):
        rule(tmp_path, text)


def test_a_name_that_could_be_a_path_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(RuleError):
        rule(tmp_path, GOOD, "..a b.yaml")


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("now() > __source_ts", "now() gives another value each time"),
        ("current_timestamp > __source_ts", "current_timestamp gives another value each time"),
        ("random() < 0.5", "random() gives another value each time"),
        ("age(__source_ts) > INTERVAL 1 DAY", "age() gives another value each time"),
        ("qty < (SELECT max(qty) FROM sales)", "it holds a query of its own"),
        ("qty < avg(qty) OVER ()", "it holds a window function"),
        ("max(qty) > 3", "max() is an aggregate"),
    ],
)
def test_what_cannot_be_evaluated_change_by_change_is_refused(folder: Path, expression: str, words: str) -> None:
    error = refused(folder, GOOD.replace("qty > 1", f'"{expression}"'))
    assert error.code == "rule_not_incremental"
    assert words in error.message
    assert f"{folder}/low.yaml:6: `streams.s.where`" in error.message
    assert error.next.endswith("cdc-lake rules check")


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("qty >", "It ends too early"),
        ("qty > > 1", "^"),
        ("qty > 1; DROP TABLE x", "no "),
        ("true FROM sales --", "no "),
        ("qty > 1, 2", "more than one"),
        ("qyt > 1", 'Did you mean "qty"?'),
        ("qty", "INTEGER"),
        ("qty > DATE '2026-01-01'", "compare"),
        ("read_text('/etc/passwd') = ''", "read_text"),
    ],
)
def test_sql_that_is_wrong_is_refused_with_what_is_near(folder: Path, expression: str, words: str) -> None:
    error = refused(folder, GOOD.replace("qty > 1", f'"{expression}"'))
    assert error.code == "rule"
    assert words in f"{error.message} {error.why}"


@pytest.mark.parametrize("column", ["now", "random"])
def test_a_quoted_text_or_a_column_is_no_clock(folder: Path, column: str) -> None:
    con = open_connection()
    try:
        logs = open_logs(con, config(folder))
        check(con, rule(folder, GOOD.replace("qty > 1", f"note <> '{column}'")), logs, config(folder))
    finally:
        con.close()


def test_a_table_that_is_not_there_is_named_with_the_near_one(folder: Path) -> None:
    error = refused(folder, GOOD.replace("table: sales", "table: sale"))
    assert (error.code, error.why) == ("no_table", 'Did you mean "sales"?')
    assert "low.yaml:5" in error.message


def test_an_output_that_is_not_there_is_named(folder: Path) -> None:
    outputs = {"rules": {"outputs": {"ops": {"kind": "webhook", "url": "https://x.example"}}}}
    settings = Config.model_validate({"lake": {"uri": str(folder / "lake")}, **outputs, "root": folder})
    error = refused(folder, GOOD + "notify: [opps]\n", settings)
    assert "there is no output opps" in error.message
    assert error.why == 'Did you mean "ops"?'


def test_keys_of_different_names_cannot_meet(folder: Path) -> None:
    text = """title: t
streams:
  a: {table: sales, key: [id]}
  b: {table: shop.other, key: [qty]}
correlation: {of: [a, b], within: 1h}
"""
    with pytest.raises(RuleError, match="keys of different names"):
        rule(folder, text)


def test_words_of_a_rule_change_nothing_of_what_it_finds(tmp_path: Path) -> None:
    one = rule(tmp_path, GOOD)
    assert rule(tmp_path, GOOD.replace("title: t", "title: other\nseverity: info")).fingerprint == one.fingerprint
    assert rule(tmp_path, GOOD.replace("qty < 3", "qty < 4")).fingerprint != one.fingerprint


def test_there_are_no_rules_where_there_is_no_folder(tmp_path: Path) -> None:
    assert load_rules(tmp_path / "rules") == []


@pytest.mark.parametrize(
    ("text", "micros"), [("90 seconds", 90_000_000), ("2h", 7_200_000_000), (" 1 Week", 604_800_000_000)]
)
def test_spans_are_read_as_people_write_them(text: str, micros: int) -> None:
    assert microseconds(text) == micros
    assert microseconds(spelled(micros)) == micros


@pytest.mark.parametrize("text", ["", "soon", "3", "-1 day", "1 fortnight", "9999999999 days"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no span of time"):
        microseconds(text)
