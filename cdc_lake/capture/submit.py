"""From a connector file to what is submitted: references filled in, tables named, differences and misspellings told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cdc_lake.capture.preflight import Survey, TableFilter, own_tables
from cdc_lake.connector_file import ConnectorFile, is_secret_key
from cdc_lake.errors import ConfigError, suggest
from cdc_lake.events import TableId

_FILLED_HERE = re.compile(r"\$\{(dsn|capture):([^}]*)\}")
_ANY_REFERENCE = re.compile(r"\$\{[^}]*\}")
_HIDDEN = "********"

# Settings that Connect and Debezium read without listing them when asked what they know.
_UNLISTED = frozenset(
    {
        "name",
        "connector.class",
        "tasks.max",
        "offset.mismatch.strategy",
        "money.fraction.digits",
        "field.name.adjustment.mode",
        "read.only",
        "skip.messages.without.change",
        "event.converting.failure.handling.mode",
        "custom.retriable.exception",
        "queue.provider.type",
        "incremental.snapshot.allow.schema.changes",
        "include.schema.changes",
        "slot.seek.to.known.offset.on.start",
        "signal.file",
        "topic.delimiter",
        "topic.transaction",
        "topic.heartbeat.prefix",
        "topic.heartbeat.name",
        "topic.cache.size",
        "topic.regex",
        "topic.replacement",
        "topic.key.enforce.uniqueness",
        "topic.key.field.name",
        "topic.key.field.regex",
        "topic.key.field.replacement",
        "heartbeat.topics.prefix",
        "notification.sink.topic.name",
    }
)
# Families with names of the user's, or handed on to a converter, a client or a driver.
_FREE = re.compile(
    r"(transforms|predicates|producer\.override|consumer\.override|admin\.override|topic\.creation|key\.converter"
    r"|value\.converter|header\.converter|driver|internal|signal\.kafka|signal\.consumer"
    r"|snapshot\.select\.statement\.overrides)\..+"
    r"|column\.(mask\.(hash(\.v2)?\..+\.with\.salt\..+|with\.\d+\.chars)|truncate\.to\.\d+\.chars)"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """How a wanted config differs from the one Connect has. Values of secret settings are hidden."""

    added: dict[str, str]
    removed: dict[str, str]
    changed: dict[str, tuple[str, str]]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def as_dict(self) -> dict[str, dict[str, object]]:
        """For `--json`."""
        changed: dict[str, object] = {k: {"from": old, "to": new} for k, (old, new) in self.changed.items()}
        return {"added": dict(self.added), "removed": dict(self.removed), "changed": changed}

    def lines(self) -> list[str]:
        """One line a setting: `+` added, `-` removed, `~` changed."""
        return [
            *(f"+ {k} = {v}" for k, v in self.added.items()),
            *(f"- {k} = {v}" for k, v in self.removed.items()),
            *(f"~ {k} = {old} → {new}" for k, (old, new) in self.changed.items()),
        ]


def fill_in(connector: ConnectorFile, values: Mapping[str, str]) -> dict[str, str]:
    """The config with `${dsn:…}` and `${capture:…}` replaced from `values` (keys such as `dsn:host`).

    Other references stay: Connect resolves them. Raises ConfigError for a reference of these kinds that does not exist.
    """

    def one(key: str, found: re.Match[str]) -> str:
        name = f"{found[1]}:{found[2]}"
        if name not in values:
            hint = suggest(name, values)
            known = ", ".join(f"${{{v}}}" for v in values)
            raise ConfigError(
                f"`{key}` in the connector file refers to ${{{name}}}, which does not exist.",
                why=hint or f"There are: {known}.",
                next="edit the connector file",
            )
        return values[name]

    return {k: _FILLED_HERE.sub(lambda m, k=k: one(k, m), v) for k, v in connector.config.items()}  # type: ignore[misc]


def name_tables(config: Mapping[str, str], connector: ConnectorFile, survey: Survey) -> dict[str, str]:
    """The config with the captured tables named one by one, and without what would be captured twice or go stale.

    Debezium takes either an include or an exclude list. Naming exactly what is published also keeps partitions out,
    whose rows arrive under their root.
    """
    named = {
        k: v for k, v in config.items() if k not in ("table.exclude.list", "schema.include.list", "schema.exclude.list")
    }
    captures = TableFilter(connector)
    own = [t for t in own_tables(connector) if captures(t)]
    named["table.include.list"] = ",".join(table_pattern(t) for t in [*(t.id for t in survey.tables), *own])
    if survey.hidden_columns and "column.include.list" not in named:
        hidden = [rf"{table_pattern(table)}\.{_escape(column)}" for table, column in survey.hidden_columns]
        named["column.exclude.list"] = ",".join(filter(None, [named.get("column.exclude.list", ""), *hidden]))
    return named


def differ(wanted: Mapping[str, str], running: Mapping[str, str] | None) -> Difference:
    """What registering `wanted` would change; everything is new when nothing runs."""
    there = {k: v for k, v in (running or {}).items() if k != "name"}
    new = {k: v for k, v in wanted.items() if k != "name"}
    return Difference(
        {k: shown(k, v) for k, v in new.items() if k not in there},
        {k: shown(k, v) for k, v in there.items() if k not in new},
        {k: (shown(k, there[k]), shown(k, v)) for k, v in new.items() if k in there and there[k] != v},
    )


def shown(key: str, value: str) -> str:
    """The value of a setting as it may be shown: secrets only as references."""
    return _HIDDEN if value and is_secret_key(key) and not _ANY_REFERENCE.fullmatch(value) else value


def misspelt(config: Mapping[str, str], known: Iterable[str]) -> list[tuple[str, str]]:
    """Settings that nothing reads, each with a suggestion (or an empty text).

    Connect takes unknown settings in silence, and a misspelt one then has no effect.
    """
    names = set(known) | _UNLISTED
    lists = (config.get("converters", ""), config.get("post.processors", ""))
    own_names = {name.strip() for text in lists for name in text.split(",") if name.strip()}
    return [
        (key, suggest(key, names))
        for key in config
        if key not in names and key.partition(".")[0] not in own_names and not _FREE.fullmatch(key)
    ]


def table_pattern(table: TableId) -> str:
    """A regular expression of Debezium's that matches this table and no other (but for case)."""
    return rf"{_escape(table.schema)}\.{_escape(table.name)}"


def unescaped(pattern: str) -> str:
    """The name that a pattern made by `table_pattern` stands for."""
    return re.sub(r"\\(.)", r"\1", pattern)


def _escape(name: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else f"\\{c}" for c in name)
