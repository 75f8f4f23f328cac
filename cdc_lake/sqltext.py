"""Quoting for SQL text: the only way an identifier or a literal enters a statement."""

from __future__ import annotations


def ident(name: str) -> str:
    """`name` as a quoted SQL identifier, for PostgreSQL and DuckDB alike."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` as a quoted SQL string literal (standard_conforming_strings, as both engines have by default)."""
    return "'" + text.replace("'", "''") + "'"
