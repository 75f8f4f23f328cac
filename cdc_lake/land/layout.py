"""Where each Delta table of the lake lies, and how it is opened and read.

::

    <lake>/<source>/log/<schema>/<table>        the change log, one table per source table
    <lake>/<source>/current/<schema>/<table>    the fold: one row per key
    <lake>/<source>/patch/<schema>/<table>      rows of the fold that changed since it was written
    <lake>/<source>/history/<schema>/<table>    the folded history: every version of every row
    <lake>/<source>/replay:<name>/<schema>/<table>   a copy of events, made by a replay
    <lake>/<source>/transactions                BEGIN and END of the source's transactions
    <lake>/<source>/schemas                     every schema version that was seen
    <lake>/<source>/dead_letters                records that could not be decoded
    <lake>/<source>/dead_letter_decisions       which of them were replayed or dropped
    <lake>/<source>/erasures                    which keys were erased, as hashes
    <lake>/<source>/alerts                      what rules found and people decided, and how far each rule is
    <lake>/<source>/alert_deliveries            which alerts went to which output
    <lake>/<source>/alert_silences              which alerts are not to be sent
    <lake>/<source>/audit                       what was done through the dashboard, and by whom
    <lake>/<source>/rule_state/<rule>/…         what a rule still remembers; made anew from the log when it is gone
    <lake>/<source>/stream/<model>              the rows of a streaming model, and how far it is
    <lake>/<source>/stream_late/<model>         events that a model could not count any more
    <lake>/<source>/stream_sent/<model>         how far the rows of a model were sent to its topic
    <lake>/<source>/stream_state/<model>/…      what a model still remembers; made anew as a rule's is

Names come from outside (a broker, a source) and are hostile until encoded: every byte that is not an ASCII letter,
digit, `-` or an inner `_` becomes `~XX`. Percent signs would be the usual choice, but delta-rs 1.6 decodes them
once more than they were encoded and then looks into another folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlparse

import pyarrow.fs as pafs
from deltalake import DeltaTable, Transaction
from deltalake.exceptions import TableNotFoundError
from deltalake.fs import DeltaStorageHandler

from cdc_lake.errors import LakeError, first_line
from cdc_lake.events import TableId
from cdc_lake.land.naming import decode_name, encode_name
from cdc_lake.land.store_errors import is_named, store_error

# How the kinds of copies begin; no other kind has a colon.
COPY = "replay:"

# The form of what is written. A lake that has anything of a later form is refused: what an older version does not know
# of, it would leave out of its answers, or remove. TIERED: a log may have a part of itself in a tier.
_FORM, TIERED = "cdc_lake:form", 2

_UNKNOWN_FEATURE = re.compile(r"(?i)unsupported (reader|writer|table) feature|reader version|reader features")


def _join(root: str, *names: str) -> str:
    return "/".join([root.rstrip("/"), *(encode_name(n) for n in names)])


def log_path(root: str, source: str, table: TableId) -> str:
    """The change log of `table`."""
    return _join(root, source, "log", table.schema, table.name)


def current_path(root: str, source: str, table: TableId) -> str:
    """The folded `current` of `table`."""
    return _join(root, source, "current", table.schema, table.name)


def patch_path(root: str, source: str, table: TableId) -> str:
    """What lies over the folded `current` of `table`."""
    return _join(root, source, "patch", table.schema, table.name)


def history_path(root: str, source: str, table: TableId) -> str:
    """The folded `history` of `table`."""
    return _join(root, source, "history", table.schema, table.name)


def copy_path(root: str, source: str, table: TableId, name: str) -> str:
    """The copy `name` of events of `table`, which a replay made."""
    return _join(root, source, f"{COPY}{name}", table.schema, table.name)


def transactions_path(root: str, source: str) -> str:
    """The transaction metadata of `source`."""
    return _join(root, source, "transactions")


def schemas_path(root: str, source: str) -> str:
    """The schema versions of `source`."""
    return _join(root, source, "schemas")


def dead_letters_path(root: str, source: str) -> str:
    """The dead letters of `source`."""
    return _join(root, source, "dead_letters")


def decisions_path(root: str, source: str) -> str:
    """What was decided about the dead letters of `source`."""
    return _join(root, source, "dead_letter_decisions")


def erasures_path(root: str, source: str) -> str:
    """What was erased from the tables of `source`."""
    return _join(root, source, "erasures")


def alerts_path(root: str, source: str) -> str:
    """What rules found in `source`, and what people decided about it."""
    return _join(root, source, "alerts")


def deliveries_path(root: str, source: str) -> str:
    """Which alerts of `source` went to which output."""
    return _join(root, source, "alert_deliveries")


def silences_path(root: str, source: str) -> str:
    """Which alerts of `source` are not to be sent."""
    return _join(root, source, "alert_silences")


def audit_path(root: str, source: str) -> str:
    """What was done through the dashboard of `source`."""
    return _join(root, source, "audit")


def rule_state_path(root: str, source: str, rule: str) -> str:
    """The folder of what a rule remembers."""
    return _join(root, source, "rule_state", rule)


def rule_states_path(root: str, source: str) -> str:
    """The folder of what all rules of `source` remember."""
    return _join(root, source, "rule_state")


def stream_path(root: str, source: str, model: str) -> str:
    """The rows of a streaming model."""
    return _join(root, source, "stream", model)


def stream_late_path(root: str, source: str, model: str) -> str:
    """The events that a streaming model could not count."""
    return _join(root, source, "stream_late", model)


def stream_sent_path(root: str, source: str, model: str) -> str:
    """How far the rows of a streaming model were sent."""
    return _join(root, source, "stream_sent", model)


def stream_state_path(root: str, source: str, model: str) -> str:
    """The folder of what a streaming model remembers."""
    return _join(root, source, "stream_state", model)


def stream_states_path(root: str, source: str) -> str:
    """The folder of what all streaming models of `source` remember."""
    return _join(root, source, "stream_state")


def list_models(root: str, source: str, options: Mapping[str, str] | None = None) -> list[str]:
    """The streaming models that have rows, or were run."""
    return sorted(decode_name(m) for m in _folders(_join(root, source, "stream"), options))


def table_paths(root: str, source: str, table: TableId) -> dict[str, str]:
    """Where a table's log and its folds may be, by their kind."""
    kinds = {"log": log_path, "current": current_path, "patch": patch_path, "history": history_path}
    return {kind: path(root, source, table) for kind, path in kinds.items()}


def source_paths(root: str, source: str) -> dict[str, str]:
    """Where the Delta tables may be of which a source has one each, by their kind."""
    kinds = {
        "transactions": transactions_path,
        "schemas": schemas_path,
        "dead_letters": dead_letters_path,
        "dead_letter_decisions": decisions_path,
        "erasures": erasures_path,
        "alerts": alerts_path,
        "alert_deliveries": deliveries_path,
        "alert_silences": silences_path,
        "audit": audit_path,
    }
    return {kind: path(root, source) for kind, path in kinds.items()}


def model_paths(root: str, source: str, table: TableId, options: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where the Delta tables that are made of a table's log may be, by the name of their kind."""
    home = _join(root, source)
    kinds = sorted({decode_name(k) for k in _folders(home, options)} - {"log"})
    return {kind: _join(root, source, kind, table.schema, table.name) for kind in kinds}


def list_sources(root: str, options: Mapping[str, str] | None = None) -> list[str]:
    """Sources that have anything in the lake."""
    return sorted(decode_name(s) for s in _folders(root, options))


def list_tables(root: str, source: str, options: Mapping[str, str] | None = None) -> list[TableId]:
    """Source tables that have a change log."""
    log = f"{_join(root, source)}/log"
    return sorted(
        TableId(decode_name(schema), decode_name(table))
        for schema in _folders(log, options)
        for table in _folders(f"{log}/{schema}", options)
    )


Handle = TypeVar("Handle", bound=DeltaTable)


def open_delta(path: str, options: Mapping[str, str] | None = None) -> DeltaTable | None:
    """A fresh handle of the Delta table at `path`; None when there is none.

    Handles are opened anew for each use: a stale one would hide what other writers did. `Store.refresh` is for who
    commits again and again, `project.cache` for who reads again and again. Raises LakeError when the table is there
    and cannot be read.
    """
    return open_as(DeltaTable, path, options)


def open_as(kind: type[Handle], path: str, options: Mapping[str, str] | None) -> Handle | None:
    """The same as a handle of another kind."""
    try:
        found = kind(path, storage_options=dict(options) if options else None)
        form = form_of(found)
    except TableNotFoundError:
        return None
    except Exception as error:
        if _UNKNOWN_FEATURE.search(str(error)):
            raise _newer(path, first_line(error)) from error
        if is_named(path, error):
            raise store_error(path, error) from error
        raise LakeError(
            f"The Delta table {path} cannot be read.",
            why=first_line(error),
            next="cdc-lake recover  (where its newest commit is cut off), or put the folder back from a copy; a read "
            "model is made anew by: cdc-lake rebuild TABLE",
            code="lake_unreadable",
        ) from error
    if not is_known(form):
        raise _newer(path, f"It is of the form {form}, and this version of cdc-lake knows forms up to {TIERED}.")
    return found


def form_of(table: DeltaTable) -> int:
    """The form in which a table is written."""
    return table.transaction_version(_FORM) or 1


def is_known(form: int) -> bool:
    """Whether this version reads tables of a form."""
    return form <= TIERED


def written_by(form: int) -> Transaction:
    """The app transaction of a commit that only versions which know `form` may read."""
    return Transaction(_FORM, form)


def _newer(path: str, why: str) -> LakeError:
    return LakeError(
        f"{path} was written by a newer version.",
        why=why,
        next="install the version of cdc-lake that writes this lake, or a later one; nothing was changed",
        code="lake_newer",
    )


def open_store(path: str, options: Mapping[str, str] | None, sizes: Mapping[str, int] | None = None) -> pafs.FileSystem:
    """The files below `path`, whatever store delta-rs reaches them in; paths in it are relative.

    Of a file in `sizes` the store is not asked how long it is; one that is shorter than said is read to its end.
    """
    return pafs.PyFileSystem(
        DeltaStorageHandler(path, dict(options) if options else None, dict(sizes) if sizes else None)
    )


def data_infos(store: pafs.FileSystem) -> dict[str, pafs.FileInfo]:
    """The files in a table's folder and in those of its partitions, by their path in it; not those of the Delta log."""
    found: dict[str, pafs.FileInfo] = {}
    folders = [""]
    for folder in folders:
        for info in store.get_file_info(pafs.FileSelector(folder)):
            if info.type == pafs.FileType.File:
                found[info.path] = info
            elif "=" in info.base_name:
                folders.append(info.path)
    return found


def remove_all(path: str, options: Mapping[str, str] | None) -> None:
    """Delete every file below `path`. Raises OSError; what was deleted until then is gone."""
    if "://" not in path:
        shutil.rmtree(path)
        return
    store = open_store(path, options)
    # A table whose log is gone is no table: nothing is left that names files which are not there.
    infos = store.get_file_info(pafs.FileSelector("", recursive=True))
    for info in sorted(infos, key=lambda i: not i.path.startswith("_delta_log")):
        if info.type == pafs.FileType.File:
            store.delete_file(info.path)


def parquet_files(table: DeltaTable) -> list[str]:
    """The live data files of a snapshot, as absolute paths or URIs for DuckDB's read_parquet."""
    return [local_path(uri) for uri in table.file_uris()]


def local_path(uri: str) -> str:
    """A `file://` URI or a percent-encoded path of delta-rs as a plain path; other URIs unchanged."""
    if "://" in uri and not uri.startswith("file://"):
        return uri
    return unquote(urlparse(uri).path if uri.startswith("file://") else uri)


def _folders(path: str, options: Mapping[str, str] | None) -> list[str]:
    if "://" not in path:
        try:
            return [e.name for e in os.scandir(Path(path)) if e.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LakeError(f"The lake folder {path} cannot be listed.", why=str(error), next=f"check {path}") from None
    try:
        infos = open_store(path, options).get_file_info(pafs.FileSelector(""))
    except Exception as error:
        raise store_error(path, error) from None
    return [i.base_name for i in infos if i.type == pafs.FileType.Directory]
