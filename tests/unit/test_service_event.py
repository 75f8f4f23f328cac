"""Events are CloudEvents 1.0 in both bindings of Kafka: what is read here is what the CNCF SDK reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_lake.consume.columns import header_json
from cdc_lake.service import Context, Event, Trial
from cdc_lake.service.event import Malformed, answering, decode, encode
from cdc_lake.service.sdk import CloudEvent, JSONFormat, KafkaMessage, from_kafka, to_binary, to_structured
from cdc_lake.service.service import Service

WORDS = st.text(min_size=1).filter(lambda t: "\0" not in t)
DATA = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
)
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@settings(deadline=None, max_examples=50)
@given(id=WORDS, source=WORDS, type=WORDS, subject=WORDS, time=TIMES, data=DATA)
def test_both_bindings_are_read_as_the_sdk_reads_them(**given: Any) -> None:
    data = given.pop("data")
    made = CloudEvent({**given, "specversion": "1.0", "datacontenttype": "application/json", "causationid": "c"}, data)
    for message in (to_binary(made, JSONFormat()), to_structured(made, JSONFormat())):
        ours = decode(header_json(list(message.headers.items())), message.value)
        theirs = from_kafka(message, JSONFormat())
        assert (ours.id, ours.source, ours.type, ours.subject) == tuple(
            theirs.get_attributes()[n] for n in ("id", "source", "type", "subject")
        )
        assert ours.time == theirs.get_time()
        assert ours.data == theirs.get_data() == data
        assert ours.causation_id == "c"


@settings(deadline=None, max_examples=50)
@given(data=DATA, time=TIMES)
def test_an_event_is_what_was_sent_of_it(data: dict[str, Any], time: datetime) -> None:
    event = Event(
        "1", "/s", "t", data, "k", time, "c0", "c1", "00-" + "a" * 32 + "-" + "b" * 16 + "-01", {"sequence": "7"}
    )
    record = encode("topic", event)
    assert record.key == b"k"
    assert decode(header_json(record.headers), record.value) == event
    message = KafkaMessage(dict(record.headers), record.key, record.value or b"")
    assert from_kafka(message, JSONFormat()).get_extension("sequence") == "7"


BINARY = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/s", "ce_type": "t"}


@pytest.mark.parametrize(
    ("headers", "value", "why"),
    [
        ({**BINARY, "ce_id": ""}, b"{}", "no id"),
        ({k: v for k, v in BINARY.items() if k != "ce_source"}, b"{}", "no source"),
        ({**BINARY, "ce_specversion": "0.3"}, b"{}", "specversion"),
        (BINARY, b"{", "not JSON"),
        (BINARY, b'{"a": NaN}', "NaN"),
        (BINARY, b"[" * 100_000, "not JSON"),
        (BINARY, b"\xff", "not JSON"),
        (BINARY, b"[1]", "not a JSON object"),
        ({**BINARY, "ce_time": "yesterday"}, b"{}", "time"),
        ({**BINARY, "ce_time": "2026-01-01T00:00:00"}, b"{}", "no zone"),
        ({}, b"{}", "CloudEvent"),
        ({}, b"", "neither"),
        ({"content-type": "application/cloudevents+json"}, b'{"id": 1}', "CloudEvent"),
        ({"content-type": "application/cloudevents+json"}, b"[]", "CloudEvent"),
    ],
)
def test_what_is_no_event_says_why(headers: dict[str, str], value: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        decode(json.dumps(headers) if headers else None, value)


def test_an_answer_has_one_identity_whoever_makes_it_and_when() -> None:
    cause = Event("1", "/s", "t", {}, subject="k", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-00")
    one, again = (answering(cause, "shop", "answer", {"n": n}) for n in (1, 2))
    assert one.id == again.id
    other = answering(cause, "shop", "answer", {}, number=1)
    assert len({one.id, other.id, answering(cause, "shop", "more", {}).id}) == 3
    assert one.correlation_id == one.causation_id == "1"
    assert answering(one, "shop", "next", {}).correlation_id == "1"
    assert one.traceparent.startswith("00-" + "a" * 32)
    assert one.traceparent.endswith("-00")
    assert one.traceparent != cause.traceparent
    untraced = Event("1", "/s", "t", {})
    assert answering(untraced, "x", "y", {}).traceparent[3:35] == answering(untraced, "z", "y", {}).traceparent[3:35]


def test_an_event_that_was_refused_is_handled_when_it_comes_again_after_the_cause_is_gone() -> None:
    service = Service("late", ("t",), "CREATE TABLE open (name TEXT PRIMARY KEY)")

    @service.on("open")
    def open_(event: Event, context: Context) -> None:
        context.run("INSERT INTO open VALUES (?)", event.subject)

    @service.on("use")
    def use(event: Any, context: Any) -> None:
        if context.one("SELECT 1 FROM open WHERE name = ?", event.subject) is None:
            context.reject("closed", "it is not open")
        context.emit("out", "used", {})

    with Trial(service) as trial:
        assert trial.handle(Event("1", "/s", "use", {}, subject="a")) == []
        trial.handle(Event("2", "/s", "open", {}, subject="a"))
        assert [e.type for e in trial.handle(Event("1", "/s", "use", {}, subject="a"))] == ["used"]
        assert trial.handle(Event("1", "/s", "use", {}, subject="a")) == []
        assert [letter["code"] for letter in trial.letters] == ["closed"]


def test_identities_are_remembered_for_as_long_as_was_asked_and_no_longer() -> None:
    service = Service("short", ("t",), remember=timedelta(days=10))

    @service.on("hit")
    def hit_(event: Event, context: Context) -> None:
        context.emit("out", "told", {})

    hit = Event("1", "/s", "hit", {}, subject="a", time=datetime(2020, 1, 1, tzinfo=UTC))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with Trial(service) as trial:
        told = [bool(trial.handle(hit, at=start + timedelta(days=day))) for day in (0, 1, 9, 40, 41)]
    assert told == [True, False, False, True, False]
