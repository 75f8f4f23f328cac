"""What rules remember, as files beside the alerts: `<rule_state>/<rule>/<fingerprint>-<position>.parquet`.

A memory is written before the commit that moves the rule's position to where it stands, and that position names it: so
the commit of alerts and position is the commit of the memory too. Killed between the two, the next run finds the
memory of the position that is committed. A memory that is not there is made anew from the log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from cdc_lake.errors import LakeError, first_line
from cdc_lake.land.layout import open_store, rule_state_path
from cdc_lake.land.reading import read_file
from cdc_lake.react.engine import Memory

_COMMANDS = {"rule": "rules", "model": "stream"}
_META = b"cdc_lake.memory"
_FILE = re.compile(r"([0-9a-f]{12})-(\d+)\.parquet")


class Remembering(Protocol):
    """A rule or a streaming model. `fingerprint` changes when what it remembers may."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits."""


class Memories:
    """The memories of the rules of one source; with `path` and `kind`, of what else remembers."""

    def __init__(
        self,
        root: str,
        source: str,
        options: Mapping[str, str] | None,
        *,
        path: Callable[[str, str, str], str] = rule_state_path,
        kind: str = "rule",
    ) -> None:
        self._root, self._source, self._options = root, source, options
        self._path, self._kind = path, kind

    def save(self, rule: Remembering, memory: Memory) -> None:
        """Write a memory. Idempotent: what is written of a position is always the same."""
        rows = memory.rows if memory.rows is not None else pa.table({"part": pa.array([], pa.string())})
        meta = {"position": memory.position, "clock": memory.clock}
        rows = rows.replace_schema_metadata({_META: json.dumps(meta).encode()})
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        written = sink.getvalue()
        folder = self._path(self._root, self._source, rule.name)
        try:
            if "://" not in folder:
                Path(folder).mkdir(parents=True, exist_ok=True)
            store = self._store(rule)
            # What fits into no buffer, pyarrow hands over in a form that delta-rs 1.6 refuses.
            with store.open_output_stream(_name(rule, memory.position), buffer_size=written.size + 1) as out:
                out.write(written)
        except (OSError, DeltaError, pa.ArrowException) as error:
            raise LakeError(
                f"What the {self._kind} {rule.name} remembers cannot be written.",
                why=first_line(error),
                next=f"check the lake's space and permissions, then: cdc-lake {_COMMANDS[self._kind]} run",
                code="rule_state",
            ) from error

    def load(self, rule: Remembering, position: int) -> Memory | None:
        """The memory at a position; None when there is none of this form of the rule, or it cannot be read."""
        try:
            with self._store(rule).open_input_file(_name(rule, position)) as file:
                rows = read_file(pa.BufferReader(file.read()))
            meta = json.loads(rows.schema.metadata[_META])
            return Memory(meta["position"], meta["clock"], rows.replace_schema_metadata(None))
        except (OSError, DeltaError, pa.ArrowException, KeyError, ValueError, TypeError):
            return None

    def there(self, rule: Remembering, position: int) -> bool:
        """Whether there is a memory at a position."""
        try:
            info = self._store(rule).get_file_info(_name(rule, position))
        except (OSError, DeltaError, pa.ArrowException):
            return False
        return bool(info.type == pafs.FileType.File)

    def forget(self, rule: Remembering, *, but: int) -> None:
        """Delete the memories of other positions and forms. What cannot be deleted is deleted another time."""
        try:
            store = self._store(rule)
            for info in store.get_file_info(pafs.FileSelector("", allow_not_found=True)):
                if _FILE.fullmatch(info.base_name) and info.base_name != _name(rule, but):
                    store.delete_file(info.path)
        except (OSError, DeltaError, pa.ArrowException):
            return

    def _store(self, rule: Remembering) -> pafs.FileSystem:
        return open_store(self._path(self._root, self._source, rule.name), self._options)


def _name(rule: Remembering, position: int) -> str:
    return f"{rule.fingerprint}-{position}.parquet"
