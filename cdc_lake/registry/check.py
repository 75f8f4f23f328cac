"""Is the schema registry well, and does the sink know how to read what the connectors write?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cdc_lake.checks import Check, fail, failed, listed, many, ok, warn
from cdc_lake.config_registry import RegistrySection
from cdc_lake.errors import CdcLakeError
from cdc_lake.extras import is_there
from cdc_lake.registry.client import RegistryClient, UnknownSchemaError

# Parts of the names of converters that write a schema's number in place of the schema.
_THROUGH_REGISTRY = ("avro", "jsonschema", "extjsonconverter", "protobuf")
# What of that cannot be read.
_UNREAD = {"protobuf": "Protobuf", "extjsonconverter": "a JSON of Apicurio's own around the record"}
_MOST_SUBJECTS = 50  # that are asked one by one


@dataclass(frozen=True, slots=True)
class RegistryFacts:
    """What a registry told: its subjects, the level of compatibility for all and of those that have one of their
    own, whether it takes new schemas."""

    subjects: Sequence[str]
    level: str | None
    levels: Mapping[str, str]
    mode: str | None


def read_registry(client: RegistryClient, prefixes: Sequence[str]) -> RegistryFacts:
    """Ask; of the subjects those that begin with one of `prefixes` are looked at. Raises UnavailableError."""
    subjects = [s for s in client.subjects() if s.startswith(tuple(prefixes))]
    asked = {s: client.compatibility(s) for s in subjects[:_MOST_SUBJECTS]}
    return RegistryFacts(
        subjects, client.compatibility(), {s: level for s, level in asked.items() if level is not None}, _mode(client)
    )


def _mode(client: RegistryClient) -> str | None:
    try:
        return client.mode()
    except (CdcLakeError, UnknownSchemaError):  # some registries have no such page
        return None


def check_registry(section: RegistrySection, facts: RegistryFacts | CdcLakeError) -> list[Check]:
    """Reachable, encrypted, taking schemas, and holding new ones against the old."""
    found = [_extra()]
    if section.readable_by_others:
        found.append(
            warn(
                "registry.encrypted",
                f"{section.url} is plain http",
                why="User and password cross the network readable by whoever is on the way.",
                fix="name it with https in `registry.url` of cdc-lake.yaml",
            )
        )
    if isinstance(facts, CdcLakeError):
        return [*found, failed("registry.answers", facts)]
    mode = f", {facts.mode}" if facts.mode else ""
    found.append(
        ok("registry.answers", f"{section.url}: {many(len(facts.subjects), 'subject')} of these sources{mode}")
    )
    return [*found, _compatibility(section, facts)]


def _extra() -> Check:
    if is_there("fastavro"):
        return ok("registry.extra", "what reads Avro is installed")
    return fail(
        "registry.extra",
        "what reads Avro is not installed",
        why="Python does not find fastavro: the sink refuses to start.",
        fix="pip install 'cdc-lake[registry]'",
    )


def _compatibility(section: RegistrySection, facts: RegistryFacts) -> Check:
    name = "registry.compatibility"
    loose = [s for s in facts.subjects if facts.levels.get(s, facts.level) == "NONE"]
    if facts.level == "NONE" and not facts.subjects:
        loose = ["every new subject"]
    if not loose:
        return ok(name, facts.level or "not told")
    one = facts.subjects[0] if facts.subjects else None
    place = f"{section.url}/config" + (f"/{one}" if one is not None and len(loose) == 1 else "")
    return warn(
        name,
        f"NONE for {listed(loose)}",
        why="A schema that others cannot read is registered without a word. The lake reads every version all the same.",
        fix=f"""curl -X PUT -H 'Content-Type: application/json' -d '{{"compatibility": "BACKWARD"}}' {place}""",
    )


def check_converters(config: Mapping[str, str], file: str, *, configured: bool) -> Check:
    """Whether the sink can read what this connector's converters write; `configured`: a registry is named."""
    name = "registry.converter"
    through = [k for k in ("key.converter", "value.converter") if writes_numbers(config.get(k, ""))]
    if not through:
        return ok(name, "records carry their schemas")
    if not configured:
        return fail(
            name,
            f"{through[-1]} of {file} writes through a schema registry, and cdc-lake.yaml names none",
            why="Every record becomes a dead letter: its schema is in the registry alone.",
            fix="write `registry: {url: …}` in cdc-lake.yaml, then: cdc-lake dlq replay --all",
        )
    for part, writes in _UNREAD.items():
        other = next((k for k in through if part in config[k].lower()), None)
        if other is not None:
            return fail(
                name,
                f"{other} of {file} writes {writes}",
                why="What is read is Avro and JSON Schema in Confluent's format: every record becomes a dead letter.",
                fix=f"name another converter as {other} in {file}, then register it again",
            )
    names = config.get("field.name.adjustment.mode", "none")
    if names != "avro_unicode":
        return warn(
            name,
            f"{', '.join(through)} through the registry; field.name.adjustment.mode is {names}",
            why="A column whose name is no name in Avro stops the connector (none) or is renamed for good (avro).",
            fix=f'write "field.name.adjustment.mode": "avro_unicode" in {file}: the lake then has the true names',
        )
    return ok(name, f"{', '.join(through)} through the registry")


def check_nulls(config: Mapping[str, str], file: str) -> Check:
    """Whether NULL stays NULL in a column that has a default: Connect's own Avro code writes the default instead."""
    name, setting = "registry.nulls", "value.converter.ignore.default.for.nullables"
    converter = config.get("value.converter", "")
    if "avro" not in converter.rpartition(".")[2].lower() or config.get(setting) == "true":
        return ok(name, "NULL arrives as NULL")
    why = "The converter writes a column's default wherever the column is NULL: the NULL is lost for good."
    if "confluent" in converter:
        return fail(
            name, f"{setting} is not true", why=why, fix=f'write "{setting}": "true" in {file}, then register it'
        )
    return warn(
        name,
        f"{converter} has no setting that keeps NULL in a column with a default",
        why=why,
        fix="drop the defaults of columns that may be NULL, or write JSON Schema, or use Confluent's converter with "
        "ignore.default.for.nullables=true; verify lists the rows that differ",
    )


def writes_numbers(converter: str) -> bool:
    """Whether a converter writes a number in place of the schema."""
    name = converter.rpartition(".")[2].lower()
    return any(part in name for part in _THROUGH_REGISTRY)
