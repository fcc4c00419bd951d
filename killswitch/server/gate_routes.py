"""Routes of bots: the gate's verdict, what became of an order, and heartbeats.

A verdict is answered by a plain ASGI application in front of the framework, which would take two thirds of the time of
a request (ADR 0193). It has the same credentials, rights and errors as every other route.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as PathParam

from killswitch.limits.question import encode_verdict
from killswitch.server.bodies import BeatAge, BeatBody
from killswitch.server.entrance import Entrance, Identified, source_of
from killswitch.server.guard import App, Receive, Scope, Send, problem_answer
from killswitch.server.pretrade import Gate, MistakenQuestionError, NoViewError
from killswitch.server.received_writer import FullError, ReceivedWriter

PRETRADE: Final = "/v1/pretrade"
BeatName = Annotated[str, PathParam(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
AccountName = Annotated[str, PathParam(min_length=1, max_length=100)]


class PretradeRoute:
    """Answers `POST /v1/pretrade`, and passes everything else on. The guard in front of it has read the whole body."""

    def __init__(self, app: App, gate: Gate, entrance: Entrance, prefix: str = "") -> None:
        self._app = app
        self._gate = gate
        self._entrance = entrance
        self._path = prefix + PRETRADE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            content = self._answer(scope, (await receive())["body"])
        except HTTPException as error:
            await problem_answer(send, error.status_code, "Refused", str(error.detail), error.headers)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _answer(self, scope: Scope, body: bytes) -> bytes:
        """The verdict. Nothing is awaited between it and what it reserves."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        caller = self._entrance.caller(headers, source_of(scope), is_proxied=bool(scope.get("is_proxied")))
        try:
            found = self._gate.ask(body, lambda account: caller.require("report", f"account/{account}"))
        except NoViewError as error:
            raise HTTPException(503, str(error)) from error
        except MistakenQuestionError as error:
            raise HTTPException(422, str(error)) from error
        return encode_verdict(found)


def json_body(what: str) -> dict[str, Any]:
    """The description of a body that is decoded by the format's own decoder."""
    content = {"application/json": {"schema": {"type": "object"}}}
    return {"requestBody": {"required": True, "description": what, "content": content}}


class GateRoutes:
    """The other routes of bots, and the description of the first."""

    def __init__(self, gate: Gate, received: ReceivedWriter) -> None:
        self._gate = gate
        self._received = received

    def add_to(self, app: FastAPI) -> None:
        """Add every route."""
        app.add_api_route(
            PRETRADE, self.pretrade, methods=["POST"], summary="Ask whether an order may be sent",
            openapi_extra=json_body("A question, as `ksctl schema pretrade` describes it."),
        )  # fmt: skip
        app.add_api_route(
            "/v1/pretrade/{account}/result", self.result, methods=["POST"], status_code=204,
            summary="Report what became of an order", openapi_extra=json_body("`question`, and its `outcome`."),
        )  # fmt: skip
        app.add_api_route(
            "/v1/heartbeats/{name}", self.beat, methods=["POST"], status_code=204, summary="Send a heartbeat"
        )
        app.add_api_route("/v1/heartbeats/{name}", self.age, methods=["GET"], summary="The age of a heartbeat")

    async def pretrade(self, _caller: Identified) -> Response:
        """The verdict on a question (`killswitch.pretrade/v1` → `killswitch.verdict/v1`), with its reservation.

        Any other answer than 200 is no verdict: a client then refuses entries, and lets pass what only reduces.
        """
        raise HTTPException(503, "the gate is not in front of this application")  # `PretradeRoute` answers

    async def result(self, request: Request, account: AccountName, caller: Identified) -> Response:
        """What became of an allowed question: `sent`, `not_sent`, or `refused` by a readable answer of the venue."""
        caller.require("report", f"account/{account}")
        content = await request.body()
        try:
            self._gate.report(account, content)
        except MistakenQuestionError as error:
            raise HTTPException(422, str(error)) from error
        return Response(status_code=204)

    async def beat(self, name: BeatName, beat: BeatBody, caller: Identified) -> Response:
        """Record a heartbeat, which the runner has within a second. A loop sends it after its work, with a counter."""
        caller.require("report", is_scoped=False)
        try:
            self._received.beat(name, beat.progress)
        except FullError as error:
            raise HTTPException(503, str(error)) from error
        return Response(status_code=204)

    async def age(self, name: BeatName, caller: Identified) -> BeatAge:
        """The age of the newest heartbeat that a server on this store has received; 404 if there was none."""
        caller.require("read", is_scoped=False)
        found = self._received.age(name)
        if found is None:
            raise HTTPException(404, f"no heartbeat {name} was received")
        return BeatAge(age=found[0], progress=found[1])
