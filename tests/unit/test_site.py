"""The documentation builds as a site, and no link in it leads to nowhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def nav(entries: object) -> set[str]:
    """All pages of a navigation."""
    if isinstance(entries, str):
        return {entries}
    assert isinstance(entries, dict | list)
    return set().union(*map(nav, entries.values() if isinstance(entries, dict) else entries))


def test_the_site_is_built_with_every_page_and_no_dead_link(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "build_site.py", tmp_path / "site"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    built = {p.relative_to(tmp_path / "site").with_suffix("").as_posix() for p in (tmp_path / "site").rglob("*.html")}
    pages = {p.relative_to(ROOT).with_suffix("").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert pages - built == set()
    assert "tests/guarantees/test_landing.py" in built


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("!ENV ", "")
    shown = nav(yaml.safe_load(text)["nav"])
    assert {f"docs/{p.relative_to(ROOT / 'docs').as_posix()}" for p in (ROOT / "docs").rglob("*.md")} - shown == set()
