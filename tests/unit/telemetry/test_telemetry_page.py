"""docs/telemetry.md lists exactly what a run emits."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from msgspec import json as msgjson
from msgspec.structs import replace
from opentelemetry.sdk.metrics.export import Gauge, Histogram, Metric, Sum
from opentelemetry.sdk.trace import ReadableSpan

from killswitch.graph.nodes import PolicySet
from killswitch.incident.notify.delivery import TargetDelivery
from killswitch.incident.notify.message import Message, encode_message
from killswitch.journal.codec import decode
from killswitch.model.decision import Decision, Unwinding
from killswitch.model.instant import HOUR, to_micros
from killswitch.model.snapshot import Event, Order
from killswitch.model.store import Delivery, JournalEntry, Outgoing, PendingCount
from killswitch.model.tracing import report_span
from killswitch.runner.clock import SystemClock
from killswitch.runner.event_emitter import EventEmitter
from killswitch.telemetry.background_writer import BackgroundWriter
from killswitch.telemetry.events import RunEvent, decode_event, encode_event
from killswitch.telemetry.metrics import NotificationCounts
from tests import graphs, worlds
from tests.runner_world import World, book, crash_policy
from tests.telemetry_world import Exported, OutcomeVenue, crash, runner_of

TYPES = {int: "int", str: "string", bool: "bool", float: "double"}


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "telemetry.md").read_text(encoding="utf-8")


def sections(page: str, under: str) -> dict[str, str]:
    """The parts of a chapter: heading → text."""
    (chapter,) = re.findall(rf"^## {under}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^### |\Z)", chapter, re.MULTILINE | re.DOTALL))


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the table whose first header is `heading`."""
    table = re.search(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n?)*)", text, re.MULTILINE)
    lines = [] if table is None else table[1].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(cell: str) -> set[str]:
    return set(re.findall(r"`([\w.]+)`", cell))


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ReadableSpan], dict[str, Metric], list[Any]]:
    """Spans, metrics and events of a crash with every case: a venue that refuses, loses an answer, and
    reports its health; a second poll; a resting order to cancel; an operator's reset; a suspicion; a report."""
    folder = tmp_path_factory.mktemp("page")
    world, found = World(folder), _policies()
    exported = Exported(world)
    exported.notifications = NotificationCounts(1, {"log": 1}, {"log": 1})
    venue = OutcomeVenue(book("1100"), ["refuse", "lose", "rest"])
    stream = BackgroundWriter(str(folder / "events"), "events")
    emitter = EventEmitter(stream, str)

    async def run() -> dict[str, Metric]:
        store = world.open()
        runner = runner_of(world, venue, found, exported, emitter)
        resting = Order("o-7", "BTC", "sell", Decimal(10), position_side="long", reduce_only=True)
        await crash(world, runner, venue, 900, book("900", orders=(resting,)))
        metrics = exported.metrics()
        with report_span(exported.telemetry.tracer, "d", worlds.START) as span:
            span.fail("no such template")
        store.put_event(Event("e1", world.clock.now(), "reset", scope="account/main", author="me", reason="seen"))
        await runner.tick()
        for _ in range(2):  # half of the equity is gone, and the ledger is complete up to now without a row for it
            await world.clock.sleep(1.0)
            now = world.clock.now()
            venue.answer = worlds.account("450", unrealized=Decimal(0), fills_as_of=now, flows_as_of=now)
            await runner.tick()
        venue.answer = None
        await world.clock.sleep(1.0)
        await runner.tick()
        _manual_close(exported)
        _delivery(exported)
        metrics |= exported.metrics()
        emitter.ended(world.clock.now(), "stopped by SIGTERM", runner.closings())
        await runner.finish()
        await runner.shut_down()
        return metrics

    try:
        metrics = asyncio.run(run())
    finally:
        world.close()
    assert stream.close()
    lines = (folder / "events").read_bytes().splitlines()
    return exported.spans(), metrics, [msgjson.decode(line) for line in lines]


def _manual_close(exported: Exported) -> None:
    """The journal of a manual close with a declared execution style, with every entry that the crash lacks."""
    decision = Decision(
        "dd" * 10, worlds.START, "operator", "sha256:1", "account/main", "enforce", None, 0, 0, kind="manual",
        cause="drill", unwinding=Unwinding("careful"),
    )  # fmt: skip
    exported.telemetry.closing_observer.begun(decision, "main", ())
    for kind, seconds, data in (
        ("swept", 0, {}),
        ("unprotected", 1, {"order": "s1"}),
        ("sending", 2, {"side": "sell", "amount": "5", "order": "limit_ioc", "price": "99", "rung": "0"}),
        ("set_aside", 3, {"text": "the position does not wait for it"}),
        ("abandoned", 4, {}),
        ("protected", 5, {"for": "s1"}),
        ("guarded", 6, {"for": "s1", "state": "resting"}),
        ("finished", 7, {"status": "residual", "cost": "1"}),
    ):
        named = "ks1" if kind in ("sending", "set_aside", "abandoned") else None
        at = worlds.after(seconds=seconds)
        row = JournalEntry(decision.id, kind, at, "main", "BTC", "long", named, 1, data)  # type: ignore[arg-type] # data
        exported.telemetry.closing_observer.wrote(decode(row))


class _OneMessage:
    """An outbox with one message, about a decision."""

    def __init__(self) -> None:
        message = Message(
            "m" * 20, worlds.START, "fired", "page", "drawdown", "account/main", "stop", "", decision="dd" * 10,
            thread="cc" * 10,
        )  # fmt: skip
        outgoing = Outgoing("m" * 20, to_micros(worlds.START), "desk", "file:x", encode_message(message))
        self._deliveries = [Delivery(outgoing, attempts=1)]

    def give_up(self, *_: object) -> int:
        return 0

    def claim(self, *_: object, **__: object) -> Delivery | None:
        return self._deliveries.pop() if self._deliveries else None

    def settle(self, *_: object, **__: object) -> None:
        """It is delivered."""

    def waiting(self, _: str) -> PendingCount:
        return PendingCount(len(self._deliveries), 0, None)


class _Accepting:
    """A target that accepts everything."""

    def check(self) -> None:
        """Nothing is wrong."""

    def send(self, _: Message) -> None:
        """It arrives."""


def _delivery(exported: Exported) -> None:
    """One attempt to deliver a message about a decision."""
    outbox: Any = _OneMessage()
    TargetDelivery("file:x", _Accepting(), outbox, SystemClock(), HOUR, exported.telemetry.tracer).step()


def _policies() -> PolicySet:
    graph = crash_policy()
    return graphs.policy_set(replace(graph, stages=tuple(replace(stage, corroborate=True) for stage in graph.stages)))


Emitted = tuple[list[ReadableSpan], dict[str, Metric], list[Any]]


def test_spans_and_their_attributes_are_those_of_the_page(page: str, emitted: Emitted) -> None:
    """Name, attributes and their types, in both directions."""
    documented: dict[str, set[tuple[str, str]]] = {}
    for span in emitted[0]:
        attributes = documented.setdefault(span.name, set())
        attributes |= {(name, TYPES[type(value)]) for name, value in (span.attributes or {}).items()}
    written = {
        name: {(*names(cells[0]), cells[1]) for cells in rows(text, "attribute")}
        for name, text in sections(page, "Spans").items()
    }
    assert written == documented


def test_events_of_spans_are_those_of_the_page(page: str, emitted: Emitted) -> None:
    """The events within a close and within an order."""
    documented = {
        (span.name, event.name, frozenset(event.attributes or {})) for span in emitted[0] for event in span.events
    }
    written = {
        (name, cells[0].strip("`"), frozenset(names(cells[1])))
        for name, text in sections(page, "Spans").items()
        for cells in rows(text, "event")
    }
    assert written == documented


def test_metrics_are_those_of_the_page(page: str, emitted: Emitted) -> None:
    """Name, type, unit and attributes, in both directions."""
    documented = {}
    for name, metric in emitted[1].items():
        kind = {Histogram: "histogram", Sum: "counter", Gauge: "gauge"}[type(metric.data)]
        attributes = {key for point in metric.data.data_points for key in point.attributes or {}}
        documented[name] = (kind, metric.unit, attributes)
    written = {cells[0].strip("`"): (cells[1], cells[2].strip("`"), names(cells[3])) for cells in rows(page, "metric")}
    assert written == documented


def test_every_kind_of_event_is_on_the_page_with_its_fields(page: str, emitted: Emitted) -> None:
    """Fields of every kind and of its nested structs; a run writes every kind."""
    found = sections(page, "Events")
    assert (
        set(found)
        == {kind.__struct_config__.tag for kind in get_args(RunEvent)}
        == {each["kind"] for each in emitted[2]}
    )
    for kind in get_args(RunEvent):
        written = {name for cells in rows(found[kind.__struct_config__.tag], "field") for name in names(cells[0])}
        assert written == {*kind.__struct_fields__} - {"format", "at"}, kind
        for part in _parts(kind):
            inside = {name for cells in rows(found[kind.__struct_config__.tag], "field") for name in names(cells[1])}
            assert inside >= {*part.__struct_fields__}, part


def _parts(kind: Any) -> list[Any]:
    """The structs that an event contains, one or many."""
    found = []
    for hint in get_type_hints(kind).values():
        for each in (hint, *get_args(hint)):
            if hasattr(each, "__struct_fields__"):
                found += [each, *_parts(each)]
    return found


def test_the_examples_of_events_are_valid(page: str) -> None:
    """Each example is decoded, and encodes to the same text."""
    examples = re.findall(r"^```json\n(.*?)\n```", page, re.MULTILINE | re.DOTALL)
    assert len(examples) == len(get_args(RunEvent))
    for example in examples:
        assert msgjson.decode(encode_event(decode_event(example))) == msgjson.decode(example)


def test_every_event_of_a_run_decodes_to_what_was_written(emitted: Emitted) -> None:
    """The decoder accepts each line, and each names its format."""
    for each in emitted[2]:
        line = msgjson.encode(each)
        assert msgjson.decode(encode_event(decode_event(line))) == each
        assert each["format"] == "killswitch.event/v1"
