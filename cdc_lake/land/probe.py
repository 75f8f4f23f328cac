"""Does a store keep two writers apart? Exactly-once landing stands on commits that never overwrite each other."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from cdc_lake.land import layout
from cdc_lake.land.store_errors import store_answer

# A store without put-if-absent lets two of four racing commits through about every third time.
_ROUNDS, _WRITERS = 8, 4


# delta-rs's switches that give put-if-absent up, and what it takes for yes.
_SWITCHES = {"allow_unsafe_rename", "aws_s3_allow_unsafe_rename", "mount_allow_unsafe_rename"}
_YES = {"1", "true", "on", "yes", "y"}


@dataclass(frozen=True, slots=True)
class Probe:
    """What trying to write found: `error` the store's words (empty: it can be written), `doubled` whether two commits
    of one version were both accepted, so that one is lost."""

    error: str = ""
    doubled: bool = False


def probe(root: str, source: str, options: dict[str, str] | None = None) -> Probe:
    """Write a small Delta table beside the others, let writers race for the same version, and take it away again.

    Each of the racing commits holds the same app transaction, so that exactly one may win. The folder lies beside the
    source's tables under a name that no table can have.
    """
    home = layout.dead_letters_path(root, source).rpartition("/")[0]
    made = _topmost_missing(home)
    path = f"{home}/~probe/{uuid.uuid4().hex}"
    try:
        write_deltalake(path, pa.table({"n": [0]}), storage_options=options)
        return Probe(doubled=any(_race(path, options, n) > 1 for n in range(1, _ROUNDS + 1)))
    except Exception as error:
        return Probe(error=store_answer(path, error))
    finally:
        _remove(path, options, made)


def unsafe_switch(options: Mapping[str, str] | None, environ: Mapping[str, str]) -> str:
    """The storage option or environment variable by which commits may overwrite each other; empty when none is on."""
    every = {**environ, **(options or {})}
    return next((k for k, v in every.items() if k.lower() in _SWITCHES and v.strip().lower() in _YES), "")


def _race(path: str, options: dict[str, str] | None, number: int) -> int:
    """How many of several writers that saw the same version were told that their commit was taken."""
    handles = [DeltaTable(path, storage_options=options) for _ in range(_WRITERS)]
    start = threading.Barrier(_WRITERS)
    won: list[int] = []
    failures: list[Exception] = []

    def write(handle: DeltaTable) -> None:
        start.wait()
        try:
            write_deltalake(
                handle,
                pa.table({"n": [number]}),
                mode="append",
                storage_options=options,
                commit_properties=CommitProperties(app_transactions=[Transaction("probe", number)]),
            )
            won.append(number)
        except CommitFailedError:
            pass  # as it should be, for all but one
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(handle,), daemon=True) for handle in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures and not won:
        raise failures[0]
    return len(won)


def _topmost_missing(home: str) -> Path | None:
    """The topmost folder that writing to a local `home` would make; None when there is nothing to take away."""
    if "://" in home:
        return None
    folder, made = Path(home), None
    while not folder.exists() and folder != folder.parent:
        folder, made = folder.parent, folder
    return made


def _remove(path: str, options: dict[str, str] | None, made: Path | None) -> None:
    """Take the probe away; what cannot be removed now is harmless, for no reader looks there."""
    try:
        if "://" not in path:
            shutil.rmtree(path, ignore_errors=True)
            for folder in Path(path).parents:
                if folder.name != "~probe" and (made is None or not folder.is_relative_to(made)):
                    return
                folder.rmdir()
            return
        layout.remove_all(path, options)
    except Exception:  # noqa: S110 - the finding is about writing; cleaning up has no say in it
        pass
