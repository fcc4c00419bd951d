"""Snapshots of one account, read in parts with their own ages, so that one a second costs under 90 requests a minute.

Positions are read every time: 60 a minute. The account's equity is read every 4 s (15), and at once when holdings
change; between two reads it moves with the value of the same positions. Orders are read every 12 s (5), flows every 30
s (2), trades and the clock once a minute (1 each): 84 requests in all, of 200. A part that a push or an order has
touched is read sooner, from requests saved elsewhere; so are trades and flows while they do not explain a change (see
`parts`). The rules of an asset are read once an hour. An account that trades with every tick has its equity read with
every tick, and costs 2 requests a snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from msgspec.structs import asdict, replace

from killswitch.model.parsing import Row, UnreadableError, decimal, not_negative
from killswitch.model.snapshot import AccountSnapshot, Fill, Health, Mark, Order, Position, Quality
from killswitch.model.venue import (
    CredentialsRefusedError,
    MalformedAnswerError,
    RateLimitedError,
    VenueDownError,
    VenueError,
)
from killswitch.model.venue_orders import KnownOrders
from killswitch_alpaca.client import Client
from killswitch_alpaca.inspection import FIFTHS, SNAPSHOT
from killswitch_alpaca.instruments import bar_reason, withdrawals
from killswitch_alpaca.ledger import Ledger
from killswitch_alpaca.markets import MarketData, TradingSessions
from killswitch_alpaca.parts import ACCOUNT, MARKS, ORDERS, OWED, SAVED, SnapshotPart
from killswitch_alpaca.positions import (
    AccountBase,
    account_base,
    balances,
    changes,
    held_of,
    is_consistent,
    is_crypto,
    position_value,
)
from killswitch_alpaca.queries import Queries
from killswitch_alpaca.settings import AlpacaSettings

MARKS_KEPT = 10.0
"""Seconds for which prices of a closed position are still read."""


class SnapshotReader:
    """The state of one account, and when each part was read."""

    def __init__(self, settings: AlpacaSettings, client: Client) -> None:
        self._settings = settings
        self._client = client
        self.queries = Queries(settings, client)
        self.sessions = TradingSessions(settings, client, self.queries)
        self.ledger = Ledger(settings, self.queries, self.sessions.venue_time)
        self._markets = MarketData(self.queries, extended=self.sessions.extended)
        self.account = SnapshotPart(ACCOUNT, ACCOUNT)
        self.orders = SnapshotPart(ORDERS, 60.0)
        self.known_orders = KnownOrders()
        self.marks = SnapshotPart(MARKS, MARKS)
        self.positions: tuple[Position, ...] = ()
        self.open_orders: tuple[Order, ...] = ()
        self._base: AccountBase | None = None
        self._vanished: dict[str, float] = {}
        """Symbols that are no longer held, and since when."""
        self._marks: dict[str, Mark] = {}
        self._positions_as_of: datetime | None = None
        self._credit = SAVED
        self._first = True
        """Whether nothing was read yet: the first read of each part uses no saved requests."""

    def touch(self, *, fills: bool) -> None:
        """Record an order, cancel or fill: the parts that it changes are read with the next snapshot."""
        self.orders.touch()
        if fills:
            self.account.touch()
            self.ledger.trades.touch()

    async def snapshot(self) -> AccountSnapshot:
        """The current snapshot. Raises RateLimitedError and CredentialsRefusedError; other failures are in its
        quality."""
        now = asyncio.get_running_loop().time()
        self._credit = min(SAVED, self._credit + SNAPSHOT / FIFTHS - 1)
        try:
            return await self._read(now)
        except (RateLimitedError, CredentialsRefusedError):
            self._client.reset_counters()
            raise
        except (MalformedAnswerError, UnreadableError) as error:
            return self._failed("malformed", str(error))
        except VenueError as error:
            return self._failed("down", str(error))

    async def _read(self, now: float) -> AccountSnapshot:
        self._forget_vanished(now)
        if self._settings.spec.orders_first and self.orders.is_due(now, credit=self._credit):
            self._spend_credit()
            await self._part(self.orders, self.read_orders, now)
        marks = [self._part(self.marks, self._read_marks, now)] if self._vanished else []
        parts = [self._part(part, read, now) for part, read in self._due(now)]
        asked_at = self.sessions.venue_time()
        held = asyncio.create_task(self._held())
        tasks = [asyncio.create_task(each) for each in (*parts, *marks)]
        account_due = self._base is None or self.account.is_due(now, credit=self._credit)
        touches_before = self.account.touches
        try:
            account = await self._account() if account_due else None
            held_answer = await held
            for each in tasks:
                await each
        finally:
            for task in (held, *tasks):
                task.cancel()
            await asyncio.gather(held, *tasks, return_exceptions=True)
        if isinstance(held_answer, Exception):
            return await self._without_positions(held_answer, account, now)
        positions = held_answer
        account_at = asked_at
        reads_after_trade: Sequence[Awaitable[None]] = ()
        if self._base is not None and held_of(positions) != self._base.held:
            reads_after_trade = self._read_after_trade(positions, now)
        if reads_after_trade or (account is None and position_value(positions) is None):
            # An account that was read concurrently with the positions may or may not include the trade.
            touches_before, account_at = self.account.touches, self.sessions.venue_time()
            account, *_ = await asyncio.gather(self._account(), *reads_after_trade)
        if account is not None and not is_consistent(account, positions):
            # One of the two was read before a trade, the other after it.
            touches_before, account_at = self.account.touches, self.sessions.venue_time()
            self._spend_credit()
            asked_at = account_at
            account, positions = await asyncio.gather(self._account(), self.queries.positions())
        self.positions, self._positions_as_of = positions, asked_at
        if account is not None:
            self._record_account(account_base(account, positions, account_at), now)
            self.account.was_read(now, touches_before)
        await self._read_out_of_turn(now, traded=bool(reads_after_trade))
        await self._read_rules(now)
        await self._read_quotes(now)
        await self._read_watched(now)
        if self._first:
            self._first, self._credit = False, SAVED
        return self._current_snapshot(now)

    async def _held(self) -> tuple[Position, ...] | VenueError | UnreadableError:
        """The positions, or the error of reading them."""
        try:
            return await self.queries.positions()
        except RateLimitedError:
            raise
        except (VenueError, UnreadableError) as error:
            return error

    async def _without_positions(self, why: Exception, account: Row | None, now: float) -> AccountSnapshot:
        """The snapshot while positions cannot be read; raises `why` where equity is unknown too.

        The prices of the last known positions decide whether these are still held: where their value adds up to the
        account's market value, the parts of the equity are known.
        """
        if self._base is None or isinstance(why, CredentialsRefusedError):
            raise why
        read_at = self.sessions.venue_time()
        account = account or await self._account()
        prices = await self._prices_of_held()
        supposed = tuple(_at(position, prices[position.symbol]) for position in self.positions) if prices else ()
        base = account_base(account, supposed, read_at)
        if base.why_unknown is not None:
            raise why
        parts, total = balances(base, supposed, self._settings.spec.currency, read_at)
        found, reason = self._current_snapshot(now), f"positions: {why}"
        return replace(
            found,
            reason=reason if found.reason is None else f"{reason}; {found.reason}",
            equity=base.equity if total is None else total,
            margin_used=not_negative(decimal(account.get("initial_margin"))),
            maintenance_margin=not_negative(decimal(account.get("maintenance_margin"))),
            balances=None if total is None else parts,
            positions=None,
            unrealized=None if total is None else Decimal(0),
            wallet_as_of=read_at,
            positions_as_of=None,
            complete=None if total is None else True,
            marks=tuple(Mark(symbol, price) for symbol, price in prices.items()) or found.marks,
        )

    async def _prices_of_held(self) -> dict[str, Decimal]:
        """The last price of everything that was held last; empty where one is unknown."""
        names = tuple(dict.fromkeys(position.symbol for position in self.positions))
        try:
            found = await self.queries.trades(names) if names else {}
        except (VenueError, UnreadableError):
            return {}  # the equity is known without them
        return {it: found[it][0] for it in names} if found.keys() >= set(names) else {}

    def _read_after_trade(self, positions: tuple[Position, ...], now: float) -> Sequence[Awaitable[None]]:
        """The reads concurrent with that of the account once holdings have changed: the trades, as far as there is
        credit for them, and prices of what is no longer held."""
        self.orders.touch()
        self.ledger.trades.touch()
        present = {position.symbol for position in positions}
        new = {position.symbol for position in self.positions if position.symbol not in present}
        self._vanished = {it: at for it, at in self._vanished.items() if it not in present} | dict.fromkeys(new, now)
        found = [self._part(self.marks, self._read_marks, now)] if new else []
        if self.ledger.trades.is_due(now, credit=self._credit):
            self._spend_credit()
            found.append(self._part(self.ledger.trades, self._read_trades, now))
        return found or [_nothing()]

    def _record_account(self, base: AccountBase, now: float) -> None:
        """Record what has changed since the last read of the account: trades and flows must explain it."""
        if self._base is not None:
            shares, money = changes(self._base, base)
            if shares or money:
                self.ledger.out_of_turn.record_change(now, shares, money, base.equity)
        self._base = base

    async def _read_out_of_turn(self, now: float, *, traded: bool) -> None:
        """Read trades and flows while a change is unexplained. `traded`: trades may have just been read."""
        assert self._base is not None
        parts: list[tuple[SnapshotPart, Callable[[], Awaitable[None]]]] = [
            (self.ledger.flows, self.ledger.read_flows),
            (self.ledger.trades, self._read_trades),
        ]
        if traded and self.ledger.trades.read_at == now:
            del parts[1]
        paid = self.ledger.out_of_turn.reserve(now, self._base.equity, self._credit, len(parts))
        if paid is not None:
            self._credit -= paid
            await asyncio.gather(*(self._part(part, read, now) for part, read in parts))

    def _forget_vanished(self, now: float) -> None:
        self._vanished = {symbol: at for symbol, at in self._vanished.items() if now - at <= MARKS_KEPT}
        self._marks = {symbol: mark for symbol, mark in self._marks.items() if symbol in self._vanished}

    # Parts

    def _due(self, now: float) -> list[tuple[SnapshotPart, Callable[[], Awaitable[None]]]]:
        found: list[tuple[SnapshotPart, Callable[[], Awaitable[None]]]] = []
        for part, read in (
            (self.sessions.clock, self.sessions.read_in_turn), (self.orders, self.read_orders),
            (self.ledger.trades, self._read_trades), (self.ledger.flows, self.ledger.read_flows),
        ):  # fmt: skip
            if part is self.orders and self._settings.spec.orders_first:
                continue  # read before the positions
            if part.is_due(now, credit=self._credit):
                found.append((part, read))
                self._spend_credit()
        return found

    def _spend_credit(self) -> None:
        self._credit = max(OWED, self._credit - 1)

    async def _part(self, part: SnapshotPart, read: Callable[[], Awaitable[None]], now: float) -> None:
        """Read a part; on a failure record why, and keep the old value."""
        touches_before, as_of = part.touches, self.sessions.venue_time()
        try:
            await read()
        except RateLimitedError:
            raise
        except (VenueError, UnreadableError) as error:
            part.failure = str(error)
        else:
            part.was_read(now, touches_before, as_of)

    async def _account(self) -> Row:
        self._spend_credit()
        return await self.queries.account()

    async def read_orders(self) -> None:
        """Read all open orders."""
        prices = {p.symbol: p.mark_price for p in self.positions if p.mark_price is not None}
        self.open_orders = await self.queries.orders(prices)

    async def _read_trades(self) -> None:
        await self.ledger.read_trades(self._markets.coins())

    async def _read_marks(self) -> None:
        """Read the last prices of what is no longer held."""
        self._marks = {}
        try:
            found = await self.queries.trades(tuple(self._vanished))
        except RateLimitedError as error:
            # Market data has a separate limit: the account can still be read.
            raise VenueDownError(str(error)) from error
        self._marks = {symbol: Mark(symbol, price) for symbol, (price, _) in found.items()}

    async def _read_quotes(self, now: float) -> None:
        """Read bid and ask of the held shares where orders need a price: in the extended session."""
        names = [p.symbol for p in self.positions if not is_crypto(p.symbol)]
        if not (self.sessions.extended and names and self.sessions.now() == "extended"):
            return

        if self._markets.quotes.is_due(now):
            await self._part(self._markets.quotes, lambda: self._markets.read_quotes(names), now)

    async def _read_watched(self, now: float) -> None:
        """Read the prices of the watch list. Market data has a separate limit, so it uses no saved requests."""
        symbols = self._settings.spec.watch
        if symbols and self._markets.watch.is_due(now):
            await self._part(self._markets.watch, lambda: self._markets.read_watched(symbols), now)

    async def _read_rules(self, now: float) -> None:
        """Read the rules of held and ordered symbols that are unknown or old."""
        wanted = {p.symbol for p in self.positions} | set(self._named())
        requests = await self._markets.read_rules(wanted, now)
        self._credit = max(OWED, self._credit - requests)

    # The snapshot

    def _current_snapshot(self, now: float) -> AccountSnapshot:
        base, settings = self._base, self._settings
        assert base is not None
        stated = base.account.get("currency")
        if stated is not None and stated != settings.spec.currency:
            raise UnreadableError(f"the account's currency is {stated}; the document declares {settings.spec.currency}")
        held, total = balances(base, self.positions, settings.spec.currency, base.read_at)
        stated = base.equity_with(position_value(self.positions)) if total is None else total
        return AccountSnapshot(
            account=settings.spec.account,
            venue="alpaca",
            market=settings.market,
            currency=settings.spec.currency,
            quality="ok",
            reason=self._reason(now),
            observed_at=settings.now().astimezone(UTC),
            equity=stated if base.why_unknown is None else None,
            margin_used=not_negative(decimal(base.account.get("initial_margin"))),
            maintenance_margin=not_negative(decimal(base.account.get("maintenance_margin"))),
            position_mode="one_way",
            balances=held,
            flows=self.ledger.flows.new_rows(now),
            positions=tuple(self._markets.with_quote(position, now) for position in self.positions),
            orders=self.open_orders if self.orders.is_usable(now) else None,
            fills=self._named_fills(now),
            instruments=self._markets.changed_instruments(
                self.positions, self._named(), self.sessions.now(), barred=self.bar_reason is not None
            )
            or None,
            health=self._health(),
            unrealized=None if total is None else Decimal(0),
            wallet_as_of=base.read_at,
            positions_as_of=self._positions_as_of,
            orders_as_of=self.orders.as_of if self.orders.is_usable(now) else None,
            fills_as_of=self.ledger.trades.complete_until,
            flows_as_of=self.ledger.flows_as_of,
            row_lag_s=self.ledger.lag(now),
            complete=None if total is None else True,
            marks=tuple(self._marks.values()) if self._marks else None,
            corporate_actions=self.ledger.new_corporate_actions(now),
            withdrawals=withdrawals(base.account, settings.spec.currency),
            watched=self._markets.watched(now) if settings.spec.watch else None,
        )

    def _named_fills(self, now: float) -> tuple[Fill, ...] | None:
        """The new fills, with the client order ids and triggers of the orders that are known."""
        self.known_orders.rest(self.open_orders if self.orders.is_usable(now) else ())
        return self.known_orders.named(self.ledger.trades.new_rows(now))

    def _named(self) -> list[str]:
        """The symbols of orders, and of the watch list."""
        return [*(order.symbol for order in self.open_orders), *self._settings.spec.watch]

    def _reason(self, now: float) -> str | None:
        """What is unknown and why, and what bars the account."""
        parts = (
            ("orders", self.orders),
            ("fills", self.ledger.trades),
            ("flows", self.ledger.flows),
            ("the clock", self.sessions.clock),
            ("watch", self._markets.watch),
        )
        found = [f"{name}: {part.failure}" for name, part in parts if part.failure and not part.is_usable(now)]
        if self._base is not None and self._base.why_unknown is not None:
            found.append(self._base.why_unknown)
        if (bars := self.bar_reason) is not None:
            found.append(bars)
        return "; ".join(found) or None

    @property
    def bar_reason(self) -> str | None:
        """Why the account accepts no orders; None if it does."""
        return bar_reason(self._base.account) if self._base is not None else None

    def _failed(self, quality: Quality, reason: str) -> AccountSnapshot:
        spec, market = self._settings.spec, self._settings.market
        return AccountSnapshot(
            spec.account, "alpaca", market, spec.currency, quality, reason=reason, health=self._health()
        )

    def _health(self) -> Health:
        return Health(**asdict(self._client.reset_counters()), clock_skew_ms=self.sessions.skew_ms)


def _at(position: Position, price: Decimal) -> Position:
    return replace(position, mark_price=price, notional=position.contracts * price)


async def _nothing() -> None:
    """Read nothing."""
