"""Exports recorded spans through OpenTelemetry, with ids that a restart derives again."""

from __future__ import annotations

import threading
from hashlib import blake2b
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision as Sampled
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import (
    INVALID_SPAN_ID,
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from killswitch.model.instant import to_micros
from killswitch.model.tracing import AS_OF, Attribute
from killswitch.telemetry.spans import SpanRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind
    from opentelemetry.trace.span import TraceState
    from opentelemetry.util.types import Attributes

    from killswitch.model.decision import Decision

TICK = "tick"
SCOPE = "killswitch"
_KEPT = frozenset({"close", "order", "report"})


class Ids(IdGenerator):
    """Random ids, or the ones set for the next span."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self.next_trace = 0
        self.next_span = 0

    def generate_trace_id(self) -> int:
        found, self.next_trace = self.next_trace or self._random.generate_trace_id(), 0
        return found

    def generate_span_id(self) -> int:
        found, self.next_span = self.next_span or self._random.generate_span_id(), 0
        return found


class KeepIncidents(Sampler):
    """A sampler that thins out ticks, and always keeps the spans of a decision."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        parent = get_current_span(parent_context).get_span_context()
        decided = bool((attributes or {}).get("killswitch.decisions"))
        if name in _KEPT or (name == TICK and decided) or (parent.is_valid and parent.trace_flags.sampled):
            return SamplingResult(Sampled.RECORD_AND_SAMPLE, attributes)
        if parent.is_valid:
            return SamplingResult(Sampled.DROP)
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        return f"KeepIncidents{{{self._sampler.get_description()}}}"


class SpanSink:
    """Exports recorded spans to a TracerProvider. Thread-safe."""

    def __init__(self, provider: TracerProvider, ids: Ids, salt: str, hide: Callable[[str], str]) -> None:
        """`salt` distinguishes this runner's ticks from others', and is the same after a restart. `hide` redacts
        credentials."""
        self._tracer = provider.get_tracer(SCOPE)
        self._ids = ids
        self._salt = salt
        self._hide = hide
        self._lock = threading.Lock()

    def export(self, record: SpanRecord) -> None:
        """Export a tick, or a span that belongs to one by its `AS_OF`."""
        as_of = record.attributes.get(AS_OF)
        trace = self._trace(int(as_of)) if isinstance(as_of, int) else 0
        with self._lock:
            if record.name == TICK:
                self._emit(record, None, trace, _digest(f"{trace}/{TICK}", 8) if trace else 0)
            else:
                self._emit(record, _under(trace, _digest(f"{trace}/{TICK}", 8)) if trace else None)

    def export_late(self, record: SpanRecord, parent: SpanRecord) -> None:
        if isinstance(parent.context, SpanContext):
            with self._lock:
                self._emit(record, parent.context)

    def export_close(self, record: SpanRecord, decision: Decision, account: str) -> None:
        trace = self._trace(to_micros(decision.as_of))
        with self._lock:
            self._emit(record, _under(trace, _digest(f"{trace}/{TICK}", 8)), 0, _close_id(decision, account))

    def export_order(self, record: SpanRecord, decision: Decision, account: str) -> None:
        trace = self._trace(to_micros(decision.as_of))
        with self._lock:
            self._emit(record, _under(trace, _close_id(decision, account)))

    def _trace(self, as_of: int) -> int:
        return _digest(f"{self._salt}/{as_of}", 16)

    def _emit(self, record: SpanRecord, parent: SpanContext | None, trace: int = 0, span: int = 0) -> None:
        self._ids.next_trace, self._ids.next_span = trace, span
        context = None if parent is None else set_span_in_context(NonRecordingSpan(parent))
        made = self._tracer.start_span(
            record.name, context or _NOWHERE, attributes=self._redacted(record.attributes), start_time=record.began
        )
        for name, at, attributes in record.events:
            made.add_event(name, self._redacted(attributes), at)
        if record.failure is not None:
            made.set_status(Status(StatusCode.ERROR, self._hide(record.failure)))
        made.end(record.ended)
        record.context = made.get_span_context()
        for part in record.parts:
            if part.ended:
                self._emit(part, made.get_span_context())

    def _redacted(self, attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
        return {name: self._hide(value) if isinstance(value, str) else value for name, value in attributes.items()}


_NOWHERE = set_span_in_context(NonRecordingSpan(SpanContext(0, INVALID_SPAN_ID, is_remote=False)))
"""A context without a parent, whatever the current task has."""


def _under(trace: int, span: int) -> SpanContext:
    return SpanContext(trace, span, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _close_id(decision: Decision, account: str) -> int:
    return _digest(f"{decision.id}/{account}", 8)


def _digest(text: str, size: int) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=size).digest()) or 1
