"""An event leads through all services that handle it, or what it caused, in the trace that it carries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cdc_lake.service import Context, Event, Service
from cdc_lake.service import run as running
from cdc_lake.service.run import Runner
from cdc_lake.service.spans import ServiceSpans
from cdc_lake.trace.opened import tracing_of
from tests.collectors import Received, Told, receiver, spans_of
from tests.service_world import World, settle
from tests.unit.test_service_run import add, counter

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    with receiver() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.url)
        yield received


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.topics("numbers", "tens")
    return made


def reader() -> Service:
    """Reads what the counter says."""
    service = Service("reader", ("tens",))

    @service.on("ten")
    def ten(event: Event, context: Context) -> None: ...

    return service


def trade(world: World, *events: Event, sends: bool = True) -> list[Runner]:
    """Let a counter handle events and a reader handle what the counter says; each tells of it in its own name."""
    for event in events:
        world.put("numbers", event)
    runners = []
    for service in (counter(), reader()):
        with tracing_of(print, service.group) as tracing:
            assert tracing is not None
            told = ServiceSpans(tracing, service.group).handled
            runner = world.instance(service, told=told, sends=sends or service.name != "counter")
            settle([runner])
            runners.append(runner)
    return runners


def traced(event: Event, flags: str = "01") -> Event:
    return replace(event, traceparent=f"00-{TRACE}-{SPAN}-{flags}")


def named(collector: Received, name: str) -> list[Told]:
    return [span for span in spans_of(collector) if span.name == name]


def test_an_event_and_all_that_it_causes_is_one_trace_through_both_services(collector: Received, world: World) -> None:
    trade(world, traced(add(1, 23)))
    (handled,) = named(collector, "handle add")
    assert (handled.trace_id, handled.parent_id, handled.failed) == (TRACE, SPAN, False)
    assert handled.attributes["cdc_lake.outcome"] == "handled"
    assert handled.attributes["cloudevents.event_id"] == "e1"
    assert handled.attributes["messaging.destination.name"] == "numbers"
    assert handled.resource["service.name"] == "counter-v1"
    sent = named(collector, "send ten")
    assert {(s.trace_id, s.parent_id) for s in sent} == {(TRACE, handled.span_id)}
    assert sorted(s.span_id for s in sent) == sorted(e.traceparent.split("-")[2] for e in world.events("tens"))
    read = named(collector, "handle ten")
    assert sorted(s.parent_id for s in read) == sorted(s.span_id for s in sent)
    assert {(s.trace_id, s.resource["service.name"]) for s in read} == {(TRACE, "reader-v1")}


def test_an_event_without_a_trace_begins_the_one_that_what_it_causes_carries(collector: Received, world: World) -> None:
    trade(world, add(1, 10))
    (handled,) = named(collector, "handle add")
    (said,) = world.events("tens")
    assert (handled.trace_id, handled.parent_id) == (said.traceparent.split("-")[1], "")
    (sent,) = named(collector, "send ten")
    assert (sent.trace_id, sent.parent_id) == (handled.trace_id, handled.span_id)


def test_an_event_that_is_refused_is_a_failed_span_and_sends_nothing(collector: Received, world: World) -> None:
    trade(world, add(1, 5), traced(add(2, -1)))
    (failed,) = [s for s in named(collector, "handle add") if s.failed]
    assert (failed.trace_id, failed.attributes["cdc_lake.outcome"]) == (TRACE, "dead letter: negative")
    assert [name for name, _ in failed.events] == ["exception"]
    assert "numbers go up" not in str(spans_of(collector))
    assert not named(collector, "send ten")


def test_what_its_sender_did_not_record_is_not_recorded_here(collector: Received, world: World) -> None:
    trade(world, traced(add(1, 10), flags="00"))
    assert len(world.events("tens")) == 1
    assert spans_of(collector) == []


def test_a_version_that_only_follows_tells_of_nothing(collector: Received, world: World) -> None:
    trade(world, add(1, 10), sends=False)
    assert spans_of(collector) == []


def test_of_a_large_batch_a_bounded_number_is_told(
    collector: Received, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "TOLD", 2)
    trade(world, *(add(n, 1) for n in range(7)))  # one poll of one partition
    assert len(named(collector, "handle add")) == 2
