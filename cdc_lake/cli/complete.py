"""Answers a shell at each press of a key: what may stand next in the line.

The commands are not imported for it, which would take longer than a person waits: their words are in `complete.json`,
which `scripts/generate_reference.py` writes from them. Names come from live state. Whatever goes wrong, nothing is
suggested and nothing is said: the person has not run anything yet.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cdc_lake.cli.complete_names import names

WORDS = Path(__file__).with_name("complete.json")
# The variable that the script of `--install-completion` sets, and each shell's word in it.
_ASKED, _COMPLETE = "_CDC_LAKE_COMPLETE", "complete_"

# What may stand next, and what its help says.
Word = tuple[str, str]


def answered() -> bool:
    """Print what may stand next when a shell asks for it; False when none does."""
    shell = os.environ.get(_ASKED, "").removeprefix(_COMPLETE)
    if shell not in _SHELLS:
        return False
    arguments, answer = _SHELLS[shell]
    try:
        done, begun = arguments()
        found = suggestions(json.loads(WORDS.read_text(encoding="utf-8")), done, begun, joined=shell != "bash")
    except Exception:
        found = []
    print(answer(found))
    return True


def suggestions(root: Any, done: list[str], begun: str, *, joined: bool = False) -> list[Word]:
    """What may stand where `begun` is, after the words that are `done`, by the words of the commands below `root`.

    `joined`: the shell takes `--name=value` as one word, so that what it is told begins with the name.
    """
    line = _Line(root)
    for word in done:
        line.take(word)
    front = ""
    if line.wants is None and begun.startswith("-") and "=" in begun and not line.no_more_options:
        name, _, begun = begun.partition("=")
        line.take(name)
        front = f"{name}=" if joined else ""
    return [(front + word, text) for word, text in line.next("" if begun == "=" else begun) if word.startswith(begun)]


class _Line:
    """A command line as far as it is written, and what it may go on with."""

    def __init__(self, root: Any) -> None:
        self._root = self._command = root
        self._given: set[str] = set()
        self._filled = 0
        self._config: str | None = None
        self.no_more_options = False
        self.wants: Any = None  # the option whose value comes next

    def take(self, word: str) -> None:
        """Go on by one complete word."""
        if self.wants is not None:
            if word != "=":  # bash parts `--name=value` into three words
                self._config = word if "--config" in self.wants["names"] else self._config
                self.wants = None
        elif word == "--" and not self.no_more_options:
            self.no_more_options = True
        elif word.startswith("-") and len(word) > 1 and not self.no_more_options:
            self._take_option(word)
        elif (child := self._command.get("commands", {}).get(word)) is not None:
            self._command = child
        else:
            self._filled += 1

    def _take_option(self, word: str) -> None:
        name, equals, value = word.partition("=")
        found = next((o for o in self._options() if name in o["names"]), None)
        if found is not None:
            self._given.add(found["names"][0])
            self.wants = found if "takes" in found else None
            if equals:
                self.take(value)

    def _options(self) -> Iterator[Any]:
        """The options of this command, and those of the whole program that may stand anywhere."""
        yield from self._command["options"]
        if self._command is not self._root:
            yield from (o for o in self._root["options"] if o.get("anywhere"))

    def next(self, begun: str) -> Iterator[Word]:
        """What may stand here. `begun` says what kind of word it is; the caller chooses those that begin so."""
        arguments = self._command.get("arguments", [])
        if self.wants is not None:
            yield from self._named(self.wants["takes"])
        elif begun.startswith("-") and not self.no_more_options:
            left = (o for o in self._options() if o.get("repeats") or o["names"][0] not in self._given)
            yield from ((name, option["help"]) for option in left for name in option["names"])
        elif arguments and (self._filled < len(arguments) or arguments[-1].get("repeats")):
            yield from self._named(arguments[min(self._filled, len(arguments) - 1)]["takes"])
        elif not self._filled:
            yield from ((name, child["help"]) for name, child in self._command.get("commands", {}).items())

    def _named(self, kind: str) -> Iterator[Word]:
        words = kind.split("|") if "|" in kind else names(kind, self._config) if kind else ()
        return ((word, "") for word in sorted(set(words)))


# --- what each shell's script asks and takes, as typer's `--install-completion` writes it


def _of_bash() -> tuple[list[str], str]:
    words, place = _split(os.environ["COMP_WORDS"]), int(os.environ["COMP_CWORD"])
    return words[1:place], words[place] if place < len(words) else ""


def _of_line() -> tuple[list[str], str]:
    line = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    words = _split(line)[1:]
    return (words, "") if line.endswith(" ") or not words else (words[:-1], words[-1])


def _of_powershell() -> tuple[list[str], str]:
    words, begun = (
        _split(os.environ.get("_TYPER_COMPLETE_ARGS", "")),
        os.environ.get("_TYPER_COMPLETE_WORD_TO_COMPLETE", ""),
    )
    return words[1:-1] if begun else words[1:], begun


def _split(line: str) -> list[str]:
    """The words of a line whose last quote may still be open."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        words.extend(lexer)
    except ValueError:
        words.append(lexer.token)
    return words


def _to_bash(found: list[Word]) -> str:
    return "\n".join(word for word, _ in found)


def _to_zsh(found: list[Word]) -> str:
    lines = (f'"{_zsh(word)}":"{_zsh(text)}"' if text else f'"{_zsh(word)}"' for word, text in found)
    return "_arguments '*: :(({}))'".format("\n".join(lines)) if found else "_files"


def _zsh(text: str) -> str:
    doubled = text.replace('"', '""').replace("'", "''")
    return doubled.replace("$", "\\$").replace("`", "\\`").replace(":", r"\\:")


def _to_fish(found: list[Word]) -> str:
    if os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        sys.exit(0 if found else 1)
    return "\n".join(f"{word}\t{' '.join(text.split())}" if text else word for word, text in found)


def _to_powershell(found: list[Word]) -> str:
    return "\n".join(f"{word}:::{text or ' '}" for word, text in found)


_SHELLS: dict[str, tuple[Callable[[], tuple[list[str], str]], Callable[[list[Word]], str]]] = {
    "bash": (_of_bash, _to_bash),
    "zsh": (_of_line, _to_zsh),
    "fish": (_of_line, _to_fish),
    "powershell": (_of_powershell, _to_powershell),
    "pwsh": (_of_powershell, _to_powershell),
}
