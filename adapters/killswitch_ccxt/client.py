"""The one way to a venue: a ccxt client whose every failure comes out as one of our errors, counted and timed."""

from __future__ import annotations

import asyncio
import importlib
import logging
import math
import re
import socket
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from killswitch.model.legible import legible, shortened
from killswitch.model.unanswered import why_unanswered, words_of
from killswitch.model.venue import AccountSpec, RequestExpiredError, VenueDownError, VenueError
from killswitch.transport import LARGEST_ANSWER, AnswerTooLargeError, RedirectRefusedError
from killswitch.transport.adapters import guard
from killswitch_ccxt.errors import (
    DENIED,
    MALFORMED,
    NO_VERDICT,
    UNKNOWN,
    Answer,
    Meaning,
    as_venue_error,
    is_definite,
    meaning_of,
    names_an_order,
)
from killswitch_ccxt.numbers import ODD, UnreadableError, instant, needed, shapeless
from killswitch_ccxt.response_capture import (
    COURSE,
    TALLY,
    Course,
    Heard,
    Tally,
    UnsignableError,
    bound_numbers,
    in_a_context_of_its_own,
)
from killswitch_ccxt.traits import Exchange

_SILENT: Final = logging.Logger("ccxt", logging.CRITICAL + 1)
"""ccxt writes the headers of every request at its finest level, keys included. This logger is in no hierarchy."""
LONGEST_ANSWER: Final = 5.0
"""Seconds by which the time that an answer tells of itself may lie before ours; the two clocks differ by less."""
PINGS = 20_000
"""Milliseconds between two pings on a stream, so that a quiet account does not look like a dead one."""
LARGEST_SKEW: Final = 86_400_000.0
"""Milliseconds by which a venue's clock may differ from ours: what says more tells no time."""
ADJUSTMENT: Final = "timeDifference"
"""ccxt's option of what it takes off our clock, in milliseconds, to date requests; some exchanges have none."""
MEASURED_WITHIN: Final = 1.0
"""Seconds that measuring the venue's clock may take while something else waits for it."""
UNADJUSTED: Final = 500.0
"""Milliseconds by which what requests are dated with may be off the venue's clock before it is put right."""
LONGEST_TEXT = 400
"""Characters of a venue's words that are repeated."""


class ConnectionLostError(VenueDownError):
    """The connection broke before a question was answered."""


class Client:
    """A ccxt client of one account. `call` is the only way through it."""

    def __init__(self, spec: AccountSpec, dialect: type[Exchange]) -> None:
        self._spec = spec
        self._dialect = dialect
        self._ccxt: Any = None
        self._clock: Callable[[], datetime] | None = getattr(spec.options.get("clock"), "now", None)
        self.used: dict[str, int] = {}
        """The venue's own count of what was used: limit → units."""
        self.skew_ms: float | None = None
        """The venue's clock minus ours, in milliseconds, as it was measured last; None where it was not."""
        self._clock_asked = -math.inf
        self._measuring: asyncio.Task[None] | None = None

    @property
    def ccxt(self) -> Any:
        """The client itself, made at first use. VenueDownError where ccxt is not installed or lacks the exchange."""
        if self._ccxt is None:
            self._ccxt = self._made()
        return self._ccxt

    def now(self) -> datetime:
        """The clock that snapshots are dated with."""
        return self._clock() if self._clock is not None else datetime.now(UTC)

    def now_ms(self) -> int:
        """The same in milliseconds since 1970."""
        return int(self.now().timestamp() * 1000)

    def venue_time(self, at: int) -> datetime:
        """The time at the venue when our clock said `at` (ms); the same where the difference was not measured."""
        return datetime.fromtimestamp(at / 1000, UTC) + timedelta(milliseconds=self.skew_ms or 0.0)

    @property
    def unadjusted_ms(self) -> float:
        """The venue's clock minus what requests are dated with, in milliseconds; 0 where it was not measured."""
        return 0.0 if self.skew_ms is None else self.skew_ms + self._adjusted

    async def measure_skew(self) -> float | None:
        """The venue's clock minus ours, in milliseconds, against the middle of the round trip; None if it has no clock.

        UnreadableError where the time is none, or off by more than a clock ever is. From then on requests are dated by
        the venue's clock, where ours is off and the exchange's client can do that.
        """
        if not self.ccxt.has.get("fetchTime"):
            return None
        before = self.now()
        told = await self.call("fetch_time")
        after = self.now()
        if told is None:
            return None
        skew = float(needed(told, "the venue's time")) - (before.timestamp() + after.timestamp()) / 2 * 1000
        if not abs(skew) <= LARGEST_SKEW:
            raise UnreadableError(f"the venue's time is {told}")
        self.skew_ms = skew
        if ADJUSTMENT in self.ccxt.options and abs(self.unadjusted_ms) > UNADJUSTED:
            self.ccxt.options[ADJUSTMENT] = -round(self.skew_ms)
        return self.skew_ms

    def answered_at(self, stamp: Any) -> datetime | None:
        """The venue's time `stamp` (ms) of an answer that is being read; None where it is none.

        Some venues date what they tell by its last change, and a quiet account would look hours old.
        """
        at = instant(stamp)
        now = self.venue_time(self.now_ms())
        return at if at is not None and abs((now - at).total_seconds()) <= LONGEST_ANSWER else None

    async def call(
        self, method: str, *arguments: Any, changes: bool = False, places: bool = False, **named: Any
    ) -> Any:
        """Await ccxt's `method`, unified or implicit; what it gives.

        `changes`: whether the call is to change something at the venue. `places`: whether it is to place orders, which
        is a change: an answer that has the number of one is no refusal. Every failure is a VenueError, see `errors`.
        """
        adjusted, changes = self._adjusted, changes or places
        try:
            return await self._called(method, arguments, named, changes=changes, places=places)
        except ConnectionLostError:
            # A connection that stood idle may have been given up by the venue. A question can be asked again.
            return await self._called(method, arguments, named, changes=changes)
        except RequestExpiredError:
            # A machine's clock that has jumped would have everything refused for as long as it is off.
            if not await self._is_put_right(adjusted) or changes:
                raise
            return await self._called(method, arguments, named, changes=changes)

    async def _is_put_right(self, adjusted: float) -> bool:
        """Whether requests are dated otherwise than with `adjusted`. The venue's clock is asked once a second."""
        if self._adjusted != adjusted:
            return True  # another request was refused before
        now = asyncio.get_running_loop().time()
        if now - self._clock_asked >= 1.0:
            self._clock_asked = now
            self._measuring = asyncio.ensure_future(self._measured_in_time())
        if self._measuring is not None:
            await asyncio.wait({self._measuring})
        return self._adjusted != adjusted

    async def _measured_in_time(self) -> None:
        # What was refused says why; that the clock cannot be asked either adds nothing to it.
        with suppress(VenueError, UnreadableError, TimeoutError):
            async with asyncio.timeout(MEASURED_WITHIN):
                await self.measure_skew()

    @property
    def _adjusted(self) -> float:
        """What is taken off our clock to date requests, in milliseconds."""
        return float(self.ccxt.options.get(ADJUSTMENT) or 0.0)

    async def _called(
        self, method: str, arguments: tuple[Any, ...], named: Mapping[str, Any], *, changes: bool, places: bool = False
    ) -> Any:
        tally = TALLY.get(None) or Tally()
        course = Course(tally)
        token = COURSE.set(course)
        try:
            return await getattr(self.ccxt, method)(*arguments, **named)
        except VenueError:
            raise
        except asyncio.CancelledError:
            raise
        except Exception as error:
            said = self._said(error, method, course, changes=changes, places=places)
            if not changes and course.answer is None and _broke(error):
                raise ConnectionLostError(str(said)) from error
            raise said from error
        finally:
            COURSE.reset(token)

    async def fresh_rules(self) -> Any:
        """A client of ccxt with rules just loaded, from a thread where time is the machine's.

        Making rules of what a venue says takes a second of work, and the loop has orders to send meanwhile. A thread
        knows no other time than the machine's: by a clock of its own a program waits itself. Whatever goes wrong is
        raised as it is.
        """
        if self._clock is None:
            return await asyncio.to_thread(self._with_fresh_rules)
        made = self._made()
        try:
            await made.load_markets(True)
        finally:
            await made.close()
        return made

    def _with_fresh_rules(self) -> Any:
        made = self._configured(_class_of(self._dialect.exchange, synchronous=True))
        guard(made.session, LARGEST_ANSWER)
        made.load_markets(True)
        return made

    @contextmanager
    def tallied(self) -> Iterator[Tally]:
        """Count what is done inside."""
        tally = Tally()
        token = TALLY.set(tally)
        try:
            yield tally
        finally:
            TALLY.reset(token)

    async def close(self) -> None:
        """Give back connections."""
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.gather(self._measuring, return_exceptions=True)
        if self._ccxt is not None:
            self._ccxt.ks_is_closed = True
            await self._ccxt.close()
            self._ccxt = None

    def _said(self, error: Exception, method: str, course: Course, *, changes: bool, places: bool) -> VenueError:
        answer = self._blamed(course)
        said = () if answer is None else tuple(self._dialect.codes_of(answer))
        status = None if answer is None else answer.status
        meaning = _own_meaning(error, course) or meaning_of(error, self._dialect.codes, said, status)
        text = self._text(error, method, course, answer)
        left = self._may_have_arrived(error, course)
        if changes and left and meaning.kind not in ("unknown", "malformed"):
            taken = places and answer is not None and names_an_order(answer.body)
            if taken or not is_definite(error, self._dialect.verdicts(), said, answer):
                meaning, text = UNKNOWN, f"{text}; {NO_VERDICT}"
        found = as_venue_error(meaning, text, changes=changes, left=left, answer=answer)
        tally = course.tally
        if meaning.kind == "limited":
            tally.rate_limited += 1
        elif meaning.kind == "malformed":
            tally.malformed += 1
        elif isinstance(error.__cause__, TimeoutError):
            tally.timeouts += 1
        else:
            tally.errors += 1
        return found

    def _blamed(self, course: Course) -> Answer | None:
        """The answer that the failure is about. A good one that was used before something else failed is not.

        It may hold what nobody may read, such as the key of a stream. Some refusals come as an answer that ccxt takes
        for a good one at first: these are known by their codes.
        """
        answer = course.answer
        if answer is None or not course.taken:
            return answer
        return answer if any(code in self._dialect.codes for code in self._dialect.codes_of(answer)) else None

    def _may_have_arrived(self, error: Exception, course: Course) -> bool:
        """Whether the request that was to change something may have reached the venue."""
        import aiohttp

        if not course.begun:
            return False
        if course.method == "GET" and not self._dialect.changes_by_get:
            return False  # it failed at a question that ccxt asked before
        if course.answer is not None:
            return True
        never = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, socket.gaierror)
        return not isinstance(error.__cause__, never)

    def _text(self, error: Exception, method: str, course: Course, answer: Answer | None) -> str:
        """The venue's words, without addresses and what is asked in them: a query holds signatures."""
        words = legible(self._words(error, method, course, answer))
        return f"{self._dialect.exchange} {method}: {shortened(words, LONGEST_TEXT)}"

    def _words(self, error: Exception, method: str, course: Course, answer: Answer | None) -> str:
        if answer is not None:
            return words_of(answer.status, answer.text)
        cause = error.__cause__
        # Behind an answer it is no request any more that fails, but the stream that was opened with it.
        stream = course.taken or not course.begun
        place = "the venue's stream" if stream and method.startswith("watch_") else course.place or "the venue"
        if isinstance(error, RedirectRefusedError | AnswerTooLargeError):
            return f"{place}: {error}"
        happened = why_unanswered(error if cause is None else cause, place, self._timeout)
        if happened is not None:
            return happened
        if course.taken and isinstance(error, ODD):
            return shapeless(error)
        told = _without_paths(str(error if cause is None else cause))
        # A class says little, and more than nothing.
        return told or type(error if cause is None else cause).__name__

    @property
    def _timeout(self) -> float:
        """Seconds that an answer may take."""
        return float(str(self._spec.options.get("timeout", 10)))

    def _made(self) -> Any:
        base = _class_of(self._dialect.exchange)
        made = self._configured(type(base.__name__, (Heard, base), {"ks_dialect": self._dialect}))
        made.ks_clock, made.ks_used = self._clock, self.used
        if getattr(made, "streaming", None) is not None:
            made.streaming = {**made.streaming, "keepAlive": PINGS}
        return made

    def _configured(self, kind: Any) -> Any:
        spec, dialect = self._spec, self._dialect
        made = kind(
            {
                **{name: str(value) for name, value in dialect.credentials_of(spec.credentials).items()},
                "enableRateLimit": False,
                "timeout": int(self._timeout * 1000),
            }
        )
        # Exact, as the venue wrote it. ccxt reads some of its numbers a second time, and takes a Decimal for nothing.
        made.number = str
        made.decimal_to_precision = in_a_context_of_its_own(made.decimal_to_precision)
        made.logger = _SILENT
        made.has = {**made.has, "fetchCurrencies": False}
        made.options = {**made.options, **_merged(made.options, dialect.client_options(spec))}
        made.options = {**made.options, **_merged(made.options, _passed_through(spec))}
        self._environment(made)
        if spec.endpoint is not None:
            _readdress(made.urls["api"], spec.endpoint, streams=False)
        if spec.endpoint_ws is not None:
            _readdress(made.urls["api"], spec.endpoint_ws, streams=True)
        return made

    def _environment(self, made: Any) -> None:
        environment = self._spec.environment
        try:
            if environment == "sandbox":
                made.set_sandbox_mode(True)
            elif environment == "demo":
                made.enable_demo_trading(True)
        except Exception as error:
            raise VenueDownError(
                f"{self._dialect.exchange} has no {environment} that ccxt can reach; leave it out, or name an endpoint"
            ) from error


def _own_meaning(error: Exception, course: Course) -> Meaning | None:
    """What a failure means that ccxt has no name for, or a wrong one; None of all others."""
    import aiohttp

    if isinstance(error, UnreadableError | AnswerTooLargeError):
        return MALFORMED
    if isinstance(error, UnsignableError):
        return DENIED
    # An answer that breaks off or cannot be unpacked is a refusal for ccxt, and says nothing of what was done.
    unread = course.answer is None and isinstance(error.__cause__, aiohttp.ClientError)
    if isinstance(error, RedirectRefusedError) or (unread and type(error).__name__ == "ExchangeError"):
        return UNKNOWN
    return None


def _broke(error: Exception) -> bool:
    """Whether the connection was there, and was closed without an answer."""
    import aiohttp

    closed = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
    return isinstance(error.__cause__, closed) and not isinstance(error.__cause__, aiohttp.ClientConnectorError)


def _class_of(exchange: str, *, synchronous: bool = False) -> Any:
    try:
        streaming = importlib.import_module("ccxt.pro")
        plain = importlib.import_module("ccxt" if synchronous else "ccxt.async_support")
    except ImportError as error:
        raise VenueDownError(
            f"ccxt is not installed ({error}); install it with pip install '.[ccxt]' in a clone of Killswitch"
        ) from error
    bound_numbers()
    found = (not synchronous and getattr(streaming, exchange, None)) or getattr(plain, exchange, None)
    if found is None:
        raise VenueDownError(f"ccxt knows no exchange called {exchange}")
    return found


def _passed_through(spec: AccountSpec) -> dict[str, Any]:
    """What an Account's options say to ccxt: those under `ccxt`."""
    given = spec.options.get("ccxt", {})
    return dict(given) if isinstance(given, Mapping) else {}


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new`, with dictionaries that are in both merged."""
    return {
        name: {**old[name], **value} if isinstance(value, Mapping) and isinstance(old.get(name), Mapping) else value
        for name, value in new.items()
    }


def _readdress(urls: MutableMapping[str, Any], endpoint: str, *, streams: bool) -> None:
    """Put `endpoint` in the place of scheme and host of every address; the paths stay."""
    for name, value in urls.items():
        if isinstance(value, MutableMapping):
            _readdress(value, endpoint, streams=streams)
        elif isinstance(value, str) and value.startswith(("ws://", "wss://") if streams else ("http://", "https://")):
            urls[name] = endpoint.rstrip("/") + urlsplit(value).path


_ADDRESS: Final = re.compile(r"\b([a-z][a-z0-9+.-]*://)(?:[^\s/?#'\"@]*@)?([^\s/?#'\"]*)[^\s'\"]*")


def _without_paths(text: str) -> str:
    """With addresses cut behind the host: a query may hold a signature, and the path of a stream its key."""
    return _ADDRESS.sub(r"\1\2", text)
