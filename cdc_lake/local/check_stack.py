"""Checks of the embedded stack's parts, as far as a configuration uses them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cdc_lake.checks import Check, fail, ok


def check_stack(parts: Mapping[str, Mapping[str, Any]], used: Collection[str]) -> list[Check]:
    """Judge `Stack.status()`; `used` are the parts without an address of their own in the configuration."""
    return [_part(name, str(part["state"])) for name, part in parts.items() if name in used]


def _part(name: str, state: str) -> Check:
    if state == "running":
        return ok(f"stack.{name}", state)
    return fail(
        f"stack.{name}",
        f"the embedded {name} is {state}",
        why=f"cdc-lake.yaml names no {name}, so the embedded one is used.",
        fix="cdc-lake up",
    )
