"""Wire the checks of the schema registry, and of the converters that need one."""

from __future__ import annotations

from cdc_lake.checks import failed
from cdc_lake.cli.doctor_area import Area
from cdc_lake.connector_file import load_connector
from cdc_lake.errors import CdcLakeError
from cdc_lake.registry.check import check_converters, check_nulls, check_registry, read_registry
from cdc_lake.registry.client import open_client


def check_schemas(area: Area) -> None:
    """The converters of each source; the registry where one is configured."""
    config, prefixes = area.config, list[str]()
    for source in config.databases:
        findings = area.begin(f"the converters of {source.name}", source.name)
        file = config.connector_file(source)
        try:
            connector = load_connector(file)
        except CdcLakeError as error:
            findings.skip(["registry.converter"], f"connector.file: {error.message}")
            continue
        prefixes.append(connector.topic_prefix)
        findings.add(check_converters(connector.config, file.name, configured=config.registry is not None))
        findings.add(check_nulls(connector.config, file.name))
    if config.registry is None:
        return
    findings = area.begin("the schema registry")
    try:
        client = open_client(config)
    except CdcLakeError as error:
        findings.add(failed("registry.answers", error))
        return
    if client is None:
        return
    with client:
        try:
            findings.add(check_registry(config.registry, read_registry(client, prefixes)))
        except CdcLakeError as error:
            findings.add(check_registry(config.registry, error))
