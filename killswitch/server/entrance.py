"""Who asks: the credential of a request, the rights that it gives, and how many requests it may make.

A route names what it does as a class of effect and a scope, and nothing is done before `Caller.require` has returned.
A credential is a token of ours or, where that is configured, a JWT. It is verified before any limit of its source is
looked at: requests that fail slow their own source, and nobody else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from math import ceil
from threading import Event
from typing import Annotated, Final

import anyio
from fastapi import Depends, Header, HTTPException, Request
from msgspec import Struct

from killswitch.server.access import EffectClass, Role, TokenFileError, Tokens, refusal
from killswitch.server.jwt_login import JwtIdentity, JwtVerifier, RefusedJwtError
from killswitch.server.rates import RequestRates, ServerCounters
from killswitch.server.server_record import ASKED, ServerRecord, UnrecordedError

VERIFIED_KEPT: Final = 1_000
"""JWTs whose signature is not verified again until they expire."""
CONFIRMING: Final = 4
"""Requests that wait for their line of the record at once, each in a thread."""
EFFECTS: Final = frozenset({"tighten", "loosen", "carry", "administer"})
"""Classes whose requests are on record."""
PREVIEWS: Final = ("/v1/preview", "/v1/plan", "/v1/approvals/preview")
"""How the paths of requests end that ask for a right and change nothing."""
Authorization = Annotated[str | None, Header(max_length=8_300)]


class Identity(Struct, frozen=True):
    """Who asks. `credential`: the id of the token, or `jwt`."""

    principal: str
    role: Role
    scopes: tuple[str, ...]
    credential: str


class Entrance:
    """Identifies callers by their credentials. Not thread-safe: all calls come from one loop."""

    def __init__(
        self, tokens: Tokens, verifier: JwtVerifier | None, rates: RequestRates, counters: ServerCounters,
        now: Callable[[], datetime], record: ServerRecord,
    ) -> None:  # fmt: skip
        self.rates = rates
        self.counters = counters
        self.tokens = tokens
        self.record = record
        self._verifier = verifier
        self._now = now
        self._verified: OrderedDict[bytes, JwtIdentity] = OrderedDict()
        self._confirming = anyio.CapacityLimiter(CONFIRMING)

    def caller(self, headers: Mapping[str, str], source: str, *, is_proxied: bool) -> Caller:
        """Who asks; 401 or 429 without a valid credential. `is_proxied`: a declared proxy has sent the request."""
        identity = self.identify(headers, is_proxied=is_proxied)
        if identity is None:
            raise self._failure(source)
        self.record.login(identity.principal, identity.credential, source)
        return Caller(identity, source, self)

    async def confirm(self, written: Event) -> None:
        """Wait until a line of the record is on disk, next to the loop; 503 if it cannot be."""
        try:
            await anyio.to_thread.run_sync(self.record.confirm, written, limiter=self._confirming)
        except UnrecordedError as error:
            raise HTTPException(503, str(error)) from error

    def identify(self, headers: Mapping[str, str], *, is_proxied: bool) -> Identity | None:
        """Who has sent these headers (names in lower case); None without a valid credential. 503 without tokens."""
        kind, _, presented = headers.get("authorization", "").partition(" ")
        presented = presented.strip() if kind.lower() == "bearer" else ""
        try:
            found = self.tokens.find(presented, self._now()) if presented else None
        except TokenFileError as error:
            raise HTTPException(503, str(error)) from error
        if found is not None:
            return Identity(found.principal, found.role, found.scopes, found.id)
        if self._verifier is None:
            return None
        header = self._verifier.settings.header
        if header is not None:
            presented = headers.get(header.lower(), "") if is_proxied else ""
        return self._by_jwt(presented) if presented else None

    def _by_jwt(self, presented: str) -> Identity | None:
        assert self._verifier is not None
        name, now = sha256(presented.encode()).digest(), self._now()
        found = self._verified.get(name)
        if found is None:
            try:
                found = self._verifier.identity(presented, now)
            except RefusedJwtError:
                self.counters.count("refused_jwts")
                return None
            self._verified[name] = found
            if len(self._verified) > VERIFIED_KEPT:
                self._verified.popitem(last=False)
        if found.expires_at <= now.timestamp():
            del self._verified[name]
            return None
        return Identity(found.principal, found.role, found.scopes, "jwt")

    def _failure(self, source: str) -> HTTPException:
        self.counters.count("failed_logins")
        self.record.failed_login(source)
        wait = self.rates.failed(source)
        if wait:
            return too_many("too many failed logins from this address", wait)
        return HTTPException(401, "send a valid token as `Authorization: Bearer kst_…`", {"WWW-Authenticate": "Bearer"})


def too_many(why: str, wait: float) -> HTTPException:
    """The answer 429, with when to come back."""
    seconds = max(1, ceil(wait))
    return HTTPException(429, f"{why}: come back after {seconds} s", {"Retry-After": str(seconds)})


class Caller:
    """Who has sent a request, and from where."""

    def __init__(self, identity: Identity, source: str, entrance: Entrance) -> None:
        self.identity = identity
        self._source = source
        self._entrance = entrance
        self._path: str | None = None
        self._asked: dict[tuple[EffectClass, str | None], str] = {}
        self._unwritten: list[Event] = []

    @property
    def principal(self) -> str:
        """The author of what is done by this request."""
        return self.identity.principal

    def require(self, wanted: EffectClass, scope: str | None = None, *, is_scoped: bool = True) -> None:
        """403 unless the caller may do that in the scope, None: the portfolio; 429 if it has done so too often."""
        why = refusal(self.identity, wanted, scope, is_scoped=is_scoped)
        if why is not None:
            self._entrance.counters.count("refused_by_rights", self.identity.role)
            self._note_refused(wanted, 403)
            raise HTTPException(403, why)
        wait = self._entrance.rates.wait(self.principal, self._source, wanted)
        if wait:
            self._entrance.counters.count("refused_by_rate", wanted)
            self._note_refused(wanted, 429)
            raise too_many(f"{self.principal} sends too many requests of this kind", wait)
        self._announce(wanted, scope)

    def slow_outside(self, scope: str | None) -> None:
        """429 where the caller gives commands in scopes of others too often; its own are never slowed by that."""
        wait = 0.0 if self.may("tighten", scope) else self._entrance.rates.out_of_scope(self.principal)
        if wait:
            self._entrance.counters.count("refused_by_rate", "out_of_scope")
            raise too_many(f"{self.principal} gives too many commands in scopes of others", wait)

    def announces(self, request: Request) -> None:
        """From now on put on record what `require` grants, and how the request is answered."""
        if request.method == "POST" and not request.url.path.endswith(PREVIEWS):
            self._path = request.url.path
            request.scope[ASKED] = self._asked

    def _announce(self, wanted: EffectClass, scope: str | None) -> None:
        """Put the request on record; before it lets risk in again, `recorded` waits for that."""
        if self._path is None or wanted not in EFFECTS or (wanted, scope) in self._asked:
            return
        self._asked[wanted, scope], written = self._entrance.record.requested(self.principal, wanted, scope, self._path)
        if wanted == "loosen":
            self._unwritten.append(written)

    async def confirm(self, written: Event) -> None:
        """Wait until a line of this request is on record; 503 if it cannot be."""
        await self._entrance.confirm(written)

    async def recorded(self) -> None:
        """Wait until what lets risk in again is on record; 503 if it cannot be. Everybody else is served meanwhile."""
        while self._unwritten:
            await self._entrance.confirm(self._unwritten.pop())

    def _note_refused(self, wanted: EffectClass, status: int) -> None:
        if self._path is not None and wanted in EFFECTS:
            self._entrance.record.refused(self.principal, wanted, status)

    def may(self, wanted: EffectClass, scope: str | None = None, *, is_scoped: bool = True) -> bool:
        """Whether the caller may do that; it counts in no limit."""
        return refusal(self.identity, wanted, scope, is_scoped=is_scoped) is None


async def identified(request: Request, authorization: Authorization = None) -> Caller:
    """Who has sent the request, for routes. `authorization` is for the description of the API."""
    entrance: Entrance = request.app.state.entrance
    caller = entrance.caller(
        request.headers, source_of(request.scope), is_proxied=bool(request.scope.get("is_proxied"))
    )
    caller.announces(request)
    return caller


def source_of(scope: Mapping[str, object]) -> str:
    """The address that a request comes from; behind a declared proxy, the one that the proxy has named."""
    client = scope.get("client")
    return str(client[0]) if isinstance(client, tuple | list) and client else "unknown"


Identified = Annotated[Caller, Depends(identified)]
