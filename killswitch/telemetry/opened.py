"""The telemetry of one run, configured from the environment at its start and shut down at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from killswitch.journal.entries import NO_CLOSING_OBSERVER, ClosingObserver
from killswitch.model.instant import to_micros
from killswitch.model.legible import legible
from killswitch.model.tracing import NO_TRACER, Incidents, Tracer
from killswitch.telemetry.settings import TelemetryError, read_telemetry_settings

if TYPE_CHECKING:
    from killswitch.model.clock import Clock
    from killswitch.telemetry.metrics import Metrics
    from killswitch.telemetry.provider import Providers

Redact = Callable[[str], str]


class Telemetry(Struct, frozen=True):
    """Tracer, observers and metrics of a run. Where nothing is exported they do nothing, and OpenTelemetry is not
    imported."""

    tracer: Tracer = NO_TRACER
    closing_observer: ClosingObserver = NO_CLOSING_OBSERVER
    metrics: Metrics | None = None
    providers: Providers | None = None

    @property
    def problems(self) -> dict[str, str]:
        """What cannot be exported → why; empty while everything arrives."""
        return {} if self.providers is None else self.providers.problems

    @property
    def has_exported(self) -> bool:
        """Whether something of each kind has been exported, so that `problem` is known."""
        return self.providers is None or self.providers.has_exported

    def shut_down(self) -> bool:
        """Export the rest, for a few seconds at most; whether that succeeded."""
        return self.providers is None or self.providers.shut_down()


SILENT = Telemetry()


def open_telemetry(
    environ: Mapping[str, str],
    clock: Clock,
    *,
    store: str,
    redaction: Callable[[Iterable[str]], Redact],
    incidents: Incidents | None = None,
) -> Telemetry:
    """Configure the telemetry that the OTEL_* variables in `environ` request. Raises TelemetryError for invalid ones.

    `store` names the store: after a restart on it traces continue. `redaction` makes, from further secrets, a function
    that redacts all secrets of a text. `incidents`: those that the run follows.
    """
    wanted = read_telemetry_settings(environ)
    if wanted is None:
        return SILENT
    hide = redaction(wanted.secrets)
    try:
        from killswitch.telemetry.close_spans import CloseSpans
        from killswitch.telemetry.exporting import SpanSink
        from killswitch.telemetry.metrics import Metrics
        from killswitch.telemetry.provider import Providers
        from killswitch.telemetry.spans import SpanRecorder

        # Header values occur only in errors of an exporter: redacting a short one in every span would hide other text.
        providers = Providers(wanted, hide)
        sink = None if providers.tracing is None else SpanSink(providers.tracing, providers.ids, store, redaction(()))
        metrics = None if providers.metering is None else Metrics(providers.metering.get_meter("killswitch"))
        tracer = NO_TRACER if sink is None else SpanRecorder(sink, lambda: to_micros(clock.now()) * 1000)
        return Telemetry(tracer, CloseSpans(sink, metrics, incidents), metrics, providers)
    except Exception as error:  # OpenTelemetry reads variables of its own, also when it is imported
        why = legible(hide(str(error) or type(error).__name__))
        raise TelemetryError(f"OpenTelemetry cannot be configured from the OTEL_* variables: {why}") from error
