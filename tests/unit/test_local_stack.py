"""What the stack does with its parts, without starting the real ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cdc_lake.local.stack import Stack


def test_a_child_whose_arguments_cannot_be_read_yet_is_stopped_too(tmp_path: Path) -> None:
    stack = Stack(tmp_path / ".cdc-lake")
    # Between fork and the new program's arguments a process carries no mark: like this one, for good.
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        stack._children["kafka"] = child
        try:
            stack.stop("kafka")
            assert child.poll() is not None
        finally:
            child.kill()


def test_a_part_that_found_its_disk_full_says_so_and_not_that_its_data_should_be_deleted(tmp_path: Path) -> None:
    stack = Stack(tmp_path / ".cdc-lake")
    stack.state.create()
    log = stack.state.log("kafka")
    log.write_text("java.io.IOException: No space left on device\n" + "\tat kafka.Kafka.main(Kafka.scala)\n" * 40)
    failure = stack._failure(stack.parts["kafka"], 1, 0)
    assert failure.code == "disk_full"
    assert failure.message.endswith(f"The disk that holds {stack.parts['kafka'].folder} is full.")
    assert failure.next == "free space, then: cdc-lake up"
    log.write_text("java.lang.IllegalStateException: something else\n")
    failure = stack._failure(stack.parts["kafka"], 1, 0)
    assert failure.code == "stack_failed"
    assert failure.next.startswith("cdc-lake up  (once more")
