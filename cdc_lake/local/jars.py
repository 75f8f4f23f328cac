"""The jars of Kafka, Connect and Debezium in the user's cache folder: fetched once, checked against `jars.lock`.

A jar counts only when its SHA-256 is the locked one. Downloads go to a temporary file that is renamed when it is whole
and right, so a broken-off download leaves nothing that looks like a jar. Checked files are stamped with size and
modification time: a start compares the stamps, and hashes again only what has changed since.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlsplit

from cdc_lake.errors import CdcLakeError, UnavailableError
from cdc_lake.local.process import Cancelled
from cdc_lake.local.progress import Progress, Stopwatch, silent
from cdc_lake.local.state import exclusive, read_json, write_json

LOCK = Path(__file__).with_name("jars.lock")
REPOSITORY_VARIABLE = "CDC_LAKE_MAVEN_REPOSITORY"
_ATTEMPTS = 3
_WORKERS = 6
_TIMEOUT_SECONDS = (6, 20)  # to connect, between two reads

Fetch = Callable[[str], Iterator[bytes]]
"""Yields the bytes behind a URL; raises OSError when that fails."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock."""

    sha256: str
    size: int
    path: str

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(self.path).name


def read_lock(file: Path = LOCK) -> list[Jar]:
    """The jars that a lock file names."""
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [Jar(sha256, int(size), path) for sha256, size, path in lines]


def repository() -> str:
    """Where jars are fetched from: $CDC_LAKE_MAVEN_REPOSITORY (a mirror), else Maven's central repository."""
    mirror = os.environ.get(REPOSITORY_VARIABLE)
    if mirror:
        return mirror.rstrip("/")
    from jgo.constants import MAVEN_CENTRAL_URL

    return str(MAVEN_CENTRAL_URL)


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def fetch(url: str) -> Iterator[bytes]:
    """Stream a URL with jgo's client (proxies, certificates and rate limits are its matter)."""
    from jgo.util import http

    with http.get(url, stream=True, timeout=_TIMEOUT_SECONDS) as response:
        response.raise_for_status()
        yield from response.iter_content(256 * 1024)


def create(path: Path) -> BinaryIO:
    """A new file for writing."""
    return path.open("xb")


class Jars:
    """The cache of one lock file's jars. `ensure` makes it whole."""

    def __init__(
        self,
        cache: Path,
        *,
        jars: list[Jar] | None = None,
        fetch: Fetch = fetch,
        create: Callable[[Path], BinaryIO] = create,
        base_url: str | None = None,
    ) -> None:
        self.jars = read_lock() if jars is None else jars
        self.folder = cache / "jars"
        self._stamps = self.folder / "verified.json"
        self._fetch, self._create, self._base_url = fetch, create, base_url

    @property
    def classpath(self) -> str:
        """All jars for `java -cp`."""
        return os.pathsep.join(str(self.folder / jar.name) for jar in self.jars)

    def ensure(self, progress: Progress = silent, cancelled: threading.Event | None = None) -> None:
        """Bring every jar into the cache, checked.

        Raises UnavailableError (repository away), CdcLakeError `disk_full`, `checksum` or `cache`.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._unverified():
                return
            with exclusive(self.folder / "lock", progress, seconds=600):
                self._complete(progress, cancelled or threading.Event())
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    def _complete(self, progress: Progress, cancelled: threading.Event) -> None:
        for leftover in self.folder.glob("*.part"):
            leftover.unlink(missing_ok=True)
        stamps = self._read_stamps()
        missing: list[Jar] = []
        for jar in self._unverified():
            file = self.folder / jar.name
            if file.exists() and _sha256(file) == jar.sha256:
                stamps[jar.name] = _stamp(file) or []
                continue
            if file.exists():
                progress(f"{jar.name} in the cache is damaged: it is fetched again")
            missing.append(jar)
        try:
            self._download(missing, stamps, progress, cancelled)
        finally:
            # What was fetched before a failure need not be fetched or hashed again.
            with contextlib.suppress(CdcLakeError):
                write_json(self._stamps, stamps)

    def _download(
        self, missing: list[Jar], stamps: dict[str, list[int]], progress: Progress, cancelled: threading.Event
    ) -> None:
        if not missing:
            return
        self._check_space(missing)
        report = _Report(missing, progress)
        stop = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(_WORKERS) as pool:
            work = {
                pool.submit(self._get, jar, report, lambda: stop.is_set() or cancelled.is_set()): jar for jar in missing
            }
            try:
                for done in concurrent.futures.as_completed(work):
                    done.result()
                    stamps[work[done].name] = _stamp(self.folder / work[done].name) or []
            except BaseException:
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        report.finished()

    def _check_space(self, missing: list[Jar]) -> None:
        need = sum(jar.size for jar in missing)
        if shutil.disk_usage(self.folder).free < need:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _get(self, jar: Jar, report: _Report, stopped: Callable[[], bool]) -> None:
        base = self._base_url or repository()
        part = self.folder / f"{jar.name}.part"
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                digest = self._stream(f"{base}/{jar.path}", part, report, stopped)
                if digest == jar.sha256:
                    part.replace(self.folder / jar.name)
                    return
            except _WriteFailed as failure:
                raise failure.error from failure
            except OSError as error:
                if attempt == _ATTEMPTS:
                    raise _repository_away(jar, base, error) from error
                time.sleep(0.3 * attempt)
            finally:
                part.unlink(missing_ok=True)
        raise CdcLakeError(
            f"{jar.name} is not the file that it should be.",
            why=f"Its SHA-256 differs from the locked one after {_ATTEMPTS} downloads from {without_password(base)}.",
            next=f"unset {REPOSITORY_VARIABLE} or name another mirror with it, then: cdc-lake up",
            code="checksum",
        )

    def _stream(self, url: str, part: Path, report: _Report, stopped: Callable[[], bool]) -> str:
        digest = hashlib.sha256()
        with _create(self._create, part) as out:
            for block in self._fetch(url):
                if stopped():
                    raise Cancelled
                try:
                    out.write(block)
                    out.flush()
                except OSError as error:
                    raise _WriteFailed(error) from error
                digest.update(block)
                report.add(len(block))
        return digest.hexdigest()

    def _unverified(self) -> list[Jar]:
        stamps = self._read_stamps()
        return [j for j in self.jars if stamps.get(j.name, []) != _stamp(self.folder / j.name)]

    def _read_stamps(self) -> dict[str, list[int]]:
        return read_json(self._stamps)


class _WriteFailed(Exception):
    """A write to the cache failed, as opposed to the reading of a URL, which also raises OSError."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _create(create: Callable[[Path], BinaryIO], part: Path) -> BinaryIO:
    try:
        return create(part)
    except OSError as error:
        raise _WriteFailed(error) from error


class _Report:
    """Tells how far a download is, at most once a second."""

    def __init__(self, missing: list[Jar], progress: Progress) -> None:
        self._count = len(missing)
        self._total = sum(jar.size for jar in missing)
        self._done = 0
        self._progress = progress
        self._watch = Stopwatch()
        self._told = 0.0
        self._mutex = threading.Lock()
        progress(f"jars of Kafka, Connect and Debezium: {self._count} to fetch, {self._total / 1e6:.0f} MB")

    def add(self, count: int) -> None:
        with self._mutex:
            self._done += count
            if self._watch.seconds - self._told < 1:
                return
            self._told = self._watch.seconds
            share = min(self._done / max(self._total, 1), 1)
            bar = "█" * round(share * 20)
            self._progress(f"jars {bar:░<20} {share:4.0%}  {self._done / 1e6:.0f} of {self._total / 1e6:.0f} MB")

    def finished(self) -> None:
        self._progress(f"jars: {self._count} fetched and checked ({self._watch})")


def _sha256(file: Path) -> str:
    with file.open("rb") as body:
        return hashlib.file_digest(body, "sha256").hexdigest()


def _stamp(file: Path) -> list[int] | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _repository_away(jar: Jar, base: str, error: OSError) -> UnavailableError:
    shown = without_password(base)
    cause = getattr(error.args[0] if error.args else None, "reason", error)  # the client wraps it in its own words
    reason = (str(cause) or type(cause).__name__).replace(base, shown)
    return UnavailableError(
        f"{jar.name} could not be fetched.",
        why=f"{shown} does not give it: {reason}",
        next=f"check the network, or name a mirror with {REPOSITORY_VARIABLE}, then: cdc-lake up",
        code="repository_away",
    )


def _cannot_write(folder: Path, error: OSError) -> CdcLakeError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return CdcLakeError(
        "The disk is full: the jars could not be stored." if full else "The jars could not be stored.",
        why=f"{folder}: {error.strerror or error}",
        next=("free 200 MB there" if full else "check its permissions") + ", or set XDG_CACHE_HOME, then: cdc-lake up",
        code="disk_full" if full else "cache",
    )
