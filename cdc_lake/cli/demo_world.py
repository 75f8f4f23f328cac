"""The retailer's world of the demo: rules, services and the dashboard, each a process beside the sink.

The services are those of examples/retail, which come with the repository and not with the package: where they are not
there, or an extra is not installed, the demo does without and says so.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from cdc_lake.cli.demo_stage import Stage
from cdc_lake.config import Config
from cdc_lake.extras import is_there
from cdc_lake.init.files import rules_of
from cdc_lake.local import ports

RULE, MODEL = "sold_out", "shelf_changes"
TOPICS = ("retail.scans", "retail.reorders")
_REPOSITORY = Path(__file__).parents[2]
_EXAMPLES = Path("examples", "retail")
_SERVICES = ("tills", "reordering")
_PORT = 8765


@dataclass(frozen=True, slots=True)
class World:
    """What of it can run here; `left_out` says why the rest cannot."""

    services: bool
    dashboard: bool
    left_out: tuple[str, ...] = ()

    @classmethod
    def here(cls, repository: Path = _REPOSITORY, there: Callable[[str], bool] = is_there) -> World:
        """What this installation has."""
        missing: list[str] = []
        if not (repository / _EXAMPLES / "services" / "reordering.py").is_file():
            missing.append("The services that reorder are left out: they come with the repository, not the package.")
        elif not there("cloudevents"):
            missing.append("The services that reorder are left out: pip install 'cdc-lake[service]'")
        services = not missing
        dashboard = there("fastapi") and there("uvicorn")
        if not dashboard:
            missing.append("The dashboard is left out: pip install 'cdc-lake[serve]'")
        return cls(services, dashboard, tuple(missing))

    def files(self) -> dict[str, str]:
        """The files of the project that it needs."""
        if not self.services:
            return rules_of("retail")
        model = (_REPOSITORY / _EXAMPLES / "streams" / f"{MODEL}.sql").read_text(encoding="utf-8")
        return {**rules_of("retail"), f"streams/{MODEL}.sql": model}

    @property
    def words(self) -> str:
        """What runs, in words."""
        parts = ["rules", *(["services"] if self.services else []), *(["dashboard"] if self.dashboard else [])]
        return ", ".join(parts)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics of its events."""
        return TOPICS if self.services else ()

    def make_topics(self, bootstrap: str) -> None:
        """Make the topics, so that the sink finds them at its start. Raises UnavailableError."""
        from cdc_lake.consume.send import make_topic

        for topic in self.topics:
            make_topic(bootstrap, topic, {})

    def open(self, stage: Stage, config: Config) -> Dashboard | None:
        """Start all of it; where the dashboard will answer."""
        stage.start("rules", "rules", "run")
        if self.services:
            stage.start("streams", "stream", "run")
            for name in _SERVICES:
                stage.start_service(name, f"examples.retail.services.{name}", _REPOSITORY, "--partitions=1")
        if not self.dashboard:
            return None
        made = Dashboard.at(config, ports.choose(_PORT, ()))
        # It prints its address with the token, which no log is to hold.
        stage.start("dashboard", "serve", f"--address={made.address}", stdout=subprocess.DEVNULL)
        return made

    def ready(self, config: Config) -> bool:
        """Whether the rule has begun: what happens from now on is seen by it."""
        from cdc_lake.react.ledger import Ledger

        return Ledger(config.lake_uri, config.databases[0].name, None).place(RULE) is not None


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Where the dashboard answers, and to whom."""

    address: str
    token: str

    @classmethod
    def at(cls, config: Config, port: int) -> Dashboard:
        """The one of a project."""
        from cdc_lake.serve.dashboard.token import read_token

        return cls(f"{ports.HOST}:{port}", read_token(config.state_folder, config.serve.token))

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.address}"

    @property
    def entry(self) -> str:
        """The address to open, with the token."""
        return f"{self.url}/?token={quote(self.token)}"

    def ask(self, path: str) -> Any:
        """What it answers to a program; None while it does not."""
        try:
            answer = httpx.get(
                f"{self.url}{path}", headers={"authorization": f"Bearer {self.token}"}, timeout=10, trust_env=False
            )
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == httpx.codes.OK else None

    def shows(self, *, alert: str, order: str | None) -> bool:
        """Whether the page has an alert, and a purchase order among those on their way."""
        listed = self.ask("/api/alerts")
        if listed is None or all(found["id"] != alert for found in listed["alerts"]):
            return False
        if order is None:
            return True
        view = self.ask("/api/views/purchase_orders")
        return view is not None and any(order in row for row in view["rows"])
