"""Wire the checks of Connect, and of each source with its connector: ask, judge, skip what depends on what failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdc_lake.capture.catalogue import read_catalogue
from cdc_lake.capture.checks import connector as connector_checks
from cdc_lake.capture.checks import publication, role, server, slot, storage, tables
from cdc_lake.capture.checks.administrator import check_administrator, read_administrator
from cdc_lake.capture.checks.settings import check_settings
from cdc_lake.capture.checks.subject import Subject
from cdc_lake.capture.connect import ConnectClient, ConnectorStatus
from cdc_lake.capture.health import Health, health
from cdc_lake.capture.postgres import Connection, address, open_source
from cdc_lake.capture.secrets import capture_role
from cdc_lake.capture.submit import differ
from cdc_lake.capture.wanted import work_out
from cdc_lake.checks import Findings, failed, many, ok
from cdc_lake.cli.doctor_area import Area
from cdc_lake.config import Config
from cdc_lake.config_source import Source
from cdc_lake.connector_file import ConnectorFile, load_connector
from cdc_lake.errors import CdcLakeError
from cdc_lake.events import TableId
from cdc_lake.project.check_columns import check_columns

# A worker that does not answer is asked four times.
_ASK_SECONDS = 5.0
_ANSWERS = ("connect", "connector")
_IN_SOURCE = ("slot", "publication", "tables", "columns", "role")
_OF_FILE = ("settings", "connector", "slot", "publication", "tables", "columns", "role")


@dataclass(frozen=True, slots=True)
class Worker:
    """What Connect answered: its plugins, and every connector with its config."""

    client: ConnectClient
    plugins: Sequence[dict[str, Any]]
    connectors: Sequence[tuple[ConnectorStatus, dict[str, str]]]

    def config(self, name: str) -> dict[str, str] | None:
        """The config of a connector; None when there is none of that name."""
        return next((config for status, config in self.connectors if status.name == name), None)


@dataclass(frozen=True, slots=True)
class Case:
    """One source being checked. `worker` None: Connect does not answer."""

    config: Config
    source: Source
    subject: Subject
    worker: Worker | None
    findings: Findings

    @property
    def running(self) -> dict[str, str] | None:
        """The connector's config as Connect has it."""
        return self.worker.config(self.subject.connector.name) if self.worker else None

    @property
    def registered(self) -> bool:
        """Whether what `register` makes should be there; without an answer of Connect it should."""
        return self.worker is None or self.running is not None


def check_capture(area: Area) -> None:
    """Connect first, then each source with its connector."""
    findings = area.begin("Kafka Connect")
    if "connect" in area.down:
        findings.skip(_ANSWERS, "stack.connect")
        return _sources(area, None)
    try:
        with ConnectClient(area.config.connect_url, timeout=_ASK_SECONDS) as client:
            worker = Worker(client, client.plugins(), client.connectors())
            findings.add(ok("connect.reachable", f"answers; it runs {many(len(worker.connectors), 'connector')}"))
            _sources(area, worker)
    except CdcLakeError as error:
        findings.add(failed("connect.reachable", error))
        findings.skip(_ANSWERS[1:], "connect.reachable")
        _sources(area, None)


def _sources(area: Area, worker: Worker | None) -> None:
    for source in area.config.connected:
        findings = area.begin(f"source {source.name}", source.name)
        file = area.config.connector_file(source)
        try:
            subject = Subject(load_connector(file), _shown(file))
        except CdcLakeError as error:
            findings.add(failed("connector.file", error))
            findings.skip(_OF_FILE, "connector.file")
            continue
        findings.add(ok("connector.file", subject.file))
        if source.captured:  # one that routes events out of a table need not keep the table
            findings.add(check_settings(subject))
        case = Case(area.config, source, subject, worker, findings)
        if "postgres" in area.down and not source.dsn:
            findings.skip(("source", *_IN_SOURCE), "stack.postgres")
            _connector(case, None)
            continue
        _source(case)


def _source(case: Case) -> None:
    findings = case.findings
    try:
        dsn = case.config.dsn(case.source)
        connection = open_source(dsn)
    except CdcLakeError as error:
        findings.add(failed("source.reachable", error))
        findings.skip(_IN_SOURCE, "source.reachable")
        return _connector(case, None)
    with connection:
        findings.add(ok("source.reachable", address(dsn)))
        facts = slot.read_slot(connection, case.subject.slot)
        found = server.read_server(connection)
        findings.add(server.check_server(found, slot_exists=facts is not None))
        _slot(case, connection, facts)
        _tables(case, connection)
        _connector(case, connection)


def _slot(case: Case, connection: Connection, facts: slot.SlotFacts | None) -> None:
    findings, subject = case.findings, case.subject
    if case.worker is not None:
        findings.add(slot.check_sharing(subject, [(s.name, c) for s, c in case.worker.connectors]))
    if facts is None:
        if case.registered:
            findings.add(slot.missing_slot(subject))
        else:
            findings.skip(["slot"], "connector.registered")
        return
    findings.add(ok("slot.exists", f'"{subject.slot}"'))
    findings.add(slot.check_slot(subject, facts, database=connection.info.dbname, user=_user(case)))
    if case.worker is not None and case.running is not None:
        findings.add(slot.check_offset(subject, facts, case.worker.client.offsets(subject.connector.name)))


def _tables(case: Case, connection: Connection) -> None:
    findings, subject = case.findings, case.subject
    try:
        facts = tables.read_table_facts(connection, subject)
    except CdcLakeError as error:
        findings.add(failed("tables.captured", error))
        findings.skip(("publication", "columns", "role"), "tables.captured")
        return
    findings.add(tables.check_tables(subject, facts))
    findings.add(storage.check_storage(facts, storage.read_toast(connection, [t.oid for t in facts.leaves])))
    if case.registered:
        findings.add(tables.check_own(subject, facts))
    else:
        findings.skip(["tables.own"], "connector.registered")
        administrator = read_administrator(connection, [t.id for t in facts.tables])
        findings.add(check_administrator(administrator))
    captured = [t.id for t in facts.tables]
    findings.add(check_columns(read_catalogue(case.config.dsn(case.source), captured), facts.full))
    published = publication.read_publication(connection, subject.publication)
    if published is not None:
        findings.add(publication.check_publication(subject, published, facts.captured))
    elif case.registered:
        findings.add(publication.missing_publication(subject))
    else:
        findings.skip(["publication"], "connector.registered")
    _role(case, connection, captured, facts.own)


def _role(case: Case, connection: Connection, captured: Sequence[TableId], own: Sequence[TableId]) -> None:
    findings, name = case.findings, _user(case)
    if not name:
        findings.skip(["role"], "a user that only the Connect worker knows")
        return
    found = role.read_role(connection, name, captured, own)
    if found is not None:
        findings.add(role.check_role(case.subject, found))
    elif case.registered:
        findings.add(role.missing_role(case.subject, name))
    else:
        findings.skip(["role"], "connector.registered")


def _connector(case: Case, connection: Connection | None) -> None:
    """The connector itself; without a connection to the source only as Connect sees it."""
    findings, subject, worker = case.findings, case.subject, case.worker
    if worker is None:
        return
    findings.add(connector_checks.check_plugin(subject, worker.plugins))
    running = case.running
    if running is None:
        findings.add(connector_checks.not_registered(subject))
        findings.skip(("connector.state", "connector.reads", "connector.differs"), "connector.registered")
        return
    name = subject.connector.name
    findings.add(ok("connector.registered", name))
    if connection is None:
        findings.add(connector_checks.check_state(Health(worker.client.status(name), None, None))[:1])
        findings.skip(("connector.reads", "connector.differs"), "source.reachable")
        return
    dsn = case.config.dsn(case.source)
    findings.add(connector_checks.check_state(health(worker.client, ConnectorFile(name, running), dsn)))
    try:
        wanted = work_out(case.config, case.source, subject.connector, connection, make_secret=False)
    except CdcLakeError as error:
        findings.skip(["connector.differs"], error.message)
        return
    findings.add(connector_checks.check_difference(subject, running, differ(wanted.config, running)))


def _user(case: Case) -> str:
    """The role that the connector logs in with; empty when only the Connect worker knows."""
    user = case.subject.connector.config.get("database.user", "")
    if user == "${capture:user}":
        return capture_role(case.config.state_folder, case.source.name).name
    return "" if "${" in user else user


def _shown(file: Path) -> str:
    """The file as a person in this folder names it."""
    try:
        return str(file.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(file)
