"""Checks of a connector's settings: what Debezium's defaults do to a lake, and what to write instead.

Each rule was seen on the real connector; connectors/README.md has the reasons at length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cdc_lake.capture.checks.subject import Subject
from cdc_lake.checks import Check, Status, fail, ok, warn
from cdc_lake.connector_file import DEFAULT_PLACEHOLDER, literal_secrets

# Wanted values that are the user's own to choose are told by an example.
_HEARTBEAT_QUERY = (
    "INSERT INTO cdc_lake.heartbeat (id, beat) VALUES (1, clock_timestamp()) "
    "ON CONFLICT (id) DO UPDATE SET beat = EXCLUDED.beat"
)

_DROP_BEGIN = ("keepEnd", "countEnd", "dropBegin", "wrapEnd", "restoreEnd")

Judge = Callable[[str], Status]


@dataclass(frozen=True, slots=True)
class Rule:
    """One setting: Debezium's `default`, the value to write, how a value is judged, and why."""

    setting: str
    default: str
    wanted: str
    judge: Judge
    why: str


def _only(*good: str, otherwise: Status = Status.FAIL) -> Judge:
    return lambda value: Status.OK if value.lower() in good else otherwise


def _never(*bad: str, otherwise: Status = Status.FAIL) -> Judge:
    return lambda value: otherwise if value.lower() in bad else Status.OK


def _decimals(value: str) -> Status:
    return {"string": Status.OK, "precise": Status.WARN}.get(value.lower(), Status.FAIL)


def _given(value: str) -> Status:
    return Status.OK if value.strip() else Status.WARN


_NULLS = "value.converter.replace.null.with.default"
_RULES = (
    Rule(
        "plugin.name",
        "decoderbufs",
        "pgoutput",
        _only("pgoutput"),
        "pgoutput is part of PostgreSQL; the publication is only read by it.",
    ),
    Rule(
        "skipped.operations",
        "t",
        "none",
        _only("none", ""),
        "Skipped operations never leave PostgreSQL: after a TRUNCATE its rows live on in the lake.",
    ),
    Rule(
        "offset.mismatch.strategy",
        "no_validation",
        "trust_offset",
        _only("trust_offset"),
        "After a slot was made again the connector skips ahead in silence; this way it stops and says so.",
    ),
    Rule(
        "slot.drop.on.stop",
        "false",
        "false",
        _only("false"),
        "The slot is the position: dropping it loses what happens while the connector is down.",
    ),
    Rule(
        "publication.autocreate.mode",
        "all_tables",
        "disabled",
        _only("disabled", otherwise=Status.WARN),
        "A publication that Debezium makes leaves generated columns out and needs a role that owns every table.",
    ),
    Rule(
        "provide.transaction.metadata",
        "false",
        "true",
        _only("true", otherwise=Status.WARN),
        "Without it identity and order are the weaker, documented ones (LSN, operation and content; the offset within "
        "the key's partition), and there is no cut: a reader may see half a transaction.",
    ),
    Rule(
        "snapshot.mode",
        "initial",
        "initial",
        _never("when_needed", "always", otherwise=Status.WARN),
        "A snapshot that repeats itself in silence hides lost changes: rows deleted meanwhile would live on.",
    ),
    Rule(
        "heartbeat.interval.ms",
        "0",
        "5000",
        _never("0", otherwise=Status.WARN),
        "While the captured tables are quiet the slot does not move, and the WAL grows until the disk is full.",
    ),
    Rule(
        "heartbeat.action.query",
        "",
        _HEARTBEAT_QUERY,
        _given,
        "A heartbeat that writes nothing does not move the slot of a quiet database beside a busy one.",
    ),
    Rule(
        "decimal.handling.mode",
        "precise",
        "string",
        _decimals,
        "As bytes, NaN in a numeric without scale arrives as null; as double, money is rounded.",
    ),
    Rule(
        "interval.handling.mode",
        "numeric",
        "string",
        _only("string", otherwise=Status.WARN),
        "As a number a month is 30.4 days.",
    ),
    Rule(
        "time.precision.mode",
        "adaptive",
        "adaptive",
        _never("connect"),
        "In this mode microseconds are cut to milliseconds.",
    ),
    Rule(
        "include.unknown.datatypes",
        "false",
        "true",
        _only("true", otherwise=Status.WARN),
        "Columns of composite and other types that Debezium does not know are left out without a word.",
    ),
    Rule(
        "errors.tolerance",
        "none",
        "none",
        _only("none"),
        "A change that cannot be written is thrown away instead of stopping the task.",
    ),
    Rule(
        "event.processing.failure.handling.mode",
        "fail",
        "fail",
        _only("fail"),
        "An event that cannot be read is skipped instead of stopping the task.",
    ),
    Rule(
        _NULLS,
        "true",
        "false",
        _only("false"),
        "The converter writes a column's default wherever the column is NULL: the NULL is lost for good.",
    ),
    Rule(
        "topic.creation.default.cleanup.policy",
        "delete",
        "delete",
        _only("delete", otherwise=Status.WARN),
        "Compaction removes changes: only the last one of a key is sure to be there when the sink comes.",
    ),
)


def check_settings(subject: Subject) -> list[Check]:
    """Judge the settings of the connector file."""
    config = subject.connector.config
    return [
        *(_judged(subject, rule, config) for rule in _rules(config)),
        _source_types(subject, config),
        _placeholder(subject),
        _envelopes(subject, config),
        _beginnings(subject, config),
        _secrets(subject, config),
    ]


def worst(config: Mapping[str, str]) -> Status:
    """How the settings that Connect has now are judged as a whole."""
    found = {rule.judge(config.get(rule.setting, rule.default)) for rule in _rules(config)}
    return next((status for status in (Status.FAIL, Status.WARN) if status in found), Status.OK)


def _rules(config: Mapping[str, str]) -> list[Rule]:
    """The rules that concern this connector: only Kafka's own JSON converter replaces nulls."""
    json = config.get("value.converter", "JsonConverter").endswith("JsonConverter")
    return [rule for rule in _RULES if json or rule.setting != _NULLS]


def _judged(subject: Subject, rule: Rule, config: Mapping[str, str]) -> Check:
    value = config.get(rule.setting)
    status = rule.judge(rule.default if value is None else value)
    shown = f"{value}" if value is not None else f"not set, so {rule.default or 'empty'}"
    name = f"settings.{rule.setting}"
    if status is Status.OK:
        return ok(name, "set" if len(shown) > 60 else shown)
    return Check(name, status, shown, rule.why, _write(subject, rule.setting, rule.wanted))


def _source_types(subject: Subject, config: Mapping[str, str]) -> Check:
    name, value = "settings.column.propagate.source.type", config.get("column.propagate.source.type", "")
    if value == ".*":
        return ok(name, value)
    if config.get("value.converter.schemas.enable", "true").lower() == "false":
        return ok(name, "not needed: records without schemas get their types from the source's catalogue")
    return warn(
        name,
        value or "not set",
        why="Inline schemas then do not say what length and scale a column has: decimals become text.",
        fix=_write(subject, "column.propagate.source.type", ".*"),
    )


def _placeholder(subject: Subject) -> Check:
    name = "settings.unavailable.value.placeholder"
    if subject.connector.placeholder != DEFAULT_PLACEHOLDER:
        return ok(name, "a text of its own")
    return warn(
        name,
        DEFAULT_PLACEHOLDER,
        why="Debezium's own text: a user's text that is equal to it cannot be told from a value that did not change.",
        fix=_write(subject, "unavailable.value.placeholder", "a text with a UUID in it")
        + "   (before the first registration: what is landed was marked with the old text)",
    )


def _envelopes(subject: Subject, config: Mapping[str, str]) -> Check:
    name = "settings.transforms"
    flat = [k for k, v in config.items() if k.startswith("transforms.") and "ExtractNewRecordState" in v]
    if not flat:
        return ok(name, "records arrive as Debezium's envelopes")
    return fail(
        name,
        f"{flat[0]} flattens the records",
        why="Without the envelope there is no operation, no image before, no position: every record is a dead letter.",
        fix=f'remove "{flat[0].rpartition(".")[0]}" from "transforms" in {subject.file}, then: {subject.register}',
    )


def _beginnings(subject: Subject, config: Mapping[str, str]) -> Check:
    """Are BEGINs dropped, as connectors/README.md explains? Behind a stored BEGIN a restart may leave out changes."""
    name, topic = "settings.beginnings", subject.connector.transaction_topic
    if topic is None:
        return ok(name, "no transactions are sent")
    pattern = config.get("predicates.isTransaction.pattern", "")
    names = config.get("transforms", "").replace(" ", "").split(",")
    if names[: len(_DROP_BEGIN)] == list(_DROP_BEGIN) and _matches(pattern, topic):
        return ok(name, "only the ends of transactions are sent")
    return warn(
        name,
        "the beginnings of transactions are sent too",
        why="When Debezium restarts behind one, it may leave out the first part of a transaction that was open "
        "meanwhile. verify finds what is missing then.",
        fix=f"copy what begins with transforms and predicates from connectors/pos.json of the project into "
        f"{subject.file}, with a pattern that matches {topic}, then: {subject.register}",
    )


def _matches(pattern: str, topic: str) -> bool:
    try:
        return re.fullmatch(pattern, topic) is not None
    except re.error:
        return False


def _secrets(subject: Subject, config: Mapping[str, str]) -> Check:
    written = literal_secrets(config)
    if not written:
        return ok("settings.secrets", "by reference only")
    return fail(
        "settings.secrets",
        f"{written[0]} is written out",
        why="A connector file is shared and committed, and Kafka Connect shows its configuration to whoever asks.",
        fix=_write(subject, written[0], "${capture:password}"),
    )


def _write(subject: Subject, setting: str, value: str) -> str:
    return f'write "{setting}": "{value}" in {subject.file}, then: {subject.register}'
