"""`status` tells what has landed, how far behind Kafka it is, and what readers see."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.projects import make_project


def test_status_counts_landed_rows_and_the_records_that_wait_in_kafka(
    stack: Any, database: Any, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    database.execute(
        "create table stores (id int primary key, name text)", "insert into stores values (1, 'Oslo'), (2, 'Bergen')"
    )
    with make_project(tmp_path / "shop", database.dsn, stack.bootstrap, stack.connect_url) as project:

        def document() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(project.ok("--json", "status"))
            return found

        assert document()["tables"] == []
        project.register()
        project.ok("sink", "run", "--until-caught-up")

        def landed() -> dict[str, Any]:
            (found,) = (row for row in document()["tables"] if row["table"] == "public.stores")
            return dict(found)

        caught_up = {"table": "public.stores", "rows_landed": 2, "rows_unfolded": 2, "dead_letters": 0}
        assert landed().items() >= (caught_up | {"lag_records": 0, "lag_seconds": 0, "source": project.name}).items()
        assert [source["name"] for source in document()["sources"]] == [project.name]

        database.execute("insert into stores values (3, 'Bodø')")
        eventually(lambda: landed()["lag_records"] == 1, "the new record to be seen in Kafka")
        waiting = landed()
        assert waiting["rows_landed"] == 2
        assert waiting["lag_seconds"] > 0

        project.ok("sink", "run", "--until-caught-up")
        now = document()
        assert {r["table"]: r["lag_records"] for r in now["tables"]}["public.stores"] == 0
        assert now["cut"]["tx_id"] is not None
        assert "public.stores" in project.ok("status")

        (project.folder / "connectors" / f"{project.name}.json").unlink()
        unknown = project.run("status")
        assert unknown.returncode == 0
        assert "The lag is not known" in unknown.stderr
        assert {row["lag_records"] for row in document()["tables"]} == {None}
