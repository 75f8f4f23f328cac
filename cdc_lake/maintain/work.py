"""Do what is due for one Delta table. Each step is one commit or none: killed anywhere, the next run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, PostCommitHookProperties
from deltalake.exceptions import CommitFailedError, DeltaError

from cdc_lake.crashpoints import reach
from cdc_lake.errors import LakeError, first_line, is_disk_full
from cdc_lake.land.layout import open_delta
from cdc_lake.land.store import log_writer
from cdc_lake.maintain.look import removed_before, whole_since
from cdc_lake.maintain.plan import CHECKPOINT, CLEANUP, COMPACT, REMEMBER, VACUUM, Step

# A commit that loses a race is tried again from what is there then.
_ATTEMPTS = 5
# One file is written at a time: memory does not grow with the number of files.
_TASKS = 1


def do(path: str, options: Mapping[str, str] | None, step: Step, keep: timedelta) -> None:
    """Do one step of a plan. Compaction needs `lock.sole_rewriter`, and so does taking away old commits of a folder:
    who merges files looks at them when it is done. Everything else may run beside anything.

    Raises LakeError.
    """
    actions: dict[str, Callable[[DeltaTable], object]] = {
        REMEMBER: lambda table: table.alter.set_table_properties(dict(step.properties)),
        COMPACT: lambda table: _compact(table, step),
        CHECKPOINT: lambda table: table.create_checkpoint(),
        CLEANUP: lambda table: table.cleanup_metadata(),
        VACUUM: lambda table: _vacuum(table, keep, whole_since(path, options, table, keep)),
    }
    for attempt in range(1, _ATTEMPTS + 1):
        table = open_delta(path, options)
        if table is None:
            return
        try:
            actions[step.action](table)
        except CommitFailedError as error:
            if attempt == _ATTEMPTS:
                raise _explained(path, step, error) from error
        except (DeltaError, OSError, ValueError) as error:
            raise _explained(path, step, error) from error
        else:
            return


def _compact(table: DeltaTable, step: Step) -> None:
    """Merge files below the step's level in one commit that says that no row changed. Rows keep their order within a
    file, so that its bounds in time are narrow; a Bloom filter tells which keys it may hold.

    Appends may be committed meanwhile: neither makes the other fail.
    """
    actions = pa.table(table.get_add_actions(flatten=True))
    rows, size = (pc.sum(actions[name]).as_py() or 0 for name in ("num_records", "size_bytes"))
    reach("maintain:before-compact")
    table.optimize.compact(
        target_size=step.level,
        max_concurrent_tasks=_TASKS,
        writer_properties=log_writer(rows * min(step.level, step.bytes) // max(size, 1)),
        # Checkpoints are a step of their own.
        post_commithook_properties=PostCommitHookProperties(create_checkpoint=False),
    )
    reach("maintain:after-compact")


def _vacuum(table: DeltaTable, keep: timedelta, oldest: int) -> None:
    reach("maintain:before-vacuum")
    removed_before(table, keep, dry_run=False, oldest=oldest)
    reach("maintain:after-vacuum")


def _explained(path: str, step: Step, error: Exception) -> LakeError:
    full = is_disk_full(error)
    return LakeError(
        f"{step.action} of {path} failed.",
        why=first_line(error),
        next="free space on the disk, then: cdc-lake maintain" if full else "cdc-lake maintain once more",
        code="disk_full" if full else "maintain_failed",
    )
