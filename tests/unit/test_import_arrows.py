"""The package reads as the data flows: the stages' arrows point one way, and no file outgrows one noun."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "cdc_lake"
MODULES = sorted(PACKAGE.rglob("*.py"))
FILE_LINES = 400
FUNCTION_LINES = 40
LONGER = {
    "consume/unpack.py:_unpack": "runs for every record: a call for each of its integers would cost more than the rest"
}

# What each part of the package may import of the other parts. What is no part (config, errors, events, …) is a value
# or a helper: everything may import it, and it imports no part.
PARTS: dict[str, set[str]] = {
    "capture": set(),
    "consume": set(),
    "decode": {"registry"},
    "land": set(),
    "project": {"land"},
    "query": {"land", "maintain", "project"},
    "react": {"land", "query"},
    "serve": {"land", "query", "react"},
    "service": {"consume", "land", "trace"},
    "registry": set(),
    "trace": set(),
    "lineage": set(),
    "local": set(),
    "init": {"capture", "project"},
    "pipeline": {"capture", "consume", "decode", "land", "project", "registry"},
    "event_sink": {"consume", "decode", "land", "pipeline"},
    "replay": {"decode", "land", "registry"},
    "maintain": {"land", "project"},
    "retain": {"land", "project"},
    "erase": {"land", "project", "query", "retain"},
    "repair": {"decode", "land", "project", "query"},
    "cli": {
        *(
            "capture",
            "consume",
            "decode",
            "erase",
            "event_sink",
            "init",
            "land",
            "local",
            "maintain",
            "pipeline",
            "project",
            "query",
            "react",
            "registry",
            "repair",
            "replay",
            "retain",
            "serve",
            "trace",
            "lineage",
        )
    },
}
# The root's own two files: `cdc_lake.connect()` opens a session, `python -m cdc_lake` is the command line.
ROOT_FILES = {"__init__": {"query", "trace"}, "__main__": {"cli"}}


def part_of(module: tuple[str, ...]) -> str:
    return module[0] if module and module[0] in PARTS else ""


def imports(tree: ast.AST) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every module of this package that a file imports, anywhere in it, as the path below `cdc_lake`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the arrows"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "cdc_lake" and rest:
                yield tuple(rest), node.lineno


def arrows(path: Path, source: str) -> Iterator[str]:
    """The imports of a file that point the wrong way."""
    module = path.relative_to(PACKAGE).with_suffix("").parts
    part = part_of(module)
    allowed = PARTS[part] | {part} if part else ROOT_FILES.get(module[0], set())
    for target, line in imports(ast.parse(source)):
        other = part_of(target)
        if other and other not in allowed:
            yield f"{path.relative_to(PACKAGE)}:{line} imports {'.'.join(target)}"


def test_every_folder_is_a_named_part() -> None:
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert folders <= set(PARTS)


def test_no_import_points_the_wrong_way() -> None:
    assert [wrong for path in MODULES for wrong in arrows(path, path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("consume/broker.py", "from cdc_lake.land.append import append"),
        ("land/append.py", "from cdc_lake import project"),
        ("config.py", "import cdc_lake.query.session"),
        ("query/session.py", "def f():\n    from cdc_lake.cli import output"),
        ("pipeline.py", "from cdc_lake.local import stack"),
    ],
)
def test_a_wrong_arrow_is_seen(file: str, line: str) -> None:
    assert len(list(arrows(PACKAGE / file, line))) == 1


def test_a_file_is_one_noun() -> None:
    lengths = {str(p.relative_to(PACKAGE)): len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES}
    assert {file: lines for file, lines in lengths.items() if lines >= FILE_LINES} == {}


def test_a_function_is_one_thing() -> None:
    lengths = {
        f"{path.relative_to(PACKAGE)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert {function for function, lines in lengths.items() if lines > FUNCTION_LINES} == set(LONGER)
