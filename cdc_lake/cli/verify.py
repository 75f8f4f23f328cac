"""`verify`: does the lake equal the source?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_lake.cli import output
from cdc_lake.errors import EXIT_DIFFERENCES, UsageError, suggest

if TYPE_CHECKING:
    from cdc_lake.config import Config, Source
    from cdc_lake.query.verify import Report


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Examples:  cdc-lake verify   ·   cdc-lake verify public.orders   ·   cdc-lake --json verify")(
        verify
    )


def verify(
    tables: Annotated[list[str] | None, typer.Argument(help="schema.table; all captured tables when none.")] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the lake to reach the source.")] = 60.0,
) -> None:
    """Compare every row of the lake with the source, at a position both have reached.

    Ends with 0 when all is equal and 3 when rows differ; then it shows examples.
    """
    config = output.settings()
    wanted = list(tables or [])
    reports = [_verify_source(config, source, wanted, wait) for source in config.all_sources]
    known = [str(t.table) for r in reports for t in r.tables]
    for name in wanted:
        if _qualified(name) not in known:
            raise UsageError(
                f"There is no captured table {name}.",
                why=suggest(_qualified(name), known) or "The connector's lists do not name it.",
                next="cdc-lake tables",
                code="no_such_table",
            )
    if output.as_json():
        output.emit(_document(reports))
    else:
        _show(reports)
    if not all(r.ok for r in reports):
        raise typer.Exit(EXIT_DIFFERENCES)


def _verify_source(config: Config, source: Source, wanted: list[str], wait: float) -> Report:
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
        progress=output.say,
    )
    return verifier.verify(read_catalogue(dsn, chosen), wait_seconds=wait)


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
    for report in reports:
        differing = sum(t.missing + t.extra + t.different for t in report.tables)
        verdict = "0 differences" if report.ok else f"{differing:,} differences"
        output.say(f"{report.source} at LSN {report.lsn}: {len(report.tables)} tables, {verdict}.")
        if not report.ok and not report.reached:
            output.say("The lake has not reached the source's position. Next: cdc-lake sink run")
