"""The section `serve` of the configuration: where the dashboard answers, to whom, and what its SQL may take."""

from __future__ import annotations

from pydantic import Field

from cdc_lake.config_rules import Section


class SqlLimits(Section):
    """What one query that comes over HTTP may take."""

    memory_mb: int = Field(default=512, ge=64, description="of memory, and as much on the disk")
    seconds: float = Field(default=10, gt=0, le=600, description="until it is ended")
    rows: int = Field(
        default=10_000, ge=1, le=100_000, description="that are shown; the rest is left out, and said to be"
    )


class ServeSection(Section):
    """The dashboard: `cdc-lake serve`."""

    address: str = Field(default="127.0.0.1:8765", description="host:port on which it answers")
    hosts: list[str] = Field(
        default_factory=list, description="names under which it is asked for beside that address, as behind a proxy"
    )
    token: str | None = Field(
        default=None,
        description="what opens it, 16 characters at least, as `${ENV}`; one is made and kept when none is named",
        repr=False,
    )
    folder: str = Field(default="dashboard", description="of the views' files")
    seconds: float = Field(default=0.25, ge=0.1, le=60, description="between two looks at the lake")
    cert: str | None = Field(default=None, description="a certificate's file, to answer by https")
    key: str | None = Field(default=None, description="the file of the certificate's key")
    sql: SqlLimits = SqlLimits()
