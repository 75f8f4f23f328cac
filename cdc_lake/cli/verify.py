"""`verify`: does the lake equal the source?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_lake.cli import output
from cdc_lake.errors import EXIT_DIFFERENCES, UsageError, suggest

if TYPE_CHECKING:
    from cdc_lake.config import Config
    from cdc_lake.config_source import Source
    from cdc_lake.connector_file import ConnectorFile
    from cdc_lake.query.verify import Report, Verifier
    from cdc_lake.repair.writing import Repaired


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples:  cdc-lake verify   ·   cdc-lake verify public.orders   ·   cdc-lake verify --repair --dry-run"
    )(verify)


def verify(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]…", help="schema.table; all captured tables when none.")
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the lake to reach the source.")] = 60.0,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put rows that differ right, through the log, and verify again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --repair: only say what would be done.")] = False,
) -> None:
    """Compare every row of the lake with the source, at a position both have reached.

    Ends with 0 when all is equal and 3 when rows differ; then it shows examples. With --repair it ends with 0 when all
    is equal afterwards; the connector and the sink must run.
    """
    if dry_run and not repair:
        raise UsageError("--dry-run goes with --repair.", next="cdc-lake verify --repair --dry-run")
    config = output.settings()
    wanted = list(tables or [])
    repaired: list[Repaired] = []
    reports = []
    for source in config.databases:
        if repair:
            found, done = _repair_source(config, source, wanted, wait, dry_run=dry_run)
            repaired += done
            if dry_run:
                reports.append(found)
                continue
        reports.append(_verify_source(config, source, wanted, wait))
    _check_names(wanted, [str(t.table) for r in reports for t in r.tables])
    if output.as_json():
        document = _document(reports)
        output.emit(document | {"repair": [r.as_dict() for r in repaired]} if repair else document)
    else:
        _show(reports)
        _show_repairs(repaired)
    if not all(r.ok for r in reports):
        raise typer.Exit(EXIT_DIFFERENCES)


def _check_names(wanted: list[str], known: list[str]) -> None:
    for name in wanted:
        if _qualified(name) not in known:
            raise UsageError(
                f"There is no captured table {name}.",
                why=suggest(_qualified(name), known) or "The connector's lists do not name it.",
                next="cdc-lake tables",
                code="no_such_table",
            )


def _verify_source(config: Config, source: Source, wanted: list[str], wait: float) -> Report:
    verifier, entries, _ = _prepared(config, source, wanted)
    return verifier.verify(entries, wait_seconds=wait)


def _repair_source(
    config: Config, source: Source, wanted: list[str], wait: float, *, dry_run: bool
) -> tuple[Report, list[Repaired]]:
    """What was found, and what became of each table that differed."""
    from cdc_lake.capture.connect import ConnectClient
    from cdc_lake.capture.running import must_run
    from cdc_lake.repair.writing import Repairer

    verifier, entries, connector = _prepared(config, source, wanted)
    named = [e for e in entries if not wanted or f"{e['schema']}.{e['table']}" in {_qualified(n) for n in wanted}]
    with ConnectClient(config.connect_url) as client:
        must_run(client, connector.name, "no row can be repaired at a position that the lake will never reach")
    repairer = Repairer(connector.decode_settings, dry_run=dry_run)
    return verifier.repair(named, repairer.mend, wait_seconds=wait), repairer.done


def _prepared(
    config: Config, source: Source, wanted: list[str]
) -> tuple[Verifier, list[dict[str, Any]], ConnectorFile]:
    from cdc_lake.capture.catalogue import read_catalogue
    from cdc_lake.capture.postgres import open_source
    from cdc_lake.capture.preflight import captured_tables
    from cdc_lake.connector_file import load_connector
    from cdc_lake.query.session import open_lake
    from cdc_lake.query.verify import Verifier

    connector = load_connector(config.connector_file(source))
    dsn = config.dsn(source)
    with open_source(dsn) as connection:
        captured = captured_tables(connection, connector)
    captured = [t for t in captured if config.captures(t)]
    names = {_qualified(n) for n in wanted}
    chosen = [t for t in captured if str(t) in names] if names & {str(t) for t in captured} else captured
    verifier = Verifier(
        dsn,
        open_lake(config),
        source.name,
        config.captures,
        connector.decode_settings,
        slot=connector.config.get("slot.name", "debezium"),
        progress=output.say,
    )
    return verifier, read_catalogue(dsn, chosen), connector


def _qualified(name: str) -> str:
    return name if "." in name else f"public.{name}"


def _document(reports: list[Report]) -> dict[str, Any]:
    positions = [r.position for r in reports]
    return {
        "tables": [t.as_dict() for r in reports for t in r.tables],
        "position": positions[0] if len(positions) == 1 else positions,
        "ok": all(r.ok for r in reports),
    }


def _show(reports: list[Report]) -> None:
    columns = ["table", "rows_source", "rows_lake", "missing", "extra", "different", "cause"]
    rows = [t.as_dict() for r in reports for t in r.tables]
    output.table(columns, [[row[c] for c in columns] for row in rows])
    for table in rows:
        for example in table["examples"]:
            where = ", ".join(f"{k}={v}" for k, v in example["key"].items()) or "a row without a key"
            output.say(f"{table['table']} {where}: {example['kind']}")
            for name, sides in example["columns"].items():
                output.say(f"    {name}: source {sides['source']!r}, lake {sides['lake']!r}")
    for table in rows:
        if table["erased"]:
            output.say(f"{table['table']}: {table['erased']:,} rows of the source were erased from the lake.")
    for report in reports:
        differing = sum(t.missing + t.extra + t.different for t in report.tables)
        verdict = "0 differences" if report.ok else f"{differing:,} differences"
        output.say(f"{report.source} at LSN {report.lsn}: {len(report.tables)} tables, {verdict}.")
        if not report.ok and not report.reached:
            output.say("The lake has not reached the source's position. Next: cdc-lake sink run")
        elif not report.ok:
            worst = next((t.table for t in report.tables if t.missing + t.extra + t.different), "TABLE")
            output.say(
                f"Next: cdc-lake rebuild {worst}  (makes it anew from the log); for what differs still: "
                "cdc-lake verify --repair"
            )


def _show_repairs(repaired: list[Repaired]) -> None:
    for one in repaired:
        done = f"{one.rows:,} rows" if one.reason is None else one.reason
        output.say(f"{one.table}: {one.outcome}, {done}")
