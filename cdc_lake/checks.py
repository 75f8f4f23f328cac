"""What a check finds: the value that every stage's checks give and `cdc-lake doctor` prints.

OK is as it should be. WARN works and is weaker, or will not work for ever. FAIL does not work, or loses or falsifies
data. A WARN or FAIL carries the command or SQL that mends it. Checks judge facts that were read before, so that each
can be tried without the part it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cdc_lake.errors import CdcLakeError


class Status(StrEnum):
    """How a check ended, the worst last."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `name` is stable, `part.what`; `source` says whose it is where several sources are configured."""

    name: str
    status: Status
    found: str
    why: str = ""
    fix: str = ""
    source: str = ""

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return {
            "name": self.name,
            "status": self.status.value,
            "found": self.found,
            "why": self.why,
            "fix": self.fix,
            "source": self.source,
        }


@dataclass(frozen=True, slots=True)
class Skipped:
    """Checks that could not be made, named as a group (`topics`), and the check whose failure is the reason."""

    name: str
    because: str
    source: str = ""

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return {"name": self.name, "because": self.because, "source": self.source}


@dataclass(slots=True)
class Findings:
    """What was found so far. One thread writes; others may read at any time and see whole entries."""

    source: str = ""
    checks: list[Check] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def add(self, found: Check | Iterable[Check]) -> None:
        """Keep one or several findings."""
        for check in (found,) if isinstance(found, Check) else found:
            self.checks.append(replace(check, source=self.source))

    def skip(self, names: Sequence[str], because: str) -> None:
        """Say that these checks cannot be made, and why."""
        self.skipped.extend(Skipped(name, because, self.source) for name in names)


def ok(name: str, found: str) -> Check:
    """As it should be."""
    return Check(name, Status.OK, found)


def warn(name: str, found: str, *, why: str, fix: str) -> Check:
    """Works, and is weaker or will not for ever."""
    return Check(name, Status.WARN, found, why, fix)


def fail(name: str, found: str, *, why: str, fix: str) -> Check:
    """Does not work, or loses data."""
    return Check(name, Status.FAIL, found, why, fix)


def failed(name: str, error: CdcLakeError) -> Check:
    """The FAIL that an error is."""
    return Check(name, Status.FAIL, error.message, error.why, error.next)


def listed(items: Iterable[object], most: int = 6) -> str:
    """Names for a person: the first few, and how many more."""
    names = [str(item) for item in items]
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def many(count: int, noun: str) -> str:
    """A number of things: `1 table`, `3,000 tables`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def size(count: float) -> str:
    """A number of bytes for a person: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def span(seconds: float) -> str:
    """A duration for a person: `3.2 s`, `5 min`, `7 h`, `12 d`."""
    for limit, unit, divisor in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / divisor:.1f} s" if unit == "s" else f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
