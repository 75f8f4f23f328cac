"""What a connector file asks for, worked out against the source as it is: statements to run, the config to submit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cdc_lake.capture import prepare, submit
from cdc_lake.capture.column_case import check_column_case
from cdc_lake.capture.postgres import Connection
from cdc_lake.capture.preflight import Survey, survey
from cdc_lake.capture.secrets import CaptureRole, capture_role, make_password, password_works
from cdc_lake.config import Config
from cdc_lake.config_source import Source
from cdc_lake.connector_file import ConnectorFile, load_connector, refuse_literal_secrets
from cdc_lake.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Wanted:
    """The connector, its source as surveyed, the statements that are missing there, and the config to submit."""

    connector: ConnectorFile
    survey: Survey
    plan: prepare.Plan
    config: dict[str, str]
    role_exists: bool

    @property
    def name(self) -> str:
        """The connector's name."""
        return self.connector.name


def load_for_connect(config: Config, file: Path) -> tuple[ConnectorFile, Source]:
    """A connector file that may be submitted, and the source it belongs to. Raises ConfigError."""
    connector = load_connector(file)
    refuse_literal_secrets(file, connector)
    return connector, pick_source(config, connector, file)


def pick_source(config: Config, connector: ConnectorFile, file: Path | None = None) -> Source:
    """The source of a connector: the one that names its file, or one of its name, else by topic prefix, else the only
    one.

    Raises ConfigError when several sources are configured and none fits.
    """
    sources = config.all_sources
    if file is not None:
        for source in sources:
            if config.connector_file(source).resolve() == file.resolve():
                return source
    for name in (connector.topic_prefix, connector.name):
        for source in sources:
            if source.name == name:
                return source
    for source in config.connected:
        if _named_in(config.connector_file(source)) == connector.name:
            return source
    if len(sources) == 1:
        return sources[0]
    raise ConfigError(
        f"No source of the configuration belongs to connector {connector.name}.",
        why=f"None of {', '.join(s.name for s in sources)} names its file or has its topic prefix "
        f'"{connector.topic_prefix}".',
        next=f"add `connector: {file or 'FILE'}` to a source in cdc-lake.yaml",
    )


def _named_in(file: Path) -> str | None:
    """The name of the connector in a file, if there is one."""
    try:
        return load_connector(file).name
    except ConfigError:
        return None


def work_out(
    config: Config, source: Source, connector: ConnectorFile, connection: Connection, *, make_secret: bool
) -> Wanted:
    """Survey the source and work out what is missing; only the secrets file is written, and only with `make_secret`.

    Raises SourceError when the source is not fit, ConfigError when the file asks for something impossible.
    """
    found = survey(connection, connector)
    # Which columns are left out, Debezium alone knows: it says so itself then.
    if not any(connector.config.get(f"column.{kind}.list") for kind in ("exclude", "include")):
        check_column_case(connection, found.tables)
    role = capture_role(config.state_folder, source.name)
    wish = _role_wish(config.dsn(source), connector, connection, role, make_secret=make_secret)
    steps = prepare.plan(connection, connector, found, wish)
    filled = submit.fill_in(connector, _values(connection, role))
    exists = wish is None or prepare.role_exists(connection, wish.name)
    return Wanted(connector, found, steps, submit.name_tables(filled, connector, found), exists)


def _role_wish(
    dsn: str, connector: ConnectorFile, connection: Connection, role: CaptureRole, *, make_secret: bool
) -> prepare.RoleWish | None:
    user = connector.config.get("database.user", "")
    name = role.name if user == "${capture:user}" else user
    if not name or "${" in name:
        return None  # only the Connect worker knows who that is
    if "${capture:password}" not in connector.config.get("database.password", ""):
        return prepare.RoleWish(name, managed=False, set_password=False)
    if role.password is None:
        made = make_password(role) if make_secret else role
        return prepare.RoleWish(name, managed=True, set_password=True, password=made.password)
    works = prepare.role_exists(connection, name) and password_works(dsn, name, role.password)
    return prepare.RoleWish(name, managed=True, set_password=not works, password=role.password)


def _values(connection: Connection, role: CaptureRole) -> dict[str, str]:
    info = connection.info
    if info.host.startswith("/"):
        raise ConfigError(
            "The source's address (`source.dsn`) is a Unix socket, which Kafka Connect cannot use.",
            why=f"The host is {info.host}.",
            next="write host and port in `source.dsn` of cdc-lake.yaml",
        )
    return {
        "dsn:host": info.host,
        "dsn:port": str(info.port),
        "dsn:dbname": info.dbname,
        "dsn:sslmode": info.get_parameters().get("sslmode", "prefer"),
        "capture:user": role.name,
        "capture:password": role.reference,
    }
