"""What the shell reads: where a statement ends, and what a word may become."""

from __future__ import annotations

import pytest

from cdc_lake.query.names import Names, Relation
from cdc_lake.query.statements import is_complete, statements

NAMES = Names(
    (
        Relation("current", "public", "orders", ("order_id", "status")),
        Relation("current", "public", "stores", ("store_id", '"Name"')),
        Relation("current", "hr", "staff old", ("id", "name")),
        Relation("changes", "public", "orders", ("__op", "order_id")),
        Relation("lake", "main", "tables", ("source", "rows_landed")),
    ),
    ("sum", "substring"),
)


@pytest.mark.parametrize(
    ("before", "word", "found"),
    [
        ("SELECT * FROM or", "or", ["orders"]),
        ("SELECT * FROM ", "", ["orders", "stores"]),
        ("DESCRIBE la", "la", ["lake.tables", "lake"]),
        ("FROM lake.", "lake.", ["lake.tables"]),
        ("FROM ch", "ch", ["changes.public.orders", "changes"]),
        ("FROM changes.", "changes.", ["changes.public"]),
        ("FROM changes.public.o", "changes.public.o", ["changes.public.orders"]),
        ("FROM current.", "current.", ["current.public", "current.hr"]),
        ("FROM public.", "public.", ["public.orders", "public.stores"]),
        ("FROM hr.st", "hr.st", ['hr."staff old"']),
        ('FROM hr."staff o', 'hr."staff o', ['hr."staff old"']),
        ("FROM orders WHERE s", "s", ["status", "stores", "select"]),
        ("FROM orders AS o JOIN stores s ON o.", "o.", ["o.order_id", "o.status"]),
        ("FROM orders o JOIN stores AS s ON s.", "s.", ["s.store_id", 's."Name"']),
        ("FROM orders WHERE orders.o", "orders.o", ["orders.order_id"]),
        ("FROM changes.public.orders WHERE __", "__", ["__op"]),
        ("FROM stores WHERE na", "na", ['"Name"']),
        ("FROM orders GRO", "GRO", ["GROUP"]),
        ("SELECT SU", "SU", ["SUMMARIZE", "SUM", "SUBSTRING"]),
        ("SELECT 'ord", "", []),
        ("SELECT 1 -- ord", "", []),
    ],
)
def test_a_word_becomes_what_can_stand_there(before: str, word: str, found: list[str]) -> None:
    got, names = NAMES.completions(before)
    assert (got, names[: len(found)]) == (word, found)


def test_columns_are_those_of_the_tables_that_the_query_names_behind_the_cursor_too() -> None:
    assert NAMES.completions("SELECT st", " FROM orders")[1][0] == "status"
    assert "store_id" not in NAMES.completions("SELECT st", " FROM orders")[1]


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("SELECT 1", False),
        ("SELECT 1;", True),
        ("SELECT 1; -- done", True),
        ("SELECT 1 -- ;", False),
        ("SELECT ';", False),
        ("SELECT 'a''b;';", True),
        ("SELECT e'it\\'s;", False),
        ('SELECT "a;', False),
        ("SELECT $$ ; ", False),
        ("SELECT $x$ ; $x$;", True),
        ("/* ; */", False),
        ("SELECT 1; SELECT 2", False),
        ("\\d orders", True),
        ("  ", True),
        ("exit", True),
        ("quit;", True),
    ],
)
def test_a_statement_ends_with_its_semicolon(text: str, complete: bool) -> None:
    assert is_complete(text) is complete


def test_a_text_is_cut_into_statements_and_commands() -> None:
    text = "-- first\n\\d x 'y\nSELECT 1;; SELECT ';' -- ;\n ;\n/* c ; */\\timing\nSELECT\n\\d"
    assert list(statements(text)) == ["\\d x 'y", "SELECT 1;", "SELECT ';' -- ;\n ;", "\\timing", "SELECT\n\\d"]
