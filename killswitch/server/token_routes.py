"""Routes of an admin: which tokens there are, a new one, and the end of one.

A token that may loosen, or that may issue others, is paged by the runner: whoever steals the credential of an admin
cannot make one unseen. A revoked token stays in the file with the time of its end, for the record and for its key.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Annotated, Final, Literal

import anyio
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as PathParam
from pydantic import BaseModel, ConfigDict, Field

from killswitch.model.record_entry import Field as EntryField
from killswitch.model.record_entry import private
from killswitch.model.snapshot import Event
from killswitch.server.access import RIGHTS, SCOPE_PATTERN, Role, TokenFileError, TokenRecord, Tokens, ended_by, issue
from killswitch.server.command_routes import CommandRoutes, Key, request_id
from killswitch.server.entrance import Caller, Identified
from killswitch.server.server_record import ServerRecord
from killswitch.store.command_spool import SpooledCommand, SpooledPage, digest_of

MOST_TOKENS: Final = 1_000
"""Records in the file, with revoked ones."""
KEPT: Final = timedelta(days=30)
"""How long the record of a token stays after its end; an idempotency key counts for 48 h of it."""
TokenId = Annotated[str, PathParam(pattern=r"^[0-9a-f]{8}$")]
ScopeText = Annotated[str, Field(min_length=1, max_length=200, pattern=SCOPE_PATTERN)]


class TokenBody(BaseModel):
    """A token to be issued. `seconds`: how long it is valid; left out: until it is revoked."""

    model_config = ConfigDict(extra="forbid")
    principal: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^\S(.*\S)?$")]
    role: Role
    scopes: Annotated[list[ScopeText], Field(min_length=1, max_length=100)]
    seconds: Annotated[float | None, Field(gt=0, le=10 * 366 * 86400)] = None


class TokenView(BaseModel):
    """A token without anything that could be used as one."""

    id: str
    principal: str
    role: Role
    scopes: list[str]
    created: datetime
    expires: datetime | None
    is_valid: bool


class IssuedToken(TokenView):
    """A new token. `token` is shown this once: a replay has none."""

    token: str | None
    is_replay: bool


class TokenRoutes:
    """Reads and changes the file of tokens."""

    def __init__(
        self, tokens: Tokens, commands: CommandRoutes, now: Callable[[], datetime], record: ServerRecord
    ) -> None:
        """`commands`: the way to the runner, which pages."""
        self._record = record
        self._tokens = tokens
        self._commands = commands
        self._now = now

    def add_to(self, app: FastAPI) -> None:
        """Add every route."""
        app.add_api_route("/v1/tokens", self.listed, methods=["GET"], summary="The tokens of this server")
        app.add_api_route("/v1/tokens", self.issued, methods=["POST"], status_code=201, summary="Issue a token")
        app.add_api_route(
            "/v1/tokens/{id}/revoke", self.revoked, methods=["POST"], status_code=204, summary="Revoke a token"
        )

    async def listed(self, caller: Identified) -> list[TokenView]:
        """Every token, also those that have ended, without their secrets and their hashes."""
        caller.require("administer", is_scoped=False)
        return [_view(each, self._now()) for each in self._tokens.records]

    async def issued(self, request: Request, body: TokenBody, idempotency_key: Key, caller: Identified) -> IssuedToken:
        """Issue a token, which is shown this once. One that may loosen, or issue tokens, is paged by the runner."""
        caller.require("administer", is_scoped=False)
        key, digest, now = request_id(caller, request, idempotency_key), digest_of(await request.body()), self._now()
        known = next((each for each in self._tokens.records if (each.request or "").startswith(f"{key}:")), None)
        if known is not None:
            if known.request != f"{key}:{digest}":
                raise HTTPException(422, "this idempotency key was used with another body: use a new key")
            return IssuedToken(**dict(_view(known, now)), token=None, is_replay=True)
        expires = None if body.seconds is None else now + timedelta(seconds=body.seconds)
        secret, record = issue(body.principal, body.role, body.scopes, now, expires, f"{key}:{digest}")
        if {"loosen", "administer"} & RIGHTS[body.role]:
            await self._page(record, caller.principal, now)  # first: a token of which nobody knows must not exist
        await self._put_on_record(record, caller, "issued")
        await self._change(lambda before: _with(before, record, now))
        return IssuedToken(**dict(_view(record, now)), token=secret, is_replay=False)

    async def revoked(self, id: TokenId, caller: Identified) -> Response:  # noqa: A002 - in the path
        """End a token at once. To revoke it again changes nothing, so that this takes no idempotency key."""
        caller.require("administer", is_scoped=False)
        now = self._now()
        record = next((each for each in self._tokens.records if each.id == id), None)
        if record is None:
            raise HTTPException(404, f"there is no token {id}")
        await self._put_on_record(record, caller, "revoked")
        await self._change(lambda before: ended_by(before, (id,), now))
        return Response(status_code=204)

    async def _put_on_record(self, token: TokenRecord, by: Caller, what: Literal["issued", "revoked"]) -> None:
        """Put the change on record before it is made. 503 if a token cannot be issued because of that; one that is
        revoked ends in any case.
        """
        fields: dict[str, EntryField | None] = {
            "token": token.id, "result": what, "role": token.role, "scopes": " ".join(token.scopes),
            "principal": private(token.principal), "actor": private(by.principal),
        }  # fmt: skip
        written = self._record.later("token", fields)
        if what == "issued":
            await by.confirm(written)

    async def _change(self, change: Callable[[tuple[TokenRecord, ...]], tuple[TokenRecord, ...]]) -> None:
        try:
            await anyio.to_thread.run_sync(self._tokens.change, change)
        except (TokenFileError, OSError) as error:
            raise HTTPException(503, f"the file of tokens cannot be changed: {error}") from error

    async def _page(self, record: TokenRecord, by: str, now: datetime) -> None:
        scopes = ", ".join(record.scopes)
        until = "until it is revoked" if record.expires is None else f"until {record.expires:%Y-%m-%dT%H:%M:%SZ}"
        text = (
            f"{by} has issued the token {record.id} to {record.principal} with the role {record.role} for {scopes}, "
            f"{until}, by the server: if nobody knows of that, revoke it"
        )
        event = Event(f"hand-{sha256(record.id.encode()).hexdigest()[:16]}", now, "approve", None, by, text)
        page = SpooledPage(f"token/{record.id}", text)
        await self._commands.spool(SpooledCommand(event, record.hash, page), "0-tighten", None)


def _view(record: TokenRecord, now: datetime) -> TokenView:
    return TokenView(
        id=record.id, principal=record.principal, role=record.role, scopes=list(record.scopes), created=record.created,
        expires=record.expires, is_valid=record.is_valid_at(now),
    )  # fmt: skip


def _with(before: tuple[TokenRecord, ...], record: TokenRecord, now: datetime) -> tuple[TokenRecord, ...]:
    kept = tuple(each for each in before if each.expires is None or now - each.expires < KEPT)
    if len(kept) >= MOST_TOKENS:
        raise TokenFileError(f"it has {len(kept)} tokens already: revoke those that nobody uses")
    return (*kept, record)
