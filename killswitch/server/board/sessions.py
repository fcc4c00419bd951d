"""Sessions of browsers: a token is typed once, and a cookie that no script can read carries it afterwards.

A session is nothing but its token: each request with the cookie becomes the same request with `Authorization`, so that
no route knows of sessions, a revoked token ends them, and no right exists twice. What changes something must also carry
a header that only a page of ours can know. Sessions are in memory: after a restart of the server people log in again.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import Final

from msgspec import Struct

from killswitch.server.guard import FOR_LINKS, App, Receive, Scope, Send, problem_answer

LASTS: Final = timedelta(days=7)
"""A board on a wall needs nobody for a week; the token may end earlier."""
MOST_SESSIONS: Final = 1000
"""One more ends the oldest."""
PROOF: Final = "x-killswitch-session"
"""The header that proves that a page of ours sent the request."""


class Session(Struct, frozen=True):
    """A session: the token, what its pages prove themselves with, and its end."""

    token: str
    proof: str
    expires: datetime


class Sessions:
    """The sessions of a server, by the digest of their cookie."""

    def __init__(self, now: Callable[[], datetime], *, is_secure: bool) -> None:
        """`is_secure`: whether browsers reach the server over TLS, its own or that of a proxy."""
        self._now = now
        self._is_secure = is_secure
        self._open: dict[str, Session] = {}

    @property
    def cookie(self) -> str:
        """The name of the cookie. Browsers keep `__Host-` cookies over TLS only, and send them to this host alone."""
        return "__Host-killswitch" if self._is_secure else "killswitch"

    def begin(self, token: str) -> str:
        """A new session of a token that was found valid; the value of `Set-Cookie`."""
        value = secrets.token_urlsafe(32)
        while len(self._open) >= MOST_SESSIONS:
            self._open.pop(next(iter(self._open)))
        self._open[_digest(value)] = Session(token, secrets.token_urlsafe(32), self._now() + LASTS)
        return self._set_cookie(value, int(LASTS.total_seconds()))

    def end(self, session: Session) -> str:
        """End a session; the value of `Set-Cookie`."""
        self._open = {key: each for key, each in self._open.items() if each is not session}
        return self._set_cookie("", 0)

    def find(self, cookies: str) -> Session | None:
        """The session of a `Cookie` header that has not ended."""
        try:
            found = SimpleCookie(cookies).get(self.cookie)
        except CookieError:
            return None
        if found is None:
            return None
        session = self._open.get(_digest(found.value))
        return None if session is None or session.expires <= self._now() else session

    def is_open(self, session: Session) -> bool:
        """Whether the session has not ended."""
        return any(each is session for each in self._open.values()) and session.expires > self._now()

    def _set_cookie(self, value: str, seconds: int) -> str:
        secure = "; Secure" if self._is_secure else ""
        return f"{self.cookie}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"


def _digest(value: str) -> str:
    return sha256(value.encode("utf-8", "replace")).hexdigest()


class SessionDoor:
    """Gives a request with the cookie of a session its token, where it has none of its own."""

    def __init__(self, app: App, sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope.get("headers", ())
        names = {name.lower(): value.decode("latin-1") for name, value in headers}
        # The page of a link has no script to prove anything with: its seal counts, and a session gives it no right.
        is_link = scope.get("path", "").removeprefix(scope.get("root_path", "")).startswith(FOR_LINKS)
        if scope["type"] == "http" and b"authorization" not in names and not is_link:
            session = self._sessions.find(names.get(b"cookie", ""))
            if session is not None:
                is_read = scope["method"] in ("GET", "HEAD")
                proof = names.get(PROOF.encode(), "")
                if not is_read and not hmac.compare_digest(proof.encode(), session.proof.encode()):
                    await problem_answer(send, 403, "Forbidden", f"a request of a session needs its header {PROOF}")
                    return
                token = (b"authorization", f"Bearer {session.token}".encode())
                scope = {**scope, "headers": [*headers, token], "killswitch.session": session}
        await self._app(scope, receive, send)
