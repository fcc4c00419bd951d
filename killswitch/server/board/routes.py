"""The routes of the board: its page, its session, its files, and the streams of events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from killswitch.operations.board import encode_board
from killswitch.operations.scoped_board import audience_of
from killswitch.server.board.event_stream import Audience, EventAnswer, TooManyStreamsError, event_bytes
from killswitch.server.board.feed import BoardBeat, BoardFeed, ReadBoard
from killswitch.server.board.parts import HtmlChannel, RecordChannel, RenderedBoards, environment
from killswitch.server.board.previews import CommandPreview, CommandPreviews
from killswitch.server.board.sessions import Session, Sessions
from killswitch.server.bodies import CommandBody
from killswitch.server.command_routes import CommandRoutes
from killswitch.server.entrance import Caller, Entrance, Identified, identified, source_of
from killswitch.store.errors import StoreError

FILES: Final = {"board.css": "text/css", "board.js": "text/javascript", "approve.js": "text/javascript",
                "login.js": "text/javascript",
                "icon.svg": "image/svg+xml"}  # fmt: skip
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing inline, nothing from elsewhere: a text that slipped through the escaping of a template still runs nothing."""

KINDS: Final = ("acknowledge", "close", "halt", "cancel", "lock", "unlock", "reset", "pause", "resume")
"""The commands that the page offers. Others of the API need what a page has no field for, such as a saved plan."""


class LoginBody(BaseModel):
    """A token, typed into the form."""

    model_config = ConfigDict(extra="forbid")
    token: Annotated[str, Field(min_length=1, max_length=4000)]


class BoardRoutes:
    """What the routes of the board do."""

    def __init__(
        self, store: Path, entrance: Entrance, sessions: Sessions, commands: CommandRoutes,
        monotonic: Callable[[], float],
    ) -> None:  # fmt: skip
        self._entrance = entrance
        self._sessions = sessions
        self._commands = commands
        self._previews = CommandPreviews(store)
        self._pages = RenderedBoards()
        self.feed = BoardFeed(store, monotonic, {"html": HtmlChannel(), "records": RecordChannel()})

    def add_to(self, app: FastAPI) -> None:
        """Add every route."""
        app.add_api_route("/", self.root, methods=["GET"], include_in_schema=False)
        app.add_api_route("/board", self.page, methods=["GET"], include_in_schema=False)
        app.add_api_route("/board/login", self.login, methods=["POST"], status_code=204, include_in_schema=False)
        app.add_api_route("/board/logout", self.logout, methods=["POST"], status_code=204, include_in_schema=False)
        app.add_api_route("/board/events", self.page_events, methods=["GET"], include_in_schema=False)
        for name in FILES:
            app.add_api_route(f"/board/{name}", _file_route(name), methods=["GET"], include_in_schema=False)
        app.add_api_route("/v1/board", self.state, methods=["GET"], summary="What the board shows, the worst first")
        app.add_api_route("/v1/preview", self.preview, methods=["POST"], summary="What a command would do now")
        app.add_api_route("/v1/events", self.events, methods=["GET"], summary="Changes of the board, as they happen")

    async def root(self) -> Response:
        """The board is the start page. The address is relative: a proxy may have a prefix before it."""
        return Response(status_code=307, headers={"location": "board"})

    async def page(self, request: Request) -> Response:
        """The board, or the form for a token."""
        is_proxied = bool(request.scope.get("is_proxied"))
        if self._entrance.identify(request.headers, is_proxied=is_proxied) is None:
            return _html("login", 401, why="")
        try:
            audience = _audience(await identified(request))
        except HTTPException as error:
            return _html("login", error.status_code, why=str(error.detail))
        read = await self._newest(audience)
        content = self._pages.content(audience, read)
        session: Session | None = request.scope.get("killswitch.session")
        return _html(
            "board", 200, board=read.board, number=read.number, boot=self.feed.boot,
            beat=_json(self.feed.beat(audience)), audience=_json(audience), kinds=KINDS, sections=content.sections,
            scopes=content.scopes, proof="" if session is None else session.proof,
        )  # fmt: skip

    async def login(self, request: Request, body: LoginBody) -> Response:
        """Begin a session with a token that may read the board."""
        headers = {"authorization": f"Bearer {body.token}"}
        _audience(self._entrance.caller(headers, source_of(request.scope), is_proxied=False))
        return Response(status_code=204, headers={"set-cookie": self._sessions.begin(body.token)})

    async def logout(self, request: Request) -> Response:
        """End the session of the request."""
        session: Session | None = request.scope.get("killswitch.session")
        if session is None:
            raise HTTPException(401, "there is no session")
        return Response(status_code=204, headers={"set-cookie": self._sessions.end(session)})

    async def state(self, caller: Identified) -> Response:
        """The board as JSON (`killswitch.board/v1`), with its number in `X-Killswitch-Number`.

        A token of some scopes gets what is of them, and `part` says which part of the book that is.
        """
        read = await self._newest(_audience(caller))
        headers = {"x-killswitch-number": str(read.number), "x-killswitch-boot": self.feed.boot}
        return Response(encode_board(read.board), media_type="application/json", headers=headers)

    async def preview(self, command: CommandBody, caller: Identified) -> CommandPreview:
        """What a command would do now, by what the last tick has read. It takes the rights of the command itself.

        Where a command must name what it ends and names nothing, the answer has all of it as `ids`.
        """
        if command.kind != "acknowledge":  # whose scopes are those of its firings
            caller.require("read", command.scope)
        holds = await self._previews.holds(command)
        if command.ids is None and command.kind in ("unlock", "reset", "resume"):
            command = command.model_copy(update={"ids": [each.decision for each in holds]})
        event = await self._commands.event(command, caller, "0" * 16)
        return await self._previews.preview(event, lambda scope: caller.may("positions", scope), holds)

    async def events(self, request: Request, caller: Identified) -> Response:
        """Server-sent events: `hello`, then `change` for each tick, `beat` each second, `lost` to a slow reader, `end`.

        Every event carries the age of the data. After `lost`, and after a pause, read `/v1/board`, and go on with the
        changes whose number is larger.
        """
        return await self._stream("records", request, caller)

    async def page_events(self, request: Request, caller: Identified) -> Response:
        """The same for the page."""
        return await self._stream("html", request, caller)

    async def _stream(self, channel: str, request: Request, caller: Caller) -> Response:
        audience = _audience(caller)
        is_proxied = bool(request.scope.get("is_proxied"))
        session: Session | None = request.scope.get("killswitch.session")

        def ended_because() -> str | None:
            if session is not None and not self._sessions.is_open(session):
                return "the session has ended"
            try:
                identity = self._entrance.identify(request.headers, is_proxied=is_proxied)
            except HTTPException as error:
                return str(error.detail)
            if identity is None:
                return "the credential is not valid any more: send a valid token"
            return None if identity == caller.identity else "the rights of the credential have changed"

        try:
            stream = await self.feed.follow(channel, caller.principal, ended_because, audience)
        except TooManyStreamsError as error:
            raise HTTPException(429, str(error)) from error
        hello = event_bytes("hello", self.feed.beat(audience))
        return EventAnswer(stream, hello, lambda: self.feed.streams.close(stream))

    async def _newest(self, audience: Audience) -> ReadBoard:
        try:
            return await self.feed.newest(audience)
        except StoreError as error:
            raise HTTPException(503, str(error)) from error


def _audience(caller: Caller) -> Audience:
    """The scopes whose board the caller sees; 403 for one that sees no positions."""
    caller.require("positions", is_scoped=False)
    return audience_of(caller.identity.scopes)


def _json(content: BoardBeat | Audience) -> str:
    return msgspec.json.encode(content).decode()


def _html(template: str, status: int, **shown: Any) -> Response:
    text = environment().get_template(f"{template}.html.j2").render(**shown)
    headers = {"content-security-policy": POLICY, "referrer-policy": "no-referrer"}
    return Response(text, status, headers, media_type="text/html; charset=utf-8")


def _file_route(name: str) -> Callable[[], Awaitable[Response]]:
    content = (Path(__file__).parent / "static" / name).read_bytes()

    async def file() -> Response:
        return Response(content, media_type=FILES[name])

    return file
