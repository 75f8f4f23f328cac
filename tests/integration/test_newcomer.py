"""A newcomer, with a new home folder and a clean clone, types what README and the first how-to print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest

from tests.integration.test_demo import processes
from tests.unit.test_docs import ROOT, Block, blocks_of

pytestmark = pytest.mark.stack

README, FIRST = ROOT / "README.md", ROOT / "docs/how-to/start-a-project.md"
TOUR = ("## A tour of five minutes", "## From Python")
OWN = ("## With a made-up retailer", "## Empty, on the embedded stack")
# A word of a table or of a sentence that is another one each time.
_VARYING = re.compile(r"[\d][\d,.:+T-]*Z?|\b[KMG]?B\b")


@dataclass(frozen=True, slots=True)
class Typed:
    """A command line, what the page shows below it, and what it did."""

    line: str
    shown: list[str]
    code: int
    out: list[str]
    err: list[str]

    @property
    def fails(self) -> bool:
        """Whether the page shows an error."""
        return bool(self.shown) and self.shown[0].startswith("Error: ")


def lines_of(page: Path, between: tuple[str, str]) -> Iterator[tuple[str, list[str]]]:
    """The command lines of a part of a page, each with what is shown below it."""
    text = page.read_text(encoding="utf-8")
    first, last = (text.count("\n", 0, text.index(heading)) + 1 for heading in between)
    for block in (b for b in blocks_of(page) if b.kind == "console" and first < b.line < last):
        yield from commands(block)


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    lines = block.text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("$ "):
            yield line[2:], list(takewhile(lambda text: not text.startswith("$ "), lines[number + 1 :]))


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Somebody's home folder, and a clean copy of the project in it."""

    home: Path
    clone: Path

    def types(self, lines: list[tuple[str, list[str]]], name: str) -> list[Typed]:
        """Type lines into one shell, one after the other; what each did."""
        into = self.home / name
        into.mkdir()
        script = ["exec < /dev/null"]
        for number, (line, _) in enumerate(lines):
            out, err, code = (shlex.quote(str(into / f"{number}.{part}")) for part in ("out", "err", "code"))
            script.append(f"{{ {line}\n}} > {out} 2> {err}; echo $? > {code}")
        environment = {**os.environ, "HOME": str(self.home), "CI": "true", "PYTHON": sys._base_executable}  # type: ignore[attr-defined]
        for name_of_this in ("PYTHONPATH", "VIRTUAL_ENV", "CDC_LAKE_TEST_STACK"):
            environment.pop(name_of_this, None)
        # Not of this environment; where packages come from, and what of them is there already, is the machine's.
        here = str(Path(sys.executable).parent)
        environment["PATH"] = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != here)
        environment["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        for name_of_file in (Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf"):
            if name_of_file.exists():
                environment.setdefault("PIP_CONFIG_FILE", str(name_of_file))
        shell = ["/bin/bash", "-c", "\n".join(script)]
        subprocess.run(shell, cwd=self.clone, env=environment, check=False, timeout=1500)
        return [self._typed(into, number, line, shown) for number, (line, shown) in enumerate(lines)]

    @staticmethod
    def _typed(into: Path, number: int, line: str, shown: list[str]) -> Typed:
        out, err, code = ((into / f"{number}.{part}").read_text(encoding="utf-8") for part in ("out", "err", "code"))
        return Typed(line, shown, int(code), out.rstrip().splitlines(), err.splitlines())


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    home = tmp_path / "a new home"
    clone = home / "cdc_lake"
    clone.mkdir(parents=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout
    copy = f"tar -c --null --ignore-failed-read -T - | tar -x -C {shlex.quote(str(clone))}"
    subprocess.run(["/bin/bash", "-c", copy], cwd=ROOT, input=files, check=True)
    yield Newcomer(home, clone)
    for folder in (clone / ".cdc-lake/demo/.cdc-lake", clone / "shop/.cdc-lake"):
        if folder.exists():
            from cdc_lake.local.stack import Stack

            Stack(folder).down(wipe=True)


def alike(printed: list[str], shown: list[str]) -> bool:
    """Whether a table has the columns that are shown, and its rows are of the same things, as far as it is shown."""
    found, wanted = ([line for line in lines if line.strip()] for lines in (printed, shown))
    if not found or found[0].split() != wanted[0].split():
        return False

    def names(lines: list[str]) -> list[str]:
        return [_VARYING.sub("#", line.split("  ")[0].strip() or line.split()[0]) for line in lines[2:]]

    # A row whose first value is another one each time is only counted.
    return set(names(wanted)) <= set(names(found)) or (len(found) > 2 and names(wanted)[0].startswith("#"))


def test_what_differs_is_seen() -> None:
    shown = ["  region   stores", " ──────", "  Coast      42"]
    assert alike(["  region   stores", " ─────", "  Coast      17"], shown)
    assert not alike(["  region   shops", " ─────", "  Coast      17"], shown)
    assert not alike(["  region   stores", " ─────", "  East      17"], shown)


def test_the_tour_and_the_first_project_work_as_printed(newcomer: Newcomer) -> None:
    tour = list(lines_of(README, TOUR))
    # As the README says: the shell of the tour has the program on its PATH.
    project = [('export PATH="$PWD/.venv/bin:$PATH"', []), *lines_of(FIRST, OWN), ("cdc-lake down --wipe", [])]
    assert len(tour) > 8
    assert len(project) > 8
    for typed in [*newcomer.types(tour, "tour"), *newcomer.types(project, "project")]:
        words = "\n".join([typed.line, *typed.out, *typed.err])
        if typed.fails:
            assert typed.code in (1, 2), words
            assert typed.err == typed.shown, words
        else:
            assert typed.code == 0, words
            assert not typed.shown or alike(typed.out, typed.shown), words
    assert processes(newcomer.home) == []
