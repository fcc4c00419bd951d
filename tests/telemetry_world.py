"""Telemetry of runs in this process: OpenTelemetry's own components, with exporters that keep what they receive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from msgspec.structs import replace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from killswitch.accounts.arming import ArmedAccount
from killswitch.graph.nodes import PolicySet
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Health
from killswitch.model.venue import FateUnknownError, OrderRejectedError, OrderReport, OrderRequest, VenueDownError
from killswitch.runner.assembly import assemble
from killswitch.runner.event_emitter import EventEmitter, MetricsRecorder
from killswitch.runner.loop import Runner
from killswitch.runner.observers import Observer
from killswitch.runner.order_reconciliation import CombinedClosingObserver
from killswitch.telemetry.close_spans import CloseSpans
from killswitch.telemetry.exporting import Ids, KeepIncidents, SpanSink
from killswitch.telemetry.metrics import AnchorGauges, Metrics, NotificationCounts, SourceGauges
from killswitch.telemetry.opened import Telemetry
from killswitch.telemetry.spans import SpanRecorder
from tests.runner_world import PACE, ScriptedVenue, World, book


class Exported:
    """One process's telemetry. `hide` redacts secrets, as the runner's redactor does."""

    def __init__(
        self,
        world: World,
        *,
        hide: Callable[[str], str] = str,
        sampler: Sampler = ALWAYS_ON,
        store: str = "store",
    ) -> None:
        self._kept, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        ids = Ids()
        tracing = TracerProvider(sampler=KeepIncidents(sampler), id_generator=ids, shutdown_on_exit=False)
        tracing.add_span_processor(SimpleSpanProcessor(self._kept))
        self._metering = MeterProvider([self._reader], shutdown_on_exit=False)
        sink = SpanSink(tracing, ids, store, hide)
        metrics = Metrics(self._metering.get_meter("killswitch"))
        tracer = SpanRecorder(sink, lambda: to_micros(world.clock.now()) * 1000)
        self.telemetry = Telemetry(tracer, CloseSpans(sink, metrics), metrics)
        self.notifications: NotificationCounts | None = None
        source = SourceGauges(
            sync="out of sync", health="healthy", suspended="pin", answer_age=1.0, commit_age=60.0, pending=3600.0
        )
        self.witness = MetricsRecorder(
            self.telemetry,
            lambda: self.notifications,
            lambda: "as loaded",
            lambda: source,
            lambda: AnchorGauges(7, {"git": True}),
        )

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        return [span for span in self._kept.get_finished_spans() if name in (None, span.name)]

    def metrics(self) -> dict[str, Metric]:
        """All current metrics; those without a point are omitted."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.data.data_points
        }

    def close(self) -> None:
        self._metering.shutdown()


class OutcomeVenue(ScriptedVenue):
    """Takes the next of `moods` at each order: `fill`, `refuse`, `lose` (it never arrives, without an answer),
    `unsure` (filled, but the answer is lost) or `rest` (it rests until it is queried).
    Cancels what it is asked to."""

    def __init__(self, answer: AccountSnapshot, moods: list[str], account: str = "main") -> None:
        super().__init__(answer, account)
        self.moods = moods
        self.reports: dict[str, OrderReport] = {}
        self.deaf = False
        """Whether it does not answer when it is asked about an order."""

    async def snapshot(self) -> AccountSnapshot:
        answer = await super().snapshot()
        return replace(answer, health=Health(latency_ms=12.5, requests=3, errors=1))

    async def submit(self, request: OrderRequest) -> OrderReport:
        mood = self.moods.pop(0) if self.moods else "fill"
        if mood == "refuse":
            raise OrderRejectedError("price_band", "the price is outside the band")
        if mood == "lose":
            raise FateUnknownError("no answer")
        report = await super().submit(request)
        if mood == "rest":
            self.reports[request.client_order_id] = report
            return replace(report, state="open", filled=Decimal(0))
        self.reports[request.client_order_id] = report
        if mood == "unsure":
            raise FateUnknownError("no answer")
        return report

    async def cancel(self, symbol: str, order_id: str) -> None:
        assert isinstance(self.answer, AccountSnapshot)
        kept = tuple(order for order in self.answer.orders or () if order.id != order_id)
        self.answer = replace(self.answer, orders=kept)

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        if self.deaf:
            raise VenueDownError("nobody answers")
        return self.reports.get(client_order_id)


def runner_of(
    world: World, venue: ScriptedVenue, policies: PolicySet, exported: Exported, *witnesses: Observer
) -> Runner:
    """An armed runner on the world's store, traced and measured."""
    account = ArmedAccount(venue.account, "paper", "swap", "USDT", venue, armed=True)
    emitters = [each for each in witnesses if isinstance(each, EventEmitter)]
    return assemble(
        policies, {venue.account: account}, world.open(), world.clock, PACE, live=True, locks=world.locks,
        observers=(exported.witness, *witnesses), tracer=exported.telemetry.tracer,
        closing_observer=CombinedClosingObserver(exported.telemetry.closing_observer, *emitters),
    )  # fmt: skip


async def crash(
    world: World, runner: Runner, venue: ScriptedVenue, rounds: int = 60, fallen: AccountSnapshot | None = None
) -> None:
    """Start, tick, fall by more than a tenth (to `fallen`), and close until no work is left."""
    await runner.start()
    await runner.tick()
    await world.clock.sleep(1.0)
    venue.answer = fallen or book("900")
    await runner.tick()
    for _ in range(rounds):
        if not await runner.advance():
            break
        await world.clock.sleep(0.1)
    await world.clock.sleep(1.0)
    await runner.tick()


def run_crash(folder: Path, moods: list[str], policies: PolicySet) -> Exported:
    """A whole crash on a venue of these moods; returns what was exported."""
    world = World(folder)
    try:
        exported = Exported(world)
        venue = OutcomeVenue(book("1100"), moods)
        runner = runner_of(world, venue, policies, exported)

        async def go() -> None:
            await crash(world, runner, venue)
            await runner.finish()
            await runner.shut_down()

        asyncio.run(go())
        return exported
    finally:
        world.close()
