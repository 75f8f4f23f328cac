"""Deliberate bugs: a function of the product is made anew from its own source text, with one thing wrong in it."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Bug:
    """`old` becomes `new` in the text of `target`; a text that is not there any more is an error, not a bug."""

    name: str
    target: Callable[..., Any]
    changes: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return self.name.replace(" ", "_")

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the wrong function in place of the right one, wherever the product holds it."""
        text = textwrap.dedent(inspect.getsource(self.target))
        for old, new in self.changes:
            assert text.count(old) == 1, f"{self.name}: {old!r} is not in {self.target.__qualname__}"
            text = text.replace(old, new)
        module = sys.modules[self.target.__module__]
        scope: dict[str, Any] = {}
        exec(compile("from __future__ import annotations\n" + text, f"<{self.name}>", "exec"), module.__dict__, scope)  # noqa: S102
        wrong, name = scope[self.target.__name__], self.target.__name__
        owner, _, _ = self.target.__qualname__.rpartition(".")
        if owner:
            monkeypatch.setattr(getattr(module, owner), name, wrong)
            return
        for loaded in [m for n, m in sys.modules.items() if n.startswith("cdc_lake")]:
            if getattr(loaded, name, None) is self.target:
                monkeypatch.setattr(loaded, name, wrong)
