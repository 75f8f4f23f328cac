"""Environments of their own for tools that a test runs and the project does not depend on."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

from cdc_lake.cache import cache_folder


def layer(name: str, *requirements: str) -> Path:
    """The python of an environment with `requirements`, laid over that of the tests; made once, in the user's cache.

    What both have is that of `requirements` there. Its packages come from a registry: the first time takes a while.
    """
    over = f"{sysconfig.get_path('purelib')} {sys.version} {' '.join(requirements)}"

    def make(folder: Path) -> None:
        venv.create(folder, clear=True, with_pip=True)
        own = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        # Behind its own packages, so that what is installed here comes first.
        (folder / own / "below.pth").write_text(sysconfig.get_path("purelib") + "\n")
        _install(folder, *requirements)

    return _once(name, over, make) / "bin" / "python"


def locked(python: Path, lock: Path) -> Path:
    """The site-packages of what a lock file names, for another Python; made once, in the user's cache."""

    def make(folder: Path) -> None:
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        _install(folder, "--require-hashes", "--requirement", str(lock))

    (found,) = _once(lock.stem, f"{python} {lock.read_text()}", make).glob("lib/python*/site-packages")
    return found


def other_pythons() -> list[Path]:
    """Pythons on this machine that the project runs with and the tests do not, the newest first."""
    names = [shutil.which(f"python3.{minor}") for minor in range(11, 20)]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    # The variable may be another account's, whose folder is closed.
    known = pyenv.glob("versions/*/bin/python") if os.access(pyenv, os.R_OK | os.X_OK) else ()
    found: dict[tuple[int, ...], Path] = {}
    for python in (*(Path(n) for n in names if n), *known):
        # Asked, not trusted: a name on PATH may be a version manager's shim without a Python behind it.
        asked = [str(python), "-c", "import ensurepip, sys, venv; print(*sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        version = tuple(map(int, done.stdout.split())) if done.returncode == 0 else ()
        if version >= (3, 11) and version != sys.version_info[:2]:
            found.setdefault(version, python)
    return [found[version] for version in sorted(found, reverse=True)]


def _once(name: str, what: str, make: Callable[[Path], None]) -> Path:
    folder = cache_folder() / "layers" / f"{name}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        # Tests run side by side, and each may be the first.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            make(folder / "env")
            (folder / "ready").touch()
    return folder / "env"


def _install(folder: Path, *words: str) -> None:
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} cannot be installed:\n{done.stderr}")
