"""What the checks of one thread of `doctor` share: the configuration, and the findings so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cdc_lake.checks import Findings
from cdc_lake.config import Config

Say = Callable[[str], None]


@dataclass(slots=True)
class Area:
    """Checks that follow each other. `doing` is what they are at, `down` the embedded parts that do not run."""

    title: str
    config: Config
    down: frozenset[str]
    say: Say
    doing: str = ""
    findings: list[Findings] = field(default_factory=list)
    error: Exception | None = None

    def begin(self, doing: str, source: str = "") -> Findings:
        """Say what comes next; its findings."""
        self.doing = doing
        self.say(f"checking {doing}")
        self.findings.append(Findings(source))
        return self.findings[-1]
