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
