"""Set-up of OpenTelemetry from the settings. It is imported only where something is exported."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from importlib import import_module
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from killswitch.deadline import DaemonThreadExecutor
from killswitch.telemetry.exporting import Ids, KeepIncidents
from killswitch.telemetry.settings import TelemetrySettings
from killswitch.transport.sinks import guard_every_session

SHUTDOWN_TIMEOUT = 5.0
"""Seconds that the end of a run waits for the remaining exports."""
_LONGEST = 300


class LogCapture(logging.Handler):
    """Handles OpenTelemetry's log records, so that they do not flood a terminal; the last one explains a failed
    export."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.last = record.getMessage()
        except (TypeError, ValueError):
            self.last = record.msg


class ExportStatus:
    """Whether exports arrive. The first reason of a failure stays until an export succeeds: later ones may differ in
    numbers only."""

    def __init__(self, what: str, log: LogCapture, hide: Callable[[str], str]) -> None:
        self.what = what
        self._log = log
        self._hide = hide
        self.problem: str | None = None
        self.has_exported = False

    def watch(self, export: Callable[[], bool]) -> bool:
        """Run an export that returns whether it arrived; record and return the result."""
        try:
            arrived, why = export(), self._log.last
        except Exception as error:  # noqa: BLE001 - a stream that is closed, an encoder that fails: it is lost
            arrived, why = False, f"{type(error).__name__}: {error}"
        if arrived:
            self.problem, self.has_exported = None, True
        elif self.problem is None:
            lines = self._hide(why or "").strip().splitlines() or ["no reason given"]
            reason = lines[0][:_LONGEST]
            self.problem = f"{self.what} cannot be exported and are lost; nothing else is affected: {reason}"
        return arrived


class WatchedSpans(SpanExporter):
    """A span exporter that reports failures."""

    def __init__(self, exporter: SpanExporter, delivery: ExportStatus) -> None:
        self._wrapped = exporter
        self._delivery = delivery

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        arrived = self._delivery.watch(lambda: self._wrapped.export(spans) is SpanExportResult.SUCCESS)
        return SpanExportResult.SUCCESS if arrived else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._wrapped.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._wrapped.force_flush(timeout_millis)


class WatchedMetrics(MetricExporter):
    """The same for metrics."""

    def __init__(self, exporter: MetricExporter, delivery: ExportStatus) -> None:
        # The metric reader uses these two attributes under the names of the base class.
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._wrapped = exporter
        self._delivery = delivery

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        arrived = self._delivery.watch(
            lambda: self._wrapped.export(metrics_data, timeout_millis, **kwargs) is MetricExportResult.SUCCESS
        )
        return MetricExportResult.SUCCESS if arrived else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._wrapped.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._wrapped.shutdown(timeout_millis, **kwargs)


class Providers:
    """The providers of a run. `tracing` and `metering` are None where nothing of the kind is exported."""

    def __init__(self, wanted: TelemetrySettings, hide: Callable[[str], str]) -> None:
        self._log = LogCapture()
        logger = logging.getLogger("opentelemetry")
        logger.addHandler(self._log)
        logger.propagate = False
        self._deliveries: list[ExportStatus] = []
        self._hide = hide
        self.ids = Ids()
        resource = _resource()
        self.tracing = self._tracing(wanted, resource) if wanted.traces else None
        self.metering = self._metering(wanted, resource) if wanted.metrics else None

    @property
    def problems(self) -> dict[str, str]:
        """What cannot be exported → why; empty while everything arrives."""
        return {each.what: each.problem for each in self._deliveries if each.problem is not None}

    @property
    def has_exported(self) -> bool:
        """Whether each exporter has succeeded at least once."""
        return all(each.has_exported for each in self._deliveries)

    def shut_down(self) -> bool:
        """Export the rest, for at most `SHUTDOWN_TIMEOUT` seconds; whether that succeeded."""
        ends = [each.shutdown for each in (self.tracing, self.metering) if each is not None]
        threads = DaemonThreadExecutor("telemetry-end")
        calls = [threads.submit(end) for end in ends]
        ended = wait(calls, SHUTDOWN_TIMEOUT).done
        return all(call in ended and call.exception() is None for call in calls)

    def _tracing(self, wanted: TelemetrySettings, resource: Resource) -> TracerProvider:
        provider = TracerProvider(_sampler(wanted), resource, shutdown_on_exit=False, id_generator=self.ids)
        for name in wanted.traces:
            otlp = wanted.traces_protocol, "trace_exporter", "OTLPSpanExporter"
            exporter = _exporter(name, ConsoleSpanExporter, *otlp)
            provider.add_span_processor(BatchSpanProcessor(WatchedSpans(exporter, self._delivery("traces", name))))
        return provider

    def _metering(self, wanted: TelemetrySettings, resource: Resource) -> MeterProvider:
        readers = []
        for name in wanted.metrics:
            otlp = wanted.metrics_protocol, "metric_exporter", "OTLPMetricExporter"
            exporter = _exporter(name, ConsoleMetricExporter, *otlp)
            readers.append(PeriodicExportingMetricReader(WatchedMetrics(exporter, self._delivery("metrics", name))))
        return MeterProvider(readers, resource, shutdown_on_exit=False)

    def _delivery(self, what: str, exporter: str) -> ExportStatus:
        self._deliveries.append(ExportStatus(f"{what} ({exporter})", self._log, self._hide))
        return self._deliveries[-1]


def _exporter(kind: str, console: Callable[..., Any], protocol: str, module: str, otlp: str) -> Any:
    """The exporter to stderr for `console`; else the class `otlp` of the package of the protocol."""
    if kind == "console":
        return console(out=sys.stderr)
    package = "grpc" if protocol == "grpc" else "http"
    guard_every_session()
    return getattr(import_module(f"opentelemetry.exporter.otlp.proto.{package}.{module}"), otlp)()


def _sampler(wanted: TelemetrySettings) -> Sampler:
    kind = wanted.sampler.removeprefix("parentbased_")
    wrapped = TraceIdRatioBased(wanted.ratio) if kind == "traceidratio" else ALWAYS_ON
    return KeepIncidents(ParentBased(wrapped) if wanted.sampler.startswith("parentbased_") else wrapped)


def _resource() -> Resource:
    """The resource: the variables' attributes, and `killswitch` with its version by default."""
    from importlib.metadata import version

    own = Resource({"service.name": "killswitch", "service.version": version("killswitch")})
    return Resource.get_empty().merge(Resource.create()).merge(own).merge(OTELResourceDetector().detect())
