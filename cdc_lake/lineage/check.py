"""Does who keeps lineage answer? No event is sent: whatever its server says to a look is an answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import httpx

from cdc_lake.checks import Check, ok, warn
from cdc_lake.errors import first_line
from cdc_lake.lineage.wish import secrets, wish
from cdc_lake.logs import Redactor

_SECONDS = 3.0


def check_lineage(environ: Mapping[str, str], folder: Path, home: Path) -> list[Check]:
    """The finding; none when nobody asked for lineage."""
    asked = wish(environ, folder, home)
    if asked is None:
        return []
    redact = Redactor(secrets(environ))
    if asked.problem:
        return [_gone(asked.by, asked.problem, asked.fix)]
    from cdc_lake.lineage.sending import Sender

    try:
        sender = Sender(secrets(environ))
    except Exception as error:  # what the client finds wrong with what it was given
        return [_gone(asked.by, redact(first_line(error)), f"correct {asked.by}")]
    where = sender.where
    sender.close()
    if not where.startswith(("http://", "https://")):
        return [ok("lineage.delivered", f"by the transport {where}, which is not asked")]
    try:
        httpx.get(where, timeout=_SECONDS)
    except httpx.HTTPError as error:
        why = redact(f"{type(error).__name__}: {first_line(error)}")
        return [_gone(where, why, f"correct {asked.by}, or start the server")]
    return [ok("lineage.delivered", f"{where} answers")]


def _gone(where: str, why: str, fix: str) -> Check:
    return warn("lineage.delivered", f"no lineage to {where}", why=f"{why}. Everything else works.", fix=fix)
