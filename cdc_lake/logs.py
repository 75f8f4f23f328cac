"""What the sink writes down while it runs: lines for a person, or one JSON object a line with ids that belong together.

A JSON line has `ts`, `level`, `logger`, `message`, `run_id` (one process), where it is known `batch_id` (one flush) and
`tx_id` (the source's transaction), and whatever the record carries as `fields`. Secrets of the configuration are not
written, also where a library's message holds them.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from cdc_lake.config import Config

RUN_ID = uuid.uuid4().hex[:12]
_ids: ContextVar[Mapping[str, Any] | None] = ContextVar("ids", default=None)
_HIDDEN = "***"
_SECRET_NAME = re.compile(r"pass|secret|token|credential|sas|key|jaas", re.IGNORECASE)
# Also what is not in the configuration: an address with a password, `password=…` in a driver's words.
_IN_ADDRESS = re.compile(r"(?<=://)([^\s:/@]*):[^\s/@]+@")
_IN_WORDS = re.compile(r"(?i)\b(password|passwd|pwd|secret|token)(\s*[=:]\s*)('[^']*'|\"[^\"]*\"|[^\s,;&)]+)")
# Shorter ones are words that may stand anywhere; hiding them would hide nothing and spoil much.
_SHORTEST_SECRET = 4


@contextmanager
def correlated(**ids: Any) -> Iterator[None]:
    """What is logged in it, on this thread, bears these ids."""
    token = _ids.set({**(_ids.get() or {}), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


class Redactor:
    """Takes known secrets, and what looks like one, out of a text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = sorted({s for s in secrets if len(s) >= _SHORTEST_SECRET}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text without them."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return _IN_WORDS.sub(rf"\1\2{_HIDDEN}", _IN_ADDRESS.sub(rf"\1:{_HIDDEN}@", text))


def secrets_of(config: Config) -> list[str]:
    """Every value of the configuration that must not be shown."""
    found: list[str] = []
    for dsn in [s.dsn for s in config.all_sources if s.dsn]:
        found += _of_dsn(dsn)
    kafka: Mapping[str, Any] = config.kafka.options if config.kafka else {}
    for name, value in [*kafka.items(), *config.lake.options.items()]:
        if _SECRET_NAME.search(name) and isinstance(value, str):
            found.append(value)
    if config.connect is not None and (password := urlsplit(config.connect.url).password):
        found += [password, unquote(password)]
    return found


def _of_dsn(dsn: str) -> list[str]:
    if "://" in dsn:
        password = urlsplit(dsn).password
        return [password, unquote(password)] if password else []
    words = re.search(r"password\s*=\s*('(?:[^'\\]|\\.)*'|\S+)", dsn)
    return [words.group(1).strip("'")] if words is not None else []


class JsonFormatter(logging.Formatter):
    """One record as one line of JSON."""

    def __init__(self, redact: Callable[[str], str] = str) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """The line. Fields of the record come from `extra={"fields": {…}}`."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "run_id": RUN_ID,
            **(_ids.get() or {}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        shown = {name: self._redact(v) if isinstance(v, str) else v for name, v in line.items()}
        return json.dumps(shown, ensure_ascii=False, default=str)


class _TextFormatter(logging.Formatter):
    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__(logging.BASIC_FORMAT)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


def configure(config: Config, *, as_json: bool, debug: bool, stream: TextIO | None = None) -> None:
    """Send what this process logs to stderr, as JSON or as text, without the configuration's secrets."""
    redact = Redactor(secrets_of(config))
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(redact) if as_json else _TextFormatter(redact))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler], force=True)
    if as_json:  # a person has the progress line instead
        logging.getLogger("cdc_lake").setLevel(logging.DEBUG if debug else logging.INFO)
    for client in ("kafka", "librdkafka"):
        # A broker that is away makes them write a line for each attempt; our state and errors say it once, in words.
        logging.getLogger(client).setLevel(logging.DEBUG if debug else logging.CRITICAL)
