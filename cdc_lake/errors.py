"""Every error a user can meet says what happened, why, and what to do next.

::

    CdcLakeError                 1   something failed; `code` names it
    ├── UsageError               2   the command, its options or the config are wrong
    │   └── ConfigError          2   a key, value or file of the configuration
    ├── UnavailableError         1   a broker, database, Connect or registry does not answer
    ├── SourceError              1   the source database is not fit for capture
    ├── ConnectorError           1   Connect refused a connector, or its task failed
    ├── LakeError                1   a Delta table or its store cannot be read or written
    └── PartitionError           1   one topic-partition must stop; other tables go on
        ├── OffsetsExpired           Kafka deleted records that were not landed yet
        ├── TopicRecreated           the topic is not the one whose offsets are stored
        └── PartitionFenced          another writer advanced the stored offset

Expected outcomes (nothing to do, differences found) are return values, not errors. The number is the exit code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_DIFFERENCES = 3
EXIT_INTERRUPTED = 130
# Before the next command, where an error is text.
NEXT = "next: "


class CdcLakeError(Exception):
    """Base of all errors with words for a person: what happened, why, and the next command to run.

    `code` is a stable snake_case name for machines; `exit_code` is what the command ends with.
    """

    exit_code = EXIT_FAILED
    default_code = "failed"

    def __init__(self, message: str, *, why: str = "", next: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.why = why
        self.next = next
        self.code = code or self.default_code

    def as_dict(self) -> dict[str, dict[str, str]]:
        """The shape of `--json` errors: `{"error": {"code", "message", "why", "next"}}`."""
        return {"error": {"code": self.code, "message": self.message, "why": self.why, "next": self.next}}


def lines(error: CdcLakeError) -> str:
    """What, why and next, each on lines of its own, as an error has to travel through somebody else's text."""
    following = f"{NEXT}{error.next}" if error.next else ""
    return "\n".join(text for text in (error.message, error.why, following) if text)


class UsageError(CdcLakeError):
    """The command line is wrong."""

    exit_code = EXIT_USAGE
    default_code = "usage"


class ConfigError(UsageError):
    """The configuration is wrong."""

    default_code = "config"


class UnavailableError(CdcLakeError):
    """A part the command needs does not answer."""

    default_code = "unavailable"


class SourceError(CdcLakeError):
    """The source database is not fit for capture, or refused a statement."""

    default_code = "source"


class ConnectorError(CdcLakeError):
    """Kafka Connect refused a connector, or a connector's task failed."""

    default_code = "connector"


class LakeError(CdcLakeError):
    """A table of the lake cannot be read or written."""

    default_code = "lake"


class PartitionError(CdcLakeError):
    """One topic-partition must stop; its rows so far are intact and other tables go on."""

    default_code = "partition"


class OffsetsExpired(PartitionError):
    """Kafka's retention deleted records before they were landed."""

    default_code = "offsets_expired"


class TopicRecreated(PartitionError):
    """The topic was deleted and created again: stored offsets say nothing about it."""

    default_code = "topic_recreated"


class PartitionFenced(PartitionError):
    """Another writer advanced the stored offset of a partition that this process holds."""

    default_code = "partition_fenced"


# What the operating system and delta-rs call it.
DISK_FULL = ("No space left", "StorageFull")


def first_line(error: Exception) -> str:
    """What an error of a library says, in one line; its kind when it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def is_disk_full(error: Exception) -> bool:
    """Whether a library's error says that nothing more fits on the disk."""
    return any(sign in str(error) for sign in DISK_FULL)


def suggest(name: str, candidates: Iterable[str]) -> str:
    """A ready sentence naming the nearest candidate (`Did you mean "x"?`), or an empty text when none is near."""
    pool = list(candidates)
    near = difflib.get_close_matches(name, pool, n=1, cutoff=0.6)
    if not near:
        near = [c for c in pool if c.lower() == name.lower()][:1]
    return f'Did you mean "{near[0]}"?' if near else ""
