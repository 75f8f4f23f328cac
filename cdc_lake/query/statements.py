"""Where statements of typed SQL end: `;` outside quotes and comments, as DuckDB reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_PIECE = re.compile(
    r"""(?P<string>[eE]'(?:\\.|''|[^'\\])*(?:'|\Z) | '(?:[^']|'')*(?:'|\Z) | (\$(?:[A-Za-z_]\w*)?\$).*?(?:\2|\Z))
    | (?P<name>"(?:[^"]|"")*(?:"|\Z))
    | (?P<comment>--[^\n]*(?:\n|\Z) | /\*.*?(?:\*/|\Z))
    | (?P<end>;)
    | (?P<word>\w+)
    | (?P<other>.)""",
    re.X | re.S,
)
_CLOSED = {
    "string": re.compile(r"""(?s:[eE]'(?:\\.|''|[^'\\])*'|'(?:[^']|'')*'|(\$(?:[A-Za-z_]\w*)?\$).*\1)"""),
    "name": re.compile(r'"(?:[^"]|"")*"'),
    "comment": re.compile(r"(?s:--[^\n]*\n|/\*.*\*/)"),
}
_BETWEEN = re.compile(r"(?s:\A(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*)")


@dataclass(frozen=True, slots=True)
class Piece:
    """A string, quoted name, comment, `;`, word or other character of SQL, and where it begins."""

    kind: str
    text: str
    start: int

    @property
    def open(self) -> bool:
        """Whether it goes on behind the text: its quote or comment was not closed."""
        closed = _CLOSED.get(self.kind)
        return closed is not None and closed.fullmatch(self.text) is None


def pieces(sql: str) -> Iterator[Piece]:
    """The pieces of a text, in order and without a gap."""
    for found in _PIECE.finditer(sql):
        yield Piece(str(found.lastgroup), found.group(), found.start())


def is_complete(text: str) -> bool:
    """Whether what was typed may run: a command, nothing, a word to leave, or statements that all have their `;`."""
    stripped = text.strip()
    if not stripped or stripped.startswith("\\") or stripped.rstrip(";") in ("quit", "exit"):
        return True
    last = ""
    for piece in pieces(stripped):
        if piece.open and not piece.text.startswith("--"):
            return False
        if piece.kind != "comment" and not piece.text.isspace():
            last = piece.kind
    return last == "end"


def statements(text: str) -> Iterator[str]:
    """The statements of a text, and its backslash commands, each a line that begins where a statement could."""
    rest = _BETWEEN.sub("", text, count=1)
    while rest:
        end = len(rest.partition("\n")[0]) if rest.startswith("\\") else _end(rest)
        if rest[:end].strip(" \t\r\n;"):
            yield rest[:end].strip()
        rest = _BETWEEN.sub("", rest[end:], count=1)


def _end(text: str) -> int:
    return next((p.start + 1 for p in pieces(text) if p.kind == "end"), len(text))
