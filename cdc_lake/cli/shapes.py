"""The shapes of what commands print with `--json`, and their version: fields may be added within one, never changed.

A shape is a dict of fields, a list of one shape, or a word: `text`, `integer`, `number`, `boolean`, `any`; with `?` it
may be null. `rows` are the table's own columns, which no shape can name.
"""

from __future__ import annotations

from typing import Any

VERSION = 1

ERROR = {"error": {"code": "text", "message": "text", "why": "text", "next": "text"}}
_PART = {"state": "text"}
_DUE = {"action": "text", "why": "text"}
_STEP = {"step": "text", "why": "text", "files": "integer", "bytes": "integer", "outcome": "text", "seconds": "number"}

_RETENTION = {"applied": "boolean", "tables": ["any"], "dead_letters": ["any"], "tiers": ["any"]}

# By the command's words. A command whose output is JSON lines has the shape of a line.
SHAPES: dict[str, Any] = {
    "changes": "rows",
    "dlq list": {"dead_letters": ["any"]},
    "dlq drop": {"letters": [{"id": "text", "outcome": "text"}]},
    "dlq replay": {"letters": [{"id": "text", "outcome": "text", "table": "text?", "reason": "text?"}]},
    "dlq show": dict.fromkeys(("id", "state", "topic", "error_class", "reason", "ingested_at"), "text")
    | dict.fromkeys(("partition", "offset", "size"), "integer")
    | {"headers": "any", "key": "text?", "value": "text?"},
    "doctor": {
        "checks": [dict.fromkeys(("name", "status", "found", "why", "fix", "source"), "text")],
        "skipped": ["any"],
        "ok": "boolean",
    },
    "erase": {
        "applied": "boolean",
        "source": "text",
        "table": "text",
        "tables": [
            {"table": "text"}
            | dict.fromkeys(("keys", "rows", "events", "images", "versions", "current", "files", "bytes"), "integer")
        ],
        "dead_letters": ["any"],
        "erased_before": ["any"],
        "in_source": "boolean?",
        "deleted_files": "integer",
        "replaced_files": "integer",
        "proof": "text",
        "not_reached": ["text"],
    },
    "fold": {"tables": [{"table": "text", "outcome": "text", "rows": "integer", "cut": "any", "seconds": "number"}]},
    "history": {"table": "text", "key": "any", "versions": ["rows"]},
    "init": {
        "folder": "text",
        "template": "text",
        "name": "text",
        "files": ["text"],
        "written": "boolean",
        "source": "any",
        "next": [{"words": "text", "command": "text?", "by_hand": "boolean"}],
    },
    "maintain": {
        "dry_run": "boolean",
        "tables": [
            {"source": "text", "table": "text?", "part": "text", "steps": [_STEP]}
            | dict.fromkeys(("files", "bytes", "files_after", "bytes_after"), "integer")
        ],
    },
    "query": ["rows"],
    "rebuild": {"table": "text", "outcome": "text", "rows": "integer", "seconds": "number"},
    "replay": "rows",
    "retention apply": _RETENTION,
    "retention plan": _RETENTION,
    "rules alerts": {"alerts": ["any"]},
    "rules list": {"rules": ["any"]},
    "rules silences": {"silences": ["any"]},
    "status": {
        "stack": {
            "postgres": {"dsn": "text?", **_PART},
            "kafka": {"bootstrap": "text?", **_PART},
            "connect": {"url": "text?", **_PART},
        },
        "sources": [{"name": "text", "tables": "integer", "dead_letters": "integer"}],
        "tables": [
            {
                "table": "text",
                "source": "text",
                "rows_landed": "integer",
                "last_landed": "text?",
                "rows_unfolded": "integer",
                "dead_letters": "integer",
                "lag_records": "integer?",
                "lag_seconds": "number?",
            }
        ],
        "cut": "any",
    },
    "tables": {
        "tables": [
            {
                "table": "text",
                "source": "text",
                "key": {"?": ["text"]},  # null where the table cannot be read
                "rows_landed": "integer",
                "unfolded": "integer",
                "last_landed": "text?",
                "unsure_columns": ["text"],
                "converted_columns": ["text"],
                "next": "text?",
                "note": "text?",
                "error": "text?",
                "files": "integer?",
                "bytes": "integer?",
                "small_file_ratio": "number?",
                "oldest_readable_version": "integer?",
                "next_due": {"?": _DUE},
            }
            | dict.fromkeys(("recreated", "rekeyed", "gone", "repaired"), "boolean")
        ]
    },
}
_WORDS = {"text": "string", "integer": "integer", "number": "number", "boolean": "boolean"}


def schema_of(shape: Any, *, strict: bool = False) -> dict[str, Any]:
    """A shape as JSON schema. `strict` refuses fields that it does not name."""
    if isinstance(shape, list):
        return {"type": "array", "items": schema_of(shape[0], strict=strict)}
    if isinstance(shape, dict) and "?" in shape:
        return {"anyOf": [schema_of(shape["?"], strict=strict), {"type": "null"}]}
    if isinstance(shape, dict):
        fields = {name: schema_of(field, strict=strict) for name, field in shape.items()}
        closed = {"additionalProperties": False} if strict else {}
        return {"type": "object", "properties": fields, "required": list(fields), **closed}
    if shape in ("any", "rows"):
        return {"type": "object"} if shape == "rows" else {}
    kind = _WORDS[shape.rstrip("?")]
    return {"type": [kind, "null"] if shape.endswith("?") else kind}


def document() -> dict[str, Any]:
    """All shapes as one JSON schema: `#/$defs/<command>` and `#/$defs/error`."""
    shapes = {name: schema_of(shape) for name, shape in SHAPES.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cdc-lake --json",
        "description": f"Version {VERSION}. Fields may be added within a version; none is taken away or changed.",
        "version": VERSION,
        "$defs": {"error": schema_of(ERROR), **shapes},
    }
