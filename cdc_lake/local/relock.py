"""Write `jars.lock` anew after a change of `versions.py`: `python -m cdc_lake.local.relock`.

Resolves the coordinates with jgo and records path, size and SHA-256 of every jar. Only for maintainers: `up` downloads
what the lock names and resolves nothing.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

import jgo
from jgo.maven import PythonResolver

from cdc_lake.local import versions

LOCK = Path(__file__).with_name("jars.lock")
HEADER = "# sha256  bytes  path in a Maven repository. Written by `python -m cdc_lake.local.relock`.\n"


def main() -> None:
    """Resolve, and write the lock beside this module."""
    with tempfile.TemporaryDirectory() as folder:
        environment = jgo.build(
            "+".join(versions.COORDINATES), cache_dir=Path(folder), resolver=PythonResolver(), update=True
        )
        names = {jar.name for jar in environment.path.rglob("*.jar")}
        repository = Path(jgo.config.GlobalSettings.load().repo_cache)
        lines = sorted(_line(jar, repository) for jar in repository.rglob("*.jar") if jar.name in names)
    if len(lines) != len(names):
        sys.exit(f"{len(names)} jars were resolved, but the repository holds {len(lines)} of those names")
    LOCK.write_text(HEADER + "".join(line for _, line in lines))
    print(f"{LOCK.name}: {len(lines)} jars", file=sys.stderr)


def _line(jar: Path, repository: Path) -> tuple[str, str]:
    body = jar.read_bytes()
    path = jar.relative_to(repository).as_posix()
    return path, f"{hashlib.sha256(body).hexdigest()}  {len(body)}  {path}\n"


if __name__ == "__main__":
    main()
