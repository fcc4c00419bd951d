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
from msgspec import structs

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.request_counters import NoPollRoomError, RequestMeter
from killswitch.execution.response_timeouts import is_task_cancelled
from killswitch.model.legible import legible
from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.model.tracing import NO_SPAN, Span
from killswitch.model.venue import (
    CredentialsRefusedError,
    MalformedAnswerError,
    PricedVenue,
    Prices,
    RateLimitedError,
    VenueError,
)

FIRST_PATIENCE = 30.0
"""Seconds after which a venue's first answer is overdue: it holds the rules of all its markets."""

FIRST_ANSWER = "waiting for the first answer"
"""Beginning of the reason of an account whose venue has not answered yet and is not overdue."""

_ENCODER = msgjson.Encoder(decimal_format="string")
_DECODER = msgjson.Decoder(AccountSnapshot)
_SIGNALLING = re.compile(rb'"-?sNaN[0-9]*"')
"""A number that raises where it is compared with another, even for equality; NaN is as unknown, and only that."""


class AccountPoll:
    """Polls one account, one request in flight at most; the outcome is always an AccountSnapshot."""

    def __init__(self, account: ArmedAccount, timeout: float, meter: RequestMeter, first: float = 0.0) -> None:
        """`timeout` in seconds of real time: it bounds input and output, not decisions.

        `first`: seconds after which a read is called off as long as the venue has never answered.
        """
        self._account = account
        self._timeout = timeout
        self._called_off_after = self._first = max(timeout, first)
        self._begun_first: float | None = None
        self._meter = meter
        self._read: asyncio.Task[AccountSnapshot] | None = None
        self._began = 0.0
        self._asked_at: float | None = None
        self.dated = meter.monotonic()
        """Seconds of the meter's clock to which the last outcome refers: when it was requested, or timed out."""
        self.is_late = False
        """Whether the last read missed its timeout; ticks do not wait for a late reader."""
        self.is_denied = False
        """Whether the last outcome was that the venue refused the credentials."""
        self._last: AccountSnapshot | None = None

    @property
    def is_polling(self) -> bool:
        """Whether a read is under way, or its answer waits to be taken."""
        return self._read is not None

    @property
    def is_awaiting_first(self) -> bool:
        """Whether a read is under way, none has ever been answered, and the allowance for the first is not over."""
        if self._read is None or self._begun_first is None or self._called_off_after <= self._timeout:
            return False
        return asyncio.get_running_loop().time() - self._begun_first < self._first

    def begin(self, span: Span = NO_SPAN, *, poll: bool = False) -> asyncio.Task[AccountSnapshot]:
        """Start a read as a part of `span`, unless one is still in flight. `poll`: it is the one of an interval."""
        if self._read is None:
            self._began = asyncio.get_running_loop().time()
            self._begun_first = self._began if self._begun_first is None else self._begun_first
            self._read = asyncio.create_task(self._watched(span, poll=poll))
        return self._read

    def collect(self, waited: float = 0.0) -> AccountSnapshot:
        """The outcome of the poll, or `down` after `waited` seconds without one; past its timeout it is cancelled."""
        self._last = self._collected(waited)
        return self._last

    def again(self, within: float) -> AccountSnapshot:
        """The last snapshot, for a tick that does not poll this account; `stale` if it is older than `within`.

        Rows and instruments belong to the tick that first had them and are left out. The quality stays as it was.
        """
        if self._last is None:
            return self._account.unreadable("down", "it has not been polled")
        if self._meter.monotonic() - self.dated > within:
            return self._account.unreadable("stale", "the last snapshot is older than an interval")
        return structs.replace(
            self._last,
            flows=None if self._last.flows is None else (),
            fills=None if self._last.fills is None else (),
            instruments=None,
        )

    def _collected(self, waited: float) -> AccountSnapshot:
        read = self._read
        if read is None:
            # The second look of another pass has collected the answer, which is still valid.
            return self._last or self._account.unreadable("down", "it has not been polled")
        self.dated = self._meter.monotonic()
        if read.done():
            self._read = None
            if not read.cancelled():
                self.is_late = False
                answer = read.result()
                if answer.quality != "down":
                    self._called_off_after = self._timeout
                if answer.quality == "ok" and self._asked_at is not None:
                    self.dated = self._asked_at
                return answer
        elif asyncio.get_running_loop().time() - self._began >= self._called_off_after:
            read.cancel()
        self.is_late = True
        self.is_denied = False
        if self.is_awaiting_first:
            why = f"{FIRST_ANSWER}, for at most {self._first:g} s: it holds the rules of all markets"
            return self._account.unreadable("down", why)
        if self._called_off_after > self._timeout:
            return self._account.unreadable("down", f"no first answer within {self._first:g} s")
        return self._account.unreadable("down", f"no answer within {waited:g} s")

    async def abandon(self) -> None:
        """Call off a read in flight, and wait for it no longer than its timeout."""
        if self._read is not None:
            self._read.cancel()
            await asyncio.wait((self._read,), timeout=self._timeout)
            self._read = None

    @property
    def has_prices(self) -> bool:
        """Whether the adapter reads prices alone."""
        return isinstance(self._account.adapter, PricedVenue)

    async def prices(self, symbols: frozenset[str], span: Span) -> Mapping[str, Prices] | None:
        """Prices of one moment; None if they are not available, which the span records."""
        adapter = self._account.adapter
        assert isinstance(adapter, PricedVenue)  # the caller has looked
        with span.span("prices", {"killswitch.account": self._account.name}) as part:
            try:
                return await adapter.prices(symbols)
            except Exception as error:  # noqa: BLE001 - a second look that cannot be had is none, whatever went wrong
                part.fail(_reason(error))
                return None

    async def _watched(self, span: Span, *, poll: bool) -> AccountSnapshot:
        """The read as a span, which may outlast the tick that began it."""
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
        """The adapter's answer, counted on the meter; what went wrong comes out as it is."""
        ticket = await self._meter.admit(self._timeout, poll=poll)
        self._asked_at = self._meter.monotonic()
        try:
            answer = await self._account.adapter.snapshot()
        except RateLimitedError as error:
            self._meter.record_refusal(error.retry_after)
            raise
        else:
            # A failure may be a quality; whether this is a snapshot at all is checked later.
            if getattr(answer, "quality", "down") != "down":
                self._meter.record_answer()
            return answer
        finally:
            self._meter.finish(ticket, self._account.adapter)


class Polls:
    """The pollers of all accounts, by name."""

    def __init__(
        self,
        accounts: Mapping[str, ArmedAccount],
        timeout: float,
        meters: Mapping[str, RequestMeter] | None = None,
        first: float = 0.0,
    ) -> None:
        """`meters`: what each account's reads are counted on; without them, each has a limitless one of its own.

        `first`: seconds after which an account's read is called off as long as its venue has never answered. Nobody
        waits longer than the timeout for it.
        """
        meters = meters or {name: RequestMeter() for name in accounts}
        self._readers = {name: AccountPoll(account, timeout, meters[name], first) for name, account in accounts.items()}
        self._timeout = timeout

    def __getitem__(self, name: str) -> AccountPoll:
        return self._readers[name]

    def complete(self, read: Mapping[str, AccountSnapshot], within: float) -> tuple[AccountSnapshot, ...]:
        """`read`, and every other account as it was read last, at most `within` seconds ago; in the accounts' order."""
        return tuple(read.get(name) or reader.again(within) for name, reader in self._readers.items())

    async def gather(self, span: Span = NO_SPAN) -> tuple[AccountSnapshot, ...]:
        """One snapshot per account, in the accounts' order, after at most the timeout. Each is a part of `span`."""
        return await self._gather(self._readers.values(), span, poll=True)

    async def gather_again(
        self, names: Iterable[str], within: float, span: Span = NO_SPAN
    ) -> Mapping[str, AccountSnapshot]:
        """Read the named accounts once more, for at most `within` seconds (corroboration)."""
        chosen = {name: self._readers[name] for name in names if name in self._readers}
        return dict(zip(chosen, await self._gather(chosen.values(), span, within, poll=False), strict=True))

    def priced(self, snapshot: Snapshot, names: Iterable[str]) -> dict[str, frozenset[str]]:
        """Account → the symbols that it holds, of the named accounts whose adapters read prices alone."""
        wanted = frozenset(names)
        return {
            account.account: frozenset(position.symbol for position in account.positions or ())
            for account in snapshot.accounts
            if account.account in wanted and self._readers[account.account].has_prices and account.positions
        }

    async def prices(
        self, symbols: Mapping[str, frozenset[str]], within: float, span: Span = NO_SPAN
    ) -> dict[str, Mapping[str, Prices]]:
        """Prices of one moment of these symbols, by account, after at most `within` seconds.

        An account whose venue does not answer, or answers with an error, is left out.
        """
        asked = {name: asyncio.create_task(self._readers[name].prices(each, span)) for name, each in symbols.items()}
        if asked:
            await asyncio.wait(asked.values(), timeout=within)
        found = {}
        for name, task in asked.items():
            if task.done() and not task.cancelled() and (prices := task.result()) is not None:
                found[name] = prices
            task.cancel()
        return found

    async def _gather(
        self, readers: Iterable[AccountPoll], span: Span, within: float | None = None, *, poll: bool
    ) -> tuple[AccountSnapshot, ...]:
        readers = tuple(readers)
        patience = self._timeout if within is None else min(within, self._timeout)
        # Every read is begun before any is waited for; the late ones go on in the background.
        reads = [(reader, reader.begin(span, poll=poll)) for reader in readers]
        waited = [read for reader, read in reads if not reader.is_late]
        if waited:
            await asyncio.wait(waited, timeout=patience)
        return tuple(reader.collect(patience) for reader in readers)

    async def abandon(self) -> None:
        """Call off what is still in flight, at the end of a run."""
        await asyncio.gather(*(reader.abandon() for reader in self._readers.values()))


def _as_recorded(account: ArmedAccount, answer: AccountSnapshot) -> AccountSnapshot:
    """The answer encoded and decoded again, which checks the types of what an adapter returns.

    What cannot be encoded or decoded would end the run later.
    """
    try:
        recorded = _DECODER.decode(_SIGNALLING.sub(rb'"NaN"', _ENCODER.encode(answer)))
    except Exception as error:  # noqa: BLE001 - what an adapter built may fail to be written in any way
        return account.unreadable("malformed", f"the adapter's answer is no account snapshot: {_reason(error)}")
    return _held_against_document(account, recorded)


def _held_against_document(account: ArmedAccount, answer: AccountSnapshot) -> AccountSnapshot:
    """The answer under the document's names; one about another account, market or currency is malformed."""
    for what, said, told in (
        ("account", account.name, answer.account),
        ("market", account.market, answer.market),
        ("currency", account.currency, answer.currency),
    ):
        if said != told:
            return account.unreadable("malformed", f"venue returned {what} {told}; the document declares {said}")
    if answer.venue != account.venue:
        return structs.replace(answer, venue=account.venue)
    return answer


def _reason(error: Exception) -> str:
    return legible(str(error) or type(error).__name__)
