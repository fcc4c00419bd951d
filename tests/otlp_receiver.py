"""A real OTLP/HTTP receiver on loopback: decodes requests with OpenTelemetry's own messages, and keeps them."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

DECODE = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}


class Receiver:
    """The received requests. `status` is the response; another than 200 keeps nothing."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        self._traces: list[ExportTraceServiceRequest] = []
        self._metrics: list[ExportMetricsServiceRequest] = []
        self._lock = threading.Lock()
        self.address = ""

    def take(self, path: str, headers: dict[str, str], body: bytes) -> bytes:
        """Process one request; returns the response body."""
        plain = DECODE[headers.get("Content-Encoding")](body)
        with self._lock:
            self.requests.append((path, headers))
            self.bodies.append(plain)
            if self.status != 200:
                return b""
            if path == "/v1/traces":
                self._traces.append(ExportTraceServiceRequest.FromString(plain))
                return ExportTraceServiceResponse().SerializeToString()
            assert path == "/v1/metrics", path
            self._metrics.append(ExportMetricsServiceRequest.FromString(plain))
            return ExportMetricsServiceResponse().SerializeToString()

    def spans(self, name: str | None = None) -> list[Span]:
        """All received spans of that name."""
        with self._lock:
            found = [
                span
                for request in self._traces
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        return [span for span in found if name in (None, span.name)]

    def metrics(self) -> dict[str, Metric]:
        """The newest of each metric, by name."""
        with self._lock:
            return {
                metric.name: metric
                for request in self._metrics
                for resource in request.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
            }

    def resource(self) -> dict[str, Any]:
        """Attributes of the resource of the last trace request."""
        with self._lock:
            return said(self._traces[-1].resource_spans[0].resource.attributes)


def said(attributes: Any) -> dict[str, Any]:
    """OTLP attributes as plain values."""
    return {each.key: _plain(each.value) for each in attributes}


def _plain(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")


def points(metric: Metric) -> list[tuple[dict[str, Any], float]]:
    """(attributes, value) of a gauge or a sum."""
    kind = getattr(metric, metric.WhichOneof("data") or "gauge")
    return [(said(point.attributes), getattr(point, point.WhichOneof("value"))) for point in kind.data_points]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver that listens."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = found.take(self.path, dict(self.headers), body)
            self.send_response(found.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *said: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
