"""Rows of a model to an HTTP receiver, each as a CloudEvent 1.0 in the binary mode: the table is the outbox.

Delivery: at least once, with an `Idempotency-Key` that is the same at every attempt. Order: that of positions, one
after the other; a row that is not taken keeps later ones back. What was taken is written down from time to time: killed
in between, the rows since then are sent again, with the same keys.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cdc_lake.crashpoints import reach
from cdc_lake.errors import UnavailableError
from cdc_lake.react.outputs import NotSent, Receiver
from cdc_lake.react.places import Place
from cdc_lake.react.stream.shape import Shape
from cdc_lake.react.stream.table import ModelTable
from cdc_lake.react.stream.topic import attributes_of, rows_behind

# So many rows at most are sent again after a kill.
NOTED_EVERY = 100
_NOTED_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
# What a header may hold as it is: printable ASCII but quotes and the percent sign.
_SAFE = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


_START = Place(-1, 0)


def _behind(shape: Shape, rows: Any, at: Place) -> Iterator[tuple[dict[str, Any], Place]]:
    """The rows behind a place, each with the place when it was taken: whole positions, and so many rows of the next."""
    whole, into, position = at.position, 0, None
    for row in rows_behind(shape, rows, at.position):
        if position is not None and row["__position"] != position:
            whole, into = position, 0
        position, into = int(row["__position"]), into + 1
        if whole != at.position or into > at.since:
            yield row, Place(whole, into)


@dataclass(slots=True)
class Posts:
    """Sends the rows of one model. `stopped` is asked between two rows."""

    shape: Shape
    table: ModelTable
    receiver: Receiver
    stopped: Callable[[], bool] = lambda: False
    sent: int = 0
    failures: int = 0

    def deliver(self) -> int:
        """Send the rows behind what was taken; how many. Raises UnavailableError: the rest waits in the table."""
        delta, known = self.table.rows.open(), self.table.posted()
        if delta is None:
            return 0
        reached, noted, taken = known or _START, time.monotonic(), 0
        try:
            for row, place in _behind(self.shape, delta.to_pyarrow_dataset(), reached):
                if self.stopped():
                    break
                self._post(row)
                reached, taken, self.failures = place, taken + 1, 0
                if taken % NOTED_EVERY == 0 or time.monotonic() - noted > _NOTED_SECONDS:
                    known, noted = self._note(known, reached), time.monotonic()
        except NotSent as error:
            self.failures += 1
            raise UnavailableError(
                f"{error.reason}.",
                why=f"The rows behind position {reached.position} that it has not taken wait in the model's table.",
                next="mend the receiver; it is tried again by itself",
                code="not_posted",
            ) from error
        finally:
            self.sent += taken
            self._note(known, reached)
        return taken

    def pause(self, error: BaseException) -> float:
        """In how many seconds to try again."""
        cause = error.__cause__
        asked = cause.after if isinstance(cause, NotSent) else None
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self.failures - 1, 12))
        return asked if asked is not None else longest * random.uniform(0.5, 1)  # noqa: S311 - against a herd

    def _note(self, known: Place | None, to: Place) -> Place | None:
        if to == (known or _START):
            return known
        reach("stream:before-posted")
        self.table.mark_posted(known, to)
        return to

    def _post(self, row: dict[str, Any]) -> None:
        source, name = self.shape.source, self.shape.name
        attributes = attributes_of(source, name, row) | ({"partitionkey": row["key"]} if row["key"] is not None else {})
        headers = {f"ce-{n}": quote(v, safe=_SAFE) for n, v in attributes.items()}
        identity = hashlib.sha256("\x1f".join((source, name, row["__id"])).encode()).hexdigest()[:32]
        self.receiver.post(
            row["data"].encode(), headers | {"Content-Type": "application/json", "Idempotency-Key": identity}
        )
        reach("stream:after-post")
