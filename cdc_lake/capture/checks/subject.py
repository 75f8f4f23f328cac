"""What the checks of one source are about."""

from __future__ import annotations

from dataclasses import dataclass

from cdc_lake.connector_file import ConnectorFile


@dataclass(frozen=True, slots=True)
class Subject:
    """A connector as its file has it, and how a person names that file."""

    connector: ConnectorFile
    file: str

    @property
    def register(self) -> str:
        """The command that brings source and Connect to what the file says."""
        return f"cdc-lake connector register {self.file}"

    @property
    def anew(self) -> str:
        """The commands that begin again where changes were lost."""
        return f"cdc-lake connector delete {self.connector.name} --drop-slot   then: {self.register}"

    @property
    def slot(self) -> str:
        """The name of the replication slot."""
        return self.connector.config.get("slot.name", "debezium")

    @property
    def publication(self) -> str:
        """The name of the publication."""
        return self.connector.config.get("publication.name", "dbz_publication")
