"""Write `docs/benchmarks.md` from the JSON that the benchmarks left: `python -m benchmarks.document`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, shown

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `python -m benchmarks.document` from what the scripts in `benchmarks/` measured; nothing here is typed by
hand. `make bench` measures again in a quarter of an hour, `make bench-full` also what takes long; `python -m benchmarks
NAME` asks one question. Everything runs on one machine: the source, the broker, Kafka Connect, the tool and its peers
share its cores. Read the ratios: peers were measured in the same run, on the same topic. A load above 1 tells that
other work ran beside it.
"""


def page() -> str:
    """The page, from all results, in the order of their names."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("*.json"))]
    return HEAD + "".join(map(_section, found))


def _section(result: dict[str, Any]) -> str:
    parts = [f"\n## {result['question']}\n\n`python -m benchmarks {result['name']}`, {_where(result)}.\n"]
    parts += [_table(table) for table in result["tables"]]
    if result["notes"]:
        parts.append("\n" + "\n".join(f"- {note}" for note in result["notes"]) + "\n")
    return "".join(parts)


def _where(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{result['at']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}, {versions}; load before it {result['load']}"
    )


def _table(table: dict[str, Any]) -> str:
    names, forms = list(table["columns"]), list(table["columns"].values())
    lines = [names, ["---", *("---:" for _ in names[1:])]]
    lines += [[shown(c, f) for c, f in zip(row, forms, strict=True)] for row in table["rows"]]
    return f"\n{table['title']}:\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
