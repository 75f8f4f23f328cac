"""The rows of a model and how far it is: one Delta table, in which both are committed together; and beside it the
events that it could not count."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from cdc_lake.crashpoints import reach
from cdc_lake.land.layout import stream_late_path, stream_path, stream_sent_path
from cdc_lake.land.store import WRITER, remembered
from cdc_lake.land.tables import STREAM_LATE
from cdc_lake.react.places import Place, PlacedTable, Words

_WORDS = Words("model", "stream", "A model's rows", "stream", code="stream_fenced")
_NOTHING = pa.table({"nothing": pa.array([], pa.string())})
_LATE_WORDS = Words("model", "stream-late", "Late events", "stream", code="stream_fenced")


class ModelTable:
    """Where one model's rows are.

    Delivery: each row is committed once, with the position behind which the model goes on. Order: events that could
    not be counted are committed before that, once each too: their own position says which are there already.
    """

    def __init__(self, root: str, source: str, model: str, options: Mapping[str, str] | None) -> None:
        self.model, self._options = model, options
        self.rows = PlacedTable(stream_path(root, source, model), _WORDS, None, options)
        self._sent = PlacedTable(stream_sent_path(root, source, model), _WORDS, None, options)
        self.late = PlacedTable(stream_late_path(root, source, model), _LATE_WORDS, None, options)

    def place(self) -> Place | None:
        """Where the model is; None before its first commit."""
        return self.rows.place(self.model)

    def sent(self) -> Place | None:
        """How far the rows were sent, at least: Kafka knows better, and forgets after a week of silence."""
        return self._sent.place(self.model)

    def mark_sent(self, position: int) -> None:
        """Write down how far the rows were sent."""
        self._sent.commit(_NOTHING, {self.model: (self.sent(), Place(position, 0))})

    def posted(self) -> Place | None:
        """How far the rows were POSTed: all up to the position, and `since` many of the next one."""
        return self._sent.place(f"{self.model}:http")

    def mark_posted(self, known: Place | None, to: Place) -> None:
        """Write down how far the rows were POSTed. Raises LakeError when somebody else did meanwhile."""
        self._sent.commit(_NOTHING, {f"{self.model}:http": (known, to)})

    def commit(self, rows: pa.Table, late: pa.Table | None, known: Place | None, to: Place) -> None:
        """Write what was made on the way from `known` to `to`.

        1. Write the events that could not be counted, but those that a killed process wrote before.
        2. Write the rows together with the place.
        """
        if late is not None and late.num_rows:
            self._write_late(late, to)
            reach("stream:after-late")
        self.rows.commit(rows, {self.model: (known, to)})

    def _write_late(self, late: pa.Table, to: Place) -> None:
        there = self.late.place(self.model)
        if there is not None:
            late = late.filter(pc.greater(late["position"], there.position))
        if late.num_rows:
            self.late.commit(late.cast(STREAM_LATE), {self.model: (there, to)})

    def replace(self, rows: pa.Table, late: pa.Table, after: int, to: Place, *, whole: bool) -> None:
        """Put `rows` in the place of all behind the position `after`, in one commit; `whole`: of all there are, and
        with the columns of `rows`. Raises LakeError."""
        for table, new, column in ((self.late, late.cast(STREAM_LATE), "position"), (self.rows, rows, "__position")):
            held = [Transaction(n, v) for n, v in table.transactions(self.model, to).items()]
            delta = table.open()
            if delta is None and not new.num_rows and table is self.late:
                continue
            try:
                write_deltalake(
                    delta if delta is not None else table.path,
                    new,
                    mode="overwrite",
                    configuration=remembered(table.path) if delta is None else None,
                    schema_mode="overwrite" if whole else None,
                    predicate=None if whole or delta is None else f"{column} > {after}",
                    storage_options=dict(self._options) if self._options and delta is None else None,
                    writer_properties=WRITER,
                    commit_properties=CommitProperties(app_transactions=held),
                )
            except (DeltaError, OSError, pa.ArrowException) as error:
                raise table.explained(error) from error
            reach("stream:after-replace")
