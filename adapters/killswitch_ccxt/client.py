"""The only access to a venue: a ccxt client that turns every failure into an error of `killswitch.model.venue`, counts
requests and measures their time."""

from __future__ import annotations

import asyncio
import math
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from killswitch.model.fitting import clock_option
from killswitch.model.legible import legible, shortened
from killswitch.model.parsing import UnreadableError, instant, required_number
from killswitch.model.snapshot import LimitUse
from killswitch.model.unanswered import why_unanswered, words_of
from killswitch.model.venue import AccountSpec, RequestExpiredError, VenueDownError, VenueError
from killswitch.transport import LARGEST_ANSWER, AnswerTooLargeError, RedirectRefusedError
from killswitch.transport.adapters import guard
from killswitch.transport.sessions import ConnectionBrokenError
from killswitch_ccxt.answers import UNKNOWN_SHAPE, failure_text
from killswitch_ccxt.client_factory import create_client, create_synchronous_client, timeout_of
from killswitch_ccxt.errors import (
    DENIED,
    MALFORMED,
    NO_VERDICT,
    UNKNOWN,
    Meaning,
    VenueAnswer,
    as_venue_error,
    has_order_number,
    is_definite,
    meaning_of,
)
from killswitch_ccxt.response_capture import (
    CURRENT_CALL,
    CURRENT_COUNTERS,
    CallCapture,
    LimitUses,
    RequestCounters,
    UnsignableError,
)
from killswitch_ccxt.traits import Exchange

LARGEST_ANSWER_AGE: Final = 5.0
"""Largest age, in seconds, at which the timestamp of an answer dates the answer; the two clocks differ by less."""
LARGEST_SKEW: Final = 86_400_000.0
"""Largest plausible difference between the venue's clock and ours, in milliseconds; a larger one is an error."""
ADJUSTMENT: Final = "timeDifference"
"""ccxt's option for the milliseconds that it subtracts from our clock to date requests; some exchanges have none."""
SKEW_TIMEOUT: Final = 1.0
"""Seconds that measuring the venue's clock may take while a request waits for the result."""
LARGEST_UNADJUSTED: Final = 500.0
"""Milliseconds by which the timestamps of requests may be off the venue's clock before they are adjusted."""
LONGEST_TEXT = 400
"""Characters of a venue's text that a message repeats."""


class ConnectionLostError(VenueDownError):
    """The connection broke before a request was answered."""


class Client:
    """The ccxt client of one account. Every request goes through `call`."""

    def __init__(self, spec: AccountSpec, dialect: type[Exchange]) -> None:
        self._spec = spec
        self._dialect = dialect
        self._ccxt: Any = None
        self._clock = clock_option(spec)
        self.used: dict[str, int] = {}
        """The venue's own count of what was used: limit → units."""
        self._limit_uses: LimitUses = {}
        self.skew_ms: float | None = None
        """The venue's clock minus ours, in milliseconds, as measured last; None before the first measurement."""
        self._clock_queried_at = -math.inf
        self._measuring: asyncio.Task[None] | None = None

    @property
    def ccxt(self) -> Any:
        """The ccxt client, created at first use. VenueDownError where ccxt is not installed or lacks the exchange."""
        if self._ccxt is None:
            self._ccxt = self._create_client()
        return self._ccxt

    def now(self) -> datetime:
        """The time of the clock that dates snapshots."""
        return self._clock() if self._clock is not None else datetime.now(UTC)

    def now_ms(self) -> int:
        """The same time in milliseconds since 1970."""
        return int(self.now().timestamp() * 1000)

    def venue_time(self, at: int) -> datetime:
        """The venue's time at `at` of our clock (ms); the same time before the difference was measured."""
        return datetime.fromtimestamp(at / 1000, UTC) + timedelta(milliseconds=self.skew_ms or 0.0)

    @property
    def unadjusted_ms(self) -> float:
        """The venue's clock minus the timestamps of requests, in milliseconds; 0 before it was measured."""
        return 0.0 if self.skew_ms is None else self.skew_ms + self._adjusted

    async def measure_skew(self) -> float | None:
        """Measure the venue's clock minus ours, in milliseconds, at the middle of the round trip; None if it has no
        clock.

        UnreadableError for an unreadable or implausible time. From then on requests are dated by the venue's clock,
        where ours is off and ccxt's client of the exchange supports that.
        """
        if not self.ccxt.has.get("fetchTime"):
            return None
        before = self.now()
        answer = await self.call("fetch_time")
        after = self.now()
        if answer is None:
            return None
        skew = float(required_number(answer, "the venue's time")) - (before.timestamp() + after.timestamp()) / 2 * 1000
        if not abs(skew) <= LARGEST_SKEW:
            raise UnreadableError(f"the venue's time {answer} is implausible")
        self.skew_ms = skew
        if ADJUSTMENT in self.ccxt.options and abs(self.unadjusted_ms) > LARGEST_UNADJUSTED:
            self.ccxt.options[ADJUSTMENT] = -round(self.skew_ms)
        return self.skew_ms

    def answer_time(self, stamp: Any) -> datetime | None:
        """The venue's time `stamp` (ms) of an answer; None where the stamp does not date the answer.

        Some venues stamp an answer with the last change of the account, and a quiet account would look hours old.
        """
        at = instant(stamp)
        now = self.venue_time(self.now_ms())
        return at if at is not None and abs((now - at).total_seconds()) <= LARGEST_ANSWER_AGE else None

    async def call(self, method: str, *args: Any, changes: bool = False, places: bool = False, **named: Any) -> Any:
        """Await ccxt's `method`, unified or implicit, and return its result.

        `changes`: the call changes something at the venue. `places`: the call places orders, which is a change; an
        answer with an order number is then no refusal. Every failure is a VenueError, see `errors`.
        """
        adjusted, changes = self._adjusted, changes or places
        try:
            return await self._call_once(method, args, named, changes=changes, places=places)
        except ConnectionLostError:
            # The venue may have closed an idle connection. A request that changes nothing can be repeated.
            return await self._call_once(method, args, named, changes=changes)
        except RequestExpiredError:
            # After a jump of the machine's clock the venue would refuse every request until the clock is right again.
            if not await self._is_clock_adjusted(adjusted) or changes:
                raise
            return await self._call_once(method, args, named, changes=changes)

    async def _is_clock_adjusted(self, adjusted: float) -> bool:
        """Whether requests are dated differently than with `adjusted`. The venue's clock is queried at most once a
        second."""
        if self._adjusted != adjusted:
            return True  # another request was refused before
        now = asyncio.get_running_loop().time()
        if now - self._clock_queried_at >= 1.0:
            self._clock_queried_at = now
            self._measuring = asyncio.ensure_future(self._measure_within_timeout())
        if self._measuring is not None:
            await asyncio.wait({self._measuring})
        return self._adjusted != adjusted

    async def _measure_within_timeout(self) -> None:
        # The refusal states the cause; that the clock cannot be queried either adds nothing to it.
        with suppress(VenueError, UnreadableError, TimeoutError):
            async with asyncio.timeout(SKEW_TIMEOUT):
                await self.measure_skew()

    @property
    def _adjusted(self) -> float:
        """What is subtracted from our clock to date requests, in milliseconds."""
        return float(self.ccxt.options.get(ADJUSTMENT) or 0.0)

    async def _call_once(
        self, method: str, args: tuple[Any, ...], named: Mapping[str, Any], *, changes: bool, places: bool = False
    ) -> Any:
        counters = CURRENT_COUNTERS.get(None) or RequestCounters()
        capture = CallCapture(counters)
        token = CURRENT_CALL.set(capture)
        try:
            return await getattr(self.ccxt, method)(*args, **named)
        except VenueError:
            raise
        except Exception as error:
            failure = self._error_of(error, method, capture, changes=changes, places=places)
            if not changes and capture.answer is None and _is_connection_lost(error):
                raise ConnectionLostError(str(failure)) from error
            raise failure from error
        finally:
            CURRENT_CALL.reset(token)

    async def fresh_rules(self) -> Any:
        """A ccxt client with freshly loaded rules, loaded in a thread where time is the machine's.

        Parsing the rules of a venue takes a second of CPU time, while the event loop has orders to send. A thread knows
        only the machine's clock: a program with its own clock loads them on the loop. Every exception passes unchanged.
        """
        if self._clock is None:
            return await asyncio.to_thread(self._with_fresh_rules)
        client = self._create_client()
        try:
            await client.load_markets(True)
        finally:
            await client.close()
        return client

    def _with_fresh_rules(self) -> Any:
        client = create_synchronous_client(self._spec, self._dialect)
        guard(client.session, LARGEST_ANSWER)
        client.load_markets(True)
        return client

    def _create_client(self) -> Any:
        return create_client(self._spec, self._dialect, self._clock, self.used, self._limit_uses)

    def limits(self, began: float) -> tuple[LimitUse, ...] | None:
        """What is used of the rate limits by the venue's answers; None if it stated none.

        A count holds for the time that its limit covers, and for the snapshot that began at `began` (seconds of the
        loop): what was used before that is free again.
        """
        now = asyncio.get_running_loop().time()
        covers = {limit.name: limit.per for limit in self._dialect.limits}
        found = [(name, *each) for name, each in sorted(self._limit_uses.items())]
        return tuple(use for name, at, use in found if at >= began or now - at <= covers.get(name, 0.0)) or None

    @contextmanager
    def counting(self) -> Iterator[RequestCounters]:
        """Count the requests inside the block."""
        counters = RequestCounters()
        token = CURRENT_COUNTERS.set(counters)
        try:
            yield counters
        finally:
            CURRENT_COUNTERS.reset(token)

    async def close(self) -> None:
        """Close the connections."""
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.gather(self._measuring, return_exceptions=True)
        if self._ccxt is not None:
            self._ccxt.ks_is_closed = True
            await self._ccxt.close()
            self._ccxt = None

    def _error_of(
        self, error: Exception, method: str, capture: CallCapture, *, changes: bool, places: bool
    ) -> VenueError:
        answer = self._answer_at_fault(capture)
        codes_found = () if answer is None else tuple(self._dialect.codes_of(answer))
        status = None if answer is None else answer.status
        meaning = _meaning_unknown_to_ccxt(error, capture) or meaning_of(
            error, self._dialect.codes, codes_found, status
        )
        # Without URLs and queries: a query holds signatures.
        message = legible(self._failure_text(error, method, capture, answer))
        text = f"{self._dialect.exchange} {method}: {shortened(message, LONGEST_TEXT)}"
        may_have_arrived = self._may_have_arrived(error, capture)
        if changes and may_have_arrived and meaning.kind not in ("unknown", "malformed"):
            is_accepted = places and answer is not None and has_order_number(answer.body)
            if is_accepted or not is_definite(error, self._dialect.refusal_codes(), codes_found, answer):
                meaning, text = UNKNOWN, f"{text}; {NO_VERDICT}"
        venue_error = as_venue_error(meaning, text, is_change=changes, was_sent=may_have_arrived, answer=answer)
        request_counters = capture.counters
        if meaning.kind == "limited":
            request_counters.rate_limited += 1
        elif meaning.kind == "malformed":
            request_counters.malformed += 1
        elif isinstance(error.__cause__, TimeoutError):
            request_counters.timeouts += 1
        else:
            request_counters.errors += 1
        return venue_error

    def _answer_at_fault(self, capture: CallCapture) -> VenueAnswer | None:
        """The answer that caused the failure; None where it is a good answer that was processed before something else
        failed.

        A good answer may hold secrets, such as the key of a stream. ccxt processes some refusals as good answers at
        first: their codes identify them.
        """
        answer = capture.answer
        if answer is None or not capture.is_processed:
            return answer
        return answer if any(code in self._dialect.codes for code in self._dialect.codes_of(answer)) else None

    def _may_have_arrived(self, error: Exception, capture: CallCapture) -> bool:
        """Whether the request that was to change something may have reached the venue."""
        import aiohttp

        if not capture.sent_requests:
            return False
        if capture.method == "GET" and not self._dialect.has_orders_by_get:
            return False  # a preceding query of ccxt failed
        if capture.answer is not None:
            return True
        never = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, socket.gaierror)
        return not isinstance(error.__cause__, never)

    def _failure_text(self, error: Exception, method: str, capture: CallCapture, answer: VenueAnswer | None) -> str:
        if answer is not None:
            return words_of(answer.status, answer.text)
        cause = error.__cause__
        # After an answer, the failure concerns the stream that was opened with it and no longer the request.
        stream = capture.is_processed or not capture.sent_requests
        place = "the venue's stream" if stream and method.startswith("watch_") else capture.destination or "the venue"
        if isinstance(error, RedirectRefusedError | AnswerTooLargeError):
            return f"{place}: {error}"
        happened = why_unanswered(error if cause is None else cause, place, timeout_of(self._spec))
        if happened is not None:
            return happened
        if capture.is_processed and isinstance(error, UNKNOWN_SHAPE):
            return failure_text(error)
        # A query may hold a signature, and the path of a stream its key: URLs are cut after the host. The name of a
        # class says little, but more than an empty text.
        found = error if cause is None else cause
        return _ADDRESS.sub(r"\1\2", str(found)) or type(found).__name__


def _meaning_unknown_to_ccxt(error: Exception, capture: CallCapture) -> Meaning | None:
    """The meaning of a failure that ccxt has no class for, or classifies wrongly; None for all others."""
    import aiohttp

    if isinstance(error, UnreadableError | AnswerTooLargeError):
        return MALFORMED
    if isinstance(error, UnsignableError):
        return DENIED
    # ccxt treats an answer that breaks off or cannot be unpacked as a refusal, but it does not state the outcome.
    is_answer_broken = capture.answer is None and isinstance(error.__cause__, aiohttp.ClientError)
    if isinstance(error, RedirectRefusedError) or (is_answer_broken and type(error).__name__ == "ExchangeError"):
        return UNKNOWN
    return None


def _is_connection_lost(error: Exception) -> bool:
    """Whether an established connection was closed without an answer."""
    import aiohttp

    closed = (ConnectionBrokenError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
    return isinstance(error.__cause__, closed) and not isinstance(error.__cause__, aiohttp.ClientConnectorError)


_ADDRESS: Final = re.compile(r"\b([a-z][a-z0-9+.-]*://)(?:[^\s/?#'\"@]*@)?([^\s/?#'\"]*)[^\s'\"]*")
"""A URL: its scheme, its host, and everything else."""
