"""The capture role's password: made once, kept in a file that only its owner and the Connect worker read."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from cdc_lake.capture.postgres import CONNECT_SECONDS
from cdc_lake.errors import ConfigError

_NAME_LIMIT = 63


@dataclass(frozen=True, slots=True)
class CaptureRole:
    """The role the connector logs in with, and the file that holds its password.

    `password` is None when the file is not there yet; it is made when the source is prepared.
    """

    name: str
    file: Path
    password: str | None

    @property
    def reference(self) -> str:
        """What Connect is given instead of the password: its FileConfigProvider, under the name `file`, resolves it."""
        return f"${{file:{self.file}:password}}"


def capture_role(state_folder: Path, source: str) -> CaptureRole:
    """The role of a source and its password, read from `<state_folder>/secrets/<source>.properties` if it is there.

    Raises ConfigError when Connect could not name the file, because its path holds `:` or `}`.
    """
    file = state_folder.absolute() / "secrets" / f"{source}.properties"
    if set(":}") & set(str(file)):
        raise ConfigError(
            f"The secrets file {file} cannot be named in a connector's configuration.",
            why="Kafka Connect's references cannot hold a path with `:` or `}`.",
            next="move the project to another folder, or write `database.password` by reference yourself",
        )
    name = "cdc_lake_" + re.sub(r"[^a-z0-9_]", "_", source.lower())
    return CaptureRole(name[:_NAME_LIMIT], file, _read(file))


def make_password(role: CaptureRole) -> CaptureRole:
    """The same role with a new password, stored durably (mode 0600) before the source learns of it."""
    password = secrets.token_urlsafe(32)
    folder = role.file.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = role.file.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(f"user={role.name}\npassword={password}\n")
        out.flush()
        os.fsync(out.fileno())
    partial.replace(role.file)
    return CaptureRole(role.name, role.file, password)


def password_works(dsn: str, role: str, password: str) -> bool:
    """Whether PostgreSQL takes a role's password. Any other reason not to connect is not the password's fault."""
    parts: dict[str, Any] = dict(conninfo_to_dict(dsn))
    parts |= {"user": role, "password": password, "connect_timeout": str(CONNECT_SECONDS)}
    try:
        psycopg.connect(**parts).close()
    except psycopg.OperationalError as error:
        return "password authentication failed" not in str(error)
    return True


def _read(file: Path) -> str | None:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(
            f"The secrets file {file} cannot be read.",
            why=error.strerror or str(error),
            next=f"run as the user who owns {file}",
        ) from None
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values.get("password") or None
