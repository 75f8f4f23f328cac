"""What the lake itself cannot tell: ends of the topics, connectors, running sinks. Looked at by whoever starts the
dashboard, from time to time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Outside:
    """What was found. `ends` are Kafka's end offsets, None when it does not answer; `troubles` say what is away."""

    ends: Mapping[tuple[str, int], int] | None = None
    connectors: Sequence[tuple[str, str]] = ()
    sinks: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    troubles: Sequence[str] = ()


Look = Callable[[], Outside]


def nothing() -> Outside:
    """For a dashboard that reads the lake alone."""
    return Outside()
