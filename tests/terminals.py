"""A program on a terminal of its own: what it prints is read, keys are typed, nothing waits longer than a deadline."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fcntl import ioctl
from pathlib import Path


@dataclass(slots=True)
class Terminal:
    """A running command and all that it has printed so far."""

    process: subprocess.Popen[bytes]
    fd: int
    text: str = field(default="")

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.fd, keys.encode())

    def until(self, wanted: str, *, seconds: float = 180, after: int = 0) -> str:
        """Wait until the program has printed `wanted` behind position `after`; all that it printed."""
        deadline = time.monotonic() + seconds
        while wanted not in self.text[after:]:
            assert time.monotonic() < deadline, f"never printed {wanted!r}:\n{self.text[-4000:]}"
            self._read(0.2)
        return self.text

    def ends(self, *, seconds: float = 180) -> int:
        """Wait for the end; the exit code."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"does not end:\n{self.text[-4000:]}"
            self._read(0.1)
        self._read(0.1)
        return int(self.process.returncode)

    def _read(self, seconds: float) -> None:
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # Linux says so when the program has closed its side
                return
            # A full-screen program asks where the cursor is; a terminal answers.
            for _ in range(data.count(b"\x1b[6n")):
                os.write(self.fd, b"\x1b[1;1R")
            self.text += data.decode(errors="replace")


@contextmanager
def terminal(
    folder: Path, *words: str, env: dict[str, str] | None = None, size: tuple[int, int] = (40, 140)
) -> Iterator[Terminal]:
    """`cdc-lake` with `words` in `folder` on a terminal of `size` (rows, columns); killed at the end if need be."""
    parent, child = pty.openpty()
    ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "cdc_lake", *words],
        cwd=folder,
        env={**os.environ, "TERM": "xterm-256color", **(env or {})},
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
        # Makes it the program's own terminal, so that Ctrl-C arrives as a signal. The one call takes no lock.
        preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(child)
    try:
        yield Terminal(process, parent)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(parent)
