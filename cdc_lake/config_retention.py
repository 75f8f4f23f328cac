"""Retention in the configuration: by business value how long what is kept, and where what is old lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from urllib.parse import urlsplit

from pydantic import Field

from cdc_lake.config_rules import Section

_DURATION = r"^(forever|[1-9][0-9]*[smhdwy])$"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}


def span_of(text: str) -> timedelta | None:
    """A duration (`400d`); None is `forever`."""
    return None if text == "forever" else timedelta(seconds=int(text[:-1]) * _UNITS[text[-1]])


class TierPlace(Section):
    """Where the older changes of a class are moved; all that reads them reads them there."""

    after: str = Field(pattern=r"^[1-9][0-9]*[smhdwy]$", description="the age at which changes are moved (`90d`)")
    uri: str = Field(min_length=1, description="a folder, or any URI that delta-rs takes: one that no other lake names")
    options: dict[str, str] = Field(
        default_factory=dict,
        description="storage options of delta-rs; those of `lake.options` without, on a store of the same kind",
        repr=False,
    )


class RetentionClass(Section):
    """How long the log, the history and the dead letters of a class are kept (`400d`, `12h`, `forever`)."""

    log: str = Field(default="forever", pattern=_DURATION, description="of the changes")
    history: str | None = Field(
        default=None, pattern=_DURATION, description="of the row versions, which the log is read for; as `log` without"
    )
    dlq: str | None = Field(
        default=None, pattern=_DURATION, description="of dead letters that were replayed or dropped; as `log` without"
    )
    tier: TierPlace | None = Field(default=None, description="where older changes are moved before they go")


class Retention(Section):
    """Retention by business value: classes, and the one of tables that name none."""

    classes: dict[str, RetentionClass] = Field(
        default_factory=lambda: {"standard": RetentionClass()}, description="by name: how long what is kept"
    )
    default: str = Field(default="standard", description="the class of tables that name none")


def misfit(tier: TierPlace, kept: Sequence[str | None], lake: str, place: Callable[[str], str]) -> str:
    """Why changes that are `kept` so long cannot be moved to `tier` before they go; empty when they can.

    `place` makes a path of what the configuration names.
    """
    spans = [span_of(text) for text in kept if text is not None]
    after, longest = span_of(tier.after), max((s for s in spans if s is not None), default=None)
    if None not in spans and after is not None and longest is not None and after >= longest:
        return f"Changes go after {longest}, so none would be left to be moved after {after}: `after` must be shorter."
    if "@" in urlsplit(tier.uri).netloc:
        return "Its `uri` holds a user: credentials belong into `options`, by reference (`${ENV}` or `${file:PATH}`)."
    own, other = (f"{root.rstrip('/')}/" for root in (lake, place(tier.uri)))
    if own.startswith(other) or other.startswith(own):
        return f"Its `uri` and the lake ({lake}) lie in each other: a tier is a place of its own."
    return ""
