"""Which trace a change belongs to: the one that its Kafka record names, else that of its transaction.

A record's header `traceparent` (W3C Trace Context) comes from the application that wrote the row, through Debezium's
`ActivateTracingSpan`. Without one the trace is a function of the source's name and the transaction's id, so that sink,
fold, query and SQL name the same trace without telling each other anything, and all rows of a transaction are in it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

HEADER = "traceparent"
# Connect's JsonConverter writes a header's text with quotes of its own, which the log's JSON then escapes.
_TRACEPARENT = rf'"{HEADER}": ?"(?:\\")?[0-9a-f]{{2}}-([0-9a-f]{{32}})-([0-9a-f]{{16}})-([0-9a-f]{{2}})'
_PATTERN = re.compile(_TRACEPARENT)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class Parent:
    """The span that a record names: its trace, itself, and whether it is recorded."""

    trace_id: str
    span_id: str
    sampled: bool


def transaction_trace(source: str, tx_id: str) -> str:
    """The trace of a transaction of the source: 32 hexadecimal digits."""
    return _md5(f"cdc-lake:{source}:{tx_id}")


def transaction_span(source: str, tx_id: str) -> str:
    """The first span of that trace: 16 hexadecimal digits."""
    return _md5(f"cdc-lake-span:{source}:{tx_id}")[:16]


def parse_traceparent(text: str) -> Parent | None:
    """The span that a `traceparent` names; None where it is not a valid one."""
    return parent_of(f'"{HEADER}": "{text}"')


def parent_of(headers: str | None) -> Parent | None:
    """The span that a record's headers, as the log keeps them, name; None without a valid `traceparent`."""
    found = _PATTERN.search(headers or "")
    if found is None or found[1] == _NO_TRACE or found[2] == _NO_SPAN:
        return None
    return Parent(found[1], found[2], bool(int(found[3], 16) & 1))


def transaction_trace_sql(source: str, tx_id: str) -> str:
    """`transaction_trace` in SQL, over two expressions; null without a transaction."""
    return f"md5('cdc-lake:' || {source} || ':' || {tx_id})"


def trace_sql(source: str, tx_id: str = "__tx_id", headers: str = "__headers") -> str:
    """The trace of a row of the log in SQL; null when neither its record nor a transaction names one."""
    named = f"NULLIF(NULLIF(regexp_extract({headers}, '{_TRACEPARENT}', 1), ''), '{_NO_TRACE}')"
    return f"coalesce({named}, {transaction_trace_sql(source, tx_id)})"


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
