"""Fetches one account's snapshot in parts, each of which has an age of its own.

Equity and positions are fetched every time, together with the marks of positions that were closed lately. Parts that
change rarely or use much of the venue's limits are fetched when they are due, or at once when a balance or a position
has changed: then fills and flows explain the change, see `ledger`. A snapshot has no part that is older than its age
allows, and no price with a later mark, see `prices`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct

from killswitch.model.parsing import UnreadableError, not_negative
from killswitch.model.snapshot import (
    AccountSnapshot,
    Fill,
    Health,
    Instrument,
    LimitUse,
    Order,
    Position,
    Quality,
    Withdrawals,
)
from killswitch.model.venue import (
    AccountSpec,
    CredentialsRefusedError,
    MalformedAnswerError,
    RateLimitedError,
    VenueDownError,
    VenueError,
)
from killswitch.model.venue_orders import KnownOrders
from killswitch_ccxt import withdrawals
from killswitch_ccxt.answers import UNKNOWN_SHAPE, NoSuchSymbolError, failure_text
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect, PositionMode
from killswitch_ccxt.equity import AccountEquity, check_margin, without_contradicted_equity, without_contradicted_profit
from killswitch_ccxt.instruments import InstrumentChanges, States, instruments
from killswitch_ccxt.ledger import Ledger
from killswitch_ccxt.parts import (
    CLOSED_MARKET_RULES_INTERVAL,
    MISSING_SYMBOL_RULES_INTERVAL,
    RETRY_AFTER,
    ChangeDetector,
    SnapshotPart,
    phase_of,
)
from killswitch_ccxt.positions import without_invalid_values
from killswitch_ccxt.prices import SnapshotPrices
from killswitch_ccxt.response_capture import RequestCounters
from killswitch_ccxt.rules import Rules

T = TypeVar("T")


class _Read(Struct, frozen=True):
    """The parts that are fetched every time, and the time of the request: by our clock, and in seconds of the loop."""

    equity: AccountEquity
    positions: tuple[Position, ...] | None
    requested_at: datetime
    requested: float


class SnapshotReader:
    """Fetches the snapshots of one account."""

    def __init__(self, client: Client, dialect: Dialect, spec: AccountSpec, rules: Rules) -> None:
        self._client = client
        self._dialect = dialect
        self._spec = spec
        self._rules = rules
        ages, phase = dialect.ages, phase_of(spec.account)
        self._orders: SnapshotPart[tuple[Order, ...]] = SnapshotPart(ages.orders, phase)
        self.known_orders = KnownOrders()
        self._ledger = Ledger(client, dialect, phase, self._read)
        self._changes = ChangeDetector()
        self._prices = SnapshotPrices(dialect, spec, phase, self._read)
        self._mode: SnapshotPart[PositionMode | None] = SnapshotPart(ages.mode, phase)
        self._states: SnapshotPart[States] = SnapshotPart(ages.states, phase)
        self._instrument_changes = InstrumentChanges()
        self._is_market_closed = False
        self._equity_remark: str | None = None
        self._no_positions: str | None = None
        """Why the last snapshot has equity and no positions; None where it has both, or neither."""
        self._refused: RateLimitedError | None = None
        self._rules_again_at = float("-inf")
        self._skew: SnapshotPart[float | None] = SnapshotPart(ages.clock, phase)
        self._withdrawals: SnapshotPart[tuple[Withdrawals, ...] | None] = SnapshotPart(withdrawals.INTERVAL, phase)
        self._limits: SnapshotPart[tuple[LimitUse, ...]] = SnapshotPart(ages.limits or 0.0, phase)

    def kinds_of(self, order_id: str) -> tuple[bool, ...]:
        """Whether an open order is conditional; both values, to be tried in turn, for an unknown order.

        Many venues keep the two kinds in separate lists and report an order of the other kind as missing.
        """
        if not self._dialect.has_separate_order_kinds:
            return (False,)
        known = {order.id: order.trigger_price is not None for order in self._orders.value or ()}
        return (known[order_id],) if order_id in known else (False, True)

    def note_activity(self, *symbols: str) -> None:
        """Record an order or a stream message: orders and fills are fetched soon."""
        self._ledger.note_activity(symbols, asyncio.get_running_loop().time())
        self._orders.due = min(self._orders.due, self._orders.at + self._dialect.ages.orders_least)

    def remember(self, symbols: Collection[str], since: datetime | None) -> None:
        """Set the symbols that were held before this run: their rows are fetched at the first snapshot."""
        self._ledger.remember(symbols, since)

    def recently_held(self) -> frozenset[str]:
        """Symbols that are held, or were in the last five minutes."""
        return self._changes.recently_held(asyncio.get_running_loop().time())

    def expire(self) -> None:
        """Make every part due at the next snapshot, whatever its age."""
        self._ledger.expire()
        self._prices.expire()
        for part in (self._orders, self._mode, self._states, self._skew):
            part.due = float("-inf")

    def record_orders(self, orders: tuple[Order, ...]) -> None:
        """Record open orders that another request has fetched."""
        self._orders.record(orders, asyncio.get_running_loop().time())

    async def mode(self) -> PositionMode:
        """The position mode, fetched where it is unknown: without it nothing may be sent.

        VenueDownError where it cannot be fetched.
        """
        if self._mode.value is None:
            await self._read(self._mode, self._dialect.position_mode)
        if self._mode.value is None:
            why = self._mode.failure or f"{self._dialect.exchange} does not state it"
            raise VenueDownError(f"the position mode of the account is unknown, so nothing was sent: {why}")
        return self._mode.value

    def forget_mode(self) -> None:
        """Forget the position mode, because it has changed."""
        self._mode = SnapshotPart(self._mode.every, self._mode.phase)

    async def snapshot(self) -> AccountSnapshot:
        """The snapshot; after a failure of equity or positions, one with the quality `down` or `malformed` and the
        reason.

        RateLimitedError is raised for the component that counts requests, and CredentialsRefusedError for an operator.
        """
        observed_at, began = self._client.now(), asyncio.get_running_loop().time()
        with self._client.counting() as counters:
            if self._spec.orders_first and self._orders.due <= began:
                await self._orders_before_positions()
            read = await self._account_or_failure(counters, began)
            if isinstance(read, AccountSnapshot):
                return read
            if read.positions is not None:
                self._no_positions = None
                self._detect_changes(read.equity, read.positions)
            await self._read_due(read, read.requested)
        if self._refused is not None:
            refused, self._refused = self._refused, None
            raise refused
        try:
            return self._snapshot_of(read, observed_at, self._health(counters, began))
        except (UnreadableError, *UNKNOWN_SHAPE) as error:
            counters.malformed += 1
            return self._failed("malformed", failure_text(error), counters, began)

    async def _orders_before_positions(self) -> None:
        """Read the resting orders before the positions, so that a fill between the two is in the positions.

        A failure of the rules fails the snapshot when positions are read; without them, orders cannot be read either.
        """
        try:
            await self._rules.ready()
        except VenueError:
            return
        await self._read(self._orders, self._dialect.orders)

    async def _account_or_failure(self, counters: RequestCounters, began: float) -> _Read | AccountSnapshot:
        """Equity and positions, or equity alone; after a failure of both, the failed snapshot."""
        requested: float | None = None
        try:
            await self._rules.ready(every=CLOSED_MARKET_RULES_INTERVAL if self._is_market_closed else None)
            requested_at, requested = self._client.now(), asyncio.get_running_loop().time()
            account_equity, positions = await self._account_and_marks(requested)
            check_margin(account_equity, positions)
            account_equity = without_contradicted_equity(account_equity, positions)
        except (RateLimitedError, CredentialsRefusedError):
            raise
        except (MalformedAnswerError, UnreadableError) as error:
            counters.malformed += isinstance(error, UnreadableError)
            return self._failed("malformed", str(error), counters, began)
        except VenueError as error:
            # Without rules nothing else of the account can be read.
            equity_alone = None if requested is None else await self._equity_alone()
            if equity_alone is None or requested is None:
                return self._failed("down", str(error), counters, began)
            self._no_positions = f"positions: {error}"
            return _Read(equity_alone, None, requested_at, requested)
        except Exception as error:  # noqa: BLE001 - includes ccxt's own, raised while it parses an answer
            counters.malformed += 1
            return self._failed("malformed", failure_text(error), counters, began)
        return _Read(account_equity, positions, requested_at, requested)

    def _snapshot_of(self, read: _Read, observed_at: datetime, health: Health) -> AccountSnapshot:
        now, requested, positions = asyncio.get_running_loop().time(), read.requested, read.positions
        account_equity = without_contradicted_profit(read.equity, self._spec.currency)
        self._equity_remark = account_equity.why
        venue_time_of_request = self._client.venue_time(int(read.requested_at.timestamp() * 1000))
        return AccountSnapshot(
            account=self._spec.account,
            venue=self._dialect.exchange,
            market=self._spec.market,  # type: ignore[arg-type] # compared with the dialect's when the adapter was created
            currency=self._spec.currency,
            quality="ok",
            reason=self._failures_text(now),
            observed_at=observed_at,
            equity=account_equity.equity,
            free=account_equity.free,
            margin_used=not_negative(account_equity.margin_used),
            maintenance_margin=not_negative(account_equity.maintenance_margin),
            margin_mode=account_equity.margin_mode,
            position_mode=self._mode.recent_value(now),
            balances=account_equity.balances,
            flows=self._ledger.flows.new_rows(now),
            positions=None
            if positions is None
            else tuple(self._prices.priced(without_invalid_values(it), requested, now) for it in positions),
            orders=self._orders.recent_value(now),
            fills=self._named_fills(now),
            instruments=self._new_instruments(positions or ()),
            health=health,
            unrealized=account_equity.unrealized,
            wallet_as_of=account_equity.as_of or venue_time_of_request,
            positions_as_of=None if positions is None else account_equity.positions_as_of or venue_time_of_request,
            orders_as_of=self._orders_as_of(requested, now, venue_time_of_request),
            fills_as_of=self._ledger.fills_as_of(now),
            flows_as_of=self._ledger.flows_as_of(now),
            row_lag_s=self._ledger.lag(now),
            complete=account_equity.is_complete,
            marks=self._prices.marks(requested) or None,
            rates=account_equity.rates,
            adl_ranks=None if self._dialect.is_spot else self._dialect.adl_ranks,
            watched=self._prices.watched(now),
            withdrawals=self._withdrawals.recent_value(now),
        )

    def _orders_as_of(self, requested: float, now: float, venue_time_of_request: datetime | None) -> datetime | None:
        """The venue's time of the request that listed the orders; None while they are unknown."""
        if venue_time_of_request is None or self._orders.recent_value(now) is None:
            return None
        return venue_time_of_request + timedelta(seconds=self._orders.at - requested)

    def _named_fills(self, now: float) -> tuple[Fill, ...] | None:
        """The new fills, with the client order ids and triggers of the orders that are known."""
        self.known_orders.rest(self._orders.recent_value(now) or ())
        return self.known_orders.named(self._ledger.fills.new_rows(now))

    async def _equity_alone(self) -> AccountEquity | None:
        """The equity while positions cannot be fetched; None where the equity cannot be fetched either."""
        try:
            found = await self._dialect.equity_alone()
        except (RateLimitedError, CredentialsRefusedError):
            raise
        except (VenueError, UnreadableError, *UNKNOWN_SHAPE):
            return None  # the snapshot fails with the cause of the first failure
        return None if found is None or found.equity is None else found

    async def _account_and_marks(self, requested: float) -> tuple[AccountEquity, tuple[Position, ...]]:
        """Equity and positions, and at the same moment the marks of positions that were closed lately, up to a
        timeout."""
        closed = self._changes.recently_closed(requested)
        if not closed:
            return await self._account()
        account, _ = await asyncio.gather(self._account(), self._prices.read_marks(closed), return_exceptions=True)
        if isinstance(account, BaseException):
            raise account
        return account

    async def _account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        """Equity and positions; once more with new rules where the rules lack a symbol, which may be a new listing."""
        try:
            return await self._dialect.account()
        except NoSuchSymbolError:
            now = asyncio.get_running_loop().time()
            if now < self._rules_again_at:
                raise
            self._rules_again_at = now + MISSING_SYMBOL_RULES_INTERVAL
            await self._rules.ready(again=True)
            return await self._dialect.account()

    # Parts

    async def _read_due(self, read: _Read, requested: float) -> None:
        now, dialect = asyncio.get_running_loop().time(), self._dialect
        fetches: list[Awaitable[object]] = [self._ledger.read(now)]
        orders = () if self._spec.orders_first else ((self._orders, dialect.orders),)
        parts: tuple[tuple[SnapshotPart[Any], Callable[[], Awaitable[Any]]], ...] = (
            *orders,
            (self._mode, dialect.position_mode),
            (self._skew, self._client.measure_skew),
            (self._states, dialect.states),
        )
        # Requests start when they are awaited: one that is cancelled before has no effect.
        fetches += [self._read(part, fetch) for part, fetch in parts if part.due <= now]
        fetches += self._rarely_read(read.equity, now)
        fetches += self._prices.due(read.positions or (), self._changes.recently_closed(now), requested, now)
        await asyncio.gather(*fetches)

    def _rarely_read(self, account_equity: AccountEquity, now: float) -> Iterator[Awaitable[object]]:
        """Requests of parts that nothing needs soon: after a failure, too, only at their interval."""
        dialect, limits, suspended = self._dialect, self._limits, self._withdrawals
        if dialect.ages.limits is not None and limits.due <= now:
            yield self._read(limits, dialect.own_limits, again_after=limits.every)
        if suspended.due == float("-inf"):
            suspended.due = now + withdrawals.FIRST_AFTER
        if dialect.states_withdrawals and suspended.due <= now:
            assets = {self._spec.currency, *(it.asset for it in account_equity.balances or () if it.amount)}
            yield self._read(suspended, partial(dialect.withdrawals, assets), again_after=suspended.every)

    async def _read(
        self, part: SnapshotPart[T], fetch: Callable[[], Awaitable[T]], again_after: float = RETRY_AFTER
    ) -> bool:
        """Fetch a part; a failure keeps the old value until it expires, and makes the part due again soon.

        `again_after`: seconds after a failure, if the age of the part is not shorter.
        """
        now = asyncio.get_running_loop().time()
        try:
            value = await fetch()
        except RateLimitedError as error:
            part.failure, part.due = str(error), now + max(error.retry_after or 0.0, again_after)
            if error.retry_after is not None:
                self._refused = error
            return False
        except Exception as error:  # noqa: BLE001 - includes ccxt's own, raised while it parses an answer
            part.failure, part.due = failure_text(error), now + min(part.every, again_after)
            return False
        part.record(value, now)
        return True

    # Results

    def _failures_text(self, now: float) -> str | None:
        """Why parts are unknown, where fetching them fails."""
        fills, flows = self._ledger.fills.part, self._ledger.flows.part
        parts: dict[str, SnapshotPart[Any]] = {
            "orders": self._orders, "fills": fills, "flows": flows, "position mode": self._mode,
            "withdrawals": self._withdrawals,
        }  # fmt: skip
        rows = (fills, flows)
        remarks = [
            f"{name}: {part.failure}"
            for name, part in parts.items()
            if part.failure and (part in rows or part.recent_value(now) is None)
        ]
        remarks += self._prices.remarks()
        if self._no_positions is not None:
            remarks.insert(0, self._no_positions)
        if self._rules.why_old is not None:
            remarks.append(f"rules: {self._rules.why_old}")
        if self._equity_remark is not None:
            remarks.append(self._equity_remark)
        return "; ".join(remarks) or None

    def _detect_changes(self, account_equity: AccountEquity, positions: tuple[Position, ...]) -> None:
        now, held = asyncio.get_running_loop().time(), {position.symbol for position in positions}
        changes = self._changes.detect(account_equity, positions, now)
        if changes is None:
            self._ledger.begin(held, now)
        elif changes.symbols or changes.has_wallet_change:
            self._orders.due = min(self._orders.due, self._orders.at + self._dialect.ages.orders_least)
            self._ledger.note_change(changes.symbols, held, now)

    def _new_instruments(self, positions: Iterable[Position]) -> tuple[Instrument, ...] | None:
        """All instruments at first, later those that changed after the rules or the states were fetched again."""
        held, dialect = {position.symbol for position in positions}, self._dialect
        self._is_market_closed = self._instrument_changes.is_any_closed(held)

        def make() -> tuple[Instrument, ...]:
            chosen = (rule for symbol, rule in dialect.rules.items() if symbol in held or dialect.concerns(rule))
            tick_size = self._client.ccxt.precisionMode != 2  # ccxt's DECIMAL_PLACES
            return instruments(chosen, self._states.value or {}, tick_size=tick_size)

        return self._instrument_changes.changed_instruments((self._rules.version, self._states.at), make)

    def _failed(self, quality: Quality, reason: str, counters: RequestCounters, began: float) -> AccountSnapshot:
        return AccountSnapshot(
            self._spec.account,
            self._dialect.exchange,
            self._spec.market,  # type: ignore[arg-type] # compared with the dialect's when the adapter was created
            self._spec.currency,
            quality,
            reason=reason,
            observed_at=self._client.now(),
            health=self._health(counters, began),
        )

    def _health(self, counters: RequestCounters, began: float) -> Health:
        now = asyncio.get_running_loop().time()
        limits = (*(self._client.limits(began) or ()), *(self._limits.recent_value(now) or ()))
        return counters.health(now - began, self._skew.value, limits or None)
