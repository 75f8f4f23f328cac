"""Build the documentation as a site: `python scripts/build_site.py [FOLDER]`, into build/site without an argument.

The pages lie in the repository, and link to each other and to files beside them (a test that proves a promise, a
schema). All that is reached from them is laid out in a folder of its own, in the tree of the repository, so that every
link leads to the same place there; files of code become pages that show them. mkdocs then checks each link and anchor.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STARTS = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "docs", "connectors/README.md", "deploy/README.md"),
    *("notebooks/README.md", "examples/retail/README.md", "examples/dbt/README.md"),
)
LANGUAGES = {".py": "python", ".sql": "sql", ".yml": "yaml", ".yaml": "yaml", ".json": "json", ".toml": "toml"}
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.M | re.S)
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def main() -> int:
    """Lay the pages out and build them; the exit code of mkdocs."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site").absolute()
    with tempfile.TemporaryDirectory(prefix="cdc-lake-site-") as folder:
        pages = Path(folder) / "pages"
        lay_out(pages)
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "--site-dir", str(target)]
        environment = {**os.environ, "SITE_PAGES": str(pages), "NO_MKDOCS_2_WARNING": "1"}
        command += ["--config-file", str(ROOT / "mkdocs.yml")]
        return subprocess.run(command, env=environment, check=False).returncode


def lay_out(pages: Path) -> None:
    """Copy all that is reached from `STARTS` by links to `pages`. A link to nowhere is left for mkdocs to name."""
    waiting = [file for start in STARTS for file in files_of(ROOT / start)]
    seen = set(waiting)
    while waiting:
        file = waiting.pop()
        put(file, pages / file.relative_to(ROOT))
        for found in linked(file) if file.suffix == ".md" else ():
            if found not in seen:
                seen.add(found)
                waiting.append(found)


def files_of(start: Path) -> Iterator[Path]:
    """The file, or all files below the folder."""
    yield from (p for p in sorted(start.rglob("*")) if p.is_file()) if start.is_dir() else [start]


def linked(page: Path) -> Iterator[Path]:
    """The files of the repository that a page links to."""
    for _, target, _, _ in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        there = (page.parent / target).resolve()
        if "://" not in target and there.is_relative_to(ROOT) and there.is_file():
            yield there


def is_code(file: Path) -> bool:
    """Whether a file is shown as a page of its own. A schema is for programs, which want it as it is."""
    return file.suffix in LANGUAGES and not file.name.endswith(".schema.json")


def put(file: Path, place: Path) -> None:
    """A page with its links to code led to the pages of that code, code as such a page, anything else as it is."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".md":
        place.write_text(with_pages_of_code(file), encoding="utf-8")
    elif is_code(file):
        name, text = file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")
        head = f"---\ntitle: {file.name}\nsearch:\n  exclude: true\n---\n\n# {name}\n\n"
        shown = f"````{LANGUAGES[file.suffix]}\n{text}````\n"
        place.with_name(f"{place.name}.md").write_text(head + shown, encoding="utf-8")
    else:
        shutil.copy(file, place)


def with_pages_of_code(page: Path) -> str:
    """The text of a page whose links to files of code lead to the pages that show them."""

    def led(found: re.Match[str]) -> str:
        start, target, anchor, end = found.groups()
        there = (page.parent / target).resolve()
        code = "://" not in target and is_code(there)
        return f"{start}{target}{'.md' if code else ''}{anchor or ''}{end}"

    text, done, parts = page.read_text(encoding="utf-8"), 0, []
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(led, text[done : fence.start()]), fence[0]]
        done = fence.end()
    return "".join([*parts, _LINK.sub(led, text[done:])])


if __name__ == "__main__":
    sys.exit(main())
