"""`cdc-lake.yaml`: one place for every setting, checked as a whole before anything starts.

Order of precedence: command-line flag, environment (`CDC_LAKE__SINK__FLUSH_SECONDS=1`), file, default.
Values may hold `${ENV}`, `${ENV:-default}` and `${file:PATH}`. Relative paths are relative to the file's folder.
Without `kafka` and `connect` sections the embedded stack is used: its addresses are read from `.cdc-lake/stack.json`.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from cdc_lake.budget import Budget
from cdc_lake.config_registry import RegistrySection
from cdc_lake.config_retention import Retention, RetentionClass, misfit
from cdc_lake.config_rules import RulesSection, Section, StreamsSection
from cdc_lake.config_serve import ServeSection
from cdc_lake.config_source import Source, refuse_twice
from cdc_lake.errors import ConfigError, UnavailableError, suggest

if TYPE_CHECKING:
    from cdc_lake.events import TableId

DEFAULT_FILE = "cdc-lake.yaml"
STATE_FOLDER = ".cdc-lake"
_REFERENCE = re.compile(r"\$\{([^}]*)\}")


class Kafka(Section):
    """The broker and the client that reads it."""

    bootstrap: str = Field(description="host:port, several separated by commas")
    client: Literal["auto", "kafka-python", "confluent"] = Field(
        default="auto", description="`auto` is confluent where the `fast` extra is installed, else kafka-python"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="any option of the chosen client", repr=False)


class Connect(Section):
    """Kafka Connect's REST interface."""

    url: str = Field(description="such as `http://localhost:8083`")


class Lake(Section):
    """Where the Delta tables are: a folder or any URI that delta-rs takes."""

    uri: str = Field(
        default="./lake", description="a folder, or any URI that delta-rs takes, such as `s3://bucket/lake`"
    )
    options: dict[str, str] = Field(default_factory=dict, description="storage options of delta-rs", repr=False)
    single_writer: bool = Field(
        default=False,
        description="land also where one commit may overwrite another: you answer for one writer at a time",
    )


class Sink(Section):
    """When the sink commits and how much memory it may hold."""

    flush_seconds: float = Field(default=5, gt=0, description="a change is in the log at the latest after this")
    flush_mb: float = Field(default=64, gt=0, description="or as soon as this many MB are buffered")
    memory_mb: float = Field(default=1024, ge=32, description="what the process may hold; the consumer pauses instead")
    maintain: bool = Field(default=True, description="run `cdc-lake maintain` beside it when enough was committed")
    metrics: str | None = Field(
        default=None, description="host:port on which it answers `/metrics`, `/healthz` and `/readyz`; none without"
    )
    log: Literal["text", "json"] = Field(default="text", description="`json` writes one JSON object a line to stderr")


_LATER = "checked and kept, without effect in this version"


class Table(Section):
    """What is special about a table, or about all tables that a glob names."""

    exclude: bool = Field(default=False, description="land nothing of these tables")
    key: list[str] | None = Field(default=None, description=f"the columns that identify a row; {_LATER}")
    retention_class: str | None = Field(
        default=None, alias="class", description="the class of `retention`; `retention.default` when none is named"
    )
    hold: bool | list[str | int | dict[str, str | int]] = Field(
        default=False,
        description="a legal hold: `retention apply` and `erase` remove nothing of these tables, or nothing of rows "
        "with these keys (`[42, {store_id: 3, product_id: 17}]`)",
    )
    belongs_to: dict[str, str] = Field(
        default_factory=dict,
        description="columns that hold the key of a row of another table (`customer_id: public.customers`): "
        "`erase` follows them",
    )
    contract: str | None = Field(default=None, description=f"the file of the table's data contract; {_LATER}")
    order: list[str] | None = Field(default=None, description=f"the columns to sort files by; {_LATER}")
    mask: list[str] = Field(default_factory=list, description=f"the columns to land unreadable; {_LATER}")


class Config(Section):
    """The whole configuration, checked. Build it with `load_config`."""

    source: Source | None = None
    sources: list[Source] | None = None
    kafka: Kafka | None = None
    connect: Connect | None = None
    registry: RegistrySection | None = None
    lake: Lake = Lake()
    sink: Sink = Sink()
    tables: dict[str, Table] = Field(default_factory=lambda: {"*.*": Table()})
    retention: Retention = Retention()
    rules: RulesSection = RulesSection()
    streams: StreamsSection = StreamsSection()
    serve: ServeSection = ServeSection()
    root: Path = Field(default=Path(), exclude=True, json_schema_extra={"readOnly": True})

    @field_validator("tables", mode="before")
    @classmethod
    def _empty_table_is_default(cls, value: Any) -> Any:
        return {k: ({} if v is None else v) for k, v in value.items()} if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _classes_exist(self) -> Config:
        named = {f"tables.{glob}.class": table.retention_class for glob, table in self.tables.items()}
        named["retention.default"] = self.retention.default
        for where, name in named.items():
            if name is not None and name not in self.retention.classes:
                known = ", ".join(self.retention.classes)
                raise ConfigError(
                    f"`{where}` names the retention class {name}, which does not exist.",
                    why=suggest(name, self.retention.classes) or f"The classes are: {known or 'none'}.",
                    next="add it to `retention.classes`, or name one that is there",
                    code="no_such_class",
                )
        return self

    @model_validator(mode="after")
    def _tiers_fit(self) -> Config:
        for name, kept in self.retention.classes.items():
            why = "" if kept.tier is None else misfit(kept.tier, [kept.log, kept.history], self.lake_uri, self._place)
            if why:
                raise ConfigError(
                    f"`retention.classes.{name}.tier` is not valid.",
                    why=why,
                    next="correct it in cdc-lake.yaml",
                    code="bad_tier",
                )
        return self

    def tiers(self) -> dict[str, tuple[str, dict[str, str]]]:
        """The tiers of all classes, by what the configuration calls them: place and storage options."""
        named = [c.tier for c in self.retention.classes.values() if c.tier is not None]
        return {t.uri: (self._place(t.uri), t.options or self._lake_options(t.uri)) for t in named}

    def _lake_options(self, uri: str) -> dict[str, str]:
        scheme, remote, _ = uri.partition("://")
        return self.lake.options if remote and self.lake.uri.startswith(f"{scheme}://") else {}

    @model_validator(mode="after")
    def _event_tables_differ(self) -> Config:
        refuse_twice(self.all_sources)
        return self

    @property
    def all_sources(self) -> list[Source]:
        """The captured databases and the sources of events, at least one."""
        return self.sources or [self.source or Source()]

    @property
    def databases(self) -> list[Source]:
        """The captured databases."""
        return [s for s in self.all_sources if s.captured]

    @property
    def connected(self) -> list[Source]:
        """The sources that have a connector: databases, and events that one routes out of a table."""
        return [s for s in self.all_sources if s.captured or s.connector is not None]

    @property
    def budget(self) -> Budget:
        """What the sink of each source may hold: all run in one process."""
        return Budget.of(self.sink.memory_mb, self.sink.flush_mb, len(self.all_sources))

    @property
    def state_folder(self) -> Path:
        """The project's folder for the embedded stack's state, locks and logs."""
        return self.root / STATE_FOLDER

    @property
    def stack_file(self) -> Path:
        """Where the embedded stack records its addresses (`postgres.dsn`, `kafka.bootstrap`, `connect.url`)."""
        return self.state_folder / "stack.json"

    @property
    def lake_uri(self) -> str:
        """The lake as an absolute path (local) or the URI as given."""
        return self._place(self.lake.uri)

    def _place(self, uri: str) -> str:
        return uri if "://" in uri else str((self.root / Path(uri).expanduser()).absolute())

    @property
    def bootstrap(self) -> str:
        """Kafka's address: configured, or the embedded broker's."""
        return self.kafka.bootstrap if self.kafka else self._embedded("kafka", "bootstrap")

    @property
    def connect_url(self) -> str:
        """Kafka Connect's address: configured, or the embedded one's."""
        return self.connect.url if self.connect else self._embedded("connect", "url")

    def dsn(self, source: Source) -> str:
        """The administrator's address of `source`: configured, or the embedded PostgreSQL's."""
        return source.dsn or self._embedded("postgres", "dsn")

    def connector_file(self, source: Source) -> Path:
        """The source's connector file; `connectors/<name>.json` when none is named."""
        return self.root / (source.connector or f"connectors/{source.name}.json")

    def table(self, schema: str, name: str) -> Table | None:
        """Settings of a table: the last entry of `tables` that matches; None when no entry does or it is excluded."""
        found = [t for glob, t in self.tables.items() if fnmatch.fnmatchcase(f"{schema}.{name}", glob)]
        return found[-1] if found and not found[-1].exclude else None

    def retained(self, table: TableId) -> tuple[str, RetentionClass, bool]:
        """The name of a table's retention class, the class, and whether a legal hold keeps all of it."""
        found = [t for glob, t in self.tables.items() if fnmatch.fnmatchcase(str(table), glob)]
        name = next((t.retention_class for t in reversed(found) if t.retention_class), self.retention.default)
        return name, self.retention.classes[name], any(t.hold is True for t in found)

    def held_keys(self, table: TableId) -> list[str | int | dict[str, str | int]]:
        """The keys of a table's rows that are under a legal hold: those of all entries that match."""
        found = [t.hold for glob, t in self.tables.items() if fnmatch.fnmatchcase(str(table), glob)]
        return [key for hold in found if isinstance(hold, list) for key in hold]

    def owners(self, table: TableId) -> dict[str, TableId]:
        """The columns of a table that hold the key of another one's row, and that table: all entries that match."""
        from cdc_lake.events import TableId

        found = [t.belongs_to for glob, t in self.tables.items() if fnmatch.fnmatchcase(str(table), glob)]
        named = {column: owner for one in found for column, owner in one.items()}
        return {c: TableId(*(o if "." in o else f"public.{o}").split(".", 1)) for c, o in named.items()}

    @property
    def rules_folder(self) -> Path:
        """Where the rules' files are."""
        return self.root / Path(self.rules.folder).expanduser()

    @property
    def streams_folder(self) -> Path:
        """Where the streaming models' files are."""
        return self.root / Path(self.streams.folder).expanduser()

    def captures(self, table: TableId) -> bool:
        """Whether the configuration lands `table`."""
        return self.table(table.schema, table.name) is not None

    def _embedded(self, part: str, key: str) -> str:
        try:
            return str(json.loads(self.stack_file.read_text())[part][key])
        except (OSError, ValueError, KeyError, TypeError):
            raise UnavailableError(
                f"The embedded stack is not running, so there is no address for {part}.",
                why=f"The configuration names no `{part}` and {self.stack_file} holds no address.",
                next="cdc-lake up",
                code="stack_down",
            ) from None


def load_config(path: str | Path | None = None, *, environ: Mapping[str, str] | None = None) -> Config:
    """Read, interpolate and check a configuration file.

    Without `path` the file is `cdc-lake.yaml` of the current folder, and its absence means all defaults.
    Raises ConfigError: no such file, not YAML, unknown or misspelt key, value of the wrong kind, missing reference.
    """
    env = os.environ if environ is None else environ
    file = Path(path) if path is not None else Path(DEFAULT_FILE)
    if path is not None and not file.is_file():
        raise ConfigError(
            f"There is no configuration file {file}.",
            why="The path given with --config does not name a file.",
            next="check the path, or write one with: cdc-lake init",
        )
    raw = _read_yaml(file) if file.is_file() else {}
    root = file.absolute().parent
    raw = _interpolate(raw, env, root)
    _overlay_environment(raw, env)
    try:
        return Config.model_validate({**raw, "root": root})
    except ValidationError as error:
        raise _explain(error, file) from None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML.", why=str(error), next=f"edit {file}") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read.", why=str(error), next=f"check the permissions of {file}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{file} must hold keys and values.", why=f"it holds a {type(raw).__name__}", next=f"edit {file}"
        )
    if "root" in raw:
        raise ConfigError(f"{file}: unknown key `root`.", why="It is not a setting.", next=f"edit {file}")
    return raw


def _interpolate(value: Any, env: Mapping[str, str], root: Path) -> Any:
    if isinstance(value, dict):
        return {k: _interpolate(v, env, root) for k, v in value.items()}
    if isinstance(value, list):
        return [_interpolate(v, env, root) for v in value]
    if isinstance(value, str):
        return _REFERENCE.sub(lambda m: _resolve(m.group(1), env, root), value)
    return value


def interpolate(text: str, folder: Path, environ: Mapping[str, str] | None = None) -> str:
    """`text` with its references resolved, as a configuration file in `folder` would have it. Raises ConfigError."""
    return str(_interpolate(text, os.environ if environ is None else environ, folder))


def _resolve(reference: str, env: Mapping[str, str], root: Path) -> str:
    if reference.startswith("file:"):
        path = root / Path(reference[5:]).expanduser()
        try:
            return path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(
                f"The configuration refers to ${{{reference}}}, which cannot be read.",
                why=str(error),
                next=f"create {path}",
            ) from None
    name, has_default, default = reference.partition(":-")
    if name in env:
        return env[name]
    if has_default:
        return default
    raise ConfigError(
        f"The configuration refers to ${{{name}}}, which is not set.",
        why="There is no such environment variable and no default.",
        next=f"export {name}=…  (or write ${{{name}:-default}})",
    )


def _overlay_environment(raw: dict[str, Any], env: Mapping[str, str]) -> None:
    for variable in sorted(v for v in env if v.startswith("CDC_LAKE__")):
        *parents, leaf = variable.removeprefix("CDC_LAKE__").lower().split("__")
        target = raw
        for parent in parents:
            child = target.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(
                    f"{variable} does not fit the configuration.",
                    why=f"`{parent}` holds no keys.",
                    next=f"unset {variable}",
                )
            target = child
        target[leaf] = yaml.safe_load(env[variable])


def _explain(error: ValidationError, file: Path) -> ConfigError:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        hint = suggest(str(first["loc"][-1]), _known_keys(first["loc"][:-1]))
        return ConfigError(
            f"{file}: unknown key `{where}`.", why=hint or "There is no such setting.", next=f"edit {file}"
        )
    if first["type"] == "missing":
        return ConfigError(f"{file}: `{where}` is missing.", why="It has no default.", next=f"edit {file}")
    # The input itself is not shown: it may be a secret.
    return ConfigError(f"{file}: `{where}` is not valid.", why=first["msg"], next=f"edit {file}")


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    model: Any = Config
    for part in path:
        field = getattr(model, "model_fields", {}).get(str(part)) if not isinstance(part, int) else None
        if field is None:
            continue
        models = [m for m in _walk_types(field.annotation) if isinstance(m, type) and issubclass(m, BaseModel)]
        model = models[0] if models else model
    return [f.alias or n for n, f in model.model_fields.items() if n != "root"]


def _walk_types(annotation: Any) -> list[Any]:
    return [annotation, *(t for a in getattr(annotation, "__args__", ()) for t in _walk_types(a))]
