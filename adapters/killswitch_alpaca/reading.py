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
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from killswitch.model.snapshot import (
    AccountSnapshot,
    Balance,
    Fill,
    Flow,
    Health,
    Instrument,
    Order,
    Position,
    Quality,
)
from killswitch.model.venue import MalformedAnswerError, RateLimitedError, VenueError
from killswitch_alpaca.activities import Known, read_fill, read_flow
from killswitch_alpaca.client import Client, RefusedError, Tally
from killswitch_alpaca.errors import as_venue_error
from killswitch_alpaca.hours import Hours, read_calendar, read_clock
from killswitch_alpaca.instruments import Asset, instrument, read_asset
from killswitch_alpaca.numbers import Row, UnreadableError, decimal, positive, row, rows, word
from killswitch_alpaca.orders import read_open
from killswitch_alpaca.positions import CRYPTO, is_crypto, read_positions, worth
from killswitch_alpaca.settings import Settings
from killswitch_alpaca.traits import FIFTHS, SNAPSHOT

ACCOUNT, ORDERS, MOVES, TRADES, CLOCK, QUOTES = 4.0, 12.0, 30.0, 60.0, 60.0, 3.0
CALENDAR, ASSETS = 6 * 3600.0, 3600.0
"""Seconds after which each part is read again."""
SAVED, OWED = 6.0, -2.0
"""Requests that may be saved up for parts that were touched, and that may be owed before they have to wait."""
PAGE, PAGES = 500, 10
"""Orders of one answer, and answers of one reading."""
SINGLES = 4
"""So many unknown assets are asked for one by one; more of them by the whole list."""
OLD_QUOTE = timedelta(seconds=60)


@dataclass(slots=True)
class Part:
    """A part of the account: when it was read, in seconds of the loop, and whether something has touched it since."""

    every: float
    longest: float
    """Seconds after which what was read counts no longer."""
    read_at: float | None = None
    touched: bool = False
    trouble: str | None = None

    def is_due(self, now: float, *, credit: float = 0.0) -> bool:
        if self.read_at is None or now - self.read_at >= self.every:
            return True
        return self.touched and credit >= 1.0

    def is_good(self, now: float) -> bool:
        return self.read_at is not None and now - self.read_at <= self.longest

    def was_read(self, now: float) -> None:
        self.read_at, self.touched, self.trouble = now, False, None


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
        self.hours = Hours()
        self.account = Part(ACCOUNT, ACCOUNT)
        self.orders = Part(ORDERS, 60.0)
        self.trades = Part(TRADES, 300.0)
        self.moves = Part(MOVES, 300.0)
        self.clock = Part(CLOCK, 3600.0)
        self.calendar = Part(CALENDAR, 4 * 86_400.0)
        self.quotes = Part(QUOTES, QUOTES)
        self.positions: tuple[Position, ...] = ()
        self.assets: dict[str, Asset] = {}
        self._asset_at: dict[str, float] = {}
        self._base: Base | None = None
        self._orders: tuple[Order, ...] = ()
        self._fills: list[Fill] = []
        self._flows: list[Flow] = []
        self._trades_known, self._moves_known = Known(), Known()
        self._quotes: dict[str, tuple[Decimal | None, Decimal | None]] = {}
        self._told: dict[str, Instrument] = {}
        self._credit = SAVED
        self._first = True
        """Whether nothing was read yet: what every part costs once is not saved up for."""

    def touch(self, *, fills: bool) -> None:
        """Something was ordered, cancelled or filled: what it moves is read with the next snapshot."""
        self.orders.touched = True
        if fills:
            self.account.touched = self.trades.touched = True

    async def snapshot(self) -> AccountSnapshot:
        """The account now. RateLimitedError is raised; every other failure is told by quality."""
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
            return self._failed("down", str(as_venue_error(error.refused, changes=False)))
        except VenueError as error:
            return self._failed("down", str(error))
        return found

    async def _read(self, now: float) -> AccountSnapshot:
        parts = self._due(now)
        tasks = [asyncio.create_task(each) for each in (self._positions(), *(self._part(p, r, now) for p, r in parts))]
        account_due = self._base is None or self.account.is_due(now, credit=self._credit)
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
            self.orders.touched = self.trades.touched = True
        trades = changed and self.trades.is_due(now, credit=self._credit)
        again = [self._part(self.trades, self._read_trades, now)] if trades else []
        if account is None and (changed or worth(positions) is None):
            account, *_ = await asyncio.gather(self._account(), *again)
        else:
            await asyncio.gather(*again)
        self.positions = positions
        if account is not None:
            self._base = Base(account, _number(account, "equity"), worth(positions), held)
            self.account.was_read(now)
        await self._learn_assets(now)
        await self._learn_quotes(now)
        if self._first:
            self._first, self._credit = False, SAVED
        return self._told_now(now)

    # Parts

    def _due(self, now: float) -> list[tuple[Part, Callable[[], Awaitable[None]]]]:
        found: list[tuple[Part, Callable[[], Awaitable[None]]]] = []
        for part, read in (
            (self.clock, self.read_clock), (self.orders, self.read_orders), (self.trades, self._read_trades),
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
        try:
            await read()
        except RateLimitedError:
            raise
        except RefusedError as error:
            part.trouble = str(as_venue_error(error.refused, changes=False))
        except (VenueError, UnreadableError) as error:
            part.trouble = str(error)
        else:
            part.was_read(now)

    async def _positions(self) -> tuple[Position, ...]:
        answer = await self._client.call(lambda trading: trading.get_all_positions())
        return read_positions(rows(answer, "positions"))

    async def _account(self) -> Row:
        self._pay()
        return row(await self._client.call(lambda trading: trading.get_account()), "the account")

    async def read_orders(self) -> None:
        """Read all open orders, page by page."""
        found: dict[str, Row] = {}
        after: str | None = None
        for _ in range(PAGES):
            query = {"status": "open", "limit": PAGE, "nested": "true", "direction": "asc"}
            query |= {} if after is None else {"after": after}
            page = rows(await self._client.call(lambda trading, q=query: trading.get("/orders", q)), "orders")  # type: ignore[misc] # bound now
            new = {word(each, "id"): each for each in page} if page else {}
            more = len(page) >= PAGE and not new.keys() <= found.keys()
            found |= new
            if not more:
                break
            after = word(page[-1], "submitted_at")
        else:
            raise UnreadableError(f"there are more than {PAGE * PAGES} open orders")
        prices = {p.symbol: p.mark_price for p in self.positions if p.mark_price is not None}
        self._orders = read_open(list(found.values()), prices)

    @property
    def open_orders(self) -> tuple[Order, ...]:
        return self._orders

    async def _read_trades(self) -> None:
        answer = await self._client.call(
            lambda trading: trading.get("/account/activities/FILL", {"direction": "desc", "page_size": 100})
        )
        names = {symbol.replace("/", ""): symbol for symbol in self.assets if is_crypto(symbol)}
        new = self._trades_known.new(rows(answer, "activities"))
        self._fills += [read_fill(each, names) for each in new]

    async def _read_moves(self) -> None:
        query = {"category": "non_trade_activity", "direction": "desc", "page_size": 100}
        answer = await self._client.call(lambda trading: trading.get("/account/activities", query))
        seen = self._settings.now()
        for each in self._moves_known.new(rows(answer, "activities")):
            flow = read_flow(each, self._settings.currency, seen)
            if flow is not None:
                self._flows.append(flow)

    async def read_clock(self) -> None:
        """Read the clock, and the calendar where the extended session matters."""
        began = self._settings.now()
        answer = await self._client.call(lambda trading: trading.get_clock())
        ended = self._settings.now()
        self.hours.clock = read_clock(row(answer, "the clock"), began + (ended - began) / 2)
        now = asyncio.get_running_loop().time()
        if self._settings.outside_hours == "extended" and self.calendar.is_due(now):
            today = (ended + self.hours.clock.offset).date()
            query = {"start": str(today - timedelta(days=1)), "end": str(today + timedelta(days=7))}
            days = await self._client.call(lambda trading: trading.get("/calendar", query))
            self.hours.days = read_calendar(rows(days, "the calendar"), self.hours.clock.offset)
            self.calendar.was_read(now)

    async def _learn_quotes(self, now: float) -> None:
        """Bid and ask of the shares that are held, where orders need a price: in the extended session."""
        names = [p.symbol for p in self.positions if not is_crypto(p.symbol)]
        extended = self._settings.outside_hours == "extended"
        if not (extended and names and self.hours.session(self._settings.now()) == "extended"):
            return

        async def read() -> None:
            self._quotes = await self.quotes_of(names)

        if self.quotes.is_due(now):
            await self._part(self.quotes, read, now)

    async def quotes_of(self, symbols: list[str]) -> dict[str, tuple[Decimal | None, Decimal | None]]:
        """Best bid and ask of stocks, None where there is none or it is older than a minute."""
        query: dict[str, Any] = {"symbols": ",".join(symbols)}
        if self._settings.data_feed is not None:
            query["feed"] = self._settings.data_feed
        answer = row(await self._client.call(lambda d: d.get("/stocks/quotes/latest", query), data=True), "quotes")
        found = answer.get("quotes")
        now = self._settings.now()
        return {
            symbol: _quote(each, now)
            for symbol, each in (found.items() if isinstance(found, dict) else ())
            if isinstance(each, dict)
        }

    async def _learn_assets(self, now: float) -> None:
        """The rules of what is held and ordered, as far as they are unknown or old. What fails is tried again."""
        wanted = {p.symbol for p in self.positions} | {o.symbol for o in self._orders}
        due = sorted(s for s in wanted if now - self._asset_at.get(s, float("-inf")) >= ASSETS)
        if not due:
            return
        # A failure is tried again after a minute, not with the next tick.
        self._asset_at |= dict.fromkeys(due, now - ASSETS + CLOCK)
        try:
            for asset in await self._assets(due):
                self.assets[asset.symbol] = asset
                if asset.symbol in wanted:
                    self._asset_at[asset.symbol] = now
        except RateLimitedError:
            raise
        except (VenueError, RefusedError, UnreadableError):
            return

    async def _assets(self, due: list[str]) -> list[Asset]:
        if len(due) <= SINGLES:
            answers = await asyncio.gather(*(self._asset(symbol) for symbol in due))
            return [read_asset(each) for each in answers]
        found: list[Asset] = []
        for asset_class in sorted({CRYPTO if is_crypto(symbol) else "us_equity" for symbol in due}):
            self._pay()
            query = {"asset_class": asset_class}
            answer = rows(
                await self._client.call(lambda trading, q=query: trading.get("/assets", q)),  # type: ignore[misc] # bound now
                "assets",
            )
            names = set(due)
            found += [asset for each in answer if (asset := read_asset(each)).symbol in names]
        return found

    async def _asset(self, symbol: str) -> Row:
        self._pay()
        # A slash in a path is another path: Alpaca knows coins by their name without one, too.
        name = symbol.replace("/", "")
        return row(await self._client.call(lambda trading: trading.get_asset(name)), f"asset {symbol}")

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
        tally = self._client.take_tally()
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
            orders=self._orders if self.orders.is_good(now) else None,
            fills=fills if self.trades.is_good(now) else None,
            instruments=self._news() or None,
            health=self._health(tally),
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
        if quote is None:
            return position
        return _with_book(position, *quote)

    def _news(self) -> tuple[Instrument, ...]:
        """The rules that are new or have changed."""
        session = self.hours.session(self._settings.now())
        extended = self._settings.outside_hours == "extended"
        held = {position.symbol: position for position in self.positions}
        wanted = [*held, *(order.symbol for order in self._orders)]
        found = {
            symbol: instrument(
                self.assets[symbol], held.get(symbol), session, extended=extended, barred=self.bars is not None
            )
            for symbol in dict.fromkeys(wanted)
            if symbol in self.assets
        }
        news = tuple(each for symbol, each in found.items() if self._told.get(symbol) != each)
        self._told |= found
        return news

    def _failed(self, quality: Quality, reason: str) -> AccountSnapshot:
        settings = self._settings
        return AccountSnapshot(
            settings.account, "alpaca", settings.market, settings.currency, quality, reason=reason,
            health=self._health(self._client.take_tally()),
        )  # fmt: skip

    def _health(self, tally: Tally) -> Health:
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
    if status not in (None, "ACTIVE"):
        found.append(f"the account's status is {status}")
    return "; ".join(found) or None


def _number(found: Row, name: str) -> Decimal:
    value = decimal(found.get(name))
    if value is None:
        raise UnreadableError(f"the account does not say its {name}")
    return value


def _quote(found: dict[str, Any], now: datetime) -> tuple[Decimal | None, Decimal | None]:
    from killswitch_alpaca.numbers import instant

    at = instant(found.get("t"))
    if at is None or now - at > OLD_QUOTE:
        return None, None
    return positive(found.get("bp")), positive(found.get("ap"))


def _with_book(position: Position, bid: Decimal | None, ask: Decimal | None) -> Position:
    from msgspec import structs

    return structs.replace(position, bid=bid, ask=ask)
