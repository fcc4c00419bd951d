"""One account's snapshot, read in parts that have ages of their own.

Worth and positions are read every time. What changes rarely, or costs much of the venue's limits, is read when its
time has come, or at once when money or a position has moved: then the orders, fills and flows are what explains it.
Nothing that is older than its part may be is given as if it were known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from typing import Any, TypeVar

from msgspec import structs

from killswitch.model.snapshot import (
    AccountSnapshot,
    Fill,
    Flow,
    Health,
    Instrument,
    InstrumentState,
    Order,
    Position,
    Quality,
    Side,
)
from killswitch.model.venue import (
    AccountSpec,
    CredentialsRefusedError,
    MalformedAnswerError,
    RateLimitedError,
    VenueDownError,
    VenueError,
)
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect, PositionMode
from killswitch_ccxt.hearing import Tally
from killswitch_ccxt.inspecting import clock_skew
from killswitch_ccxt.instruments import instruments
from killswitch_ccxt.numbers import ODD, NoSuchSymbolError, UnreadableError, shapeless
from killswitch_ccxt.parts import (
    AGAIN,
    LATE_ROWS,
    LOOK_BACK,
    MOST_SYMBOLS,
    OVERLAP,
    RULES_AGAIN,
    SHUT_RULES,
    TOLD_ROWS,
    Part,
    once,
    phase_of,
)
from killswitch_ccxt.positions import in_currency, worth
from killswitch_ccxt.quotes import Quote
from killswitch_ccxt.rules import Rules
from killswitch_ccxt.wealth import Wealth

T = TypeVar("T")


class Reading:
    """Reads snapshots of one account."""

    def __init__(self, client: Client, dialect: Dialect, spec: AccountSpec, rules: Rules) -> None:
        self._client = client
        self._dialect = dialect
        self._spec = spec
        self._rules = rules
        ages, phase = dialect.ages, phase_of(spec.account)
        self._orders: Part[tuple[Order, ...]] = Part(ages.orders, phase)
        self._fills: Part[tuple[Fill, ...]] = Part(ages.fills, phase)
        self._flows: Part[tuple[Flow, ...] | None] = Part(ages.flows, phase)
        self._quotes: Part[dict[str, Quote]] = Part(ages.quotes or 0.0, phase)
        self._mode: Part[PositionMode | None] = Part(ages.mode, phase)
        self._states: Part[dict[str, InstrumentState]] = Part(ages.states, phase)
        self._told: dict[str, None] = {}
        self._given: tuple[Instrument, ...] = ()
        self._given_for: tuple[int, object] = (0, None)
        self._shut = False
        self._last: tuple[Decimal | None, dict[tuple[str, Side], Decimal]] | None = None
        self._since = {"fills": 0, "flows": 0}
        self._touched: dict[str, float] = {}
        self._refused: RateLimitedError | None = None
        self._rules_again_at = float("-inf")
        self._skew: Part[float | None] = Part(ages.clock, phase)

    def kinds_of(self, order_id: str) -> tuple[bool, ...]:
        """Whether a resting order is conditional; both answers, to be tried in turn, of one that was never read.

        Many venues keep the two kinds apart, and say of one that is asked for as the other that it is gone.
        """
        if not self._dialect.kinds_apart:
            return (False,)
        known = {order.id: order.trigger_price is not None for order in self._orders.value or ()}
        return (known[order_id],) if order_id in known else (False, True)

    def stir(self, *symbols: str) -> None:
        """Something was done, or the venue said that something happened: orders and fills are worth a look."""
        ages, now = self._dialect.ages, asyncio.get_running_loop().time()
        self._touched |= dict.fromkeys(symbols, now)
        self._fills.due = min(self._fills.due, self._fills.at + ages.rows_least)
        self._orders.due = min(self._orders.due, self._orders.at + ages.orders_least)

    def expire(self) -> None:
        """Every part is due at the next snapshot, whatever its age."""
        for part in (self._orders, self._fills, self._flows, self._quotes, self._mode, self._states, self._skew):
            part.due = float("-inf")

    def took(self, orders: tuple[Order, ...]) -> None:
        """The resting orders were read by someone else."""
        now = asyncio.get_running_loop().time()
        self._orders.took(orders, now)

    async def mode(self) -> PositionMode:
        """The position mode, read anew where it is not known: without it nothing may be sent.

        VenueDownError where it cannot be read.
        """
        if self._mode.value is None:
            await self._read(self._mode, self._dialect.position_mode)
        if self._mode.value is None:
            why = self._mode.why or f"{self._dialect.exchange} does not tell it"
            raise VenueDownError(f"the position mode of the account is not known, so nothing was sent: {why}")
        return self._mode.value

    def forget_mode(self) -> None:
        """The position mode is not what it was."""
        self._mode = Part(self._mode.every, self._mode.phase)

    async def snapshot(self) -> AccountSnapshot:
        """A failure of worth or positions comes back as quality `down` or `malformed`, with the reason.

        RateLimitedError is raised: who counts requests must know. So is CredentialsRefusedError: a person must.
        """
        observed_at = self._client.now()
        began = asyncio.get_running_loop().time()
        with self._client.tallied() as tally:
            try:
                await self._rules.ready(every=SHUT_RULES if self._shut else None)
                wealth, positions = await self._account()
                self._plausible(wealth, positions)
            except (RateLimitedError, CredentialsRefusedError):
                raise
            except (MalformedAnswerError, UnreadableError) as error:
                tally.malformed += isinstance(error, UnreadableError)
                return self._failed("malformed", str(error), tally, began)
            except VenueError as error:
                return self._failed("down", str(error), tally, began)
            except ODD as error:
                tally.malformed += 1
                return self._failed("malformed", shapeless(error), tally, began)
            self._look_for_movement(wealth, positions)
            await self._read_due(positions)
        if self._refused is not None:
            refused, self._refused = self._refused, None
            raise refused
        now = asyncio.get_running_loop().time()
        return AccountSnapshot(
            account=self._spec.account,
            venue=self._dialect.exchange,
            market=self._spec.market,  # type: ignore[arg-type] # held against the dialect's when the adapter was made
            currency=self._spec.currency,
            quality="ok",
            reason=self._unread(now),
            observed_at=observed_at,
            equity=wealth.equity,
            free=wealth.free,
            margin_used=wealth.margin_used,
            maintenance_margin=wealth.maintenance_margin,
            margin_mode=wealth.margin_mode,
            position_mode=self._mode.known(now),
            balances=wealth.balances,
            flows=self._news(self._flows, now),
            positions=tuple(self._priced(position, now) for position in positions),
            orders=self._orders.known(now),
            fills=self._news(self._fills, now),
            instruments=self._new_instruments(positions),
            health=self._health(tally, began),
        )

    async def _account(self) -> tuple[Wealth, tuple[Position, ...]]:
        """Worth and positions; once more with new rules where these have no such symbol: it may be listed since."""
        try:
            return await self._dialect.account()
        except NoSuchSymbolError:
            now = asyncio.get_running_loop().time()
            if now < self._rules_again_at:
                raise
            self._rules_again_at = now + RULES_AGAIN
            await self._rules.ready(again=True)
            return await self._dialect.account()

    # Parts

    async def _read_due(self, positions: tuple[Position, ...]) -> None:
        now, dialect = asyncio.get_running_loop().time(), self._dialect
        readings: list[Awaitable[object]] = []
        # Questions are asked when they are awaited: one that is called off before has left nothing behind.
        if self._orders.due <= now:
            readings.append(self._read(self._orders, dialect.orders))
        if self._flows.due <= now:
            readings.append(self._rows(self._flows, "flows", dialect.flows))
        if self._fills.due <= now:
            readings.append(self._read_fills(now))
        if self._mode.due <= now:
            readings.append(self._read(self._mode, dialect.position_mode))
        if self._skew.due <= now:
            readings.append(self._read(self._skew, lambda: clock_skew(self._client)))
        if self._states.due <= now:
            readings.append(self._read(self._states, self._states_now))
        if dialect.ages.quotes is not None and self._quotes.due <= now and positions:
            readings.append(self._read(self._quotes, lambda: self._quotes_of(positions)))
        await asyncio.gather(*readings)

    async def _read_fills(self, now: float) -> None:
        """Where symbols must be named, those that moved first are asked first, and for a while."""
        symbols = sorted(self._touched, key=self._touched.__getitem__)[:MOST_SYMBOLS]
        if not await self._rows(self._fills, "fills", lambda since: self._dialect.fills(symbols, since)):
            return
        for symbol in symbols:
            if self._touched[symbol] + LATE_ROWS <= now:
                del self._touched[symbol]
            elif len(self._touched) > MOST_SYMBOLS:
                self._touched[symbol] = self._touched.pop(symbol)  # behind those that have not been asked for
        if len(self._touched) > MOST_SYMBOLS:
            self._fills.due = now + self._dialect.ages.rows_least

    async def _read(self, part: Part[T], ask: Callable[[], Awaitable[T]]) -> bool:
        """Read a part; a failure leaves what was known, to grow old, and makes it due again soon."""
        now = asyncio.get_running_loop().time()
        try:
            value = await ask()
        except RateLimitedError as error:
            part.why, part.due = str(error), now + max(error.retry_after or 0.0, AGAIN)
            if error.retry_after is not None:
                self._refused = error
            return False
        except (VenueError, UnreadableError, *ODD) as error:
            known = isinstance(error, VenueError | UnreadableError)
            part.why, part.due = str(error) if known else shapeless(error), now + min(part.every, AGAIN)
            return False
        part.took(value, now)
        return True

    async def _rows(self, part: Part[Any], kind: str, ask: Callable[[int], Awaitable[Any]]) -> bool:
        asked_at = int(self._client.now().timestamp() * 1000)
        since = self._since[kind] or asked_at - LOOK_BACK[kind]
        kept = part.value or ()
        if not await self._read(part, lambda: ask(since)):
            return False
        self._since[kind] = asked_at - OVERLAP
        # Rows that no snapshot has told yet are kept beside the new ones.
        part.value = None if part.value is None else once((*kept, *part.value))
        return True

    async def _states_now(self) -> dict[str, InstrumentState]:
        return dict(await self._dialect.states())

    async def _quotes_of(self, positions: tuple[Position, ...]) -> dict[str, Quote]:
        return dict(await self._dialect.quotes(sorted({position.symbol for position in positions})))

    # What becomes of it

    def _unread(self, now: float) -> str | None:
        """Why parts are unknown, where reading them fails."""
        parts: dict[str, Part[Any]] = {
            "orders": self._orders, "fills": self._fills, "flows": self._flows, "position mode": self._mode,
        }  # fmt: skip
        rows = (self._fills, self._flows)
        told = [
            f"{name}: {part.why}"
            for name, part in parts.items()
            if part.why and (part in rows or part.known(now) is None)
        ]
        if self._rules.why_old is not None:
            told.append(f"rules: {self._rules.why_old}")
        return "; ".join(told) or None

    def _plausible(self, wealth: Wealth, positions: tuple[Position, ...]) -> None:
        """Margin that is kept for positions, and no positions: one of the two answers is wrong."""
        if not positions and wealth.maintenance_margin:
            raise UnreadableError(
                f"maintenance margin of {wealth.maintenance_margin} is in use, and there are no positions"
            )

    def _look_for_movement(self, wealth: Wealth, positions: tuple[Position, ...]) -> None:
        sizes = {position.key: position.contracts for position in positions}
        if self._last is None:
            # What happened while nobody looked: it has been written down by now.
            then = asyncio.get_running_loop().time() - LATE_ROWS
            self._touched = {symbol: then for symbol, _ in sizes}
        else:
            cash, before = self._last
            changed = {key for key in sizes.keys() | before.keys() if sizes.get(key) != before.get(key)}
            if changed or cash != wealth.cash:
                self.stir(*(symbol for symbol, _ in changed))
            if not changed and cash != wealth.cash:
                # Where a position has moved too, its fills are what moved the money.
                self._flows.due = min(self._flows.due, self._flows.at + self._dialect.ages.rows_least)
        self._last = (wealth.cash, sizes)

    def _priced(self, position: Position, now: float) -> Position:
        """With what the market says, where the position itself does not."""
        quote = (self._quotes.known(now) or {}).get(position.symbol)
        if quote is None:
            return position
        fuller = structs.replace(
            position,
            mark_price=position.mark_price or quote.mark,
            index_price=position.index_price or quote.index,
            last_price=position.last_price or quote.last,
            bid=position.bid or quote.bid,
            ask=position.ask or quote.ask,
        )
        rule = self._dialect.rules[fuller.symbol]
        if fuller.notional is not None or not in_currency(rule, self._spec.currency):
            return fuller
        return structs.replace(fuller, notional=worth(fuller, rule))

    def _news(self, part: Part[Any], now: float) -> Any:
        """The rows that were not told before; None where nothing is known."""
        known = part.known(now)
        if known is None or part.why is not None:
            # Rows that could not be asked for may be there: none is not what is known.
            return None
        fresh = tuple(row for row in known if row.id not in self._told)
        for row in fresh:
            self._told[row.id] = None
        while len(self._told) > TOLD_ROWS:
            self._told.pop(next(iter(self._told)))
        part.value = ()
        return fresh

    def _new_instruments(self, positions: Iterable[Position]) -> tuple[Instrument, ...] | None:
        """All of them the first time, and those that have changed after the rules or the states were read anew."""
        held = {position.symbol for position in positions}
        self._shut = any(each.symbol in held and each.state not in ("open", None) for each in self._given)
        read_for = (self._rules.version, self._states.at)
        if read_for == self._given_for:
            return None
        dialect = self._dialect
        chosen = (rule for symbol, rule in dialect.rules.items() if symbol in held or dialect.concerns(rule))
        tick_size = self._client.ccxt.precisionMode != 2  # ccxt's DECIMAL_PLACES
        found = instruments(chosen, self._states.value or {}, tick_size=tick_size)
        old = {each.symbol: each for each in self._given}
        changed = tuple(each for each in found if old.get(each.symbol) != each)
        self._given, self._given_for = found, read_for
        return changed or None

    def _failed(self, quality: Quality, reason: str, tally: Tally, began: float) -> AccountSnapshot:
        return AccountSnapshot(
            self._spec.account,
            self._dialect.exchange,
            self._spec.market,  # type: ignore[arg-type] # held against the dialect's when the adapter was made
            self._spec.currency,
            quality,
            reason=reason,
            observed_at=self._client.now(),
            health=self._health(tally, began),
        )

    def _health(self, tally: Tally, began: float) -> Health:
        return Health(
            latency_ms=(asyncio.get_running_loop().time() - began) * 1000,
            requests=tally.requests,
            errors=tally.errors,
            timeouts=tally.timeouts,
            malformed=tally.malformed,
            rate_limited=tally.rate_limited,
            clock_skew_ms=self._skew.value,
        )
