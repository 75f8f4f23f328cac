"""dbt-duckdb reads sources out of a lake: `plugin: lake` in sources.yml, a source is named as a catalogue of the lake.

All sources of a run are read from one connection, so at one boundary between transactions: what dbt tests across
tables (the lines of an order sum to its total) is never wrong because one table was read later than another.
"""

from __future__ import annotations

import threading
from typing import Any

import duckdb
import pyarrow as pa
from dbt.adapters.duckdb.plugins import BasePlugin
from dbt.adapters.duckdb.utils import SourceConfig

import cdc_lake

CATALOGUES = ("current", "changes", "history")


class Plugin(BasePlugin):
    """One lake, opened when the first source is read."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Take the plugin's `config` of profiles.yml."""
        self._config = plugin_config.get("config") or None
        self._as_of = plugin_config.get("as_of") or None
        self._lake: duckdb.DuckDBPyConnection | None = None
        self._lock = threading.Lock()

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Forget what the last run read: with `save_mode: ignore`, a source is then read once in each run."""
        for catalogue in CATALOGUES:
            conn.execute(f'DROP SCHEMA IF EXISTS "{catalogue}" CASCADE')

    def load(self, source_config: SourceConfig) -> pa.RecordBatchReader:
        """The rows of a source, batch by batch: dbt-duckdb makes a table of them, and they are never all in memory."""
        with self._lock:
            self._lake = self._lake or cdc_lake.connect(self._config, as_of=self._as_of)
            cursor = self._lake.cursor()
        schema = source_config.get("lake_schema", "public")
        return cursor.sql(f'FROM "{source_config.schema}"."{schema}"."{source_config.identifier}"').to_arrow_reader()
