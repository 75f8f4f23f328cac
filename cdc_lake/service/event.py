"""An event as services see it: CloudEvents 1.0, read from and written to the two bindings of Kafka."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cdc_lake.errors import ConfigError

# The header in which a merge says which record this one was: topic, partition and offset.
MERGED_FROM = "merged_from"
STRUCTURED = "application/cloudevents"
_BINARY_DATA = "application/json"
_ATTRIBUTES = ("id", "source", "type")
_OURS = {"specversion", "id", "source", "type", "subject", "time", "correlationid", "causationid", "traceparent"}
_NAMESPACE = uuid.UUID("6f2a2c56-4a0f-5d7e-9f5c-0f4a2b1f9d11")  # of the ids of events that answer others


class Malformed(ValueError):
    """A record is no CloudEvent whose data is a JSON object; the text says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event lies in the log, and when the broker took it (the record's timestamp)."""

    topic: str
    partition: int
    offset: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """`source` and `id` are its identity, `subject` what it is about; `time` is the clock of who says so."""

    id: str
    source: str
    type: str
    data: Mapping[str, Any]
    subject: str = ""
    time: datetime | None = None
    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str = ""
    extensions: Mapping[str, str] = field(default_factory=dict)
    place: Place | None = None

    @property
    def correlation(self) -> str:
        """The id of the first event of all that belongs together."""
        return self.correlation_id or self.id

    @property
    def came_at(self) -> datetime:
        """When the broker took it. Raises ValueError for an event that has not been on its way yet."""
        return self._place.at

    @property
    def topic(self) -> str:
        """The topic that it was read from. Raises ValueError for an event that has not been on its way yet."""
        return self._place.topic

    @property
    def _place(self) -> Place:
        if self.place is None:
            raise ValueError(f"event {self.id} was not read from a log")
        return self.place

    @property
    def identity(self) -> bytes:
        """`source` and `id` in 16 bytes."""
        return _digest(self.source, self.id)[:16]

    @property
    def content(self) -> bytes:
        """What it says, in 8 bytes: an event delivered again says the same, also where its time is set anew."""
        return _digest(self.type, self.subject, json.dumps(self.data, sort_keys=True, ensure_ascii=False))[:8]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record on its way to a topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def decode(headers: str | None, value: bytes | None, place: Place | None = None) -> Event:
    """The event of a record: its headers as a batch has them (JSON), and its value. Raises Malformed.

    The binary binding is read here, at a fifth of the time that the SDK takes; a test holds the two against each other.
    """
    try:
        found: dict[str, str] = json.loads(headers) if headers else {}
        attributes = {k[3:]: v for k, v in found.items() if k.startswith("ce_")}
        if not attributes or found.get("content-type", "").startswith(STRUCTURED):
            return _structured(value, place)
        data = json.loads(value, parse_constant=_no_constant) if value else {}
    except Malformed:
        raise
    except RecursionError:
        raise Malformed("data is not JSON: nested too deeply") from None
    except ValueError as error:
        raise Malformed(f"data is not JSON: {str(error) or type(error).__name__}") from None
    return _event(attributes, data, place)


def _structured(value: bytes | None, place: Place | None) -> Event:
    if not value:
        raise Malformed("neither ce_ headers nor a structured event")
    sdk = _sdk()
    found: dict[str, Any] = {}

    def keep(attributes: dict[str, Any], data: Any) -> Any:
        # Of an event without a time the SDK makes one of now, another at each reading.
        found.update(attributes=dict(attributes), data=data)
        return sdk.CloudEvent(attributes, data)

    try:
        sdk.JSONFormat().read(keep, value)
    except sdk.CloudEventValidationError as error:
        raise Malformed(f"no CloudEvent: {error.errors}") from None
    except Exception as error:  # the SDK lets errors of several kinds through for one that is not an object
        raise Malformed(f"no structured CloudEvent: {error}") from None
    attributes = found["attributes"]
    time = attributes.get("time")
    if isinstance(time, datetime):
        attributes["time"] = time.isoformat()
    return _event(attributes, found["data"], place)


def _event(attributes: Mapping[str, Any], data: Any, place: Place | None) -> Event:
    if attributes.get("specversion") != "1.0":
        raise Malformed(f"specversion is {attributes.get('specversion')!r}, not 1.0")
    missing = [name for name in _ATTRIBUTES if not attributes.get(name)]
    if missing:
        raise Malformed(f"no {', '.join(missing)}")
    if not isinstance(data, dict):
        raise Malformed("data is not a JSON object")
    return Event(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        data=data,
        subject=attributes.get("subject") or "",
        time=_time(attributes.get("time")),
        correlation_id=attributes.get("correlationid") or "",
        causation_id=attributes.get("causationid") or "",
        traceparent=attributes.get("traceparent") or "",
        extensions={k: v for k, v in attributes.items() if k not in _OURS},
        place=place,
    )


def _time(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed(f"time is not a timestamp: {text}") from None
    if time.tzinfo is None:
        raise Malformed(f"time has no zone: {text}")
    return time.astimezone(UTC)


def _no_constant(name: str) -> None:
    raise Malformed(f"{name} is not JSON")


def encode(topic: str, event: Event) -> Outgoing:
    """The record of an event, in the binary binding, keyed by its subject."""
    sdk = _sdk()
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject or None,
        "time": event.time or datetime.now(UTC),
        "datacontenttype": _BINARY_DATA,
        "correlationid": event.correlation_id or None,
        "causationid": event.causation_id or None,
        "traceparent": event.traceparent or None,
        **event.extensions,
    }
    made = sdk.CloudEvent({k: v for k, v in attributes.items() if v is not None}, dict(event.data))
    message = sdk.to_binary(made, sdk.JSONFormat())
    key = event.subject.encode() if event.subject else None
    return Outgoing(topic, key, message.value, tuple(message.headers.items()))


def answering(
    cause: Event, service: str, type: str, data: Mapping[str, Any], *, number: int = 0, subject: str = ""
) -> Event:
    """The event of a service that answers `cause`: same cause, type and number, same event, whoever makes it and when.

    So what is sent twice after a crash is one event to its readers.
    """
    name = json.dumps([cause.source, cause.id, type, *([number] if number else [])])
    at = cause.place.at if cause.place else cause.time
    return Event(
        id=str(uuid.uuid5(_NAMESPACE, name)),
        source=f"/services/{service}",
        type=type,
        data=data,
        subject=subject or cause.subject,
        time=at,
        correlation_id=cause.correlation,
        causation_id=cause.id,
        traceparent=_traceparent(cause, name),
    )


def _traceparent(cause: Event, name: str) -> str:
    """The cause's trace, else that of its correlation, with a span of the event's own."""
    trace, flags = _carried(cause)
    return f"00-{trace}-{_hex(name, 16)}-{flags}"


def trace_of(event: Event) -> str:
    """The trace that an event carries, else the one that follows from its correlation."""
    return _carried(event)[0]


def _carried(event: Event) -> tuple[str, str]:
    """That trace, and its flags."""
    parts = event.traceparent.split("-")
    return (parts[1], parts[3]) if len(parts) == 4 and len(parts[1]) == 32 else (_hex(event.correlation, 32), "01")


def _hex(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _digest(*texts: str) -> bytes:
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _sdk() -> Any:
    try:
        from cdc_lake.service import sdk
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cloudevents":
            raise
        raise ConfigError(
            "A service needs the package `cloudevents`, and it is not installed.",
            why="It comes with the extra `service`.",
            next="pip install 'cdc-lake[service]'",
        ) from None
    return sdk
