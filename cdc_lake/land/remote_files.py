"""How DuckDB reads the data files of a lake on an object store: through delta-rs, with its options and credentials.

DuckDB has no way of its own to such a store without an extension that is fetched from the network. It asks a file
system for ranges of a file instead, from several threads at once, each with a `seek` and a `read` behind it: the
position is kept per thread, so that no thread reads where another one has sought.

A data file never changes. What is small is fetched whole, once in a process; of a large file only the ranges are
fetched that DuckDB asks for: footer, columns, row groups.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.fs as pafs
from fsspec.spec import AbstractFileSystem

from cdc_lake.land.layout import open_store

_SMALL_BYTES = 1 << 20
_KEPT_BYTES = 64 << 20
# DuckDB keeps what it has read of a file for as long as this stays the same: a data file is never written again.
_NEVER_CHANGED = datetime(2000, 1, 1, tzinfo=UTC)


def register(con: duckdb.DuckDBPyConnection, root: str, options: Mapping[str, str] | None) -> None:
    """Let `con` and its cursors read the files below `root`, a URI; nothing else on that store. Idempotent."""
    register_all(con, [(root, options)])


def register_all(con: duckdb.DuckDBPyConnection, places: Sequence[tuple[str, Mapping[str, str] | None]]) -> None:
    """The same for several roots, each with its options: DuckDB has one file system for each scheme."""
    for scheme in dict.fromkeys(root.partition("://")[0] for root, _ in places):
        if scheme not in con.list_filesystems():
            (first, *others) = [RemoteFiles(r, o) for r, o in places if r.startswith(f"{scheme}://")]
            con.register_filesystem(RemotePlaces([first, *others]) if others else first)


class RemoteFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec carries no types
    """The files below one root, read-only; every path is a full URI. Raises OSError when the store fails."""

    cachable = False  # else fsspec would hand an older one's handles to a new session

    def __init__(self, root: str, options: Mapping[str, str] | None) -> None:
        super().__init__()
        self.protocol = root.partition("://")[0]
        self._prefix = root.rstrip("/") + "/"
        self._store = open_store(root.rstrip("/"), options)
        self._mutex = threading.Lock()
        self._idle: dict[str, list[pa.NativeFile]] = {}

    def open(self, path: str, mode: str = "rb", **_: Any) -> RemoteFile:
        """The file at `path`, for reading."""
        if mode not in {"r", "rb"}:
            raise PermissionError(f"{path} is opened for writing")
        return RemoteFile(self, self._below(path))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """What DuckDB asks for before it opens a file."""
        return {"name": path, "size": self.size(path), "type": "file"}

    def size(self, path: str) -> int:
        """Bytes of the file."""
        return RemoteFile(self, self._below(path)).size()

    def modified(self, path: str) -> datetime:
        """One moment for all files: they never change."""
        return _NEVER_CHANGED

    def exists(self, path: str, **_: Any) -> bool:
        """Whether the store has the file."""
        found = self._store.get_file_info([self._below(path)])[0]
        return bool(found.type == pafs.FileType.File)

    def glob(self, path: str, **_: Any) -> list[str]:
        """The path itself: the Delta log names each file, nothing is searched for."""
        return [path]

    def take(self, name: str) -> pa.NativeFile:
        """A handle that no other thread uses; give it back with `give`. One that is new costs a HEAD."""
        with self._mutex:
            idle = self._idle.get(name)
            if idle:
                return idle.pop()
        return self._store.open_input_file(name)

    def give(self, name: str, handle: pa.NativeFile) -> None:
        """Keep a handle for the next read."""
        with self._mutex:
            self._idle.setdefault(name, []).append(handle)

    def kept_as(self, name: str) -> str:
        """The name of a file among those of every lake."""
        return self._prefix + name

    def has(self, path: str) -> bool:
        """Whether `path` is below the root."""
        return path.startswith(self._prefix)

    def _below(self, path: str) -> str:
        if not path.startswith(self._prefix) or ".." in path.split("/"):
            raise PermissionError(f"{path} is not below {self._prefix}")
        return path.removeprefix(self._prefix)


class RemotePlaces(AbstractFileSystem):  # type: ignore[misc]  # fsspec carries no types
    """The files below several roots of one scheme: a lake and its tiers."""

    cachable = False

    def __init__(self, places: Sequence[RemoteFiles]) -> None:
        super().__init__()
        self.protocol = places[0].protocol
        self._places = places

    def open(self, path: str, mode: str = "rb", **_: Any) -> RemoteFile:
        """The file at `path`, for reading."""
        return self._of(path).open(path, mode)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """What DuckDB asks for before it opens a file."""
        return self._of(path).info(path)

    def size(self, path: str) -> int:
        """Bytes of the file."""
        return self._of(path).size(path)

    def modified(self, path: str) -> datetime:
        """One moment for all files: they never change."""
        return self._of(path).modified(path)

    def exists(self, path: str, **_: Any) -> bool:
        """Whether the store has the file."""
        return self._of(path).exists(path)

    def glob(self, path: str, **_: Any) -> list[str]:
        """The path itself."""
        return [path]

    def _of(self, path: str) -> RemoteFiles:
        return next((p for p in self._places if p.has(path)), self._places[0])


class RemoteFile(io.RawIOBase):
    """One file; its position belongs to the thread that seeks and reads."""

    def __init__(self, files: RemoteFiles, name: str) -> None:
        super().__init__()
        self._files, self._name = files, name
        self._key = files.kept_as(name)
        self._at = threading.local()
        self._bytes: int | None = None

    def size(self) -> int:
        """Bytes in all."""
        if self._bytes is None:
            whole = _whole.get(self._key)
            self._bytes = len(whole) if whole is not None else self._measure()
        return self._bytes

    def seekable(self) -> bool:
        """Always."""
        return True

    def readable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where this thread reads next."""
        return int(getattr(self._at, "position", 0))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Let this thread read from there."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell()}.get(whence)
        self._at.position = (self.size() if base is None else base) + offset
        return self.tell()

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes from this thread's position."""
        start = self.tell()
        stop = self.size() if size < 0 else min(self.size(), start + size)
        data = self._range(start, max(0, stop - start))
        self._at.position = start + len(data)
        return data

    def _measure(self) -> int:
        handle = self._files.take(self._name)
        try:
            return int(handle.size())
        finally:
            self._files.give(self._name, handle)

    def _range(self, start: int, size: int) -> bytes:
        whole = _whole.get(self._key)
        if whole is None and self.size() <= _SMALL_BYTES:
            whole = self._fetch(0, self.size())
            _whole.put(self._key, whole)
        return whole[start : start + size] if whole is not None else self._fetch(start, size)

    def _fetch(self, start: int, size: int) -> bytes:
        handle = self._files.take(self._name)
        try:
            handle.seek(start)
            parts, missing = [], size
            while missing > 0 and (part := handle.read(missing)):
                parts.append(part)
                missing -= len(part)
        finally:
            self._files.give(self._name, handle)
        if missing:
            raise OSError(f"{self._key} ended {missing} bytes early")
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Whole:
    """Small files as they are, the ones used last; no more than `_KEPT_BYTES`."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._mutex = threading.Lock()

    def get(self, key: str) -> bytes | None:
        with self._mutex:
            if key in self._files:
                self._files.move_to_end(key)
            return self._files.get(key)

    def put(self, key: str, data: bytes) -> None:
        with self._mutex:
            if key not in self._files:
                self._files[key] = data
                self._size += len(data)
            while self._size > _KEPT_BYTES:
                self._size -= len(self._files.popitem(last=False)[1])


_whole = _Whole()
