"""What a sink holds of memory: how the limit is divided, and what must not grow with the length of a row."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from cdc_lake.budget import AMPLE, Budget, least_mb
from cdc_lake.cli import sink_runner
from cdc_lake.config import Config, Sink
from cdc_lake.consume.columns import record_batch
from cdc_lake.decode.debezium import Decoder
from cdc_lake.events import TopicPartition
from cdc_lake.land.append import AppendTable, Span
from cdc_lake.land.store import DeltaStore
from cdc_lake.land.tables import LOG
from tests.lakes import event

LONG = 1_000_000
PLACES = ("buffered", "flush", "queued", "polled", "joined", "kept")


def test_every_place_that_holds_records_has_less_with_a_lower_limit_and_never_nothing() -> None:
    budgets = [Budget.of(limit, 64) for limit in (32, least_mb(), 512, 1024, 4096)]
    for place in PLACES:
        sizes = [getattr(budget, place) for budget in budgets]
        assert sizes[0] == sizes[1] > 100_000
        assert sizes == sorted(sizes)
        assert sizes[2] > sizes[1]
    assert Budget.of(4096, 1000).flush == Budget.of(4096, 64).buffered // 2
    assert AMPLE.polled == budgets[-1].polled


def test_sinks_of_one_process_share_its_limit() -> None:
    alone, one_of_two = Budget.of(1024, 64), Budget.of(1024, 64, 2)
    assert [getattr(alone, place) // 2 for place in PLACES] == pytest.approx(
        [getattr(one_of_two, place) for place in PLACES], abs=1
    )
    assert least_mb(3) > least_mb(1)


def test_a_commit_of_long_rows_is_short(tmp_path: Path) -> None:
    rows = pa.Table.from_pylist([row(i) for i in range(3)], LOG)
    log = AppendTable(str(tmp_path / "log"), LOG, store=DeltaStore())
    tp = TopicPartition("pos.public.orders", 0)
    log.append(rows, [Span(tp, 0, 3)])
    (commit,) = (tmp_path / "log" / "_delta_log").glob("*.json")
    assert commit.stat().st_size < 20_000
    stats = next(json.loads(json.loads(line)["add"]["stats"]) for line in commit.open() if '"add"' in line)
    # What files are chosen by is there: whole keys and topics, bounds of numbers, counts of nulls.
    assert stats["minValues"]["__key"] == '{"id":0}'
    assert stats["maxValues"]["__topic"] == stats["minValues"]["__topic"] == "pos.public.orders"
    assert stats["nullCount"]["__before"] == 3
    assert log.open().to_pyarrow_table()["__after"].to_pylist() == rows["__after"].to_pylist()  # type: ignore[union-attr]


def row(number: int) -> dict[str, object]:
    after = json.dumps({"id": number, "note": chr(97 + number) * LONG})
    place = {"__topic": "pos.public.orders", "__partition": 0, "__offset": number}
    return dict.fromkeys(LOG.names) | {"__op": "c", "__key": f'{{"id":{number}}}', "__after": after} | place


def test_long_records_are_decoded_as_short_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [event("orders", {"id": i, "note": "é" * (LONG // 4) if i % 3 else None}) for i in range(40)]
    keys, values = zip(*events, strict=True)
    values = (*values[:20], b"no JSON", *values[20:])
    batch = record_batch(
        TopicPartition("pos.public.orders", 0),
        0,
        len(values),
        offsets=list(range(len(values))),
        timestamps=[0] * len(values),
        keys=[*keys[:20], b"{}", *keys[20:]],
        values=list(values),
    )
    asked: list[int] = []
    ask = Decoder._ask

    def counting(self: Decoder, query: str, records: pa.Table) -> pa.Table:
        asked.append(records.num_rows)
        return ask(self, query, records)

    monkeypatch.setattr(Decoder, "_ask", counting)
    in_parts = Decoder(transaction_topic=None).decode([batch])
    assert len(asked) > 1
    assert sum(asked) == len(values)
    monkeypatch.setattr("cdc_lake.decode.debezium._PARSED_BYTES", 1 << 40)
    whole = Decoder(transaction_topic=None).decode([batch])
    assert asked[-1] == len(values)
    one, other = (d.tables[0].rows.drop_columns(["__ingested_at"]) for d in (in_parts, whole))
    assert one.equals(other)
    assert [letter.offset for letter in in_parts.dead] == [letter.offset for letter in whole.dead] == [20]


@pytest.mark.parametrize(("limit", "told"), [(least_mb(), False), (least_mb() - 1, True)])
def test_a_limit_that_cannot_be_kept_to_is_told(
    limit: float, told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sink_runner._tell_least_memory(Config(root=tmp_path, sink=Sink(memory_mb=limit)))
    assert (f"The least that can is {least_mb()}." in capsys.readouterr().err) is told
