"""What the stack remembers is written in one step, closed to others, and locked while it changes."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cdc_lake.errors import CdcLakeError, UnavailableError
from cdc_lake.local import ports
from cdc_lake.local.java import properties
from cdc_lake.local.stack import Stack
from cdc_lake.local.state import State, exclusive


@pytest.fixture
def kept(tmp_path: Path) -> State:
    kept = State(tmp_path / "a shop" / ".cdc-lake")
    kept.create()
    return kept


def test_parts_are_recorded_and_removed_one_by_one(kept: State) -> None:
    kept.record("kafka", {"bootstrap": "127.0.0.1:1"})
    kept.record("connect", {"url": "http://127.0.0.1:2"})
    kept.record("kafka", None)
    assert kept.parts() == {"connect": {"url": "http://127.0.0.1:2"}}
    assert json.loads(kept.stack_file.read_text()) == kept.parts()


def test_only_the_owner_can_read_what_holds_a_password(kept: State) -> None:
    kept.record("postgres", {"dsn": "postgresql://…"})
    kept.remember("postgres_password", "secret")
    for file in (kept.stack_file, kept.memory_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_the_old_file(kept: State) -> None:
    kept.remember("ports", {"kafka": 1})
    with pytest.raises(TypeError):
        kept.remember("ports", object())
    assert kept.recall("ports") == {"kafka": 1}
    assert [f.name for f in kept.folder.iterdir() if f.name.startswith(".memory")] == []


def test_a_broken_file_counts_as_empty(kept: State) -> None:
    kept.stack_file.write_text('{"kafka": ')
    assert kept.parts() == {}


def test_git_never_offers_the_state_folder(kept: State) -> None:
    assert (kept.folder / ".gitignore").read_text() == "*\n"


def test_a_folder_that_cannot_be_made_is_an_error_with_words(tmp_path: Path) -> None:
    (tmp_path / ".cdc-lake").write_text("a file")
    with pytest.raises(CdcLakeError) as caught:
        State(tmp_path / ".cdc-lake").create()
    assert caught.value.code == "state"


def test_a_second_command_waits_and_then_says_who_is_at_work(kept: State) -> None:
    lines: list[str] = []
    with (
        exclusive(kept.lock_file),
        pytest.raises(CdcLakeError) as caught,
        exclusive(kept.lock_file, lines.append, seconds=0.2),
    ):
        pass
    assert caught.value.code == "locked"
    assert len(lines) == 1


def test_a_killed_holder_does_not_keep_the_lock(kept: State) -> None:
    program = (
        "import sys, time; from pathlib import Path; from cdc_lake.local.state import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(kept.lock_file)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
        with exclusive(kept.lock_file, seconds=20):
            pass


def test_a_remembered_port_is_used_again_while_it_is_free() -> None:
    port = ports.choose(None, ())
    assert ports.choose(port, ()) == port
    assert ports.choose(port, {port}) != port


def test_a_taken_port_is_not_chosen() -> None:
    import socket

    with socket.socket() as other:
        other.bind((ports.HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        assert not ports.is_free(taken)
        assert ports.accepts(taken)
        assert ports.choose(taken, ()) != taken


def test_a_properties_file_holds_any_path() -> None:
    assert properties({"log.dir": "/a shop/Müller\\🛒", "flag": True}) == (
        "log.dir=/a shop/M\\u00fcller\\\\\\ud83d\\uded2\nflag=true\n"
    )


def test_status_of_a_project_that_never_started_is_stopped_and_makes_no_folder(tmp_path: Path) -> None:
    stack = Stack(tmp_path / ".cdc-lake")
    assert {name: part["state"] for name, part in stack.status().items()} == {
        "postgres": "stopped",
        "kafka": "stopped",
        "connect": "stopped",
    }
    stack.down()
    assert list(tmp_path.iterdir()) == []


def test_addresses_of_a_stack_that_is_down_are_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        Stack(tmp_path / ".cdc-lake").endpoints()
    assert caught.value.next == "cdc-lake up"


def test_a_misspelt_part_suggests_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(CdcLakeError) as caught:
        Stack(tmp_path / ".cdc-lake").start("kafak")
    assert "kafka" in caught.value.why
