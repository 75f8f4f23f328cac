"""How a configuration refers to a database's address without holding its password."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc_lake.config import interpolate
from cdc_lake.errors import UsageError

_REFERENCE = re.compile(r"\$\{[^}]+\}")
_SECRET = ("password", "sslpassword")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the source is.

    `dsn` is what to connect with and may hold a password; `written` is what a file may hold, `shown` what a person may
    read. `export` is the command that `written` needs before it can be read, with the password left out; empty when
    the environment has what is needed.
    """

    dsn: str
    written: str
    shown: str
    export: str = ""

    @property
    def in_shell(self) -> str:
        """The address as a word of a shell's command line, its password by reference."""
        inner = self.written.removeprefix("${").removesuffix("}")
        if inner.startswith("file:"):
            return f'"$(cat {shlex.quote(inner.removeprefix("file:"))})"'
        return shlex.quote(self.shown) if ":-" in inner else f'"${inner}"'

    @property
    def database(self) -> str:
        """The name of the database."""
        return str(conninfo_to_dict(self.dsn).get("dbname") or conninfo_to_dict(self.dsn).get("user") or "source")


def read_address(given: str, name: str | None, folder: Path, environ: Mapping[str, str]) -> Address:
    """The address that `--dsn` names: a reference (`${POS_DSN}`, `${file:…}`) is kept, a text is replaced by one.

    A text that is the value of a variable of the environment becomes a reference to that variable; one without a
    password becomes the default of a variable that need not be set.
    Raises UsageError for a text that is no address, ConfigError for a reference that leads nowhere.
    """
    dsn = interpolate(given, folder, environ)
    parts = _parts(dsn)
    shown = make_conninfo(**{k: v for k, v in parts.items() if k not in _SECRET})
    if _REFERENCE.fullmatch(given.strip()):
        return Address(dsn, given.strip(), shown)
    held = sorted(variable for variable, value in environ.items() if value == given and variable.isidentifier())
    if held:
        return Address(dsn, f"${{{held[0]}}}", shown)
    variable = variable_of(name or str(parts.get("dbname") or "source"))
    if "}" in shown or any(part in parts for part in _SECRET):
        return Address(dsn, f"${{{variable}}}", shown, f"export {variable}={shlex.quote(f'{shown} password=…')}")
    return Address(dsn, f"${{{variable}:-{shown}}}", shown)


def variable_of(name: str) -> str:
    """The environment variable that holds the address of the source `name`."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII).upper()
    return f"{'' if plain[:1].isalpha() else 'SOURCE_'}{plain}_DSN"


def _parts(dsn: str) -> dict[str, str]:
    try:
        parts = {k: str(v) for k, v in conninfo_to_dict(dsn).items()}
    except psycopg.ProgrammingError:
        parts = {}
    if parts:
        return parts
    # The text is not shown, and neither are psycopg's own words, which quote it: it may hold a password.
    raise UsageError(
        "--dsn is no address of PostgreSQL.",
        why="It is neither postgresql://user@host:port/dbname nor key=value pairs.",
        next="cdc-lake init --dsn postgresql://user@host:5432/dbname",
    )
