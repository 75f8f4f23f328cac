"""Schemas that are kept beside the events, by number: what a registry gives, and what it cannot give."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A schema as the registry has it. `kind` is the registry's own word: `AVRO`, `JSON`, `KCONNECT`, `PROTOBUF`.

    `references` are the schemas whose types it names, each by the name that it is called there, behind those that it
    needs itself.
    """

    number: int
    kind: str
    text: str
    references: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Why there is no schema of a number: the error class of the records that need it, and the reason in words."""

    error_class: str
    reason: str


class Schemas(Protocol):
    """The schemas of a registry. A number's schema never changes, so each is asked for once."""

    def want(self, numbers: Collection[int]) -> None:
        """Begin to fetch what is not known yet. Never waits."""

    def awaits(self) -> str:
        """In words, what must come before everything wanted is known; empty when all is. Never waits, and asks again
        by itself."""

    def get(self, number: int) -> RegisteredSchema | Refused:
        """The schema of a number. It waits for one that is not known yet; raises UnavailableError when the registry is
        away."""
