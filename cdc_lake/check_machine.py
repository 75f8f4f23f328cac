"""Checks of this machine: the versions of Python and of the libraries that do the work."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping
from importlib import metadata

from cdc_lake.checks import Check, listed, ok, warn

_SHOWN = ("deltalake", "duckdb", "pyarrow", "kafka-python", "confluent-kafka", "psycopg")
_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*([^;]*)")
_BOUND = re.compile(r"(>=|<)\s*([0-9][0-9.]*)")


def check_versions() -> list[Check]:
    """Judge what is installed against what this package asks for."""
    try:
        wanted = metadata.requires("cdc-lake") or []
    except metadata.PackageNotFoundError:  # run from a folder, not installed
        wanted = []
    installed = {name: version for name in _names(wanted) if (version := _version(name)) is not None}
    return [
        ok("machine.python", f"Python {platform.python_version()} on {platform.platform()}"),
        judge(wanted, installed),
    ]


def judge(wanted: Iterable[str], installed: Mapping[str, str]) -> Check:
    """Are the installed versions within the bounds of the requirements (`deltalake>=1.6.6,<2; extra == "x"`)?"""
    wrong = []
    for requirement in wanted:
        found = _REQUIREMENT.match(requirement)
        if found is None or (version := installed.get(found[1])) is None:
            continue
        if not all(_within(version, sign, bound) for sign, bound in _BOUND.findall(found[2])):
            wrong.append(f"{found[1]} {version} ({found[2].strip()} is wanted)")
    shown = ", ".join(f"{name} {installed[name]}" for name in _SHOWN if name in installed)
    if not wrong:
        return ok("machine.libraries", shown)
    return warn(
        "machine.libraries",
        listed(wrong),
        why="What is promised was tested with versions in these bounds.",
        fix="pip install --upgrade cdc-lake",
    )


def _within(version: str, sign: str, bound: str) -> bool:
    have, limit = _numbers(version), _numbers(bound)
    return have >= limit if sign == ">=" else have < limit


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


def _names(requirements: Iterable[str]) -> list[str]:
    return [found[1] for r in requirements if (found := _REQUIREMENT.match(r)) is not None]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
