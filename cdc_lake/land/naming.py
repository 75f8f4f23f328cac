"""Names from outside as segments of a path. Imports nothing: completion in a shell decodes names too."""

from __future__ import annotations

import string
from urllib.parse import unquote

_PLAIN = set(string.ascii_letters + string.digits + "-_")


def encode_name(name: str) -> str:
    """`name` as one safe path segment; `decode_name` is its inverse."""
    text = "".join(c if c in _PLAIN else "".join(f"~{b:02X}" for b in c.encode()) for c in name)
    # A leading underscore hides a folder from many readers of data lakes.
    return "~5F" + text[1:] if text.startswith("_") else text


def decode_name(segment: str) -> str:
    """The name that `encode_name` made `segment` from."""
    return unquote(segment.replace("~", "%"))
