"""The shapes of what the dashboard answers, and their version: fields may be added within one, never changed.

They are written as those of commands are: a dict of fields, a list of one shape, or a word, with `?` where it may be
null. In a view's `rows` each value stands in the place of its column.
"""

from __future__ import annotations

from typing import Any

from cdc_lake.serve.dashboard.poller import VERSION

ERROR = {"error": dict.fromkeys(("code", "message", "why", "next"), "text")}
_MOMENT = dict.fromkeys(("at", "data_at", "read_at"), "text?")
_ROWS = {"truncated": "boolean", "columns": [{"name": "text", "type": "text"}], "rows": [["any"]]}
_HEAD: dict[str, Any] = {
    **dict.fromkeys(("view", "title", "kind", "about", "page", "unit", "width"), "text"),
    **dict.fromkeys(("x", "y", "series", "value"), "text?"),
    "order": "integer",
    "key": ["text"],
    "parameters": ["text"],
}
_VIEW: dict[str, Any] = {**_HEAD, "given": "any", "error": {"?": ERROR["error"]}, **_ROWS}
_STATE: dict[str, Any] = {
    "version": "integer",
    "number": "integer",
    **_MOMENT,
    "began_at": "text?",
    "tables": ["text"],
    "views": [_HEAD],
    "error": {"?": ERROR["error"]},
}
_SILENCE = dict.fromkeys(("id", "rule", "since", "until", "by"), "text") | {"key": "text?", "note": "text?"}
_DECIDED = {"version": "integer", "id": "text", "was": "text", "is": "text"}
_TABLE: dict[str, Any] = {
    **dict.fromkeys(("table", "source"), "text"),
    "last_landed": "text?",
    **dict.fromkeys(("rows_landed", "rows_unfolded", "dead_letters"), "integer"),
    "error": "text?",
    "lag_records": "integer?",
    "lag_seconds": "number?",
    "rate": "number?",
}

# By method and address.
SHAPES: dict[str, Any] = {
    "GET /api/session": {
        "version": "integer",
        "action": "text",
        "user": "text",
        "release": "text",
        "sql": {"seconds": "number", "rows": "integer", "memory_mb": "integer"},
    },
    "GET /api/state": {"version": "integer", "state": _STATE, "views": [_VIEW]},
    "GET /api/state?at=": {"version": "integer", "number": "integer", **_MOMENT, "views": [_VIEW]},
    "GET /api/views": {"version": "integer", "views": [_HEAD]},
    "GET /api/views/{view}": {**_VIEW, "version": "integer", **_MOMENT},
    "GET /api/views/{view}/parameters/{parameter}": {"view": "text", "parameter": "text", **_MOMENT, **_ROWS},
    "GET /api/pipeline": {
        "version": "integer",
        "sources": [{"name": "text", "tables": "integer", "dead_letters": "integer"}],
        "tables": [_TABLE],
        "cuts": "any",
        "connectors": [{"name": "text", "state": "text"}],
        "sinks": ["any"],
        "troubles": ["text"],
    },
    "GET /api/alerts": {"version": "integer", "alerts": ["any"]},
    "GET /api/alerts/{id}": {"version": "integer", "alert": "any"},
    "POST /api/alerts/{id}/acknowledge": _DECIDED,
    "POST /api/alerts/{id}/resolve": _DECIDED,
    "GET /api/silences": {"version": "integer", "silences": [_SILENCE]},
    "POST /api/silences": {"version": "integer", "silences": [_SILENCE]},
    "POST /api/silences/{id}/end": {"version": "integer", "silences": [_SILENCE]},
    "POST /api/sql": {"version": "integer", **_MOMENT, "seconds": "number", **_ROWS},
}

__all__ = ["ERROR", "SHAPES", "VERSION"]
