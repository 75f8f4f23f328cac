"""`serve`: the dashboard over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cdc_lake.cli import output

if TYPE_CHECKING:
    from cdc_lake.config import Config
    from cdc_lake.serve.dashboard.outside import Look, Outside
    from cdc_lake.serve.dashboard.server import Wish

_EXAMPLES = (
    "Examples:  cdc-lake serve   ·   cdc-lake serve --open   ·   cdc-lake serve --address 127.0.0.1:9000   ·   "
    "cdc-lake serve --new-token   ·   cdc-lake serve --views"
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLES)(serve)


def serve(
    address: Annotated[
        str | None, typer.Option("--address", metavar="HOST:PORT", help="Where [default: 127.0.0.1:8765].")
    ] = None,
    *,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    new_token: Annotated[bool, typer.Option("--new-token", help="Make a new token: open pages are shut out.")] = False,
    views: Annotated[
        bool, typer.Option("--views", help="Only copy the shipped views into the project, to change.")
    ] = False,
) -> None:
    """Serve the dashboard: stock, sales, alerts, the pipeline, any past moment, SQL.

    It answers on this machine alone unless another address is named, and only to who has the token: open the address
    that is printed. Views are SQL files in the folder `dashboard`. Runs until Ctrl-C. Needs the extra `serve`.
    """
    config = output.settings()
    if views:
        _copy_views(config)
        return
    _need()
    from cdc_lake.serve.dashboard.server import prepare

    ready = prepare(config, _wish(config, address, new_token=new_token), _look(config))
    if output.as_json():
        output.emit({"url": ready.url, "entry": ready.entry, "views": []})
    else:
        output.say(f"The dashboard of {config.lake_uri}. Open it with its token:")
        typer.echo(ready.entry)
        _warn(ready.url)
        output.say("Ctrl-C ends it.")
    if open_browser:
        import webbrowser

        webbrowser.open(ready.entry)
    ready.run()


def _need() -> None:
    from cdc_lake.extras import is_there

    for name in ("fastapi", "uvicorn"):
        if not is_there(name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _wish(config: Config, address: str | None, *, new_token: bool) -> Wish:
    import getpass
    from pathlib import Path

    from cdc_lake.query.guard import Limits
    from cdc_lake.serve.dashboard.server import Wish
    from cdc_lake.serve.dashboard.token import read_token

    section = config.serve
    return Wish(
        address or section.address,
        read_token(config.state_folder, section.token, anew=new_token),
        config.root / Path(section.folder).expanduser(),
        hosts=section.hosts,
        seconds=section.seconds,
        limits=Limits(section.sql.memory_mb, section.sql.seconds, section.sql.rows),
        user=getpass.getuser(),
        cert=section.cert and str(config.root / section.cert),
        key=section.key and str(config.root / section.key),
    )


def _look(config: Config) -> Look:
    """How to look at what is outside the lake: Kafka, Connect, and sinks on this machine."""
    from cdc_lake.cli.stack_status import kafka_ends
    from cdc_lake.cli.watch_state import connectors_of, sinks_of
    from cdc_lake.errors import CdcLakeError
    from cdc_lake.serve.dashboard.outside import Outside

    file = output.config_file()

    def look() -> Outside:
        troubles: list[str] = []
        ends = None
        try:
            ends = kafka_ends(config)
        except CdcLakeError as error:
            troubles.append(f"The lag is not known: {error.message}")
        connectors = connectors_of(config, troubles)
        sinks = [{"pid": s.pid, "memory_bytes": s.memory_bytes, "since": s.since} for s in sinks_of(file)]
        return Outside(ends, connectors, sinks, tuple(dict.fromkeys(troubles)))

    return look


def _warn(url: str) -> None:
    from cdc_lake.addresses import is_local

    if url.startswith("http://") and not is_local(url.removeprefix("http://")):
        output.say(
            "Warning: without https the token and all rows cross the network unencrypted: set serve.cert and serve.key."
        )


def _copy_views(config: Config) -> None:
    from pathlib import Path

    from cdc_lake.serve.dashboard.viewfile import copy_views

    folder = config.root / Path(config.serve.folder).expanduser()
    made = copy_views(folder)
    output.result({"url": None, "entry": None, "views": made}, ["view", "written"], made)
