"""A connector's JSON file: what it is called, what it captures, and how its values look.

Both stages that need it read it here: capture submits it to Kafka Connect, the sink takes the topic prefix, the names
of the special topics and the modes that decide how values are written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdc_lake.errors import ConfigError, suggest

DEFAULT_PLACEHOLDER = "__debezium_unavailable_value"

# The settings that decide how a value is written into an event, with Debezium's own defaults.
_DECODE_DEFAULTS: Mapping[str, str] = {
    "time.precision.mode": "adaptive",
    "decimal.handling.mode": "precise",
    "interval.handling.mode": "numeric",
    "binary.handling.mode": "bytes",
    "hstore.handling.mode": "json",
    "money.fraction.digits": "2",
    "include.unknown.datatypes": "false",
    "unavailable.value.placeholder": DEFAULT_PLACEHOLDER,
    "schema.name.adjustment.mode": "none",
    "field.name.adjustment.mode": "none",
}

_SECRET_KEY = re.compile(r"(password|passphrase|secret|token|private\.?key|user\.info|jaas\.config|credentials)", re.I)
# Keys that carry such a word and hold no secret.
_NO_SECRET = re.compile(r"(\.(location|type|file|path|provider|algorithm|class|endpoint\.url)$)|^snapshot\.", re.I)
_REFERENCE = re.compile(r"\$\{[^}:]+:[^}]*\}")
# The list is split where a comma is not escaped, as Debezium does.
_LIST_SPLIT = re.compile(r"(?<!\\),")


@dataclass(frozen=True, slots=True)
class ConnectorFile:
    """A connector as its file has it: references such as `${dsn:host}` are not resolved."""

    name: str
    config: dict[str, str]

    @property
    def topic_prefix(self) -> str:
        """The first part of every topic's name."""
        return self.config["topic.prefix"]

    @property
    def delimiter(self) -> str:
        """What separates the parts of a topic's name."""
        return self.config.get("topic.delimiter", ".")

    @property
    def transaction_topic(self) -> str | None:
        """The topic of BEGIN and END events; None when the connector sends none."""
        if self.config.get("provide.transaction.metadata", "false").lower() != "true":
            return None
        return self.delimiter.join((self.topic_prefix, self.config.get("topic.transaction", "transaction")))

    @property
    def heartbeat_topics(self) -> tuple[str, ...]:
        """Topics that hold heartbeats and no rows; empty when heartbeats are off."""
        if self.config.get("heartbeat.interval.ms", "0") == "0":
            return ()
        prefix = self.config.get("topic.heartbeat.prefix", "__debezium-heartbeat")
        return (self.delimiter.join((prefix, self.topic_prefix)),)

    @property
    def placeholder(self) -> str:
        """The text that stands for a value PostgreSQL did not send because it did not change."""
        text = self.config.get("unavailable.value.placeholder", DEFAULT_PLACEHOLDER)
        if text.startswith("hex:"):
            return bytes.fromhex(text[4:]).decode("utf-8", errors="replace")
        return text

    @property
    def decode_settings(self) -> dict[str, str]:
        """The settings that decide how values look, Debezium's defaults filled in."""
        return {key: self.config.get(key, default) for key, default in _DECODE_DEFAULTS.items()}

    @property
    def include_tables(self) -> list[str]:
        """Regular expressions for `schema.table`; empty: every table."""
        return split_list(self.config.get("table.include.list", ""))

    @property
    def exclude_tables(self) -> list[str]:
        """Regular expressions for tables that are left out; they win over `include_tables`."""
        return split_list(self.config.get("table.exclude.list", ""))


def split_list(text: str) -> list[str]:
    """The parts of a comma-separated list of regular expressions (`\\,` is a comma inside one)."""
    return [part.strip() for part in _LIST_SPLIT.split(text) if part.strip()]


def is_secret_key(key: str) -> bool:
    """Whether a setting of this name holds a secret, so that its value is never shown."""
    return bool(_SECRET_KEY.search(key)) and not _NO_SECRET.search(key)


def literal_secrets(config: Mapping[str, str]) -> list[str]:
    """Names of settings whose secret is written out instead of referred to."""
    return sorted(k for k, v in config.items() if is_secret_key(k) and v and not _REFERENCE.search(v))


def refuse_literal_secrets(file: Path, connector: ConnectorFile) -> None:
    """Raise ConfigError when a secret stands in the file itself: files are committed, and Connect shows its configs."""
    names = literal_secrets(connector.config)
    if names:
        raise ConfigError(
            f"{file}: `{names[0]}` holds a secret written out.",
            why="A connector file is shared and committed, and Kafka Connect shows its configuration to whoever asks.",
            next=f'write it by reference in {file}: "${{capture:password}}" (made by register), '
            '"${env:VARIABLE}" or "${file:/path/secrets.properties:password}" (read by the Connect worker)',
            code="literal_secret",
        )


def load_connector(path: str | Path) -> ConnectorFile:
    """Read a connector file: `{"name": …, "config": {…}}` or one flat object that holds `name` too.

    Raises ConfigError: no such file, not JSON (with line and column), a key twice, no name, no `topic.prefix` or
    `connector.class`, a value that is not a text, number or truth value.
    """
    file = Path(path)
    raw = _read_json(file)
    name = raw.get("name")
    settings = raw.get("config", {k: v for k, v in raw.items() if k != "name"})
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(
            f"{file}: `name` is missing.",
            why="A connector file holds a name and a config.",
            next=f'add "name": "pos" to {file}',
        )
    if not isinstance(settings, dict):
        raise ConfigError(
            f"{file}: `config` must hold keys and values.",
            why=f"It holds a {type(settings).__name__}.",
            next=f"edit {file}",
        )
    config = {key: _as_text(file, key, value) for key, value in settings.items() if key != "name"}
    for key in ("connector.class", "topic.prefix"):
        if not config.get(key):
            hint = suggest(key, config)
            raise ConfigError(f"{file}: `{key}` is missing.", why=hint or "It has no default.", next=f"edit {file}")
    return ConnectorFile(name=name.strip(), config=config)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except FileNotFoundError:
        near = suggest(file.name, [p.name for p in file.parent.glob("*.json")])
        raise ConfigError(
            f"There is no connector file {file}.",
            why=near or "The path does not name a file.",
            next="check the path, or write one with: cdc-lake init",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read.", why=error.strerror or str(error), next=f"check the permissions of {file}"
        ) from None
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{file} is not JSON: line {error.lineno}, column {error.colno}.",
            why=f"{error.msg}.",
            next=f"edit {file} at line {error.lineno}",
            code="not_json",
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"{file} is not JSON: it is not UTF-8 text.", why="", next=f"edit {file}", code="not_json"
        ) from None
    except _TwiceError as error:
        raise ConfigError(
            f"{file}: the key `{error.key}` stands there twice.",
            why="Only one of the two values would count.",
            next=f"remove one of them from {file}",
        ) from None
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{file} must hold one JSON object.", why=f"It holds a {type(raw).__name__}.", next=f"edit {file}"
        )
    return raw


class _TwiceError(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(key)
        found[key] = value
    return found


def _as_text(file: Path, key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    # The value is not shown: it may hold a secret.
    kind = "null" if value is None else "a list" if isinstance(value, list) else "an object"
    raise ConfigError(
        f"{file}: `{key}` must be a text.",
        why=f"It holds {kind}; Kafka Connect takes texts only (lists are written with commas).",
        next=f"edit {file}",
    )
