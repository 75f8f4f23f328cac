"""What all tests share: in CI generated examples are the same at every run; elsewhere they are new ones each time."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# In the background of a script a run inherits that Ctrl-C is ignored, and would hand that on to what it tests.
signal.signal(signal.SIGINT, signal.default_int_handler)
