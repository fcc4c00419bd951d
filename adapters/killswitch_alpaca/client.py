"""The one way to Alpaca: alpaca-py's own clients, run in threads, asked once, every failure one of our errors.

alpaca-py sends again by itself after a 429 or a 504, waits without end for an answer, and reads numbers as floats.
Here a request leaves once, has a deadline, and its numbers stay exact. Orders have threads of their own: a reading that
hangs never keeps one waiting.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from email.utils import parsedate_to_datetime
from errno import EAGAIN
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from killswitch.model.legible import legible, shortened
from killswitch.model.unanswered import why_unanswered, words_of
from killswitch.model.venue import (
    FateUnknownError,
    MalformedAnswerError,
    VenueDownError,
    VenueError,
)
from killswitch.transport import AnswerTooLargeError, RedirectRefusedError
from killswitch.transport.deadlines import Deadlines, never_made
from killswitch_alpaca.errors import LONGEST_TEXT, Refused, as_venue_error, failure, hushed, place, read_refusal, shown
from killswitch_alpaca.settings import Settings

T = TypeVar("T")
READERS, CHANGERS = 4, 8
"""Requests of each kind that may be under way at once."""
TOO_LATE = "the account was closed before Alpaca was asked"


@dataclass(slots=True)
class Tally:
    """What has been asked since the last snapshot, and what went wrong."""

    requests: int = 0
    errors: int = 0
    timeouts: int = 0
    malformed: int = 0
    rate_limited: int = 0
    latency_ms: float = 0.0
    """Of the slowest answer."""


class RefusedError(Exception):
    """Alpaca answered, and not with a success."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.text)
        self.refused = refused


class GarbledError(Exception):
    """A success whose body is no JSON."""


class Client:
    """One account's way to Alpaca's trading and data APIs. `call` is the only way through it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clients: dict[bool, Any] = {}
        """alpaca-py's clients by whether they are for market data; made at their first call."""
        self._making = threading.Lock()
        self._deadlines = Deadlines(settings.timeout)
        self._readers = DaemonThreads(READERS, "alpaca-read")
        self._changers = DaemonThreads(CHANGERS, "alpaca-change")
        self._closed = False
        self._under_way = 0
        self._answered = asyncio.Event()
        self.tally = Tally()
        self.used: int | None = None
        """Requests that Alpaca has counted in its current minute, as it said last."""

    async def call(self, ask: Callable[[Any], T], *, changes: bool = False, data: bool = False) -> T:
        """What `ask` answers, given alpaca-py's trading client, or its data client where `data`.

        RefusedError for what is for the caller to read; every other failure is a VenueError.
        """
        if self._closed:
            raise VenueDownError(TOO_LATE)
        loop = asyncio.get_running_loop()
        self.tally.requests += 1
        self._under_way += 1
        try:
            pool = self._changers if changes else self._readers
            return await loop.run_in_executor(pool, self._asked, ask, data)
        except asyncio.CancelledError:
            if called_off():
                raise
            raise VenueDownError(TOO_LATE) from None
        except RefusedError as error:
            self._count(error.refused)
            if error.refused.status in (401, 429) or not 400 <= error.refused.status < 500:
                raise as_venue_error(error.refused, changes=changes) from error
            raise
        except GarbledError as error:
            self.tally.malformed += 1
            raise MalformedAnswerError(f"Alpaca's answer makes no sense: {error}") from error
        except Exception as error:
            raise self._failed(error, changes=changes) from error
        finally:
            self._under_way -= 1
            self._answered.set()

    async def connected(self) -> None:
        """Wait for the end of a first request, if one is under way: the next one finds a connection that stands.

        What is measured by a request that opens one is mostly how long that takes.
        """
        if self._under_way and not self._answered.is_set():
            await self._answered.wait()

    def take_tally(self) -> Tally:
        """The tally; a new one begins."""
        taken, self.tally = self.tally, Tally()
        return taken

    async def close(self) -> None:
        """Give back threads and connections. What is still under way ends with that; of a change nobody knows more."""
        self._closed = True
        for pool in (self._readers, self._changers):
            pool.shutdown(wait=False, cancel_futures=True)
        self._deadlines.end_all()
        for client in self._clients.values():
            client._session.close()

    def _asked(self, ask: Callable[[Any], T], data: bool) -> T:
        with self._making:
            if data not in self._clients:
                self._clients[data] = self._data_client() if data else self._trading_client()
            client = self._clients[data]
        # From here on, since alpaca-py takes half a second to be imported.
        began = time.perf_counter()
        try:
            return ask(client)
        finally:
            self.tally.latency_ms = max(self.tally.latency_ms, (time.perf_counter() - began) * 1000)

    def _trading_client(self) -> Any:
        settings = self._settings
        client = imported("alpaca.trading.client", "TradingClient")(
            settings.key, settings.secret, paper=settings.paper, raw_data=True, url_override=settings.trading
        )
        return asking_once(client, self._deadlines, settings.proxy, self._heard)

    def _data_client(self) -> Any:
        settings = self._settings
        client = imported("alpaca.data.historical.stock", "StockHistoricalDataClient")(
            settings.key, settings.secret, raw_data=True, url_override=settings.data
        )
        return asking_once(client, self._deadlines, settings.proxy)

    def _heard(self, headers: Mapping[str, str]) -> None:
        try:
            limit, left = int(headers["X-RateLimit-Limit"]), int(headers["X-RateLimit-Remaining"])
        except (KeyError, ValueError):
            return
        self.used = max(0, limit - left)

    def _count(self, refused: Refused) -> None:
        if refused.status == 429:
            self.tally.rate_limited += 1
        elif refused.status >= 500:
            self.tally.errors += 1

    def _failed(self, error: Exception, *, changes: bool) -> VenueError:
        """A request that got no answer: it was never made, or nobody knows."""
        from requests import exceptions

        where = place(error) or shown(self._settings.trading)
        if isinstance(error, AnswerTooLargeError):
            self.tally.malformed += 1
            return MalformedAnswerError(f"{where}: {error}")
        if isinstance(error, RedirectRefusedError):
            self.tally.errors += 1
            return (FateUnknownError if changes else VenueDownError)(f"{where}: {error}")
        happened = why_unanswered(error, where, self._settings.timeout)
        addresses = (self._settings.trading, self._settings.data, self._settings.proxy)
        happened = happened and hushed(happened, *addresses)
        why = hushed(failure(error), *addresses)
        if isinstance(error, ImportError):
            return VenueDownError(
                f"alpaca-py is not installed ({error}); pip install '.[alpaca]' in a clone of Killswitch"
            )
        if isinstance(error, exceptions.Timeout):
            self.tally.timeouts += 1
        else:
            self.tally.errors += 1
        if never_made(error):
            return VenueDownError(happened or f"{where} cannot be reached: {why}")
        if not isinstance(error, exceptions.RequestException | OSError):
            text = f"alpaca-py failed: {why}"
            return FateUnknownError(text) if changes else MalformedAnswerError(text)
        text = happened or f"no answer from {where}: {why}"
        return FateUnknownError(text) if changes else VenueDownError(text)


def called_off() -> bool:
    """Whether somebody calls off the task that asks, and not only what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


_IMPORTING = threading.Lock()


def imported(module: str, name: str) -> Any:
    """A class of alpaca-py. ImportError where that is not installed.

    It brings along streams of its own, which are not used here, over a library that calls itself outdated.
    """
    with _IMPORTING, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return getattr(importlib.import_module(module), name)


def asking_once(
    client: Any,
    deadlines: Deadlines,
    proxy: str | None = None,
    heard: Callable[[Mapping[str, str]], None] = lambda _: None,
) -> Any:
    """`client`, one of alpaca-py's, with retries switched off, a deadline for every request, and answers read by us.

    Its calls raise RefusedError for an answer that is no success, and what `requests` raises.
    """
    from killswitch.transport.adapters import watch

    session = client._session
    session.trust_env = False  # keys of ~/.netrc and proxies of the surroundings have no say in where orders go
    session.proxies = {"http": proxy, "https": proxy} if proxy else {}
    watch(session, READERS + CHANGERS)
    client._retry = 0

    def one_request(method: str, url: str, opts: dict[str, Any], retry: int) -> Any:
        with deadlines.one():
            answer = session.request(method, url, **opts, timeout=deadlines.seconds)
        heard(answer.headers)
        if not 200 <= answer.status_code < 300:
            raise RefusedError(read_refusal(answer.status_code, answer.text, asked_to_wait(answer.headers)))
        if not answer.text:
            return None
        try:
            return json.loads(answer.text, parse_float=Decimal)
        except ValueError as error:
            words = words_of(answer.status_code, answer.text)
            raise GarbledError(shortened(legible(words), LONGEST_TEXT)) from error

    client._one_request = one_request
    return client


def asked_to_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds until Alpaca listens again, as far as it says so; both ends of them by its own clock."""
    try:
        if "Retry-After" in headers:
            return float(headers["Retry-After"])
        answered_at = parsedate_to_datetime(headers["Date"]).timestamp()
        return max(0.1, float(headers["X-RateLimit-Reset"]) - answered_at)
    except (KeyError, ValueError):
        return None


class DaemonThreads(Executor):
    """So many threads at most, none of which anybody waits for when the process ends."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._lock = threading.Lock()
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0
        self._closed = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """RuntimeError after `shutdown`. Where no thread can be begun and none runs, the future's is an OSError."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the threads {self._name} were given back")
            self._work.put((future, lambda: fn(*args, **kwargs)))
            if not self._idle.acquire(blocking=False) and self._threads < self._most:
                self._begin_one()
        return future

    def _begin_one(self) -> None:
        """With the lock held. What was put last is called off if there is nobody to do it, now or soon."""
        thread = threading.Thread(target=self._run, name=f"{self._name}-{self._threads + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if self._threads == 0 and (work := self._work.get_nowait()) is not None:
                work[0].set_exception(OSError(EAGAIN, f"no thread can be begun to ask with: {error}"))
        else:
            self._threads += 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """What has not begun is called off, and nothing that has is waited for, whatever is asked for."""
        with self._lock:
            self._closed = True
            with suppress(Empty):
                while (work := self._work.get_nowait()) is not None:
                    work[0].cancel()
            for _ in range(self._threads):
                self._work.put(None)

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get_nowait()
            except Empty:
                self._idle.release()
                work = self._work.get()
            if work is None:
                return
            future, do = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(do())
            except BaseException as error:  # noqa: BLE001 - it is whoever waits for it who is told
                future.set_exception(error)
            del work, future, do
