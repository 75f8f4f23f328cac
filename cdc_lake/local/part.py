"""What PostgreSQL, Kafka and Connect have in common: set up once, started, asked whether ready, stopped."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import psutil

from cdc_lake.local import ports, process
from cdc_lake.local.state import State


class Part(ABC):
    """One component. Its methods run in the order prepare, command, ready, entry; none of them waits."""

    name: ClassVar[str]
    title: ClassVar[str]
    port_names: ClassVar[tuple[str, ...]]
    """Ports it listens on; the first is the one that others use."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    start_seconds: ClassVar[float] = 120
    stop_seconds: ClassVar[float] = 20

    def __init__(self, state: State) -> None:
        self.state = state
        self.ports: Mapping[str, int] = {}

    @property
    def folder(self) -> Path:
        """Its data and generated settings."""
        return self.state.folder / self.name

    @property
    def port(self) -> int:
        """The port that others use."""
        return self.ports[self.port_names[0]]

    @property
    @abstractmethod
    def mark(self) -> str:
        """An argument of its process that no other program has."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what a first start needs and write the settings; nothing when it is there. Raises CdcLakeError."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The program and its arguments."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it does its work now, asked over the network."""

    def listens(self) -> bool:
        """Whether its process accepts connections, well or not."""
        return ports.accepts(self.port)

    @abstractmethod
    def entry(self) -> dict[str, Any]:
        """Its addresses for `stack.json`."""

    @property
    def account(self) -> process.Account | None:
        """The system account that it runs as; None is the caller's."""
        return None

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its process."""
        return process.environment()

    def processes(self) -> list[psutil.Process]:
        """Its living processes, whoever started them."""
        return process.find(self.mark)

    def wipe(self) -> list[Path]:
        """Folders that `down --wipe` deletes."""
        return [self.folder]
