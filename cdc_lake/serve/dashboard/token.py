"""The token of a dashboard: configured, or made once and kept where only its owner reads it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cdc_lake.errors import ConfigError

_FILE = "serve-token"
_LEAST = 16


def token_file(folder: Path) -> Path:
    """Where a token that was made is kept."""
    return folder / _FILE


def read_token(folder: Path, configured: str | None, *, anew: bool = False) -> str:
    """The token. One that is kept outlives the process, so that pages which are open go on after a restart.

    Raises ConfigError: one that is configured is too short, or the file cannot be kept.
    """
    if configured is not None:
        if len(configured) < _LEAST:
            raise ConfigError(
                "`serve.token` is too short.",
                why=f"It has {len(configured)} characters, and whoever guesses it is let in: {_LEAST} at least.",
                next="leave it out to have one made, or: openssl rand -hex 24",
            )
        return configured
    file = token_file(folder)
    try:
        if not anew and file.is_file() and len(kept := file.read_text(encoding="ascii").strip()) >= _LEAST:
            return kept
        folder.mkdir(parents=True, exist_ok=True)
        token = secrets.token_urlsafe(32)
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(token + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be kept.", why=str(error), next=f"check the rights of {folder}") from None
    return token
