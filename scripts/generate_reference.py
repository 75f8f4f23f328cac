"""Write docs/reference from the code: the commands as their --help, the configuration's keys, its JSON schema.

And, in the package, the words that shells complete, so that completing a line need not import the commands.

`make docs` runs it; a test compares what is committed with what it would write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from cdc_lake.cli.complete import WORDS
from cdc_lake.cli.complete_words import words
from cdc_lake.cli.main import build
from cdc_lake.cli.shapes import document, schema_of
from cdc_lake.config import Config
from cdc_lake.serve.catalogue import METRICS, PROCESS
from cdc_lake.serve.dashboard.shapes import ERROR, SHAPES, VERSION

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
_WIDTH = 100
_NOTICE = "<!-- Written by scripts/generate_reference.py: change the code, then run `make docs`. -->\n\n"


def pages() -> dict[str, str]:
    """Every generated file of docs/reference with its content."""
    return {
        "cli.md": cli_page(),
        "config.md": config_page(),
        "metrics.md": metrics_page(),
        "cdc-lake.schema.json": schema_page(),
        "json.schema.json": json.dumps(document(), indent=2, ensure_ascii=False) + "\n",
        "dashboard.schema.json": json.dumps(dashboard_document(), indent=2, ensure_ascii=False) + "\n",
    }


def dashboard_document() -> dict[str, Any]:
    """The shapes of the dashboard's answers as one JSON schema."""
    shapes = {name: schema_of(shape) for name, shape in SHAPES.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cdc-lake serve",
        "description": f"Version {VERSION}. Fields may be added within a version; none is taken away or changed.",
        "version": VERSION,
        "$defs": {"error": schema_of(ERROR), **shapes},
    }


def completion() -> str:
    """The words of the commands that shells complete."""
    return json.dumps(words(build()), indent=1, ensure_ascii=False) + "\n"


def cli_page() -> str:
    """Each command with its help."""
    parts = [_NOTICE, "# Commands\n\nGlobal options may stand anywhere in the line. Exit codes: 0 done · 1 failed · 2 "]
    parts.append("usage · 3 ran well and found differences or problems · 130 interrupted.\n")
    for context in _contexts(build(), "cdc-lake", None):
        path = context.command_path
        help_text = "\n".join(line.rstrip() for line in context.get_help().splitlines())
        parts.append(f"\n{'##' if path.count(' ') < 2 else '###'} {path}\n\n```text\n{help_text}\n```\n")
    return "".join(parts)


def _contexts(command: Any, name: str, parent: Any) -> Iterator[Any]:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True, terminal_width=_WIDTH)
    yield context
    for word, child in sorted(getattr(command, "commands", {}).items()):
        yield from _contexts(child, word, context)


def config_page() -> str:
    """Each section of the configuration as a table."""
    parts = [
        _NOTICE,
        "# Configuration: `cdc-lake.yaml`\n\n",
        (Config.__doc__ or "").replace(" Build it with `load_config`.", "") + " Without a file everything has its ",
        "default. An unknown key is an error that names the near one.\n\n",
        "Values may hold `${ENV}`, `${ENV:-default}` and `${file:PATH}`. Relative paths are relative to the file's ",
        "folder. Order of precedence: command-line flag, environment (`CDC_LAKE__SINK__FLUSH_SECONDS=1`), file, ",
        "default. Secrets are never printed.\n\nFor your editor: `# yaml-language-server: $schema=",
        "docs/reference/cdc-lake.schema.json` as the first line.\n",
    ]
    for path, model in _sections(Config, ""):
        parts.append(
            f"\n## `{path}`\n\n{_sentence(model.__doc__)}\n\n| key | kind | default | |\n| --- | --- | --- | --- |\n"
        )
        for name, field in model.model_fields.items():
            if name != "root":
                key = field.alias or name
                parts.append(
                    f"| `{key}` | {_kind(field.annotation)} | {_default(field)} | {field.description or ''} |\n"
                )
    return "".join(parts)


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    if path:
        yield path, model
    seen: set[type[BaseModel]] = set()
    for name, field in model.model_fields.items():
        for child in _models(field.annotation):
            if child not in seen:
                seen.add(child)
                place = f"{path}.{name}" if path else name
                yield from _sections(child, f"{place}.<name>" if get_origin(field.annotation) is dict else place)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _kind(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(_kind(a) for a in arguments if a is not type(None))
    if origin is list:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return f"keys with {_kind(arguments[1])}"
    if arguments:
        return ", ".join(f"`{a}`" for a in arguments)
    names = {str: "text", int: "integer", float: "number", bool: "yes or no", Any: "any value"}
    return names.get(annotation, "a section")


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or (isinstance(value, BaseModel)):
        return "" if value is None else "its own"
    if isinstance(value, dict):
        return f"`{json.dumps({k: v.model_dump(exclude_defaults=True) for k, v in value.items()})}`"
    return f"`{json.dumps(value)}`"


def _sentence(docstring: str | None) -> str:
    return " ".join((docstring or "").split())


def metrics_page() -> str:
    """Each metric of the sink with its kind, labels and meaning."""
    parts = [
        _NOTICE,
        "# Metrics of the sink\n\n",
        "`cdc-lake sink run --metrics HOST:PORT` answers them on `/metrics`. Names begin with `cdc_lake_`, end with a ",
        "base unit (seconds, bytes) and, where they only grow, with `_total`. No label has values without a bound: ",
        "sources, tables and topics are those of the configuration, `code` is one of our own ",
        "[error codes](../how-to/troubleshoot.md), `check` one of `/readyz`.\n",
    ]
    for title, metrics in (("Of the sink", METRICS), ("Of its process", PROCESS)):
        parts.append(f"\n## {title}\n\n| metric | kind | labels | |\n| --- | --- | --- | --- |\n")
        for metric in metrics:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            bounds = f" Buckets: {', '.join(f'{b:g}' for b in metric.buckets)}." if metric.buckets else ""
            parts.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help}{bounds} |\n")
    return "".join(parts)


def schema_page() -> str:
    """The JSON schema that editors complete and check the file with."""
    schema = Config.model_json_schema(by_alias=True)
    schema["properties"].pop("root")
    schema |= {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "cdc-lake.yaml"}
    schema["description"] = "The configuration of cdc-lake."
    return json.dumps(schema, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> None:
    """Write every page, and the words for completion."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    WORDS.write_text(completion(), encoding="utf-8")


if __name__ == "__main__":
    main()
