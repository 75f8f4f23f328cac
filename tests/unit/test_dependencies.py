"""The lock files of those who only use cdc-lake hold all that it needs, though the development environment has more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SESSION = """
import json, sys

class Without:  # Arrow takes them where they are there, and needs them for nothing that is done here
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("dateutil", "pandas"):
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, Without())
from importlib.metadata import packages_distributions
import cdc_lake.cli.main
from cdc_lake.config import Config
from cdc_lake.query.session import open_session
open_session(Config()).close()
known = packages_distributions()
print(json.dumps(sorted({d for m in sys.modules for d in known.get(m.partition(".")[0], ())})))
"""


@pytest.mark.parametrize("lock", ["requirements-demo.lock", "requirements-image.lock"])
def test_what_a_session_loads_is_locked_for_those_who_only_use_it(lock: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SESSION], cwd=tmp_path, capture_output=True, text=True, check=True)
    locked = re.findall(r"^([\w.-]+)==", (ROOT / lock).read_text(), re.MULTILINE)
    # setuptools hooks itself into every start of Python.
    loaded = {_plain(name) for name in json.loads(done.stdout)} - {"cdc-lake", "setuptools"}
    assert "duckdb" in loaded
    assert loaded - {_plain(name) for name in locked} == set()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
