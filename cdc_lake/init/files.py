"""The files of a new project: what they say, and how they are put into a folder that may hold others."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from cdc_lake.config import DEFAULT_FILE
from cdc_lake.connector_file import ConnectorFile
from cdc_lake.errors import CdcLakeError, UsageError

TEMPLATES = ("blank", "retail")
IGNORE_FILE = ".gitignore"
_SLOT_LIMIT = 63
_NOTEBOOKS = {"blank": "explore.py", "retail": "sales.py"}
_RULES = {"blank": (), "retail": ("sold_out",)}
_EMBEDDED = '# dsn: "${POS_DSN}"              # an administrator\'s address; without it the embedded PostgreSQL is used'


@dataclass(frozen=True, slots=True)
class Outline:
    """What the files of a project depend on.

    `dsn` is the source's address as the configuration may hold it, None for the embedded PostgreSQL. `schemas` are
    captured. `setup` is the SQL for the source, where it was looked at.
    """

    name: str
    template: str = "blank"
    dsn: str | None = None
    schemas: tuple[str, ...] = ("public",)
    setup: str | None = None

    @property
    def connector(self) -> str:
        """The connector's file."""
        return f"connectors/{self.name}.json"

    @property
    def setup_file(self) -> str:
        """The SQL for the source."""
        return f"connectors/{self.name}.setup.sql"

    @property
    def notebook(self) -> str:
        """The first notebook."""
        return f"notebooks/{_NOTEBOOKS[self.template]}"


def source_name(text: str) -> str:
    """`text` as a name that serves in topics, slots, roles and folders alike: small letters, digits, underscores."""
    plain = re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_")
    return plain[: _SLOT_LIMIT - len("cdc_lake_")] or "source"


def render(outline: Outline) -> dict[str, str]:
    """Every file of the project: its path below the folder, and its text."""
    made = {
        DEFAULT_FILE: _config(outline),
        outline.connector: connector_text(outline.name, outline.schemas),
        outline.notebook: _template(f"{_NOTEBOOKS[outline.template]}.txt").replace("<<name>>", outline.name),
        IGNORE_FILE: _template("gitignore.txt"),
        **rules_of(outline.template),
    }
    return made if outline.setup is None else made | {outline.setup_file: outline.setup}


def rules_of(template: str) -> dict[str, str]:
    """The rules that a template comes with: the path of each below the project, and its text."""
    return {f"rules/{name}.yaml": _template(f"{name}.yaml.txt") for name in _RULES[template]}


def connector_text(name: str, schemas: Collection[str]) -> str:
    """The shipped connector file under another name: every other setting, its transforms and predicates too, stays."""
    listed = [f"{_pattern(schema)}\\\\..*" for schema in schemas]
    values = {
        "name": name,
        "topic.prefix": name,
        "slot.name": f"cdc_lake_{name}",
        "publication.name": f"cdc_lake_{name}",
        "table.include.list": ",".join([*listed, r"cdc_lake\\.heartbeat", r"cdc_lake\\.signals"]),
    }
    text = _template("connector.json")
    for key, value in values.items():
        pattern = re.compile(rf'^(\s*"{re.escape(key)}": ")[^"]*(")', re.M)
        text, count = pattern.subn(lambda m, value=value: f"{m[1]}{value}{m[2]}", text)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"the shipped connector file has {count} lines for {key}")
    return text


def connector_of(name: str, schemas: Collection[str]) -> ConnectorFile:
    """What `connector_text` says."""
    return ConnectorFile(name, json.loads(connector_text(name, schemas))["config"])


def _pattern(schema: str) -> str:
    """A schema as a regular expression in a list of a JSON text."""
    return re.escape(schema).replace(",", r"\,").replace("\\", "\\\\").replace('"', '\\"')


def _config(outline: Outline) -> str:
    dsn = _EMBEDDED if outline.dsn is None else f'dsn: "{_quoted(outline.dsn)}"   # an administrator\'s address'
    text = _template("cdc-lake.yaml.txt")
    for mark, value in (("name", outline.name), ("connector", outline.connector), ("dsn", dsn)):
        text = text.replace(f"<<{mark}>>", value)
    return text


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _template(name: str) -> str:
    return files("cdc_lake.init").joinpath("templates", name).read_text(encoding="utf-8")


def refuse_to_overwrite(folder: Path, made: Collection[str], again: str) -> None:
    """Raise UsageError when one of the files is there. A `.gitignore` is only added to."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file.", why="A project is a folder.", next="name another folder")
    there = [name for name in made if name != IGNORE_FILE and (folder / name).exists()]
    if there:
        raise UsageError(
            f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} there already{_where(folder)}.",
            why="init overwrites nothing, and has written nothing.",
            next=f"name another folder, or overwrite: {again} --force",
            code="exists",
        )


def _where(folder: Path) -> str:
    return "" if folder == Path() else f" in {folder}"


def write(folder: Path, made: Mapping[str, str]) -> None:
    """Write the files. Raises CdcLakeError when the folder cannot be written to."""
    for name, text in made.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_with_missing_lines(path, text) if name == IGNORE_FILE else text, encoding="utf-8")
        except OSError as error:
            raise CdcLakeError(
                f"{path} cannot be written.",
                why=error.strerror or str(error),
                next="check the folder's permissions and space, or name another folder",
                code="not_writable",
            ) from None


def _with_missing_lines(path: Path, text: str) -> str:
    """What the file says already, and the lines of `text` that it lacks."""
    if not path.exists():
        return text
    held = path.read_text(encoding="utf-8")
    missing = [line for line in text.splitlines() if line and line not in held.splitlines()]
    return held if not missing else "\n".join([held.rstrip("\n"), *missing, ""]).lstrip("\n")
