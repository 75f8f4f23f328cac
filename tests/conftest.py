"""What all tests share: in CI generated examples are the same at every run; elsewhere they are new ones each time."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from cdc_lake.cli import output

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# In the background of a script a run inherits that Ctrl-C is ignored, and would hand that on to what it tests.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_options_of_another_test() -> None:
    """The command line keeps its global options for the process: a test after one of `--quiet` would be quiet too."""
    output.configure(config=None, as_json=False, verbosity=0)
