"""Whether lineage is wanted, by OpenLineage's own variables and file. Without them nothing of it is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cdc_lake.extras import is_there

_URL, _CONFIG, _KEY = "OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE_API_KEY"
_TRANSPORT = "OPENLINEAGE__TRANSPORT"
FILE = "openlineage.yml"


@dataclass(frozen=True, slots=True)
class Wish:
    """Who asks: a variable or a file. With a `problem` nothing can be sent; `fix` is what mends it."""

    by: str
    problem: str = ""
    fix: str = ""


def home_folder() -> Path:
    """The user's; in a container there may be none, which is no reason to stop."""
    return Path(os.path.expanduser("~"))


def wish(environ: Mapping[str, str], folder: Path, home: Path) -> Wish | None:
    """What variables, or a file in the `folder` that the process stands in or in `home`, ask for; None when nothing."""
    if environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return None
    named = [n for n in (_URL, _CONFIG) if environ.get(n)] + [n for n in environ if n.startswith(_TRANSPORT)]
    files = [str(f) for f in (folder / FILE, home / ".openlineage" / FILE) if f.is_file()]
    by = next(iter(named + files), "")
    if not by:
        return None
    if not is_there("openlineage.client.event_v2"):
        return Wish(by, "the package for it is not installed", "pip install 'cdc-lake[lineage]'")
    return Wish(by)


def secrets(environ: Mapping[str, str]) -> list[str]:
    """What is sent along and not for everybody."""
    password = urlsplit(environ.get(_URL, "")).password
    return [*([environ[_KEY]] if environ.get(_KEY) else []), *([password, unquote(password)] if password else [])]
