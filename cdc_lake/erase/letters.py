"""Dead letters that hold a person: the letter stays, with the coordinates of its record; its contents go."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from deltalake.exceptions import DeltaError

from cdc_lake.crashpoints import reach
from cdc_lake.erase.log import commit, explained
from cdc_lake.land.dead_letters import DROPPED, WAITING, DeadLetters, Letter
from cdc_lake.land.erasures import ERASED_LETTER
from cdc_lake.land.layout import dead_letters_path
from cdc_lake.land.letter_files import rewritten
from cdc_lake.project.lake import Lake


@dataclass(frozen=True, slots=True)
class Sought:
    """A person in the letters of some topics: `keys` as the log has them, `asked` as it was typed, by its columns, and
    `columns` that refer to it, with their values."""

    topics: frozenset[str]
    keys: frozenset[str]
    asked: Mapping[str, str] | None = None
    columns: tuple[Mapping[str, str], ...] = ()

    def is_in(self, letter: Letter) -> bool:
        """Whether a letter is the person's: by its key, by its text where that cannot be read, and by `columns`."""
        if letter.tp.topic not in self.topics:
            return False
        if letter.key is not None and _canonical(letter.key) in {_canonical(k.encode()) for k in self.keys}:
            return True
        key, value = ((x or b"").decode("utf-8", "replace") for x in (letter.key, letter.value))
        text = f"{key}\n{value}"
        readable = letter.key is not None and _canonical(letter.key) is not None
        if self.asked and _has(key if readable else text, self.asked):
            return True
        pairs: list[Mapping[str, Any]] = list(self.columns)
        if not readable:
            pairs += [p for k in self.keys if isinstance(p := json.loads(k), dict)]
        return any(_has(text, p) for p in pairs)


def _canonical(key: bytes) -> str | None:
    """A key without its schema and with its columns in order; None when it is no JSON object."""
    try:
        found = json.loads(key, parse_float=str)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, dict) and found.keys() == {"schema", "payload"}:
        found = found["payload"]
    return json.dumps(found, sort_keys=True) if isinstance(found, dict) else None


def _has(text: str, columns: Mapping[str, Any]) -> bool:
    return bool(columns) and all(_names(text, n, v) for n, v in columns.items())


def _names(text: str, column: str, value: Any) -> bool:
    """Whether a text has the column with the value, also where it is JSON within JSON or no JSON as a whole."""
    spelled = value if isinstance(value, str) else json.dumps(value)
    return re.search(rf'\\*"{re.escape(column)}\\*"\s*:\s*\\*"?{re.escape(spelled)}(?![\w.-])', text) is not None


def find_letters(lake: Lake, source: str, sought: Sequence[Sought]) -> list[Letter]:
    """The person's letters that still have contents."""
    letters = DeadLetters(lake.root, source, lake.options).all()
    return [x for x in letters if x.error_class != ERASED_LETTER and any(s.is_in(x) for s in sought)]


def empty_letters(lake: Lake, source: str, letters: Collection[Letter]) -> None:
    """Take the contents out of letters, in one commit. Needs `lock.sole_rewriter`. Raises LakeError.

    A letter that waits is dropped first: nothing could be made of it any more, and the cut would wait for it.
    """
    if not letters:
        return
    waiting = [x for x in letters if x.state == WAITING]
    if waiting:
        DeadLetters(lake.root, source, lake.options).decide(waiting, DROPPED)
    path = dead_letters_path(lake.root, source)
    table = lake.open(path)
    if table is None:
        return
    said = {"error_class": ERASED_LETTER, "reason": "its contents were erased"}
    try:
        added, gone = rewritten(path, lake.options, table, emptied={x.id for x in letters}, said=said)
        reach("erase:before-letters-commit")
        commit(lake, path, added, gone, None)
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise explained(path, error) from error
    reach("erase:after-letters-commit")
