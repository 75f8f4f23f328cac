"""Mend tables whose newest commit is not whole (see `land.torn`), so that the sink and readers go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from deltalake.exceptions import DeltaError

from cdc_lake.events import TopicPartition
from cdc_lake.land import layout
from cdc_lake.land.append import AppendTable
from cdc_lake.land.landing import Landing
from cdc_lake.land.lock import sole_rewriter
from cdc_lake.land.reading import read_file, read_rows
from cdc_lake.land.store import DeltaStore
from cdc_lake.land.store_errors import store_error
from cdc_lake.land.strays import files_named
from cdc_lake.land.tables import DEAD_LETTERS, SCHEMAS
from cdc_lake.land.torn import Torn, find_torn, set_aside, was_torn

Options = Mapping[str, str] | None
# Tables whose rows nothing reads again.
_KEPT = ("schemas", "dead_letters")
# What is derived from a change log, and written as two tables that belong together.
_FOLDED = {"current": ("current", "patch"), "patch": ("current", "patch"), "history": ("history",)}


@dataclass(frozen=True, slots=True)
class Mended:
    """One table: its source, its kind (`log`, `current`, `transactions`, …), its name where the kind has several, the
    torn commit, and the file that it is kept in; empty when the table was a read model and is deleted."""

    source: str
    kind: str
    table: str
    torn: Torn
    kept: str


def recover(root: str, source: str, options: Options = None, *, dry_run: bool = False) -> list[Mended]:
    """Mend every table of a source whose newest commit is not whole; with `dry_run` only find them.

    A read model is deleted: the next fold makes it anew. Of all other tables the commit is set aside. The rows of
    `schemas` are kept, for other tables refer to them, and so are the dead letters that the sink does not read again.
    Raises LakeError, also while another process rewrites the lake, and UnavailableError.
    """
    with sole_rewriter(root):
        found = []
        for kind, table, path in _places(root, source, options):
            try:
                torn = find_torn(path, options)
                if torn is not None:
                    found.append(Mended(source, kind, table, torn, "" if kind in _FOLDED else f"{path}/{torn.aside}"))
                    if not dry_run:
                        _mend(kind, path, torn, options)
                if not dry_run and kind in _KEPT and was_torn(path, options):
                    _keep_rows(kind, path, partial(_Landed, root, source, options), options)
            except (OSError, pa.ArrowException, DeltaError) as error:
                raise store_error(path, error) from error
        return found


def _mend(kind: str, path: str, torn: Torn, options: Options) -> None:
    if kind not in _FOLDED:
        set_aside(torn, options)
        return
    for part in _FOLDED[kind]:
        beside = path.replace(f"/{kind}/", f"/{part}/")
        if find_torn(beside, options) is not None or layout.open_delta(beside, options) is not None:
            layout.remove_all(beside, dict(options) if options else None)


def _keep_rows(kind: str, path: str, landed: Callable[[], _Landed], options: Options) -> None:
    if kind == "schemas":
        _append_again(path, SCHEMAS, "schema_id", lambda _: True, options)
        return
    positions = landed()
    try:
        _append_again(path, DEAD_LETTERS, "id", positions.is_behind, options)
    finally:
        positions.close()


class _Landed:
    """How far the sink has landed each partition: it does not read again what is behind that."""

    def __init__(self, root: str, source: str, options: Options) -> None:
        self._landing = Landing(root, source, transaction_topic=None, options=dict(options) if options else None)
        self.close = self._landing.close

    def is_behind(self, letter: Mapping[str, Any]) -> bool:
        position = self._landing.position(TopicPartition(letter["topic"], letter["partition"]))
        return position is not None and letter["offset"] < position


def _append_again(
    path: str, schema: pa.Schema, name: str, wanted: Callable[[Mapping[str, Any]], bool], options: Options
) -> None:
    """Append the `wanted` rows in files that no commit names, and whose `name` the table lacks. Idempotent."""
    table, store = layout.open_delta(path, options), layout.open_store(path, options)
    files = files_named(table) if table is not None else set()
    known = set(read_rows(table, [name])[name].to_pylist()) if table is not None else set()
    lacking: list[dict[str, Any]] = []
    for file in sorted(f for f in layout.data_infos(store).keys() - files if f.endswith(".parquet")):
        with store.open_input_file(file) as opened:
            rows = [row for row in read_file(opened).to_pylist() if row[name] not in known and wanted(row)]
        known.update(row[name] for row in rows)
        lacking += rows
    if lacking:
        again = AppendTable(path, schema, store=DeltaStore(options), contiguous=False)
        again.append(pa.Table.from_pylist(lacking, schema=schema), [])


def _places(root: str, source: str, options: Options) -> Iterator[tuple[str, str, str]]:
    """Kind, name and path of every table that may be there; the change logs first, for they say what has landed."""
    for table in layout.list_tables(root, source, options):
        for kind, path in layout.table_paths(root, source, table).items():
            yield kind, str(table), path
    for kind, path in layout.source_paths(root, source).items():
        yield kind, "", path
    for model in layout.list_models(root, source, options):
        yield "stream", model, layout.stream_path(root, source, model)
        yield "stream_late", model, layout.stream_late_path(root, source, model)
        yield "stream_sent", model, layout.stream_sent_path(root, source, model)
