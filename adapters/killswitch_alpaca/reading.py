"""One account read in parts, each with its own age, so that a snapshot a second keeps inside 90 requests a minute.

Positions are read every time: 60 a minute. The account's equity is read every 4 s (15), and at once when another
quantity is held; between two readings it moves by what the same positions have become worth. Orders are read every 12 s
(5), money that moved every 30 s (2), trades and the clock once a minute (1 each): 84 requests in all, of 200. What a
push or an order of ours has touched is read sooner, out of what is saved elsewhere. The rules of an asset are read once
an hour. An account that trades with every tick has its equity read with every tick, and costs 2 requests a snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal

from msgspec import structs

from killswitch.model.snapshot import AccountSnapshot, Balance, Fill, Flow, Health, Instrument, Order, Position, Quality
from killswitch.model.venue import (
    CredentialsRefusedError,
    MalformedAnswerError,
    RateLimitedError,
    VenueDownError,
    VenueError,
)
from killswitch_alpaca.activities import Known, read_fill, read_flow
from killswitch_alpaca.client import TOO_LATE, Client, RefusedError, called_off
from killswitch_alpaca.errors import as_venue_error
from killswitch_alpaca.hours import Hours, Session
from killswitch_alpaca.instruments import Asset, instrument
from killswitch_alpaca.numbers import Row, UnreadableError, decimal, needed
from killswitch_alpaca.parts import ACCOUNT, ASSETS, CALENDAR, CLOCK, MOVES, ORDERS, OWED, QUOTES, SAVED, TRADES, Part
from killswitch_alpaca.positions import is_crypto, worth
from killswitch_alpaca.questions import Book, Questions
from killswitch_alpaca.settings import Settings
from killswitch_alpaca.traits import FIFTHS, SNAPSHOT


@dataclass(frozen=True, slots=True)
class Base:
    """The account as it was read, with the positions of the same moment and what they were worth then."""

    account: Row
    equity: Decimal
    worth: Decimal | None
    held: frozenset[tuple[str, str, Decimal]]


class Reading:
    """Everything known about one account, and when it was read."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self._settings = settings
        self._client = client
        self._extended = settings.outside_hours == "extended"
        self.ask = Questions(settings, client)
        self.hours = Hours()
        self.account = Part(ACCOUNT, ACCOUNT)
        self.orders = Part(ORDERS, 60.0)
        self.trades = Part(TRADES, 300.0)
        self.moves = Part(MOVES, 300.0)
        self.clock = Part(CLOCK, 3600.0)
        self.calendar = Part(CALENDAR, 4 * 86_400.0)
        self.quotes = Part(QUOTES, QUOTES)
        self.positions: tuple[Position, ...] = ()
        self.open_orders: tuple[Order, ...] = ()
        self._assets: dict[str, Asset] = {}
        self._asset_at: dict[str, float] = {}
        self._base: Base | None = None
        self._fills: list[Fill] = []
        self._flows: list[Flow] = []
        self._trades_known, self._moves_known = Known(), Known()
        self._quotes: dict[str, Book] = {}
        self._told: dict[str, Instrument] = {}
        self._clock_read: asyncio.Task[None] | None = None
        self._credit = SAVED
        self._first = True
        """Whether nothing was read yet: what every part costs once is not saved up for."""

    def touch(self, *, fills: bool) -> None:
        """Something was ordered, cancelled or filled: what it moves is read with the next snapshot."""
        self.orders.touch()
        if fills:
            self.account.touch()
            self.trades.touch()

    def session(self) -> Session | None:
        """Which session is on; None while the clock is unknown, or was read too long ago."""
        good = self.clock.is_good(asyncio.get_running_loop().time())
        return self.hours.session(self._settings.now()) if good else None

    async def snapshot(self) -> AccountSnapshot:
        """The account now. RateLimitedError and CredentialsRefusedError are raised; other failures are its quality."""
        now = asyncio.get_running_loop().time()
        self._credit = min(SAVED, self._credit + SNAPSHOT / FIFTHS - 1)
        try:
            found = await self._read(now)
        except RateLimitedError:
            self._client.take_tally()
            raise
        except (MalformedAnswerError, UnreadableError) as error:
            return self._failed("malformed", str(error))
        except RefusedError as error:
            meant = as_venue_error(error.refused, changes=False)
            if isinstance(meant, CredentialsRefusedError):
                self._client.take_tally()
                raise meant from error
            return self._failed("down", str(meant))
        except VenueError as error:
            return self._failed("down", str(error))
        return found

    async def _read(self, now: float) -> AccountSnapshot:
        parts = self._due(now)
        tasks = [
            asyncio.create_task(each) for each in (self.ask.positions(), *(self._part(p, r, now) for p, r in parts))
        ]
        account_due = self._base is None or self.account.is_due(now, credit=self._credit)
        asked = self.account.touches
        try:
            account = await self._account() if account_due else None
            positions = await tasks[0]
            for each in tasks[1:]:
                await each
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(positions, tuple)
        held = frozenset((p.symbol, p.side, p.contracts) for p in positions)
        changed = self._base is not None and held != self._base.held
        if changed:
            # The trades that did it are told with it: what they gained is reckoned on the positions of the last tick.
            self.orders.touch()
            self.trades.touch()
        trades = changed and self.trades.is_due(now, credit=self._credit)
        again = [self._part(self.trades, self._read_trades, now)] if trades else []
        if account is None and (changed or worth(positions) is None):
            asked = self.account.touches
            account, *_ = await asyncio.gather(self._account(), *again)
        else:
            await asyncio.gather(*again)
        self.positions = positions
        if account is not None:
            self._base = Base(account, needed(account, "equity"), worth(positions), held)
            self.account.was_read(now, asked)
        await self._learn_assets(now)
        await self._learn_quotes(now)
        if self._first:
            self._first, self._credit = False, SAVED
        return self._told_now(now)

    # Parts

    def _due(self, now: float) -> list[tuple[Part, Callable[[], Awaitable[None]]]]:
        found: list[tuple[Part, Callable[[], Awaitable[None]]]] = []
        for part, read in (
            (self.clock, self._read_clock_in_turn), (self.orders, self.read_orders), (self.trades, self._read_trades),
            (self.moves, self._read_moves),
        ):  # fmt: skip
            if part.is_due(now, credit=self._credit):
                found.append((part, read))
                self._pay()
        return found

    def _pay(self) -> None:
        self._credit = max(OWED, self._credit - 1)

    async def _part(self, part: Part, read: Callable[[], Awaitable[None]], now: float) -> None:
        """Read a part; a failure is remembered, and the part grows older."""
        asked = part.touches
        try:
            await read()
        except RateLimitedError:
            raise
        except RefusedError as error:
            part.trouble = str(as_venue_error(error.refused, changes=False))
        except (VenueError, UnreadableError) as error:
            part.trouble = str(error)
        else:
            part.was_read(now, asked)

    async def _account(self) -> Row:
        self._pay()
        return await self.ask.account()

    async def _read_clock_in_turn(self) -> None:
        """Over a connection that stands: the time that opening one takes would be told as a skew."""
        await self._client.connected()
        await self.read_clock()

    async def read_orders(self) -> None:
        """Read all open orders."""
        prices = {p.symbol: p.mark_price for p in self.positions if p.mark_price is not None}
        self.open_orders = await self.ask.orders(prices)

    async def _read_trades(self) -> None:
        names = {symbol.replace("/", ""): symbol for symbol in self._assets if is_crypto(symbol)}
        answer = await self.ask.activities(self._trades_known, "/account/activities/FILL")
        self._fills += [read_fill(each, names) for each in self._trades_known.new(answer)]
        self._trades_known.learn(answer)

    async def _read_moves(self) -> None:
        answer = await self.ask.activities(self._moves_known, "/account/activities", category="non_trade_activity")
        seen = self._settings.now()
        new = [read_flow(each, self._settings.currency, seen) for each in self._moves_known.new(answer)]
        self._flows += [flow for flow in new if flow is not None]
        self._moves_known.learn(answer)

    async def read_clock(self) -> None:
        """Read the clock, and the calendar where the extended session matters.

        Whoever asks while that is under way waits for the same answer: a close of many orders asks once.
        """
        if self._clock_read is None or self._clock_read.done():
            self._clock_read = asyncio.create_task(self._read_clock())
            # Of a failure that nobody waits for any more nothing is to be said.
            self._clock_read.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            await asyncio.shield(self._clock_read)
        except asyncio.CancelledError:
            if called_off():
                raise
            raise VenueDownError(TOO_LATE) from None

    async def _read_clock(self) -> None:
        self.hours.clock = await self.ask.clock()
        now = asyncio.get_running_loop().time()
        if self._extended and self.calendar.is_due(now):
            self.hours.days = await self.ask.calendar(self.hours.clock)
            self.calendar.was_read(now, self.calendar.touches)

    async def close(self) -> None:
        """End what is under way for several."""
        if self._clock_read is not None:
            self._clock_read.cancel()
            await asyncio.gather(self._clock_read, return_exceptions=True)

    async def _learn_quotes(self, now: float) -> None:
        """Bid and ask of the shares that are held, where orders need a price: in the extended session."""
        names = [p.symbol for p in self.positions if not is_crypto(p.symbol)]
        if not (self._extended and names and self.session() == "extended"):
            return

        async def read() -> None:
            self._quotes = await self.ask.quotes(names)

        if self.quotes.is_due(now):
            await self._part(self.quotes, read, now)

    async def _learn_assets(self, now: float) -> None:
        """The rules of what is held and ordered, as far as they are unknown or old."""
        wanted = {p.symbol for p in self.positions} | {o.symbol for o in self.open_orders}
        due = {s for s in wanted if now - self._asset_at.get(s, float("-inf")) >= ASSETS}
        if not due:
            return
        # A failure is tried again after a minute, not with the next tick.
        self._asset_at |= dict.fromkeys(due, now - ASSETS + CLOCK)
        try:
            found, requests = await self.ask.assets(due)
        except RateLimitedError:
            raise
        except (VenueError, RefusedError, UnreadableError):
            return
        self._credit = max(OWED, self._credit - requests)
        self._assets |= {asset.symbol: asset for asset in found}
        self._asset_at |= dict.fromkeys((asset.symbol for asset in found), now)

    # The snapshot

    def _told_now(self, now: float) -> AccountSnapshot:
        base, settings = self._base, self._settings
        assert base is not None
        told = base.account.get("currency")
        if told is not None and told != settings.currency:
            raise UnreadableError(f"the account is kept in {told}, the document says {settings.currency}")
        present = worth(self.positions)
        moved = present is not None and base.worth is not None
        equity = base.equity + (present - base.worth) if moved else base.equity  # type: ignore[operator] # both are there
        fills, self._fills = tuple(self._fills), []
        flows, self._flows = tuple(self._flows), []
        cash = decimal(base.account.get("cash"))
        return AccountSnapshot(
            account=settings.account,
            venue="alpaca",
            market=settings.market,
            currency=settings.currency,
            quality="ok",
            reason=self._troubles(now),
            observed_at=settings.now().astimezone(UTC),
            equity=equity,
            margin_used=decimal(base.account.get("initial_margin")),
            maintenance_margin=decimal(base.account.get("maintenance_margin")),
            position_mode="one_way",
            balances=() if cash is None else (Balance(settings.currency, cash, Decimal(1)),),
            flows=flows if self.moves.is_good(now) else None,
            positions=tuple(self._quoted(position, now) for position in self.positions),
            orders=self.open_orders if self.orders.is_good(now) else None,
            fills=fills if self.trades.is_good(now) else None,
            instruments=self._news() or None,
            health=self._health(),
        )

    def _troubles(self, now: float) -> str | None:
        """What is unknown, and why, and what bars the account."""
        parts = (("orders", self.orders), ("fills", self.trades), ("flows", self.moves), ("the clock", self.clock))
        found = [f"{name}: {part.trouble}" for name, part in parts if part.trouble and not part.is_good(now)]
        if (bars := self.bars) is not None:
            found.append(bars)
        return "; ".join(found) or None

    @property
    def bars(self) -> str | None:
        """Why the account takes no orders; None if it does."""
        return barred(self._base.account) if self._base is not None else None

    def _quoted(self, position: Position, now: float) -> Position:
        quote = self._quotes.get(position.symbol) if self.quotes.is_good(now) else None
        return position if quote is None else structs.replace(position, bid=quote[0], ask=quote[1])

    def _news(self) -> tuple[Instrument, ...]:
        """The rules that are new or have changed."""
        session = self.session()
        held = {position.symbol: position for position in self.positions}
        wanted = [*held, *(order.symbol for order in self.open_orders)]
        found = {
            symbol: instrument(
                self._assets[symbol], held.get(symbol), session, extended=self._extended, barred=self.bars is not None
            )
            for symbol in dict.fromkeys(wanted)
            if symbol in self._assets
        }
        news = tuple(each for symbol, each in found.items() if self._told.get(symbol) != each)
        self._told |= found
        return news

    def _failed(self, quality: Quality, reason: str) -> AccountSnapshot:
        settings = self._settings
        return AccountSnapshot(
            settings.account, "alpaca", settings.market, settings.currency, quality, reason=reason,
            health=self._health(),
        )  # fmt: skip

    def _health(self) -> Health:
        tally = self._client.take_tally()
        skew = None if self.hours.clock is None else self.hours.clock.skew.total_seconds() * 1000
        return Health(
            latency_ms=tally.latency * 1000,
            requests=tally.requests,
            errors=tally.errors,
            timeouts=tally.timeouts,
            malformed=tally.malformed,
            rate_limited=tally.rate_limited,
            clock_skew_ms=skew,
        )


CLOSED = frozenset({"ACCOUNT_CLOSED", "DISABLED", "INACTIVE", "REJECTED", "SUBMISSION_FAILED"})
"""Statuses of an account that cannot trade. Others than ACTIVE, such as ACCOUNT_UPDATED, are passing."""


def barred(account: Row) -> str | None:
    """Why the account takes no orders, in words; None if it does."""
    found = [
        text
        for name, text in (
            ("account_blocked", "the account is blocked at Alpaca"),
            ("trading_blocked", "trading is blocked at Alpaca"),
            ("trade_suspended_by_user", "trading is suspended in the account's configuration (suspend_trade)"),
        )
        if account.get(name) is True
    ]
    status = account.get("status")
    if status in CLOSED:
        found.append(f"the account's status is {status}")
    return "; ".join(found) or None
