"""The shapes of what commands print with `--json`, and their version: fields may be added within one, never changed.

A shape is a dict of fields, a list of one shape, or a word: `text`, `integer`, `number`, `boolean`, `any`; with `?` it
may be null. `rows` are the table's own columns, which no shape can name. `Either` is one of several shapes, of a
command whose options ask for something else; a field in `May` may be left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

VERSION = 1


@dataclass(frozen=True, slots=True)
class Either:
    """One of several shapes."""

    shapes: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class May:
    """A field that is not always there."""

    shape: Any


_ERROR = {"code": "text", "message": "text", "why": "text", "next": "text"}
ERROR = {"error": _ERROR}
# What `--version` says.
ABOUT = {"version": "text", "json_version": "integer"}
_PART = {"state": "text"}
_STACK = {
    "postgres": {"dsn": "text?", **_PART},
    "kafka": {"bootstrap": "text?", **_PART},
    "connect": {"url": "text?", **_PART},
}
_RUNS = {"port": "integer?", "pid": "integer?"}
_STACK_RUNS = {name: part | {f: May(shape) for f, shape in _RUNS.items()} for name, part in _STACK.items()}
_DUE = {"action": "text", "why": "text"}
_STEP = {"step": "text", "why": "text", "files": "integer", "bytes": "integer", "outcome": "text", "seconds": "number"}

_STATE = {"connector": "text", "state": "text", "tasks": ["text"]}
_DECIDED = {"id": "text", "title": "text", "was": "text", "is": "text"}

_ALERT = (
    dict.fromkeys(("source", "id", "rule", "severity", "title", "state", "opened_at", "recorded_at"), "text")
    | dict.fromkeys(("acknowledged_at", "acknowledged_by", "resolved_at", "resolved_by", "note"), "text?")
    | {"key": "any", "evidence": "any", "resolution": "any", "evidence_count": "integer", "position": "integer"}
)

_RETENTION = {"applied": "boolean", "tables": ["any"], "dead_letters": ["any"], "tiers": ["any"]}

# By the command's words. A command whose output is JSON lines has the shape of a line.
SHAPES: dict[str, Any] = {
    "changes": "rows",
    "connector delete": {
        "connector": "text",
        "deleted": "boolean",
        "slot_dropped": "boolean",
        "left": [{"what": "text", "sql": "text"}],
    },
    "connector list": [dict.fromkeys(("name", "state", "tasks", "prefix", "database", "class"), "text")],
    "connector offsets": {"connector": "text", "offsets": [{"partition": "any", "offset": "any"}]},
    "connector pause": _STATE,
    "connector plugins": [{"class": "text", "type": "text", "version": "text?"}],
    "connector register": {
        "connector": "text",
        "changed": "boolean",
        "tables": ["text"],
        "statements": ["text"],
        "difference": {"added": "any", "removed": "any", "changed": "any"},
        "warnings": ["text"],
        "state": "text?",
        "streaming": "boolean",
        "snapshots": ["text"],
    },
    "connector restart": _STATE | {"reading": "boolean"},
    "connector resume": _STATE | {"reading": "boolean"},
    "connector snapshot": {"connector": "text", "signal": "text", "type": "text", "tables": ["text"]},
    "connector status": {
        "connector": "text",
        "state": "text",
        "tasks": [{"part": "text", "state": "text", "worker": "text"}],
        "slot": {"?": {"name": "text", "reading": "boolean", "retained_bytes": "integer?"}},
        "error": {"?": _ERROR},
    },
    "connector stop": _STATE,
    "connector validate": {"file": "text", "ok": "boolean", "problems": [{"setting": "text", "problem": "text"}]},
    "demo": {
        "ok": "boolean",
        "seconds": "number",
        "steps": [{"step": "text", "seconds": "number"}],
        "loaded": "any",
        "workload": "any",
        "freshness": {
            "samples": "integer",
            "missing": "integer",
            "p50": "number",
            "p95": "number",
            "worst": "number",
        },
        "questions": [{"name": "text", "sql": "text", "equal": "boolean", "rows": "integer", "first": ["rows"]}],
        "price_history": ["rows"],
        "deleted": {"table": "text", "key": "integer", "rows_in_current": "integer", "events_in_changes": ["rows"]},
        "verify": ["any"],
        "world": {
            "dashboard": {"?": {"url": "text", "entry": "text?"}},
            "alert": "text",
            "purchase_order": "text?",
            "chain": [dict.fromkeys(("step", "at", "what", "id", "cause", "correlation"), "text")],
            "left_out": ["text"],
        },
        "kept": "boolean",
        "next": ["text"],
    },
    "down": Either(({"stack": _STACK_RUNS}, {"would_stop": ["text"], "would_delete": ["text"]})),
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
    "notebook": {"notebooks": [{"notebook": "text", "asks": "text", "file": "text"}]},
    "query": ["rows"],
    "rebuild": {"table": "text", "outcome": "text", "rows": "integer", "seconds": "number"},
    "recover": {
        "dry_run": "boolean",
        "recovered": [
            dict.fromkeys(("source", "kind", "table", "why", "kept"), "text") | {"version": "integer"},
        ],
    },
    "replay": "rows",
    "retention apply": _RETENTION,
    "retention plan": _RETENTION,
    "rules ack": _DECIDED,
    "rules alerts": Either(({"alerts": [_ALERT]}, _ALERT)),
    "rules check": {
        "rules": [{"rule": "text", "kind": "text", "result": "text", "error": May(_ERROR)}],
    },
    "rules list": {
        "rules": [
            {"rule": "text", "kind": "text", "severity": "text?", "position": "integer?", "behind": "integer?"}
            | {"positions": [{"source": "text", "position": "integer"}], "waits_for": "text?", "waits_since": "text?"}
            | dict.fromkeys(("open", "acknowledged", "resolved"), "integer")
        ]
    },
    "rules resolve": _DECIDED,
    "rules run": {
        "rules": [{"rule": "text"} | dict.fromkeys(("opened", "resolved", "late"), "integer")],
        "waiting": "integer",
        "failed": [_ERROR],
    },
    "rules silence": {"silence": "text", "until": "text"},
    "rules silences": {
        "silences": [
            dict.fromkeys(("id", "rule", "since", "until", "by"), "text") | {"key": "text?", "note": "text?"},
        ]
    },
    "rules test": {
        "rule": "text",
        "found": [
            {"at": "text", "change": "text", "id": "text?", "key": "any", "title": "text?"}
            | {"position": "integer", "evidence": ["any"], "evidence_count": "integer"}
        ],
    },
    "serve": {
        "url": "text?",
        "entry": "text?",
        "views": [{"view": "text", "file": "text", "written": "boolean"}],
    },
    "shop load": {"loaded": "any"},
    "shop order": {"events": "integer", "kinds": "any"},
    "shop scan": {"topic": "text", "messages": "integer", "kinds": "any"},
    "shop trade": {"transactions": "integer", "seconds": "number", "kinds": "any"},
    "sink run": {
        "events": "integer",
        "dead_letters": "integer",
        "commits": "integer",
        "tables": ["text"],
        "stopped": [{"topic": "text", "partition": "integer", **_ERROR}],
    },
    "sql": ["rows"],
    "status": {
        "stack": _STACK_RUNS,
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
                "error": "text?",
            }
        ],
        "cut": "any",
    },
    "stream check": {"models": [{"model": "text", "result": "text", "error": May(_ERROR)}]},
    "stream explain": {"model": "text", "explained": [{"what": "text", "is": "text"}]},
    "stream replay": {"model": "text", "behind": "integer", "up_to": "integer"}
    | dict.fromkeys(("rows", "same", "missing", "extra", "late"), "integer")
    | {"anew": "boolean", "examples": ["any"], "written": "boolean"},
    "stream run": {
        "models": [{"model": "text", "rows": "integer", "late": "integer", "sent": May("integer")}],
        "failed": [_ERROR],
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
    "up": {"stack": _STACK_RUNS},
    "verify": {
        "tables": [
            {"table": "text"}
            | dict.fromkeys(("rows_source", "rows_lake", "missing", "extra", "different", "erased"), "integer")
            | {"examples": [{"key": "any", "kind": "text", "columns": "any"}], "cause": "text?"}
        ],
        "position": "any",
        "ok": "boolean",
        "repair": May([{"table": "text", "outcome": "text", "rows": "integer", "reason": "text?"}]),
    },
}
_WORDS = {"text": "string", "integer": "integer", "number": "number", "boolean": "boolean"}


def schema_of(shape: Any, *, strict: bool = False) -> dict[str, Any]:
    """A shape as JSON schema. `strict` refuses fields that it does not name."""
    if isinstance(shape, Either):
        return {"anyOf": [schema_of(one, strict=strict) for one in shape.shapes]}
    if isinstance(shape, list):
        return {"type": "array", "items": schema_of(shape[0], strict=strict)}
    if isinstance(shape, dict) and "?" in shape:
        return {"anyOf": [schema_of(shape["?"], strict=strict), {"type": "null"}]}
    if isinstance(shape, dict):
        known = {name: field.shape if isinstance(field, May) else field for name, field in shape.items()}
        fields = {name: schema_of(field, strict=strict) for name, field in known.items()}
        always = [name for name, field in shape.items() if not isinstance(field, May)]
        closed = {"additionalProperties": False} if strict else {}
        return {"type": "object", "properties": fields, "required": always, **closed}
    if shape in ("any", "rows"):
        return {"type": "object"} if shape == "rows" else {}
    kind = _WORDS[shape.rstrip("?")]
    return {"type": [kind, "null"] if shape.endswith("?") else kind}


def document() -> dict[str, Any]:
    """All shapes as one JSON schema: `#/$defs/<command>`, `#/$defs/error` and `#/$defs/--version`."""
    shapes = {name: schema_of(shape) for name, shape in SHAPES.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cdc-lake --json",
        "description": f"Version {VERSION}. Fields may be added within a version; none is taken away or changed.",
        "version": VERSION,
        "$defs": {"error": schema_of(ERROR), "--version": schema_of(ABOUT), **shapes},
    }
