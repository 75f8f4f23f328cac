"""Whether a document is what docs/reference/json.schema.json says of the command that printed it."""

from __future__ import annotations

from typing import Any

import jsonschema

from cdc_lake.cli.shapes import SHAPES, schema_of

# Commands whose output is compared on the real stack; all others are in tests/unit/test_cli_shapes.py.
ON_THE_STACK = {
    "connector delete",
    "connector list",
    "connector offsets",
    "connector pause",
    "connector plugins",
    "connector register",
    "connector restart",
    "connector resume",
    "connector snapshot",
    "connector status",
    "connector stop",
    "connector validate",
    "demo",
    "shop load",
    "shop order",
    "shop scan",
    "shop trade",
    "sink run",
    "up",
    "verify",
}


def check_shape(command: str, document: Any) -> None:
    """Raise jsonschema.ValidationError unless `document` has the command's fields and no other."""
    jsonschema.validate(document, schema_of(SHAPES[command], strict=True))
