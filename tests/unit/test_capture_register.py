"""What a registration that does not come to its end leaves to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cdc_lake.capture import register, submit
from cdc_lake.errors import ConnectorError
from cdc_lake.events import TableId


@pytest.mark.parametrize("fails", [ConnectorError("The task failed."), KeyboardInterrupt()])
def test_a_registration_that_fails_names_the_tables_whose_rows_nobody_will_ask_for(
    monkeypatch: pytest.MonkeyPatch, fails: BaseException
) -> None:
    def never_reads(*_: object, **__: object) -> None:
        raise fails

    monkeypatch.setattr(register, "await_reading", never_reads)
    told: list[str] = []
    wanted = SimpleNamespace(name="pos", config={}, survey=SimpleNamespace(slot=object(), tables=()))
    new = (TableId("public", "branches"), TableId("public", "con"))
    session = register._Session(cast(Any, None), cast(Any, None), cast(Any, wanted), told.append, new)
    with pytest.raises(type(fails)):
        register._submit(session, submit.differ({}, {}), is_known=False, wait=1)
    assert told == [
        "New in the capture, existing rows are not read yet: public.branches, public.con.",
        "When the connector runs: cdc-lake connector snapshot pos public.branches public.con",
    ]
