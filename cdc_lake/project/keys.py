"""What a key's text in the log tells: its whole numbers, and the order in which keys are cut and stored."""

from __future__ import annotations

from dataclasses import dataclass

from cdc_lake.project.schema import Column
from cdc_lake.project.shapes import Shapes
from cdc_lake.sqltext import literal

WHOLE_NUMBERS = ("SMALLINT", "INTEGER", "BIGINT")


def key_number(key: str, column: Column) -> str:
    """SQL of a whole number in the key's text `key`."""
    pointer = "/" + column.name.replace("~", "~0").replace("/", "~1")
    return f"CAST(json_extract_string({key}, {literal(pointer)}) AS {column.lake_type})"


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """Keys by their first whole number, where they have nothing but whole numbers; else (None) by their text."""

    column: Column | None = None

    @classmethod
    def of(cls, shapes: Shapes) -> KeyOrder:
        """The order in which the files of a folded table are."""
        columns = shapes.target.key_columns
        if not columns or any(c.lake_type not in WHOLE_NUMBERS for c in columns):
            return cls()
        return cls(next(c for c in shapes.target.columns if c in columns))

    def of_text(self, key: str) -> str:
        """SQL of a key's place, from its text `key`."""
        return key if self.column is None else key_number(key, self.column)
