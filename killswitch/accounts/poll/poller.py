"""Polls all accounts at the same time, so that one slow venue delays the others by at most its timeout.

A poll that is not answered in time is cancelled, and its account is `down` for the tick. From then on the account is
polled in the background: ticks do not wait for it until it answers again.

Every poll is counted against its account's request limits. Where these leave no room in time, the account is `down` for
the tick and nothing is sent: polls do not use what is reserved for closing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping

from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.request_meter import NoPollRoomError, RequestMeter
from killswitch.execution.response_timeouts import is_task_cancelled
from killswitch.model.legible import legible
from killswitch.model.snapshot import AccountSnapshot, Health, Snapshot
from killswitch.model.tracing import NO_SPAN, Span
from killswitch.model.venue import (
    CredentialsRefusedError,
    MalformedAnswerError,
    Prices,
    RateLimitedError,
    VenueError,
)
from killswitch.planning.scopes.collateral import collateral_symbols

FIRST_ANSWER_TIMEOUT = 30.0
"""Seconds after which a venue's first answer is overdue; it contains the rules of all its markets."""

_ENCODER = msgjson.Encoder(decimal_format="string")
_DECODER = msgjson.Decoder(AccountSnapshot)
_SIGNALLING = re.compile(rb'"-?sNaN[0-9]*"')
"""A signalling NaN, which raises wherever it is compared; it is replaced by a quiet NaN, which is only unknown."""


class AccountPoll:
    """Polls one account, one request in flight at most; the outcome is always an AccountSnapshot."""

    def __init__(self, account: ArmedAccount, timeout: float, meter: RequestMeter, first: float = 0.0) -> None:
        """`timeout` in seconds of real time: it bounds input and output, not decisions.

        `first`: seconds after which a poll is cancelled as long as the venue has never answered.
        """
        self._account = account
        self._timeout = timeout
        self._cancel_after = self._first = max(timeout, first)
        self._first_began: float | None = None
        self._meter = meter
        self._read: asyncio.Task[AccountSnapshot] | None = None
        self._began = 0.0
        self._requested_at: float | None = None
        self.dated = meter.monotonic()
        """Seconds of the meter's clock to which the last outcome refers: when it was requested, or timed out."""
        self.is_late = False
        """Whether the last poll missed its timeout; ticks do not wait for a late account."""
        self.is_denied = False
        """Whether the last outcome was that the venue refused the credentials."""
        self.is_awaited = False
        """Whether the last outcome was that the first answer is still awaited."""
        self._last: AccountSnapshot | None = None

    @property
    def is_polling(self) -> bool:
        """Whether a poll is under way, or its answer has not been collected."""
        return self._read is not None

    @property
    def is_awaiting_first(self) -> bool:
        """Whether a poll is under way, none has ever been answered, and the first answer is not overdue."""
        if self._read is None or self._first_began is None or self._cancel_after <= self._timeout:
            return False
        return asyncio.get_running_loop().time() - self._first_began < self._first

    def begin(self, span: Span = NO_SPAN, *, poll: bool = False) -> asyncio.Task[AccountSnapshot]:
        """Start a poll as a part of `span`, unless one is in flight. `poll`: whether it is a scheduled one."""
        if self._read is None:
            self._began = asyncio.get_running_loop().time()
            self._first_began = self._began if self._first_began is None else self._first_began
            self._read = asyncio.create_task(self._watched(span, poll=poll))
        return self._read

    def collect(self, waited: float = 0.0) -> AccountSnapshot:
        """The outcome of the poll, or `down` after `waited` seconds without one; past its timeout it is cancelled."""
        self._last = self._collected(waited)
        return self._last

    def last_snapshot(self, within: float) -> AccountSnapshot:
        """The last snapshot, for a tick that does not poll this account; `stale` if it is older than `within`.

        Rows and instruments belong to the tick that received them and are left out. The quality is unchanged.
        """
        if self._last is None:
            return self._account.unreadable("down", "it has not been polled")
        if self._meter.monotonic() - self.dated > within:
            return self._account.unreadable("stale", "the last snapshot is older than an interval")
        return replace(
            self._last,
            flows=None if self._last.flows is None else (),
            fills=None if self._last.fills is None else (),
            instruments=None,
        )

    def _collected(self, waited: float) -> AccountSnapshot:
        read = self._read
        if read is None:
            # The reread of another pass has collected the answer, which is still valid.
            return self._last or self._account.unreadable("down", "it has not been polled")
        self.dated = self._meter.monotonic()
        if read.done():
            self._read = None
            if not read.cancelled():
                self.is_late = self.is_awaited = False
                answer = read.result()
                if answer.quality != "down":
                    self._cancel_after = self._timeout
                if answer.quality == "ok" and self._requested_at is not None:
                    self.dated = self._requested_at
                return answer
        elif asyncio.get_running_loop().time() - self._began >= self._cancel_after:
            read.cancel()
        self.is_late = True
        self.is_denied = False
        self.is_awaited = False
        if self.is_awaiting_first:
            self.is_awaited = True
            why = f"waiting for the first answer, for at most {self._first:g} s: it holds the rules of all markets"
            return self._account.unreadable("down", why)
        if self._cancel_after > self._timeout:
            return self._account.unreadable(
                "down", f"no first answer within {self._first:g} s", _unanswered(self._first)
            )
        return self._account.unreadable("down", f"no answer within {waited:g} s", _unanswered(waited))

    async def abandon(self) -> None:
        """Cancel a poll in flight, and wait for it no longer than its timeout."""
        if self._read is not None:
            self._read.cancel()
            await asyncio.wait((self._read,), timeout=self._timeout)
            self._read = None

    @property
    def has_prices(self) -> bool:
        """Whether the adapter can read prices without a snapshot."""
        return self._account.adapter.prices is not None

    async def prices(self, symbols: frozenset[str], span: Span) -> Mapping[str, Prices] | None:
        """Prices of one moment; None if they are not available, which the span records."""
        prices = self._account.adapter.prices
        assert prices is not None  # the caller has checked `has_prices`
        with span.span("prices", {"killswitch.account": self._account.name}) as part:
            try:
                return await prices(symbols)
            except Exception as error:  # noqa: BLE001 - a reread that fails has no prices, whatever went wrong
                part.fail(_reason(error))
                return None

    async def _watched(self, span: Span, *, poll: bool) -> AccountSnapshot:
        """The poll as a span, which may outlast the tick that began it."""
        account = self._account
        with span.span("snapshot", {"killswitch.account": account.name, "killswitch.venue": account.venue}) as part:
            answer = await self._outcome(poll=poll)
            part.set("killswitch.account.quality", answer.quality)
            if answer.quality != "ok":
                part.fail(f"{answer.quality}: {answer.reason or 'no reason given'}")
            if (health := answer.health) is not None:
                part.set("killswitch.venue.latency", None if health.latency_ms is None else health.latency_ms / 1000)
                part.set("killswitch.venue.requests", health.requests)
                part.set("killswitch.venue.errors", health.errors)
            return answer

    async def _outcome(self, *, poll: bool) -> AccountSnapshot:
        account = self._account
        self.is_denied = False
        try:
            answer = await self._counted(poll=poll)
        except asyncio.CancelledError:
            if is_task_cancelled():
                raise
            return account.unreadable("down", "the adapter cancelled its own request")
        except MalformedAnswerError as error:
            return account.unreadable("malformed", _reason(error))
        except RateLimitedError as error:
            return account.unreadable("down", f"rate limited: {_reason(error)}")
        except (VenueError, NoPollRoomError) as error:
            self.is_denied = isinstance(error, CredentialsRefusedError)
            return account.unreadable("down", _reason(error))
        except Exception as error:  # noqa: BLE001 - an adapter's defect is one account down, not the end of the watch
            return account.unreadable("down", f"the adapter failed: {_reason(error)}")
        return _as_recorded(account, answer)

    async def _counted(self, *, poll: bool) -> AccountSnapshot:
        """The adapter's answer, counted on the meter; errors propagate unchanged."""
        reservation = await self._meter.admit(self._timeout, poll=poll)
        self._requested_at = self._meter.monotonic()
        try:
            answer = await self._account.adapter.snapshot()
        except RateLimitedError as error:
            self._meter.record_refusal(error.retry_after)
            raise
        else:
            # A failure may be reported as a quality; whether this is a snapshot is checked later.
            if getattr(answer, "quality", "down") != "down":
                self._meter.record_answer()
            return answer
        finally:
            self._meter.finish(reservation, self._account.adapter)


class Polls:
    """The pollers of all accounts, by name."""

    def __init__(
        self,
        accounts: Mapping[str, ArmedAccount],
        timeout: float,
        meters: Mapping[str, RequestMeter] | None = None,
        first: float = 0.0,
    ) -> None:
        """`meters`: the request meter of each account; without them, each account has an unlimited one.

        `first`: seconds after which an account's poll is cancelled as long as its venue has never answered. A tick
        waits at most the timeout for it.
        """
        meters = meters or {name: RequestMeter() for name in accounts}
        self._polls = {name: AccountPoll(account, timeout, meters[name], first) for name, account in accounts.items()}
        self._timeout = timeout

    def __getitem__(self, name: str) -> AccountPoll:
        return self._polls[name]

    @property
    def awaited(self) -> frozenset[str]:
        """The accounts whose last outcome was that the first answer of their venue is still awaited."""
        return frozenset(name for name, poll in self._polls.items() if poll.is_awaited)

    def complete(self, read: Mapping[str, AccountSnapshot], within: float) -> tuple[AccountSnapshot, ...]:
        """`read`, and every other account's last snapshot, at most `within` seconds old; in the accounts' order."""
        return tuple(read.get(name) or poll.last_snapshot(within) for name, poll in self._polls.items())

    async def gather(self, span: Span = NO_SPAN) -> tuple[AccountSnapshot, ...]:
        """One snapshot per account, in the accounts' order, after at most the timeout. Each is a part of `span`."""
        return await self._gather(self._polls.values(), span, poll=True)

    async def gather_again(
        self, names: Iterable[str], within: float, span: Span = NO_SPAN
    ) -> Mapping[str, AccountSnapshot]:
        """Poll the named accounts again, for at most `within` seconds (corroboration)."""
        chosen = {name: self._polls[name] for name in names if name in self._polls}
        return dict(zip(chosen, await self._gather(chosen.values(), span, within, poll=False), strict=True))

    def priced(self, snapshot: Snapshot, names: Iterable[str]) -> dict[str, frozenset[str]]:
        """Account → the symbols that it holds, for the named accounts whose adapters can read prices alone; assets of
        its balances that are no position as `ASSET/CURRENCY`."""
        wanted = frozenset(names)
        return {
            account.account: frozenset(it.symbol for it in account.positions or ()) | collateral_symbols(account)
            for account in snapshot.accounts
            if account.account in wanted and self._polls[account.account].has_prices and account.positions
        }

    async def prices(
        self, symbols: Mapping[str, frozenset[str]], within: float, span: Span = NO_SPAN
    ) -> dict[str, Mapping[str, Prices]]:
        """Prices of one moment of these symbols, by account, after at most `within` seconds.

        An account whose venue does not answer, or answers with an error, is left out.
        """
        requests = {name: asyncio.create_task(self._polls[name].prices(each, span)) for name, each in symbols.items()}
        if requests:
            await asyncio.wait(requests.values(), timeout=within)
        answers = {}
        for name, task in requests.items():
            if task.done() and not task.cancelled() and (prices := task.result()) is not None:
                answers[name] = prices
            task.cancel()
        return answers

    async def _gather(
        self, polls: Iterable[AccountPoll], span: Span, within: float | None = None, *, poll: bool
    ) -> tuple[AccountSnapshot, ...]:
        polls = tuple(polls)
        timeout = self._timeout if within is None else min(within, self._timeout)
        # Every poll begins before any is awaited; the late ones continue in the background.
        reads = [(each, each.begin(span, poll=poll)) for each in polls]
        waited = [read for each, read in reads if not each.is_late]
        if waited:
            await asyncio.wait(waited, timeout=timeout)
        return tuple(each.collect(timeout) for each in polls)

    async def abandon(self) -> None:
        """Cancel the polls in flight, at the end of a run."""
        await asyncio.gather(*(poll.abandon() for poll in self._polls.values()))


def _unanswered(seconds: float) -> Health:
    """The health of a poll without an answer: its latency is at least the time that it was waited for."""
    return Health(latency_ms=seconds * 1000, timeouts=1)


def _as_recorded(account: ArmedAccount, answer: AccountSnapshot) -> AccountSnapshot:
    """The answer encoded and decoded again, which checks the types of what an adapter returns.

    An answer that cannot be encoded or decoded would end the run later.
    """
    try:
        recorded = _DECODER.decode(_SIGNALLING.sub(rb'"NaN"', _ENCODER.encode(answer)))
    except Exception as error:  # noqa: BLE001 - an adapter's object may fail to encode in any way
        return account.unreadable("malformed", f"the adapter's answer is no account snapshot: {_reason(error)}")
    return _checked_against_document(account, recorded)


def _checked_against_document(account: ArmedAccount, answer: AccountSnapshot) -> AccountSnapshot:
    """The answer with the document's venue; an answer for another account, market or currency is malformed."""
    for what, declared, returned in (
        ("account", account.name, answer.account),
        ("market", account.market, answer.market),
        ("currency", account.currency, answer.currency),
    ):
        if declared != returned:
            return account.unreadable(
                "malformed", f"venue returned {what} {returned}; the document declares {declared}"
            )
    if answer.venue != account.venue:
        return replace(answer, venue=account.venue)
    return answer


def _reason(error: Exception) -> str:
    return legible(str(error) or type(error).__name__)
