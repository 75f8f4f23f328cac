"""Whether what an extra brings is there."""

from __future__ import annotations

from importlib.util import find_spec


def is_there(module: str) -> bool:
    """Whether a module could be imported. Of packages that share a name one part may be there without another."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
