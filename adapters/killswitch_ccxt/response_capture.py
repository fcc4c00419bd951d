"""What is kept of every request that a ccxt client makes: the venue's answer, its own counts, and how long it took."""

from __future__ import annotations

import binascii
import importlib
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from decimal import localcontext
from functools import cache
from typing import Any, ClassVar, NoReturn
from urllib.parse import urlsplit

from killswitch.model.magnitude import LONGEST, READABLE_POWER, readable_number
from killswitch.model.snapshot import Health
from killswitch.transport import LARGEST_ANSWER
from killswitch.transport.sessions import guarded_session
from killswitch_ccxt.errors import Answer
from killswitch_ccxt.numbers import UnreadableError
from killswitch_ccxt.traits import Exchange


@dataclass(slots=True)
class Tally:
    """What a stretch of work was like: requests made, what went wrong, seconds spent waiting for the network."""

    requests: int = 0
    errors: int = 0
    timeouts: int = 0
    malformed: int = 0
    rate_limited: int = 0
    network: float = 0.0
    paths: list[str] = field(default_factory=list)

    def health(self, seconds: float, clock_skew_ms: float | None) -> Health:
        """As a snapshot tells it, which took so many `seconds`."""
        return Health(
            latency_ms=seconds * 1000,
            requests=self.requests,
            errors=self.errors,
            timeouts=self.timeouts,
            malformed=self.malformed,
            rate_limited=self.rate_limited,
            clock_skew_ms=clock_skew_ms,
        )


@dataclass(slots=True)
class Course:
    """One call while it is under way: its last request, and whether and how that was answered."""

    tally: Tally
    method: str = "GET"
    answer: Answer | None = None
    taken: bool = False
    """Whether that answer was a good one and has been used: what fails afterwards is not its doing."""
    begun: int = 0
    place: str = ""
    """Where that request went: `host:port`, nothing of a user or a path."""
    sent_at: float = 0.0


MOST_DECIMALS = 1000
"""Of a number of ccxt's while it is made of others."""

COURSE: ContextVar[Course] = ContextVar("killswitch_ccxt_course")
TALLY: ContextVar[Tally] = ContextVar("killswitch_ccxt_tally")


_HEADERS: ContextVar[Mapping[str, str]] = ContextVar("killswitch_ccxt_headers")


@contextmanager
def sent_with(headers: Mapping[str, str]) -> Iterator[None]:
    """Requests inside have these headers too, which no signature is about."""
    token = _HEADERS.set(headers)
    try:
        yield
    finally:
        _HEADERS.reset(token)


class UnsignableError(Exception):
    """The credentials cannot be used to sign with, so that nothing was sent. Says nothing of what they are."""


class Heard:
    """Mixed into a ccxt class: keeps what is needed to say afterwards what a failure was."""

    ks_dialect: ClassVar[type[Exchange]]
    ks_clock: Callable[[], datetime] | None = None
    ks_used: dict[str, int]
    ks_session: Any = None
    ks_is_closed: bool = False
    session: Any
    ssl_context: Any
    verify: Any
    cafile: str
    options: dict[str, Any]

    def open(self, *arguments: Any) -> None:
        """Called before every request. Reading the certificates takes 20 ms, and each client would do it again.

        What ccxt has set a timer for, such as renewing the key of a stream, must not open what was closed for good.
        """
        if self.ks_is_closed:
            return
        if self.ssl_context is None and self.verify and not self.options.get("include_OS_certificates"):
            self.ssl_context = _certificates(self.cafile)
        super().open(*arguments)  # type: ignore[misc] # of ccxt's class
        if self.session is not None and self.session is not self.ks_session:
            self.session = self.ks_session = self._guarded(self.session)

    def _guarded(self, made: Any) -> Any:
        """A session over the connections of the one that ccxt has made, for venues and their streams alike."""
        session = guarded_session(LARGEST_ANSWER, connector=made.connector, trust_env=made.trust_env)
        made.detach()
        # aiohttp asks again by itself where a connection breaks at a GET or a DELETE. Some venues take orders so.
        session._retry_connection = False
        return session

    async def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        """As ccxt does it, counted and timed."""
        if more := _HEADERS.get(None):
            headers = {**(headers or {}), **more}
        course = COURSE.get(None)
        if course is None:
            return await super().fetch(url, method, headers, body)  # type: ignore[misc] # of ccxt's class
        course.method, course.answer, course.taken, course.place = method, None, False, _place(url)
        course.begun += 1
        course.tally.requests += 1
        course.tally.paths.append(f"{method} {urlsplit(url).path}")
        course.sent_at = time.perf_counter()
        try:
            found = await super().fetch(url, method, headers, body)  # type: ignore[misc] # of ccxt's class
            answer = course.answer
            if answer is None or answer.body is not None:
                course.taken = answer is not None
                return found
            # ccxt takes objects and lists for JSON. Of anything else it gives the text, or, where its kind is not told,
            # what it was read from.
            if answer.text.strip() and not _is_json(answer.text):
                raise UnreadableError("the answer is no JSON")
            course.taken = True
            return found if isinstance(found, str) else answer.text
        finally:
            if course.answer is None:
                course.tally.network += time.perf_counter() - course.sent_at

    def on_rest_response(
        self, code: int, reason: str, url: str, method: str, headers: Mapping[str, str], body: str, *more: Any
    ) -> str:
        """Called with the text of an answer, before anything is made of it."""
        lower = {name.lower(): value for name, value in headers.items()}
        course = COURSE.get(None)
        if course is not None:
            course.answer = Answer(code, lower, None, body, urlsplit(url).path)
            course.tally.network += time.perf_counter() - course.sent_at
        self.ks_used.update(self.ks_dialect.used_from(lower, urlsplit(url).path))
        return body

    def handle_errors(
        self, code: int, reason: str, url: str, method: str, headers: Any, body: str, response: Any, *more: Any
    ) -> Any:
        """Called with the parsed answer, before it is used."""
        course = COURSE.get(None)
        if course is not None and course.answer is not None:
            seen = course.answer
            course.answer = Answer(seen.status, seen.headers, response, seen.text, seen.path)
        answered = (code, reason, url, method, headers, body, response)
        return super().handle_errors(*answered, *more)  # type: ignore[misc] # of ccxt's class

    def sign(self, *arguments: Any, **named: Any) -> Any:
        """As ccxt does it. UnsignableError where a secret has not the form that signing needs."""
        try:
            return super().sign(*arguments, **named)  # type: ignore[misc] # of ccxt's class
        except ValueError as error:
            raise _unsignable(error) from None

    def sign_hash(self, *arguments: Any) -> Any:
        """The same of venues where a wallet signs."""
        try:
            return super().sign_hash(*arguments)  # type: ignore[misc] # of ccxt's class
        except (ValueError, AssertionError) as error:
            raise _unsignable(error) from None

    def parse_precision(self, precision: Any) -> Any:
        """As ccxt does it, which writes out one zero for each. ValueError for more of them than a number can have."""
        if precision is not None and abs(int(precision)) > READABLE_POWER:
            raise ValueError(f"no number has {str(precision)[:20]} decimals")
        return super().parse_precision(precision)  # type: ignore[misc] # of ccxt's class

    def milliseconds(self) -> int:
        """The time that requests are signed with."""
        if self.ks_clock is None:
            return int(time.time() * 1000)
        return int(self.ks_clock().timestamp() * 1000)


def in_a_context_of_its_own(round_off: Callable[..., str]) -> Callable[..., str]:
    """ccxt's rounding of amounts and prices sets how the whole thread rounds from then on, and what it raises.

    Decisions, results and reports would come out otherwise after the first order than before it, and than in a replay.
    """

    def apart(*arguments: Any, **options: Any) -> str:
        with localcontext():
            return round_off(*arguments, **options)

    return apart


@cache
def bound_numbers() -> None:
    """Have ccxt's own exact numbers refuse, with a ValueError, what takes minutes and gigabytes to reckon with.

    ccxt reckons while it parses, on the event loop's thread, and with powers of ten written out: one number such as
    `1e10000000` in an answer would hold up every account. No client of a venue can be given another class.
    """
    precise = importlib.import_module("ccxt.base.precise").Precise
    begin, divide, write = precise.__init__, precise.div, precise.__str__

    def bounded(self: Any, number: Any, decimals: int | None = None) -> None:
        if decimals is None and (len(number) > LONGEST or ("e" in number.lower() and readable_number(number) is None)):
            raise ValueError(f"{number[:20]!r} is no number that can be reckoned with")
        begin(self, number, decimals)

    # Some exchanges' classes take the decimals of a result from a number of the answer.
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
    """Without the error's own words: they may hold a part of the secret."""
    form = (
        "it is not base64, as this venue gives secrets out" if isinstance(error, binascii.Error) else "not in its form"
    )
    return UnsignableError(f"the secret cannot be used to sign ({form}); nothing was sent")


def _is_json(text: str) -> bool:
    """Whether it is JSON by the standard, which has no NaN: ccxt gives what has one as the text that it came as."""
    try:
        json.loads(text, parse_constant=_none_such)
    except ValueError:
        return False
    return True


def _none_such(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _place(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


@cache
def _certificates(file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=file)
