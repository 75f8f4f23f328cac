"""The other key of a key change, which its two events name in their headers."""

from __future__ import annotations

from cdc_lake.sqltext import literal

# In the delete at the old key, and in the create at the new one.
NEW_KEY, OLD_KEY = "__debezium.newkey", "__debezium.oldkey"


def other_key(header: str) -> str:
    """SQL of the other key in a header of a key change, as the text that `__key` has; null when there is none.

    It is cut out of its schema as it stands: parsing and printing it again could change a number's digits.
    """
    text = f"""json_extract_string(__headers, '$."{header}"')"""
    mark = ',"payload":'
    start = f"strpos({text}, {literal(mark)}) + {len(mark)}"
    cut = f"substr({text}, {start}, length({text}) - ({start}))"
    return f"""CASE WHEN {names(header)}
        THEN CASE WHEN starts_with({text}, '{{"schema":') THEN {cut} ELSE {text} END END"""


def names(header: str) -> str:
    """SQL that says whether the event has the header."""
    return f"""contains(__headers, '"{header}"')"""
