"""Capture of every request of a ccxt client: the venue's answer, the venue's own counts, and the duration."""

from __future__ import annotations

import asyncio
import binascii
import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from decimal import localcontext
from functools import cache
from typing import Any, ClassVar, NoReturn
from urllib.parse import urlsplit

from msgspec import Struct, field
from msgspec.structs import replace

from killswitch.model.magnitude import LONGEST, READABLE_POWER, readable_number
from killswitch.model.parsing import UnreadableError
from killswitch.model.snapshot import Health, LimitUse
from killswitch.transport import LARGEST_ANSWER
from killswitch.transport.sessions import certificates, guarded_session
from killswitch_ccxt.errors import VenueAnswer
from killswitch_ccxt.traits import Exchange

LimitUses = dict[str, tuple[float, LimitUse]]
"""Limit → when an answer stated its use, in seconds of the loop, and the use."""


class RequestCounters(Struct):
    """Request counters of a snapshot or another block: requests and failures."""

    requests: int = 0
    errors: int = 0
    timeouts: int = 0
    malformed: int = 0
    rate_limited: int = 0
    paths: list[str] = field(default_factory=list)

    def health(self, seconds: float, clock_skew_ms: float | None, limits: tuple[LimitUse, ...] | None) -> Health:
        """The health of a snapshot that lasted so many `seconds`, which includes waiting for what was not answered."""
        return Health(
            latency_ms=seconds * 1000,
            requests=self.requests,
            errors=self.errors,
            timeouts=self.timeouts,
            malformed=self.malformed,
            rate_limited=self.rate_limited,
            clock_skew_ms=clock_skew_ms,
            limits=limits,
        )


class CallCapture(Struct):
    """One call in progress: its last request, and whether and how that was answered."""

    counters: RequestCounters
    method: str = "GET"
    answer: VenueAnswer | None = None
    is_processed: bool = False
    """Whether the answer was good and has been processed: it is not the cause of a later failure."""
    sent_requests: int = 0
    destination: str = ""
    """Destination of the request: `host:port`, without user and path."""


MOST_DECIMALS = 1000
"""Most decimals of ccxt's exact numbers during a calculation."""

CURRENT_CALL: ContextVar[CallCapture] = ContextVar("killswitch_ccxt_call")
CURRENT_COUNTERS: ContextVar[RequestCounters] = ContextVar("killswitch_ccxt_counters")


_HEADERS: ContextVar[Mapping[str, str]] = ContextVar("killswitch_ccxt_headers")


@contextmanager
def with_headers(headers: Mapping[str, str]) -> Iterator[None]:
    """Add headers to the requests inside the block; the signature does not cover them."""
    token = _HEADERS.set(headers)
    try:
        yield
    finally:
        _HEADERS.reset(token)


class UnsignableError(Exception):
    """The credentials cannot be used for signing, so nothing was sent. The message does not repeat them."""


class CapturingClient:
    """Mixin of a ccxt class that captures what explains a failure afterwards."""

    ks_dialect: ClassVar[type[Exchange]]
    ks_clock: Callable[[], datetime] | None = None
    ks_used: dict[str, int]
    ks_limits: LimitUses
    ks_session: Any = None
    ks_is_closed: bool = False
    session: Any
    ssl_context: Any
    verify: Any
    cafile: str
    options: dict[str, Any]

    def open(self, *arguments: Any) -> None:
        """Called before every request. It shares the certificates, whose loading takes 20 ms for each client.

        A timer of ccxt, such as the renewal of a stream's key, must not open a client that was closed.
        """
        if self.ks_is_closed:
            return
        if self.ssl_context is None and self.verify and not self.options.get("include_OS_certificates"):
            self.ssl_context = certificates(self.cafile)
        super().open(*arguments)  # type: ignore[misc] # of ccxt's class
        if self.session is not None and self.session is not self.ks_session:
            self.session = self.ks_session = self._guarded(self.session)

    def _guarded(self, original: Any) -> Any:
        """A guarded session over the connections of the one that ccxt has created, for requests and streams."""
        session = guarded_session(LARGEST_ANSWER, connector=original.connector, trust_env=original.trust_env)
        original.detach()
        return session

    async def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        """ccxt's `fetch`, counted."""
        if more := _HEADERS.get(None):
            headers = {**(headers or {}), **more}
        capture = CURRENT_CALL.get(None)
        if capture is None:
            return await super().fetch(url, method, headers, body)  # type: ignore[misc] # of ccxt's class
        capture.method, capture.destination = method, _destination(url)
        capture.answer, capture.is_processed = None, False
        capture.sent_requests += 1
        capture.counters.requests += 1
        capture.counters.paths.append(f"{method} {urlsplit(url).path}")
        found = await super().fetch(url, method, headers, body)  # type: ignore[misc] # of ccxt's class
        answer = capture.answer
        if answer is None or answer.body is not None:
            capture.is_processed = answer is not None
            return found
        # ccxt treats objects and lists as JSON. It returns the text of anything else, or its raw source where the
        # content type is missing.
        if answer.text.strip() and not _is_json(answer.text):
            raise UnreadableError("the answer is not JSON")
        capture.is_processed = True
        return found if isinstance(found, str) else answer.text

    def on_rest_response(
        self, code: int, reason: str, url: str, method: str, headers: Mapping[str, str], body: str, *more: Any
    ) -> str:
        """Called with the text of an answer, before it is parsed."""
        lower = {name.lower(): value for name, value in headers.items()}
        capture = CURRENT_CALL.get(None)
        if capture is not None:
            capture.answer = VenueAnswer(code, lower, None, body, urlsplit(url).path)
        path = urlsplit(url).path
        self.ks_used.update(self.ks_dialect.used_from(lower, path))
        if uses := self.ks_dialect.limit_uses(lower, path):
            now = asyncio.get_running_loop().time()
            self.ks_limits.update({name: (now, use) for name, use in uses.items()})
        return body

    def handle_errors(
        self, code: int, reason: str, url: str, method: str, headers: Any, body: str, response: Any, *more: Any
    ) -> Any:
        """Called with the parsed answer, before it is processed."""
        capture = CURRENT_CALL.get(None)
        if capture is not None and capture.answer is not None:
            capture.answer = replace(capture.answer, body=response)
        answered = (code, reason, url, method, headers, body, response)
        return super().handle_errors(*answered, *more)  # type: ignore[misc] # of ccxt's class

    def sign(self, *arguments: Any, **named: Any) -> Any:
        """ccxt's `sign`. UnsignableError where a secret lacks the form that signing needs."""
        try:
            return super().sign(*arguments, **named)  # type: ignore[misc] # of ccxt's class
        except ValueError as error:
            raise _unsignable(error) from None

    def sign_hash(self, *arguments: Any) -> Any:
        """ccxt's `sign_hash`, for venues where a wallet signs. UnsignableError as in `sign`."""
        try:
            return super().sign_hash(*arguments)  # type: ignore[misc] # of ccxt's class
        except (ValueError, AssertionError) as error:
            raise _unsignable(error) from None

    def parse_precision(self, precision: Any) -> Any:
        """ccxt's `parse_precision`, which writes one zero for each decimal. ValueError for an implausible number of
        them."""
        if precision is not None and abs(int(precision)) > READABLE_POWER:
            raise ValueError(f"no number has {str(precision)[:20]} decimals")
        return super().parse_precision(precision)  # type: ignore[misc] # of ccxt's class

    def milliseconds(self) -> int:
        """The time that dates the signature of a request."""
        if self.ks_clock is None:
            return int(time.time() * 1000)
        return int(self.ks_clock().timestamp() * 1000)


def with_own_decimal_context(round_off: Callable[..., str]) -> Callable[..., str]:
    """ccxt's rounding in a decimal context of its own: it sets precision and traps of the whole thread.

    Otherwise decisions, results and reports would differ after the first order, and from a replay.
    """

    def rounded(*arguments: Any, **options: Any) -> str:
        with localcontext():
            return round_off(*arguments, **options)

    return rounded


@cache
def limit_exact_numbers() -> None:
    """Make ccxt's exact numbers raise ValueError for numbers that would need minutes and gigabytes.

    ccxt calculates while it parses, on the thread of the event loop, and writes out powers of ten: a number such as
    `1e10000000` in an answer would block every account. A client cannot use another class of numbers.
    """
    precise = importlib.import_module("ccxt.base.precise").Precise
    begin, divide, write = precise.__init__, precise.div, precise.__str__

    def bounded(self: Any, number: Any, decimals: int | None = None) -> None:
        if decimals is None and (len(number) > LONGEST or ("e" in number.lower() and readable_number(number) is None)):
            raise ValueError(f"{number[:20]!r} is no number that can be calculated with")
        begin(self, number, decimals)

    # Classes of some exchanges take the decimals of a result from a number of the answer.
    def divided(self: Any, other: Any, precision: int = 18) -> Any:
        return divide(self, other, _possible(precision))

    def written(self: Any) -> str:
        _possible(self.decimals)
        text: str = write(self)
        return text

    precise.__init__, precise.div, precise.__str__ = bounded, divided, written


def _possible(decimals: int) -> int:
    if abs(decimals) > MOST_DECIMALS:
        raise ValueError(f"no number has {decimals} decimals")
    return decimals


def _unsignable(error: Exception) -> UnsignableError:
    """An error without the original text, which may hold a part of the secret."""
    form = "it has the wrong form"
    if isinstance(error, binascii.Error):
        form = "it is not base64, the form of this venue's secrets"
    return UnsignableError(f"the secret cannot be used for signing ({form}); nothing was sent")


def _is_json(text: str) -> bool:
    """Whether the text is standard JSON, which has no NaN: ccxt returns other text unparsed."""
    try:
        json.loads(text, parse_constant=_reject_constant)
    except ValueError:
        return False
    return True


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _destination(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
