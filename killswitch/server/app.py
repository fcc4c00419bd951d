"""The routes of the API, version 1: status, heartbeats and operator commands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import anyio
import msgspec
from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi import Path as PathParam
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from msgspec import Struct, structs
from starlette.exceptions import HTTPException as StarletteHTTPException

from killswitch.client.heartbeat import monotonic_seconds
from killswitch.limits.question import encode_verdict
from killswitch.model.snapshot import Event
from killswitch.operations.commands import (
    RefusedScopeError,
    account_scopes,
    answer_to,
    operator_event,
    require_known_or_symbol,
    require_policy,
    watched_scopes,
)
from killswitch.operations.status import encode_status, runner_state, store_status
from killswitch.planning.operator.flags import FLAG_CHANGE
from killswitch.planning.operator.pauses import PAUSE_CHANGE
from killswitch.runner.clock import SystemClock
from killswitch.runner.locks.gate_view import gate_view_file
from killswitch.runner.status_blob import RunnerView, tick_time
from killswitch.server.access import EffectClass, TokenFileError, TokenRecord, Tokens, class_of, refusal
from killswitch.server.board.routes import BoardRoutes
from killswitch.server.board.sessions import SessionDoor, Sessions
from killswitch.server.bodies import (
    ERRORS,
    Accepted,
    BeatAge,
    BeatBody,
    CommandBody,
    CommandState,
    FullError,
    Heartbeats,
)
from killswitch.server.guard import Guard, problem
from killswitch.server.pretrade import Gate, MistakenQuestionError, NoViewError
from killswitch.store.command_spool import (
    CommandSpool,
    SpooledCommand,
    SpoolFullError,
    SpoolState,
    Urgency,
    digest_of,
    spool_of,
)
from killswitch.store.errors import StoreError
from killswitch.store.sqlite import open_store

ID_BEGINS = ("hand-", FLAG_CHANGE, PAUSE_CHANGE)
"""How the ids of operator commands begin."""
READERS = 4
"""Reads of the store under way at once; one more is answered with 503."""
READ_WITHIN = 2.0
"""Seconds that a read of the store may take."""

BeatName = Annotated[str, PathParam(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
CommandId = Annotated[str, PathParam(pattern=r"^[a-z0-9-]{8,80}$")]
AccountName = Annotated[str, PathParam(min_length=1, max_length=100)]
Key = Annotated[str, Header(min_length=8, max_length=200, pattern=r"^[\x21-\x7e]+$")]


class ServerSettings(Struct, frozen=True):
    """Where the server finds its store and its tokens, and which hosts are its own."""

    store: Path
    tokens: Path
    hosts: tuple[str, ...]
    is_secure: bool = False
    """Whether browsers reach the server over TLS, its own or that of a proxy."""


def create_app(settings: ServerSettings, monotonic: Callable[[], float] = monotonic_seconds) -> Guard:
    """The application behind its guard. TokenFileError if the tokens cannot be read."""
    server = ApiRoutes(
        settings, Tokens(settings.tokens), Heartbeats(monotonic), Gate(gate_view_file(str(settings.store)), _wall)
    )
    app = FastAPI(
        title="Killswitch", version="1", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json", responses=ERRORS
    )
    app.add_exception_handler(StarletteHTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    server.add_routes(app)
    sessions = Sessions(_wall, is_secure=settings.is_secure)
    BoardRoutes(settings.store, server.reader, sessions, monotonic).add_routes(app)
    return Guard(SessionDoor(app, sessions), settings.hosts)


def _wall() -> datetime:
    return datetime.now(UTC)


def _json_body(what: str) -> dict[str, Any]:
    """The description of a body that is decoded by the format's own decoder."""
    content = {"application/json": {"schema": {"type": "object"}}}
    return {"requestBody": {"required": True, "description": what, "content": content}}


async def _on_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    body = problem(error.status_code, error.detail if error.status_code == 404 else "Refused", str(error.detail))
    return JSONResponse(body, error.status_code, error.headers, media_type="application/problem+json")


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:10])
    return JSONResponse(problem(422, "Unprocessable Content", found), 422, media_type="application/problem+json")


Authorization = Annotated[str | None, Header(max_length=200)]


class ApiRoutes:
    """The state of the server, and what its routes do."""

    def __init__(self, settings: ServerSettings, tokens: Tokens, heartbeats: Heartbeats, gate: Gate) -> None:
        self._settings = settings
        self._tokens = tokens
        self._heartbeats = heartbeats
        self._gate = gate
        self._spool = CommandSpool(spool_of(settings.store))
        self._readers = anyio.CapacityLimiter(READERS)

    def add_routes(self, app: FastAPI) -> None:
        """Add every route."""
        app.add_api_route("/healthz", self.healthy, methods=["GET"], summary="Whether the server answers")
        app.add_api_route("/readyz", self.ready, methods=["GET"], summary="Whether the store can be read")
        app.add_api_route("/v1/status", self.status, methods=["GET"], summary="What `ksctl status` shows")
        app.add_api_route(
            "/v1/heartbeats/{name}", self.beat, methods=["POST"], status_code=204, summary="Send a heartbeat"
        )
        app.add_api_route("/v1/heartbeats/{name}", self.age, methods=["GET"], summary="The age of a heartbeat")
        app.add_api_route(
            "/v1/commands", self.command, methods=["POST"], status_code=202, summary="Give an operator command"
        )
        app.add_api_route(
            "/v1/pretrade", self.pretrade, methods=["POST"], summary="Ask whether an order may be sent",
            openapi_extra=_json_body("A question, as `ksctl schema pretrade` describes it."),
        )  # fmt: skip
        app.add_api_route(
            "/v1/pretrade/{account}/result", self.result, methods=["POST"], status_code=204,
            summary="Report what became of an order", openapi_extra=_json_body("`question`, and its `outcome`."),
        )  # fmt: skip
        app.add_api_route("/v1/commands/{id}", self.outcome, methods=["GET"], summary="What became of a command")

    # Routes

    async def healthy(self) -> dict[str, str]:
        """Answers while the process does."""
        return {"status": "ok"}

    async def ready(self) -> dict[str, str]:
        """503 while the store cannot be read. It says nothing of the book, because it needs no token."""
        await self._read(lambda store, _: store.lease())
        return {"status": "ok"}

    async def status(self, authorization: Authorization = None) -> Response:
        """The status of the store as JSON (`killswitch.status/v1`), to tokens of the portfolio."""
        self._require(authorization, "read", None)
        body = await self._read(lambda store, now: encode_status(store_status(store, now, 20)))
        return Response(body, media_type="application/json")

    async def beat(self, name: BeatName, beat: BeatBody, authorization: Authorization = None) -> Response:
        """Record a heartbeat. A loop sends it after its work, with a counter of its loops."""
        self._require(authorization, "report", None, is_scoped=False)
        try:
            self._heartbeats.receive(name, beat.progress)
        except FullError as error:
            raise HTTPException(503, str(error)) from error
        return Response(status_code=204)

    async def age(self, name: BeatName, authorization: Authorization = None) -> BeatAge:
        """The age of the newest heartbeat since the start of the server; 404 if there was none."""
        self._require(authorization, "read", None, is_scoped=False)
        found = self._heartbeats.age(name)
        if found is None:
            raise HTTPException(404, f"no heartbeat {name} since the server has started")
        return BeatAge(age=found[0], progress=found[1])

    async def command(
        self, request: Request, command: CommandBody, idempotency_key: Key, authorization: Authorization = None
    ) -> Accepted:
        """Leave a command for the runner. It is on disk when this answers, and applied by the next tick.

        The same key with the same body is the same command; with another body it is refused.
        """
        token = self._token(authorization)
        body = digest_of(await request.body())
        id_ = sha256(f"{token.principal}\n{request.url.path}\n{idempotency_key}".encode()).hexdigest()[:16]
        if self._find(id_) is not None:
            return await self._replayed(id_, body)
        event = await self._event(command, token, id_)
        effect = class_of(event)
        self._allow(token, effect, event.scope)
        urgency: Urgency = "0-tighten" if effect == "tighten" else "1-loosen"
        try:
            is_first = await anyio.to_thread.run_sync(self._spool.put, SpooledCommand(event, body), urgency)
        except (SpoolFullError, OSError) as error:
            raise HTTPException(503, f"the command is not accepted: {error}") from error
        if not is_first:
            return await self._replayed(id_, body)
        return await self._outcome(event, state="waiting", is_replay=False)

    async def _replayed(self, id_: str, body: str) -> Accepted:
        """The present state of the command that this key has given; 422 if the body was another one."""
        known = self._find(id_)
        if known is None or known[0].body != body:
            raise HTTPException(422, "this idempotency key was used with another body: use a new key")
        return await self._outcome(known[0].event, state=known[1], is_replay=True)

    async def outcome(self, id: CommandId, authorization: Authorization = None) -> Accepted:  # noqa: A002 - in the path
        """What became of a command: whether a tick has applied it, and what it decided."""
        token = self._token(authorization)
        known = self._find(id.rpartition("-")[2])
        if known is None or known[0].event.id != id:
            raise HTTPException(404, f"no command {id} was given to this server")
        self._allow(token, "read", known[0].event.scope)
        return await self._outcome(known[0].event, state=known[1], is_replay=False)

    async def pretrade(self, request: Request, authorization: Authorization = None) -> Response:
        """The verdict on a question (`killswitch.pretrade/v1` → `killswitch.verdict/v1`), with its reservation.

        Any other answer than 200 is no verdict: a client then refuses entries, and lets pass what only reduces.
        """
        token, content = self._token(authorization), await request.body()
        try:
            found = self._gate.ask(content, lambda account: self._allow(token, "report", f"account/{account}"))
        except NoViewError as error:
            raise HTTPException(503, str(error)) from error
        except MistakenQuestionError as error:
            raise HTTPException(422, str(error)) from error
        return Response(encode_verdict(found), media_type="application/json")

    async def result(self, request: Request, account: AccountName, authorization: Authorization = None) -> Response:
        """What became of an allowed question: `sent`, `not_sent`, or `refused` by a readable answer of the venue."""
        self._require(authorization, "report", f"account/{account}")
        content = await request.body()
        try:
            self._gate.report(account, content)
        except MistakenQuestionError as error:
            raise HTTPException(422, str(error)) from error
        return Response(status_code=204)

    # Parts

    def _find(self, digest: str) -> tuple[SpooledCommand, SpoolState] | None:
        return next((found for begin in ID_BEGINS if (found := self._spool.find(begin + digest)) is not None), None)

    async def _event(self, command: CommandBody, token: TokenRecord, digest: str) -> Event:
        """The event of a command; HTTPException if it is incomplete, or names what is not there."""
        if command.kind == "pause" and command.seconds is None:
            raise HTTPException(422, "a pause of a policy needs `seconds`: what lasts longer is an edit of the policy")
        if command.kind == "flag" and (command.flag is None or command.set is None):
            raise HTTPException(422, "a flag needs `flag`, its name, and `set`, true or false")
        view, at = await self._read(lambda store, now: (store_status(store, now, 0).view, tick_time(store, CLOCK)))
        _require_scope(command, view)
        until = None if command.seconds is None else at + timedelta(seconds=command.seconds)
        more = {
            "cause": (command.cause or "operator") if command.kind == "close" else None,
            "force": command.force, "flag": command.flag, "is_set": command.set, "until": until,
            "lock": command.mode or ("reduce_only" if command.kind in ("close", "lock") else None),
        }  # fmt: skip
        event = operator_event(command.kind, command.scope, token.principal, command.reason, at, **more)
        return structs.replace(event, id=event.id[:-16] + digest)

    async def _outcome(self, event: Event, *, state: SpoolState, is_replay: bool) -> Accepted:
        def read(store: Any, now: datetime) -> tuple[str, bool, list[str], list[str]]:
            answer = answer_to(store, event)
            is_stored = any(each.id == event.id for each in store.pending_events())
            found = [each.id for each in answer.decisions], [each.text for each in answer.notices]
            return runner_state(store.lease(), now).liveness, is_stored, *found

        try:
            runner, is_stored, decisions, notices = await self._read(read)
        except HTTPException:
            runner, is_stored, decisions, notices = "unknown", True, [], []
        is_applied = state == "taken" and bool(decisions or notices or not is_stored)
        shown: CommandState = "applied" if is_applied else "accepted" if state == "waiting" else state
        return Accepted(
            id=event.id, kind=event.kind, scope=event.scope, effect=class_of(event), state=shown, is_replay=is_replay,
            runner=runner, decisions=decisions, notices=notices,
        )  # fmt: skip

    async def _read(self, read: Callable[[Any, datetime], Any]) -> Any:
        """Read the store in a thread, at most `READERS` at once; 503 if that takes too long, or cannot be done."""

        def reading() -> Any:
            store = open_store(str(self._settings.store), read_only=True)
            try:
                return read(store, datetime.now(UTC))
            finally:
                store.close()

        try:
            with anyio.fail_after(READ_WITHIN):
                return await anyio.to_thread.run_sync(reading, limiter=self._readers, abandon_on_cancel=True)
        except TimeoutError as error:
            raise HTTPException(503, "the store takes too long to read") from error
        except (StoreError, msgspec.MsgspecError) as error:
            raise HTTPException(503, f"the store cannot be read: {error}") from error

    def _token(self, authorization: str | None) -> TokenRecord:
        """The record of the token of a request; 401 without a valid one."""
        kind, _, presented = (authorization or "").partition(" ")
        try:
            found = self._tokens.find(presented.strip(), datetime.now(UTC)) if kind.lower() == "bearer" else None
        except TokenFileError as error:
            raise HTTPException(503, str(error)) from error
        if found is None:
            raise HTTPException(
                401, "send a valid token as `Authorization: Bearer kst_…`", {"WWW-Authenticate": "Bearer"}
            )
        return found

    def reader(self, authorization: str | None) -> TokenRecord:
        """The record of a token that may read everything; HTTPException without one."""
        token = self._token(authorization)
        self._allow(token, "read", None)
        return token

    def _require(
        self, authorization: str | None, wanted: EffectClass, scope: str | None, *, is_scoped: bool = True
    ) -> None:
        self._allow(self._token(authorization), wanted, scope, is_scoped=is_scoped)

    @staticmethod
    def _allow(token: TokenRecord, wanted: EffectClass, scope: str | None, *, is_scoped: bool = True) -> None:
        """403 unless the token may do that."""
        why = refusal(token, wanted, scope, is_scoped=is_scoped)
        if why is not None:
            raise HTTPException(403, why)


CLOCK = SystemClock()


def _require_scope(command: CommandBody, view: RunnerView | None) -> None:
    """409 for a scope that the runner does not have. Before its first tick nothing is known, and the tick refuses."""
    if view is None:
        return
    try:
        if command.kind in ("pause", "resume"):
            require_policy(command.scope, {each.policy for each in view.machines})
        elif command.scope is not None:
            known = account_scopes((each.account, each.venue) for each in view.accounts) | watched_scopes(view)
            require_known_or_symbol(command.scope, known | set(view.strategies or ()))
    except RefusedScopeError as error:
        raise HTTPException(409, str(error)) from error
