"""The process that runs the SQL of the dashboard: a JSON line in, an empty one when the lake is open, the answer.

It holds a session that was closed (see `query.guard`) for as long as the lake stays the same. Who started it ends it
when it takes too long or too much memory: no setting of DuckDB bounds all that a query can do.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from cdc_lake.config import Config
from cdc_lake.errors import CdcLakeError, first_line
from cdc_lake.query.guard import Limits, check_select, close_doors, limit_error
from cdc_lake.query.run import SqlError, run_sql
from cdc_lake.query.session import Session, open_session
from cdc_lake.serve.dashboard.cells import read_cells
from cdc_lake.serve.dashboard.evaluate import Moment, with_cells

_OUT_OF_MEMORY = ("could not allocate", "failed to allocate", "failed to offload", "failed to pin", "Out of Memory")
_OUT_OF_TIME = "exceeded maximum execution time"


class Worker:
    """Answers with a session of one version of the lake, or of one moment of its past."""

    def __init__(self, config: Config, limits: Limits) -> None:
        self._config, self._limits = config, limits
        self._session: Session | None = None
        self._of: tuple[object, object] | None = None

    def answer(self, asked: dict[str, Any], opened: Callable[[], None]) -> str:
        """The document of one question; `opened` is called when its own time begins."""
        try:
            session = self._opened(asked["version"], asked["at"])
            opened()
            begun = time.monotonic()
            check_select(session, asked["sql"])
            result = run_sql(session, asked["sql"])
            if result is None:
                raise SqlError("The query has no result.", why="It is no SELECT.", code="sql_refused")
            cells = read_cells(result, self._limits.rows)
        except CdcLakeError as error:
            return json.dumps(self._in_words(error).as_dict())
        except Exception as error:  # a process that ends would take the session with it
            return json.dumps(CdcLakeError(first_line(error), code="sql").as_dict())
        head = {
            "version": 1,
            **Moment.of(session, asked["at"]).as_dict(),
            "seconds": round(time.monotonic() - begun, 3),
        }
        return with_cells(head, cells)

    def _in_words(self, error: CdcLakeError) -> CdcLakeError:
        """An error that says that a limit was met, where DuckDB says what it could not do."""
        told = f"{error.message} {error.why}"
        if any(sign in told for sign in _OUT_OF_MEMORY):
            return limit_error(f"It needed more than {self._limits.memory_mb} MB of memory.")
        return limit_error(f"It ran for more than {self._limits.seconds:g} s.") if _OUT_OF_TIME in told else error

    def _opened(self, version: object, at: str | None) -> Session:
        if self._session is None or self._of != (version, at):
            if self._session is not None:
                self._session.close()
                self._session = None
            session = open_session(self._config, at)
            places = [self._config.lake_uri, *(uri for uri, _ in self._config.tiers().values())]
            close_doors(session, places, self._limits)
            self._session, self._of = session, (version, at)
        return self._session


def main(lines: TextIO, out: TextIO) -> None:
    """Read what to serve, then questions, line by line."""
    setup = json.loads(lines.readline())
    config = Config.model_validate({**setup["config"], "root": Path(setup["root"])})
    worker = Worker(config, Limits(**setup["limits"]))
    for line in lines:
        _tell(out, worker.answer(json.loads(line), lambda: _tell(out, "")))


def _tell(out: TextIO, text: str) -> None:
    out.write(text + "\n")
    out.flush()


if __name__ == "__main__":
    # What a library prints must not stand between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    main(sys.stdin, answers)
