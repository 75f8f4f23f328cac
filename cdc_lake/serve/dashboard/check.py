"""Is the dashboard open to nobody but who has its token? Judged by its configuration, without starting it."""

from __future__ import annotations

import ssl
from pathlib import Path

from cdc_lake.addresses import is_local
from cdc_lake.checks import Check, fail, ok, warn
from cdc_lake.config import Config
from cdc_lake.config_serve import ServeSection
from cdc_lake.errors import first_line
from cdc_lake.serve.dashboard.token import token_file


def check_serve(config: Config) -> list[Check]:
    """The findings; none where the dashboard was neither configured nor ever started."""
    section, file = config.serve, token_file(config.state_folder)
    if section == ServeSection() and not file.exists():
        return []
    return [_check_address(section, config.root), *_check_token(section, file)]


def _check_address(section: ServeSection, root: Path) -> Check:
    if section.cert:
        return _check_certificate(section, root)
    if is_local(section.address):
        return ok("serve.address", f"{section.address}, of this machine alone")
    return warn(
        "serve.address",
        f"{section.address}, without https",
        why="The token and all rows cross the network unencrypted.",
        fix="set serve.cert and serve.key, or serve.address to 127.0.0.1:8765 behind a proxy that speaks https",
    )


def _check_certificate(section: ServeSection, root: Path) -> Check:
    cert, key = str(root / str(section.cert)), section.key and str(root / section.key)
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        return fail(
            "serve.address",
            f"{section.address} cannot answer by https",
            why=f"{cert}: {first_line(error)}",
            fix="correct serve.cert and serve.key in cdc-lake.yaml: PEM files, the key without a password",
        )
    return ok("serve.address", f"{section.address}, by https")


def _check_token(section: ServeSection, file: Path) -> list[Check]:
    if section.token is not None or not file.exists():
        return []
    if file.stat().st_mode & 0o077:
        return [
            warn(
                "serve.token",
                f"{file} is readable by others",
                why="Whoever reads it opens the dashboard.",
                fix="cdc-lake serve --new-token",
            )
        ]
    return [ok("serve.token", f"{file}, readable by its owner alone")]
