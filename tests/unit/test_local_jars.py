"""The cache of jars holds whole and right files only, whatever breaks while they are fetched."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from cdc_lake.cache import cache_folder
from cdc_lake.errors import CdcLakeError, UnavailableError
from cdc_lake.local import jars, versions
from cdc_lake.local.jars import Jar, Jars
from cdc_lake.local.process import Cancelled

BASE = "https://user:hidden@mirror.example/maven2"
BODIES = {"org/a/a-1.jar": b"a" * 5000, "org/b/b-1.jar": b"b" * 3000}
LOCK = [Jar(hashlib.sha256(body).hexdigest(), len(body), path) for path, body in BODIES.items()]


class Repository:
    """A Maven repository in memory that counts what it is asked for, and can break."""

    def __init__(self) -> None:
        self.bodies = dict(BODIES)
        self.asked: list[str] = []
        self.break_off: set[str] = set()

    def __call__(self, url: str) -> Iterator[bytes]:
        path = url.removeprefix(f"{BASE}/")
        self.asked.append(path)
        body = self.bodies[path]
        if path in self.break_off:
            yield body[: len(body) // 2]
            raise ConnectionResetError(f"connection reset while reading {url}")
        yield body


@pytest.fixture
def repository() -> Repository:
    return Repository()


def cache(folder: Path, repository: Repository, **options: object) -> Jars:
    return Jars(folder, jars=LOCK, fetch=repository, base_url=BASE, **options)  # type: ignore[arg-type]


def names(folder: Path) -> set[str]:
    return {f.name for f in (folder / "jars").iterdir()} - {"lock", "verified.json"}


def test_a_first_call_fetches_everything_and_a_second_nothing(tmp_path: Path, repository: Repository) -> None:
    lines: list[str] = []
    cache(tmp_path, repository).ensure(lines.append)
    assert names(tmp_path) == {"a-1.jar", "b-1.jar"}
    assert any("2 to fetch" in line for line in lines)
    lines.clear()
    cache(tmp_path, repository).ensure(lines.append)
    assert len(repository.asked) == 2
    assert lines == []


@pytest.mark.parametrize("damage", [b"a" * 2500, b"x" * 5000, b""])
def test_a_damaged_jar_is_noticed_and_fetched_again(tmp_path: Path, repository: Repository, damage: bytes) -> None:
    cache(tmp_path, repository).ensure()
    (tmp_path / "jars" / "a-1.jar").write_bytes(damage)
    lines: list[str] = []
    cache(tmp_path, repository).ensure(lines.append)
    assert (tmp_path / "jars" / "a-1.jar").read_bytes() == BODIES["org/a/a-1.jar"]
    assert any("a-1.jar in the cache is damaged" in line for line in lines)
    assert repository.asked.count("org/b/b-1.jar") == 1


def test_a_jar_that_is_whole_but_has_no_stamp_is_hashed_and_kept(tmp_path: Path, repository: Repository) -> None:
    cache(tmp_path, repository).ensure()
    (tmp_path / "jars" / "verified.json").write_text("{ broken")
    cache(tmp_path, repository).ensure()
    assert len(repository.asked) == 2


def test_what_a_killed_download_left_is_no_jar_and_is_cleared(tmp_path: Path, repository: Repository) -> None:
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "a-1.jar.part").write_bytes(b"a" * 100)
    (tmp_path / "jars" / "b-1.jar").write_bytes(b"b" * 100)  # as another program might copy half of it
    cache(tmp_path, repository).ensure()
    assert names(tmp_path) == {"a-1.jar", "b-1.jar"}
    assert (tmp_path / "jars" / "b-1.jar").read_bytes() == BODIES["org/b/b-1.jar"]


def test_a_connection_that_breaks_off_is_an_error_that_leaves_nothing_half(
    tmp_path: Path, repository: Repository
) -> None:
    repository.break_off = {"org/a/a-1.jar"}
    with pytest.raises(UnavailableError) as caught:
        cache(tmp_path, repository).ensure()
    assert caught.value.code == "repository_away"
    assert jars.REPOSITORY_VARIABLE in caught.value.next
    assert "hidden" not in caught.value.why
    assert "a-1.jar" not in names(tmp_path)
    assert not any(name.endswith(".part") for name in names(tmp_path))
    repository.break_off = set()
    cache(tmp_path, repository).ensure()
    assert names(tmp_path) == {"a-1.jar", "b-1.jar"}


def test_a_repository_that_gives_other_bytes_is_refused(tmp_path: Path, repository: Repository) -> None:
    repository.bodies["org/a/a-1.jar"] = b"evil" * 1250
    with pytest.raises(CdcLakeError) as caught:
        cache(tmp_path, repository).ensure()
    assert caught.value.code == "checksum"
    assert "a-1.jar" not in names(tmp_path)


def test_a_full_disk_is_named_and_leaves_nothing_half(tmp_path: Path, repository: Repository) -> None:
    class Full:
        """A file on a disk that takes the first block and no more."""

        def __init__(self, inner: BinaryIO) -> None:
            self.inner = inner

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.inner.close()

        def write(self, block: bytes) -> int:
            self.inner.write(block[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

    full = cache(tmp_path, repository, create=lambda path: Full(path.open("xb")))
    with pytest.raises(CdcLakeError) as caught:
        full.ensure()
    assert caught.value.code == "disk_full"
    assert "XDG_CACHE_HOME" in caught.value.next
    assert names(tmp_path) == set()


def test_an_unreachable_repository_named_by_the_environment_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(jars.REPOSITORY_VARIABLE, "http://user:hidden@127.0.0.1:9/maven2")
    with pytest.raises(UnavailableError) as caught:
        Jars(tmp_path, jars=LOCK).ensure()
    assert "127.0.0.1:9" in caught.value.why
    assert "hidden" not in caught.value.why
    assert caught.value.next


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, repository: Repository) -> None:
    (tmp_path / "jars").write_text("a file where the folder should be")
    with pytest.raises(CdcLakeError) as caught:
        cache(tmp_path, repository).ensure()
    assert caught.value.code == "cache"
    assert str(tmp_path) in caught.value.why


def test_an_interrupted_download_stops_and_leaves_nothing_half(tmp_path: Path, repository: Repository) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        cache(tmp_path, repository).ensure(cancelled=cancelled)
    assert names(tmp_path) == set()


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "cdc-lake"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/not/allowed")
    assert cache_folder().is_relative_to(Path.home())


def test_the_lock_names_every_pinned_version_once() -> None:
    locked = jars.read_lock()
    assert len({jar.name for jar in locked}) == len(locked)
    paths = {jar.path for jar in locked}
    for coordinate in versions.COORDINATES:
        group, artifact, version = coordinate.rstrip("!").split(":")
        assert f"{group.replace('.', '/')}/{artifact}/{version}/{artifact}-{version}.jar" in paths
    of_kafka = {jar.path.split("/")[-2] for jar in locked if jar.path.startswith("org/apache/kafka/")}
    assert of_kafka == {versions.KAFKA}
