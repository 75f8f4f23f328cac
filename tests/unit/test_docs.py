"""What the documentation says is so: links lead somewhere, commands parse, blocks are valid, errors are explained."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import duckdb
import jsonschema
import pytest
import yaml
from typer.exceptions import TyperException

from cdc_lake.cli.complete import WORDS
from cdc_lake.config import load_config
from cdc_lake.react.expressions import check_expressions
from cdc_lake.react.rulefile import load_rules
from cdc_lake.react.stream.modelfile import load_model, model_files
from cdc_lake.react.stream.query import parse as parse_model
from tests.unit.test_cli_help import COMMANDS, parse

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "connectors").glob("*.md")])
GENERATED = {"cli.md", "config.md", "metrics.md", "cdc-lake.schema.json", "json.schema.json", "dashboard.schema.json"}
# What a block may be. `text` is a drawing or an output; everything else is checked here, and what can run is run by
# tests/integration/test_docs_run.py.
KINDS = {"console", "sh", "sql", "python", "yaml", "json", "properties", "text", "mermaid"}
_FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        body = "\n".join(line.removeprefix(found[1]) for line in found[3].splitlines())
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[2], body)


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def of_kind(*kinds: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind in kinds]


def commands_of(block: Block) -> list[str]:
    """The commands of a console block (after `$ `) or of a sh block (every line, without its comment)."""
    if block.kind == "console":
        return [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
    return [line.split("  #")[0].strip() for line in block.text.splitlines() if line.strip()]


COMMAND_LINES = [(block, line) for block in of_kind("console", "sh") for line in commands_of(block)]


# --- pages and links


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_to_something(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(there), f"{target} has no such heading"


def test_every_page_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / t.split("#")[0]).resolve() for t in re.findall(r"\]\(([^)]+)\)", index.read_text())}
    assert {p for p in PAGES if p.is_relative_to(ROOT / "docs")} - linked == {index}
    assert "docs/index.md" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_the_reference_is_what_the_code_says(name: str) -> None:
    written = runpy.run_path(str(ROOT / "scripts" / "generate_reference.py"))["pages"]()
    assert set(written) == GENERATED
    assert (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8") == written[name], "run: make docs"


def test_the_words_that_shells_complete_are_those_of_the_commands() -> None:
    written = runpy.run_path(str(ROOT / "scripts" / "generate_reference.py"))["completion"]()
    assert WORDS.read_text(encoding="utf-8") == written, "run: make docs"


def test_the_page_for_contributors_names_only_what_is_there() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:cdc_lake|tests|docs|benchmarks|connectors)(?:/[\w./*-]+)?)`", page)
    assert named
    assert [name for name in named if not list(ROOT.glob(name))] == []


def test_every_command_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    for path in COMMANDS:
        assert re.search(rf"^##+ {' '.join(['cdc-lake', *path])}$", text, re.M), path


def test_the_config_schema_takes_the_projects_own_files_and_refuses_a_slip() -> None:
    schema = json.loads((ROOT / "docs/reference/cdc-lake.schema.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    for file in ("cdc-lake.yaml", "deploy/compose/cdc-lake.yaml"):
        validator.validate(yaml.safe_load((ROOT / file).read_text()))
    assert not validator.is_valid({"snik": {}})
    assert not validator.is_valid({"sink": {"flush_seconds": "often"}})
    assert not validator.is_valid({"root": "/"})


# --- blocks


def test_every_block_says_what_it_is() -> None:
    assert [str(b) for b in BLOCKS if b.kind not in KINDS] == []


@pytest.mark.parametrize(("block", "line"), COMMAND_LINES, ids=lambda v: str(v)[:60])
def test_every_command_line_parses(block: Block, line: str) -> None:
    ours, _, last = line.rpartition(" | ")
    last_of_pipe = (ours if last.startswith("head ") else last).partition(" > ")[0]
    words = [w for w in shlex.split(last_of_pipe) if not re.fullmatch(r"[A-Z_]+=\S*", w)]
    program, *arguments = words
    if program == "docker":
        program, *arguments = check_compose(arguments)
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
        assert {a for a in arguments if "=" not in a} <= set(targets), f"{block}: no such target"
    elif program.endswith("cdc-lake"):
        if "--install-completion" in arguments:
            return
        try:
            parse(arguments)
        except TyperException as error:
            pytest.fail(f"{block}: {line}: {error.format_message()}")
    else:
        assert program in {"pip", "uv", "cd", "export", "compose", "python"}, f"{block}: {program} is not known here"


def check_compose(arguments: list[str]) -> list[str]:
    """The cdc-lake command inside `docker compose exec SERVICE …`, or just `compose`."""
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert arguments[0] == "compose"
    rest = arguments[1:]
    if rest[0] == "--profile":
        assert any(rest[1] in s.get("profiles", []) for s in compose["services"].values())
        rest = rest[2:]
    assert rest[0] in {"up", "down", "exec", "logs", "ps"}
    if rest[0] == "exec":
        assert rest[1] in compose["services"]
        return rest[2:]
    if rest[0] == "logs":
        assert rest[-1] in compose["services"]
    return ["compose"]


VIEWS = [b for b in of_kind("sql") if b.text.startswith("-- dashboard/")]
MODELS = [b for b in of_kind("sql") if b.text.startswith("-- streams/")]
FOREIGN = [b for b in of_kind("sql", "python") if b.text.startswith(("-- duckdb\n", "# spark\n"))]
QUERIES = [b for b in of_kind("sql") if "-- postgresql" not in b.text and b not in [*MODELS, *VIEWS, *FOREIGN]]
RULES = [b for b in of_kind("yaml") if b.text.startswith("# rules/")]
# Run by tests/unit/test_events_page.py: they are about events, which the project of the other pages has none of.
OF_EVENTS = [b for b in BLOCKS if b.page.name == "events.md"]


@pytest.mark.parametrize("block", RULES, ids=str)
def test_every_rule_in_the_documents_is_one(block: Block, tmp_path: Path) -> None:
    write_rule(block, tmp_path)
    (rule,) = load_rules(tmp_path / "rules")
    with duckdb.connect() as con:
        check_expressions(con, rule)


@pytest.mark.parametrize("block", MODELS, ids=str)
def test_every_model_in_the_documents_is_one(block: Block, tmp_path: Path) -> None:
    write_rule(block, tmp_path)
    (file,) = model_files(tmp_path / "streams")
    with duckdb.connect() as con:
        parse_model(con, load_model(file))


def write_rule(block: Block, folder: Path) -> None:
    """The file that a block shows, in a project's folder."""
    file = folder / block.text.splitlines()[0].removeprefix("# ").removeprefix("-- ")
    file.parent.mkdir(exist_ok=True)
    file.write_text(block.text)


@pytest.mark.parametrize("block", [b for b in of_kind("yaml") if b not in RULES], ids=str)
def test_every_yaml_block_is_a_valid_configuration(block: Block, tmp_path: Path) -> None:
    (tmp_path / "cdc-lake.yaml").write_text(block.text)
    load_config(tmp_path / "cdc-lake.yaml", environ={"POS_DSN": "host=x"})


@pytest.mark.parametrize("block", of_kind("python"), ids=str)
def test_every_python_block_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", of_kind("json"), ids=str)
def test_every_json_block_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", QUERIES, ids=str)
def test_every_lake_query_parses(block: Block) -> None:
    assert duckdb.extract_statements(block.text), block


def test_worker_settings_in_the_documents_are_those_of_the_containers() -> None:
    environment = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["connect"]["environment"]
    for block in of_kind("properties"):
        for line in block.text.splitlines():
            key, _, value = line.partition("=")
            assert environment["CONNECT_" + key.upper().replace(".", "_")] == value, f"{block}: {line}"


def test_what_the_readme_shows_of_the_demo_is_what_the_demo_prints() -> None:
    sources = [*(ROOT / "cdc_lake" / "cli").glob("demo*.py"), *(ROOT / "cdc_lake/local/retail/questions").glob("*.sql")]
    printed = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    shown = (ROOT / "README.md").read_text(encoding="utf-8").partition("<!-- printed by make demo -->")[2]
    titles = [line for line in shown.split("```")[1].splitlines()[1:] if line and not line.startswith(" ")]
    assert titles
    for title in titles:
        words = re.split(r"\d[\d.]*", title)[0].strip()
        assert words in printed, title


# --- promises and errors


@pytest.mark.parametrize("name", ["guarantees.md", "security.md"])
def test_every_promise_names_a_test_that_exists(name: str) -> None:
    page = ROOT / "docs" / name
    held = page.read_text(encoding="utf-8").partition("\n## What is missing")[0]
    promises = re.findall(r"^- .*(?:\n  .*)*", held, re.M)
    assert promises
    for promise in promises:
        links = re.findall(r"\[`?([^\]`]+)`?\]\((\.\./tests/[^)]+)\)", promise)
        assert links, f"no test: {promise}"
        for test, file in links:
            functions = {
                node.name
                for node in ast.walk(ast.parse((page.parent / file).read_text(encoding="utf-8")))
                if isinstance(node, ast.FunctionDef)
            }
            assert test in functions, f"{file} has no {test}"


def error_codes() -> set[str]:
    """Every code an error of the package can have: `code="…"`, `default_code`, and the tables of known failures."""
    found: set[str] = set()
    for path in (ROOT / "cdc_lake").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {n.targets[0].id: n.value for n in tree.body if isinstance(n, ast.Assign) and is_name(n.targets[0])}
        place = path.relative_to(ROOT / "cdc_lake").as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "code":
                value = names.get(node.value.id, node.value) if isinstance(node.value, ast.Name) else node.value
                found |= texts(value)
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "default_code":
                found |= texts(node.value)
            elif place == "capture/failures.py" and isinstance(node, ast.Call) and len(node.args) == 4:
                found |= texts(node.args[3])
            elif place == "capture/postgres.py" and isinstance(node, ast.Tuple) and len(node.elts) == 4:
                found |= texts(node.elts[3])
    return found


def is_name(node: ast.expr) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name)


def texts(node: ast.expr) -> set[str]:
    """The text that an expression is, or the two that a conditional one may be."""
    if isinstance(node, ast.IfExp):
        return texts(node.body) | texts(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value else set()


def test_every_error_code_is_explained_and_no_other() -> None:
    page = (ROOT / "docs" / "how-to" / "troubleshoot.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `([a-z_]+)` \|", page, re.M))
    codes = error_codes()
    assert codes - explained == set(), "not explained"
    assert explained - codes == set(), "explained, and gone"


def words_of_the_code() -> set[str]:
    """Parts of the code's texts, between two values, that tell where a line comes from."""
    found: set[str] = set()
    for path in (ROOT / "cdc_lake").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {part.strip() for part in re.split(r"\{\d\}|\n", node.value) if telling(part)}
    return found


def telling(part: str) -> bool:
    """Whether a part is three words, or the name of a check."""
    return len(part.split()) >= 3 or re.fullmatch(r"[a-z]+\.[a-z_]+", part) is not None


def test_what_the_page_on_faults_shows_is_what_the_code_says() -> None:
    said = words_of_the_code()
    page = ROOT / "docs" / "how-to" / "troubleshoot.md"
    shown = [line for block in of_kind("text") if block.page == page for line in block.text.splitlines()]
    assert len(shown) > 25
    assert [line for line in shown if not any(words in line for words in said)] == []
