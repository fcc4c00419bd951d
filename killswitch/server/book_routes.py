"""Routes that read: probes, status, and what the server has counted."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse

from killswitch.operations.prometheus import prometheus_text
from killswitch.operations.status import encode_status, store_status
from killswitch.server.entrance import Identified
from killswitch.server.rates import ServerCounters
from killswitch.server.store_reads import StoreReads

WITHOUT_POSITIONS: Final = frozenset(
    {"format", "now", "runner", "view", "view_problem", "locks", "notifications", "policy_files", "flags", "pauses",
     "shadows", "heartbeats", "switches", "source"}
)  # fmt: skip
VIEW_WITHOUT_POSITIONS: Final = frozenset(
    {"owner", "started_at", "as_of", "ticks", "duration_ms", "interval", "live", "policies", "policy_set",
     "lock_folder", "union", "accounts", "apart", "clock", "needs_start"}
)  # fmt: skip
"""The keys of the status, and of its `view`, that an admin sees: texts of notices and alerts name positions."""
METRICS_TYPE: Final = "text/plain; version=0.0.4"


class BookRoutes:
    """What the store and the runner's files show."""

    def __init__(self, reads: StoreReads, counters: ServerCounters) -> None:
        self._reads = reads
        self._counters = counters

    def add_to(self, app: FastAPI) -> None:
        """Add every route."""
        app.add_api_route("/healthz", self.healthy, methods=["GET"], summary="Whether the server answers")
        app.add_api_route("/readyz", self.ready, methods=["GET"], summary="Whether the store can be read")
        app.add_api_route("/v1/status", self.status, methods=["GET"], summary="What `ksctl status` shows")
        app.add_api_route(
            "/v1/metrics", self.metrics, methods=["GET"], summary="What this server has counted",
            response_class=PlainTextResponse,
        )  # fmt: skip
        app.add_api_route(
            "/metrics", self.book_metrics, methods=["GET"], summary="The state of the runner and the book",
            response_class=PlainTextResponse,
        )  # fmt: skip

    async def book_metrics(self, caller: Identified) -> PlainTextResponse:
        """The state of the runner and the book, and what the server has counted, in the text format of Prometheus.

        To callers of the portfolio who may see positions.
        """
        caller.require("positions")
        text = await self._reads.read(prometheus_text)
        return PlainTextResponse(text + "\n".join(self._counters.lines()) + "\n", media_type=METRICS_TYPE)

    async def healthy(self) -> dict[str, str]:
        """Answers while the process does."""
        return {"status": "ok"}

    async def ready(self) -> dict[str, str]:
        """503 while the store cannot be read. It says nothing of the book, because it needs no token."""
        await self._reads.read(lambda store, _: store.lease())
        return {"status": "ok"}

    async def status(self, caller: Identified) -> Response:
        """The status of the store as JSON (`killswitch.status/v1`), to callers of the portfolio.

        An admin gets it without positions: `left_out` then names the keys that are missing.
        """
        caller.require("read")
        body = await self._reads.read(lambda store, now: encode_status(store_status(store, now, 20)))
        if not caller.may("positions"):
            body = _without_positions(body)
        return Response(body, media_type="application/json")

    async def metrics(self, caller: Identified) -> PlainTextResponse:
        """Refused reads, failed logins and other counts since the start, in the text format of Prometheus."""
        caller.require("read", is_scoped=False)
        return PlainTextResponse("\n".join(self._counters.lines()) + "\n", media_type=METRICS_TYPE)


def _without_positions(status: bytes) -> bytes:
    """The status with the keys that show no position, no order and no money; `left_out` names the others."""
    found: dict[str, Any] = msgspec.json.decode(status)
    kept = {key: value for key, value in found.items() if key in WITHOUT_POSITIONS}
    view = kept.get("view")
    if isinstance(view, dict):
        kept["view"] = {key: value for key, value in view.items() if key in VIEW_WITHOUT_POSITIONS}
        kept["view"]["accounts"] = [
            {key: account[key] for key in ("account", "venue", "quality", "reason") if key in account}
            for account in view.get("accounts", ())
        ]
    return msgspec.json.encode(kept | {"left_out": sorted(found.keys() - kept.keys())})
