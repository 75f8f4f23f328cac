"""A sink refuses a store in which one commit can overwrite another, unless the user insists."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_lake.cli.sink_runner import require_safe_store
from cdc_lake.config import Config
from cdc_lake.errors import LakeError


def config(folder: Path, **lake: object) -> Config:
    return Config.model_validate({"root": folder, "lake": {"uri": str(folder / "lake"), **lake}})


def test_a_local_folder_is_fit_and_nothing_stays_behind(tmp_path: Path) -> None:
    require_safe_store(config(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_store_whose_commits_may_overwrite_each_other_is_refused_with_the_way_out(tmp_path: Path) -> None:
    unsafe = {"options": {"allow_unsafe_rename": "true"}}
    with pytest.raises(LakeError) as refused:
        require_safe_store(config(tmp_path, **unsafe))
    assert refused.value.code == "store_overwrites"
    assert "allow_unsafe_rename" in (refused.value.next or "")
    assert "single_writer" in (refused.value.next or "")
    require_safe_store(config(tmp_path, single_writer=True, **unsafe))
