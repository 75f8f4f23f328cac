"""How many random cases the models try: some in `make test`, and `DEPTH` times as many where that is set."""

from __future__ import annotations

import os

DEPTH = int(os.environ.get("DEPTH", "1"))


def seeds(count: int) -> range:
    """The seeds of one model; each is a case of its own, and says its number when it fails."""
    return range(count * DEPTH)
