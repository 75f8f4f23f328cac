"""What the stack keeps in the project's `.cdc-lake` folder: addresses, memory, lock, logs.

- `stack.json`: the parts that run, with their addresses and process ids. Each is written when it is ready and removed
  when it is stopped, so that a reader finds no address of what is down.
- `memory.json`: what outlives `down`: ports, the password, the place of PostgreSQL's data.
- `stack.lock`: held by one `up` or `down` at a time.

Both files hold a password and are readable by their owner alone. Writes are atomic.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cdc_lake.errors import CdcLakeError
from cdc_lake.local.progress import Progress, silent

LOCK_SECONDS = 180


class State:
    """The folder and its files. Safe to use from several threads of one process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.logs = self.folder / "logs"
        self.stack_file = self.folder / "stack.json"
        self.memory_file = self.folder / "memory.json"
        self.lock_file = self.folder / "stack.lock"
        self._mutex = threading.Lock()

    def create(self) -> None:
        """Make the folder; CdcLakeError when that is not allowed."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            # A folder that git never offers to add, whatever the project ignores.
            ignore = self.folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise _unusable(self.folder, error) from error

    def log(self, part: str) -> Path:
        """The log file of a part."""
        return self.logs / f"{part}.log"

    def parts(self) -> dict[str, dict[str, Any]]:
        """What `stack.json` records, by part; empty when nothing was started."""
        return read_json(self.stack_file)

    def record(self, part: str, entry: dict[str, Any] | None) -> None:
        """Write a part's entry, or remove it with None."""
        with self._mutex:
            parts = read_json(self.stack_file)
            parts.pop(part, None)
            if entry is not None:
                parts[part] = entry
            write_json(self.stack_file, parts)

    def recall(self, key: str) -> Any:
        """A value of the memory, or None."""
        return read_json(self.memory_file).get(key)

    def remember(self, key: str, value: Any) -> None:
        """Keep a value across `down` and `up`."""
        with self._mutex:
            memory = read_json(self.memory_file)
            if memory.get(key) != value:
                write_json(self.memory_file, {**memory, key: value})


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file; empty when there is none, CdcLakeError when it cannot be read."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        # Written atomically, so only a hand can have broken it; the parts are found again by their processes.
        return {}
    except OSError as error:
        raise _unusable(file, error) from error
    return value if isinstance(value, dict) else {}


def write_json(file: Path, value: Any) -> None:
    """Replace a file in one step, readable by its owner alone."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as out:
                json.dump(value, out, indent=2)
                out.write("\n")
            Path(temporary).replace(file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unusable(file, error) from error


def _unusable(path: Path, error: OSError) -> CdcLakeError:
    return CdcLakeError(
        f"{path} cannot be used.",
        why=error.strerror or str(error),
        next=f"free space or check the permissions of {path.parent}, then: cdc-lake up",
        code="state",
    )


@contextlib.contextmanager
def exclusive(file: Path, progress: Progress = silent, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold a lock file; wait for another holder up to `seconds`, then CdcLakeError.

    The system drops the lock with its process, so a killed holder never blocks the next.
    """
    try:
        handle = file.open("a+")
    except OSError as error:
        raise _unusable(file, error) from error
    with handle:
        deadline = time.monotonic() + seconds
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CdcLakeError(
                        "Another cdc-lake is starting or stopping this stack.",
                        why=f"It has held {file} for more than {seconds:.0f} s.",
                        next="wait for it or end it, then run the command again",
                        code="locked",
                    ) from None
                if not told:
                    progress("waiting for another cdc-lake that is at work on the same folder")
                    told = True
                time.sleep(0.1)
        yield
