"""Errors have words for a person, names for machines, and the exit codes that are documented."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from cdc_lake import errors
from cdc_lake.cli import main as cli
from cdc_lake.errors import CdcLakeError, UnavailableError, suggest
from cdc_lake.events import TableId
from cdc_lake.project.checkpoint import Checkpoint
from cdc_lake.project.files import LogFile, LogFiles
from cdc_lake.project.snapshot import TableState, unreadable
from cdc_lake.project.tail import Tail

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, CdcLakeError)]


def test_every_error_stands_in_the_tree_at_the_top_with_its_exit_code() -> None:
    tree = (errors.__doc__ or "").splitlines()
    codes: dict[str, int] = {}
    for line in tree:
        if found := re.search(r"(\w+)\s+(\d)\s", line):
            codes[found[1]] = int(found[2])
    drawn = {name for line in tree for name in re.findall(r"[├└]── (\w+)", line)} | {"CdcLakeError"}
    assert drawn == {c.__name__ for c in CLASSES}
    for cls in CLASSES:
        if cls.__name__ in codes:
            assert cls.exit_code == codes[cls.__name__], cls


def test_every_error_has_a_name_of_its_own_for_machines() -> None:
    names = [c.default_code for c in CLASSES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", n) for n in names)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_as_json_has_the_documented_shape(cls: type[CdcLakeError]) -> None:
    error = cls("What.", why="Why.", next="do this")
    assert error.as_dict() == {
        "error": {"code": cls.default_code, "message": "What.", "why": "Why.", "next": "do this"}
    }
    assert str(error) == "What."
    assert cls("What.", code="special").code == "special"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [("ordrs", 'Did you mean "orders"?'), ("ORDERS", 'Did you mean "orders"?'), ("zzz", ""), ("", "")],
)
def test_a_suggestion_names_the_nearest_or_is_silent(wrong: str, sentence: str) -> None:
    assert suggest(wrong, ["orders", "order_lines", "stores"]) == sentence


# As delta-rs says it when the store goes away while it reads.
AWAY = """Kernel error -> Generic S3 error
          ↳ Error performing GET http://127.0.0.1:59853/lake/pos/_delta_log/00000000000000000016.json in 2.45s, after 10
             ↳ error sending request
               ↳ connection closed before message completed"""


def test_a_store_that_goes_away_in_the_middle_of_a_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def read(*_: object, **__: object) -> None:
        raise OSError(AWAY)

    (tmp_path / "cdc-lake.yaml").write_text("lake: {uri: 's3://lake/pos'}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cdc_lake.query.session.open_session", read)
    with pytest.raises(SystemExit) as stop:
        cli.main(["query", "SELECT 1"])
    words = capfd.readouterr().err
    assert stop.value.code == 1
    assert "The object store of lake does not answer." in words
    assert "GET http://127.0.0.1:59853: no answer" in words
    assert "defect" not in words


@pytest.mark.parametrize(
    "text",
    [
        AWAY,
        "IO Error: When reading information for key 'pos/log/part-0.parquet' in bucket 'lake': AWS Error "
        "NETWORK_CONNECTION during HeadObject operation: curlCode: 7, Couldn't connect to server",
    ],
    ids=["delta-rs", "arrow"],
)
def test_a_file_is_not_called_damaged_when_its_store_is_away(text: str) -> None:
    def table(place: str) -> TableState:
        file = LogFile(place, 1, None, None, (0, 0), None, 0)
        return TableState(TableId("public", "orders"), LogFiles(1, (file,)), None, Checkpoint(), Tail())

    with pytest.raises(UnavailableError, match="The object store of lake does not answer"):
        unreadable(table("s3://lake/pos/log/part-0.parquet"), OSError(text))
    assert unreadable(table("/lake/pos/log/part-0.parquet"), OSError(text)).code == "file_unreadable"
