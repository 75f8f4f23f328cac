"""Environments of their own for tools that a test runs and the project does not depend on."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path


def layer(name: str, *requirements: str) -> Path:
    """The python of an environment with `requirements`, laid over that of the tests; made once, in the user's cache.

    What both have is that of `requirements` there. Its packages come from a registry: the first time takes a while.
    """
    over = f"{sysconfig.get_path('purelib')} {sys.version} {' '.join(requirements)}"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cdc-lake" / "layers"
    folder = home / f"{name}-{hashlib.sha256(over.encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        # Tests run side by side, and each may be the first.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            _make(folder / "env", requirements)
            (folder / "ready").touch()
    return folder / "env" / "bin" / "python"


def _make(folder: Path, requirements: tuple[str, ...]) -> None:
    venv.create(folder, clear=True, with_pip=True)
    own = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    # Behind its own packages, so that what is installed here comes first.
    (folder / own / "below.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command: list[str | Path] = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        *requirements,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(requirements)} cannot be installed:\n{done.stderr}")
