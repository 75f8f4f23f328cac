"""The user's cache for cdc-lake: what may be deleted at any time, and is made or fetched anew."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/cdc-lake`, or the platform's place."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "cdc-lake"
    home = Path.home()
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "cdc-lake"
