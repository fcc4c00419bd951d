"""Routes that compute and change nothing: a plan, the dry run of a command, and sizes of positions.

All use the accounts as the runner's last tick has read them. A plan is made in a process of its own, one at a time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import anyio
import msgspec
from fastapi import FastAPI, HTTPException, Request, Response

from killswitch.operations.book_sizing import decode_request, sizes_of
from killswitch.operations.pages.size import SizeRecord
from killswitch.operations.stored_preview import WITHIN, NoPreviewError, PreviewRequest, previewed
from killswitch.risk.sizing.answer import SizingError
from killswitch.server.bodies import CommandBody
from killswitch.server.command_routes import CommandRoutes
from killswitch.server.entrance import Identified
from killswitch.server.gate_routes import json_body
from killswitch.server.rates import ServerCounters
from killswitch.server.store_reads import StoreReads

MAY_WAIT: Final = 3
"""Previews that may wait for the one that is made."""
_ENCODER: Final = msgspec.json.Encoder(decimal_format="string")


class PreviewRoutes:
    """Answers what would be done, and how large a position may be."""

    def __init__(self, reads: StoreReads, commands: CommandRoutes, counters: ServerCounters) -> None:
        self._reads = reads
        self._commands = commands
        self._counters = counters
        self._limiter = anyio.CapacityLimiter(1)

    def add_to(self, app: FastAPI) -> None:
        """Add every route."""
        app.add_api_route("/v1/plan", self.plan, methods=["GET"], summary="What the policies would do now")
        app.add_api_route("/v1/plan", self.dry_run, methods=["POST"], summary="What a command would do")
        app.add_api_route(
            "/v1/size", self.size, methods=["POST"], summary="How large a position may be",
            openapi_extra=json_body("A request as docs/sizing.md shows it: of one market, or of a book."),
        )  # fmt: skip

    async def plan(self, caller: Identified) -> Response:
        """What `ksctl plan --output json` prints (`killswitch.preview/v1`), on the book of the last tick."""
        caller.require("positions")
        content = await self._previewed(PreviewRequest(str(self._reads.store)))
        return Response(content, media_type="application/json")

    async def dry_run(self, command: CommandBody, caller: Identified) -> Response:
        """What a tick would decide about the command: every order with its expected price. Nothing is given.

        It takes the rights of the command itself.
        """
        caller.require("positions", command.scope)
        event = await self._commands.event(command, caller, "0" * 16)
        content = await self._previewed(PreviewRequest(str(self._reads.store), event, caller.identity.scopes))
        return Response(content, media_type="application/json")

    async def size(self, request: Request, caller: Identified) -> Response:
        """The sizes that a request asks for, what bounds them, and their inputs, as `ksctl size` prints them.

        What it leaves out is read from the account that it names, as of the last tick; the rest is unknown.
        """
        try:
            asked = decode_request(await request.body())
        except SizingError as error:
            raise HTTPException(422, str(error)) from error
        caller.require(
            "positions", f"account/{asked.account}" if asked.account else None, is_scoped=bool(asked.account)
        )
        view = await self._reads.view() if asked.account else None
        found = None if view is None else view.account(asked.account or "")
        if asked.account and found is None:
            raise HTTPException(409, f"the run has no account {asked.account}")
        now = datetime.now(UTC)
        try:
            sizes = sizes_of(asked, None if found is None else found.state, now)
        except SizingError as error:
            raise HTTPException(422, str(error)) from error
        record = SizeRecord(sizes, now if view is None else view.as_of)
        return Response(_ENCODER.encode(record), media_type="application/json")

    async def _previewed(self, request: PreviewRequest) -> bytes:
        if self._limiter.statistics().tasks_waiting >= MAY_WAIT:
            self._counters.count("refused_reads", "preview")
            raise HTTPException(503, "too many previews are being made: come back in a while", {"Retry-After": "5"})
        await self._reads.view()  # without one there is nothing to plan on, and no process to start
        try:
            with anyio.fail_after(WITHIN):
                return await anyio.to_thread.run_sync(previewed, request, limiter=self._limiter, abandon_on_cancel=True)
        except (NoPreviewError, TimeoutError) as error:
            why = str(error) or "the previews before it take too long"
            raise HTTPException(503, f"there is no preview: {why}") from error
