"""A small exact market: venue accounts whose money moves only for known reasons.

Time is in seconds from the world's start. Marks and prices are step functions on a grid of a quarter of a second.
Amounts, prices and fees are exact decimals; the equity of an account is computed from wallets, positions and prices at
any instant, never stored beside them. Every fill and every flow leaves a row that becomes visible some seconds after it
(or before it, or never). `World.run` performs the actions in the order of time, keeps the naive truth of each scope up
to date and takes pictures of the accounts at the instants at which a reader polls them.

Nothing here knows how the product distinguishes a loss from a flow."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from random import Random
from typing import Literal

from msgspec import Struct

from tests.worlds.truth import Truth

GRID = 0.25
NEVER = math.inf
ZERO = Decimal(0)
ONE = Decimal(1)
CENT = Decimal("0.01")
ATOM = Decimal("0.00000001")
UNIT_KINDS = ("deposit", "withdrawal", "transfer")

Side = Literal["long", "short"]
Move = tuple[float, float, float]
"""(begin, end, return): a price change of `return` spread evenly over [begin, end]; at once where they are equal."""


def exact(value: float | str | Decimal, digits: int = 8) -> Decimal:
    """`value` as a decimal of `digits` places."""
    return round(value if isinstance(value, Decimal) else Decimal(str(value)), digits)


class Path:
    """A price over time. `digits` are the places that the venue gives."""

    def __init__(self, values: Sequence[float], digits: int = 4) -> None:
        self._values = [round(value, digits) for value in values]
        self._digits = digits
        self._last = len(values) - 1
        self._exact: dict[int, Decimal] = {}

    def value(self, t: float) -> float:
        """The price at `t`, for the truth's arithmetic."""
        return self._values[min(max(int(t / GRID + 1e-9), 0), self._last)]

    def at(self, t: float) -> Decimal:
        """The price at `t`, exactly."""
        i = min(max(int(t / GRID + 1e-9), 0), self._last)
        found = self._exact.get(i)
        if found is None:
            found = self._exact[i] = Decimal(f"{self._values[i]:.{self._digits}f}")
        return found


def walk(
    rng: Random, start: float, seconds: float, vol: float = 0.0001, moves: Iterable[Move] = (), digits: int = 4
) -> Path:
    """A random walk from `start` with `vol` per square root of a second, and `moves` on top of it."""
    count = int((seconds + 5) / GRID) + 2
    logs = [0.0] * count
    for begin, end, change in moves:
        first = max(1, round(begin / GRID))
        last = max(first, round(end / GRID))
        each = math.log1p(change) / (last - first + 1)
        for i in range(first, min(last, count - 1) + 1):
            logs[i] += each
    deviation = vol * math.sqrt(GRID)
    level, values = start, [start]
    for i in range(1, count):
        level *= math.exp(logs[i] + (rng.gauss(0.0, deviation) if deviation else 0.0))
        values.append(level)
    return Path(values, digits)


FLAT = Path([1.0])


class Contract(Struct, frozen=True):
    """A product: `size` units of the base (linear) or of the quote (inverse) a contract, settled in `settle`."""

    symbol: str
    path: Path
    settle: str
    size: Decimal = ONE
    inverse: bool = False
    step: Decimal = Decimal("0.001")
    option: bool = False
    """Its price is a premium in coins, and its notional is given as that of the underlying, as at Deribit."""


class Holding(Struct):
    """An open position: contracts, and the average entry price."""

    contracts: Decimal
    entry: Decimal


class FillRow(Struct, frozen=True):
    """A fill as the venue's ledger has it. `realized` is gross of the fee and in the account's currency."""

    id: str
    at: float
    visible: float
    symbol: str
    side: Literal["buy", "sell"]
    contracts: Decimal
    price: Decimal
    position_side: Side | None
    fee: Decimal
    fee_asset: str
    realized: Decimal | None
    cause: str


class FlowRow(Struct, frozen=True):
    """Money that came (+) or left (−) other than by a fill, in units of `asset`."""

    id: str
    at: float
    visible: float
    kind: str
    amount: Decimal
    asset: str


class Picture(Struct, frozen=True):
    """An account at one instant, as its venue would compute it."""

    at: float
    equity: Decimal
    unrealized: Decimal
    wallets: dict[str, Decimal]
    prices: dict[str, Decimal]
    profits: dict[str, Decimal]
    """Unrealised profit by settlement asset, in units of the asset."""
    positions: tuple[tuple[Contract, Side, Decimal, Decimal, Decimal, Decimal], ...]
    """(contract, side, contracts, entry, mark, unrealised profit in the account's currency)."""


class Print(Struct, frozen=True):
    """A wrong price: within [begin, end) the venue shows the asset or symbol at `factor` times its true price."""

    begin: float
    end: float
    name: str
    factor: Decimal


class Option(Struct):
    """A product that the adapter does not read: `amount` × its price is part of the account's equity."""

    path: Path
    amount: Decimal


class Book:
    """One account at one venue."""

    def __init__(
        self,
        world: World,
        name: str,
        wallets: dict[str, float | str | Decimal],
        *,
        market: str = "swap",
        currency: str = "USDT",
        hedge: bool = False,
    ) -> None:
        self.world, self.name, self.market, self.currency, self.hedge = world, name, market, currency, hedge
        self.wallets = {asset: exact(amount) for asset, amount in wallets.items()}
        self.contracts: dict[str, Contract] = {}
        self.holdings: dict[tuple[str, Side], Holding] = {}
        self.options: list[Option] = []
        self.prints: list[Print] = []
        self.haircuts: dict[str, list[tuple[float, Decimal]]] = {}
        self.fills: list[FillRow] = []
        self.flows: list[FlowRow] = []
        self.truth = Truth(name)
        world.books[name] = self
        world.truths.append((self.truth, (self,)))

    # What it is worth

    def list(self, symbol: str, path: Path, **more: Decimal | bool | str) -> Contract:
        """List a product that this account trades."""
        settle = str(more.pop("settle", self.currency))
        contract = self.contracts[symbol] = Contract(symbol, path, settle, **more)  # type: ignore[arg-type]  # the names decide
        return contract

    def price(self, asset: str, t: float) -> Decimal:
        """The price of one unit of `asset` in the account's currency."""
        return ONE if asset == self.currency else self.world.prices[asset].at(t)

    def shown(self, name: str, price: Decimal, t: float) -> Decimal:
        """What the venue shows at `t` of a price, which may be wrong."""
        for wrong in self.prints:
            if wrong.name == name and wrong.begin <= t < wrong.end:
                price = round(price * wrong.factor, 8)
        return price

    def haircut(self, asset: str, t: float) -> Decimal | None:
        """The part of `asset` that does not count as margin: it is reported, and is no part of equity."""
        found = None
        for since, haircut in self.haircuts.get(asset, ()):
            found = haircut if t >= since else found
        return found

    def profit(
        self, contract: Contract, side: Side, holding: Holding, t: float, mark: Decimal | None = None
    ) -> Decimal:
        """Unrealised profit in units of the settlement asset, at `mark` where it is given."""
        mark, sign = contract.path.at(t) if mark is None else mark, (1 if side == "long" else -1)
        each = 1 / holding.entry - 1 / mark if contract.inverse else mark - holding.entry
        return exact(sign * holding.contracts * contract.size * each)

    def picture(self, t: float) -> Picture:
        """The account at `t`."""
        prices = {asset: self.shown(asset, self.price(asset, t), t) for asset in self.wallets}
        profits: dict[str, Decimal] = {}
        rows = []
        unrealized = ZERO
        for (symbol, side), holding in self.holdings.items():
            contract = self.contracts[symbol]
            mark = self.shown(symbol, contract.path.at(t), t)
            profit = self.profit(contract, side, holding, t, mark)
            settle = contract.settle
            profits[settle] = profits.get(settle, ZERO) + profit
            profit_value = exact(profit * (prices[settle] if settle in prices else self.price(settle, t)))
            unrealized += profit_value
            rows.append((contract, side, holding.contracts, holding.entry, mark, profit_value))
        for option in self.options:
            unrealized += exact(option.amount * option.path.at(t))
        equity = unrealized
        for asset, amount in self.wallets.items():
            equity += exact(amount * prices[asset])
        return Picture(t, equity, unrealized, dict(self.wallets), prices, profits, tuple(rows))

    def equity(self, t: float) -> float:
        """The account's equity at `t`, in its currency, to the precision of a float."""
        own, prices = self.currency, self.world.prices
        total = 0.0
        for asset, amount in self.wallets.items():
            total += float(amount) * (1.0 if asset == own else prices[asset].value(t))
        for (symbol, side), holding in self.holdings.items():
            contract = self.contracts[symbol]
            mark, entry = contract.path.value(t), float(holding.entry)
            each = 1.0 / entry - 1.0 / mark if contract.inverse else mark - entry
            profit = float(holding.contracts) * float(contract.size) * each
            settle = contract.settle
            rate = 1.0 if settle == own else prices[settle].value(t)
            total += profit * rate if side == "long" else -profit * rate
        for option in self.options:
            total += float(option.amount) * option.path.value(t)
        return total

    def net(self, symbol: str) -> Decimal:
        """Contracts held, negative where short."""
        found = ZERO
        for side, sign in (("long", 1), ("short", -1)):
            holding = self.holdings.get((symbol, side))  # type: ignore[arg-type]  # one of the two
            found += ZERO if holding is None else sign * holding.contracts
        return found

    # What happens to it

    def open(self, symbol: str, side: Side, notional: float) -> None:
        """Begin with a position of about `notional` in the account's currency, entered at the first mark."""
        contract = self.contracts[symbol]
        mark = contract.path.at(0)
        if contract.inverse:
            count = Decimal(str(notional)) / self.price(contract.settle, 0) * mark / contract.size
        else:
            count = Decimal(str(notional)) / (mark * contract.size * self.price(contract.settle, 0))
        self.holdings[symbol, side] = Holding(self.stepped(symbol, count), mark)

    def stepped(self, symbol: str, count: Decimal | float) -> Decimal:
        """`count` in whole steps of the product, rounded down."""
        step = self.contracts[symbol].step
        return (exact(count) // step) * step

    def trade(
        self,
        t: float,
        symbol: str,
        side: Literal["buy", "sell"],
        contracts: Decimal | float,
        *,
        price: Decimal | None = None,
        slip: float = 0.0,
        fee: float = 0.0005,
        fee_asset: str | None = None,
        position_side: Side | None = None,
        lag: float = 0.5,
        cause: str = "trade",
    ) -> None:
        """Fill an order at `price`, else `slip` (a fraction) worse than the mark; the row is visible `lag` s later."""
        contract = self.contracts[symbol]
        count = self.stepped(symbol, contracts)
        if count <= 0:
            return
        mark = contract.path.at(t)
        if price is None:
            price = exact(mark * Decimal(str(1 + slip if side == "buy" else 1 - slip)), 4)
        self.world.touch(t)
        if self.market in ("spot", "equity"):
            realized: Decimal | None = None
            base = symbol.split("/", maxsplit=1)[0]
            sign = 1 if side == "buy" else -1
            self.add(base, sign * count)
            self.add(contract.settle, -sign * exact(count * price))
            gross = count * price
        else:
            realized = self._fill(contract, side, count, price, position_side)
            self.add(contract.settle, realized)
            realized = exact(realized * self.price(contract.settle, t))
            gross = count * contract.size / price if contract.inverse else count * contract.size * price
        paid_in = fee_asset or contract.settle
        paid = exact(gross * Decimal(str(fee)) * self.price(contract.settle, t) / self.price(paid_in, t))
        self.add(paid_in, -paid)
        self.world.settle(t)
        self.fills.append(
            FillRow(
                f"{self.name}-f{len(self.fills)}", t, t + lag, symbol, side, count, price,
                position_side if self.hedge else None, paid, paid_in, realized, cause,
            )
        )  # fmt: skip

    def _fill(
        self, contract: Contract, side: str, count: Decimal, price: Decimal, position_side: Side | None
    ) -> Decimal:
        """Change the positions; the realised profit, in units of the settlement asset."""
        grows: Side = "long" if side == "buy" else "short"
        shrinks: Side = "short" if side == "buy" else "long"
        if position_side is not None:
            grows, shrinks = position_side, position_side
            if (side == "buy") == (position_side == "long"):
                shrinks = "short" if position_side == "long" else "long"
                self._grow(contract, grows, count, price)
                return ZERO
        realized = ZERO
        held = self.holdings.get((contract.symbol, shrinks))
        if held is not None:
            cut = min(held.contracts, count)
            sign = 1 if shrinks == "long" else -1
            each = 1 / held.entry - 1 / price if contract.inverse else price - held.entry
            realized = exact(sign * cut * contract.size * each)
            held.contracts -= cut
            count -= cut
            if held.contracts == 0:
                del self.holdings[contract.symbol, shrinks]
        if count > 0 and position_side is None:
            self._grow(contract, grows, count, price)
        return realized

    def _grow(self, contract: Contract, side: Side, count: Decimal, price: Decimal) -> None:
        held = self.holdings.get((contract.symbol, side))
        if held is None:
            self.holdings[contract.symbol, side] = Holding(count, price)
            return
        total = held.contracts + count
        if contract.inverse:
            held.entry = exact(total / (held.contracts / held.entry + count / price))
        else:
            held.entry = exact((held.contracts * held.entry + count * price) / total)
        held.contracts = total

    def add(self, asset: str, amount: Decimal) -> None:
        self.wallets[asset] = self.wallets.get(asset, ZERO) + amount

    def flow(
        self,
        t: float,
        kind: str,
        amount: float | Decimal,
        *,
        asset: str | None = None,
        lag: float = 0.5,
        transit: bool = False,
    ) -> Decimal:
        """Money comes or leaves; the row is visible `lag` s later. The amount that moved.

        A negative `lag`: the row is dated when the move was requested, and visible from then on.

        Deposits, withdrawals and transfers issue or redeem units; any other kind is profit or loss. `transit`: the
        other end is an account of the same portfolio, so that of the portfolio nothing has left or come."""
        asset = asset or self.currency
        moved = exact(amount)
        self.world.touch(t)
        self.add(asset, moved)
        if kind in UNIT_KINDS:
            value = moved * self.price(asset, t)
            self.world.moved += abs(float(value))
            if transit:
                self.world.transit -= value
            self.world.settle(t, self, issued=not transit)
        else:
            self.world.settle(t)
        self.row(t + min(lag, 0.0), kind, moved, asset, t + lag)
        return moved

    def row(self, t: float, kind: str, amount: Decimal, asset: str, visible: float) -> None:
        """A row of the ledger, whatever it is about."""
        self.flows.append(FlowRow(f"{self.name}-w{len(self.flows)}", t, visible, kind, amount, asset))

    def give(self, t: float, symbol: str, side: Side) -> None:
        """Transfer a position to another account at the mark: its profit becomes wallet; no fill, no fee, no row."""
        self.world.touch(t)
        contract = self.contracts[symbol]
        self.add(contract.settle, self.profit(contract, side, self.holdings.pop((symbol, side)), t))
        self.world.settle(t)

    def convert(self, t: float, sold: str, bought: str, amount: Decimal | float, *, cost: float = 0.001) -> None:
        """Swap `amount` of one asset for another at their prices less `cost`; venues list no fill of it."""
        self.world.touch(t)
        given = exact(amount)
        got = exact(given * self.price(sold, t) / self.price(bought, t) * Decimal(str(1 - cost)))
        self.add(sold, -given)
        self.add(bought, got)
        self.world.settle(t)


class _Event(Struct, order=True):
    at: float
    rank: int
    number: int
    act: Callable[[float], None]


class Stop(Struct):
    """A resting stop order of the book's own: all of `contracts` at the first mark beyond `trigger`."""

    book: Book
    symbol: str
    side: Side
    trigger: Decimal
    contracts: Decimal | None
    slip: float
    lag: float
    done: bool = False

    def check(self, t: float) -> None:
        mark = self.book.contracts[self.symbol].path.at(t)
        if self.done or not (mark <= self.trigger if self.side == "long" else mark >= self.trigger):
            return
        self.done = True
        held = self.book.holdings.get((self.symbol, self.side))
        if held is not None:
            count = held.contracts if self.contracts is None else min(held.contracts, self.contracts)
            self.book.trade(
                t, self.symbol, "sell" if self.side == "long" else "buy", count, slip=self.slip, lag=self.lag,
                position_side=self.side if self.book.hedge else None,
            )  # fmt: skip


class World:
    """All accounts, and every scheduled action."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.books: dict[str, Book] = {}
        self.prices: dict[str, Path] = {}
        self.truths: list[tuple[Truth, tuple[Book, ...]]] = []
        self.stops: list[Stop] = []
        self.moved = 0.0
        """How much money merely moved, in all, absolutely (account currency)."""
        self.transit = ZERO
        """What has left one watched account and not reached another."""
        self.log: list[tuple[float, str]] = []
        self._events: list[_Event] = []
        self._numbers = itertools.count()

    def at(self, t: float, act: Callable[[float], object], text: str = "") -> None:
        """Schedule `act` at `t`; `text` describes it in the listing."""

        def do(now: float) -> None:
            if text:
                self.log.append((now, text))
            act(now)

        heapq.heappush(self._events, _Event(t, 1, next(self._numbers), do))

    def stop(
        self, book: Book, symbol: str, side: Side, fall: float, *, slip: float = 0.0, lag: float = 0.5,
        contracts: Decimal | None = None,
    ) -> None:  # fmt: skip
        """A resting stop at `fall` (a fraction) beyond the first mark."""
        first = book.contracts[symbol].path.at(0)
        factor = Decimal(str(1 - fall if side == "long" else 1 + fall))
        self.stops.append(Stop(book, symbol, side, exact(first * factor, 4), contracts, slip, lag))

    def together(self) -> Truth:
        """The truth of all accounts together."""
        truth = Truth("portfolio")
        self.truths.append((truth, tuple(self.books.values())))
        return truth

    def scheduled(self) -> list[float]:
        """When anything happens, in order, stops aside."""
        return sorted(event.at for event in self._events)

    # The naive truth is brought up to date before and after everything that happens

    def _value(self, truth: Truth, books: tuple[Book, ...], t: float) -> float:
        total = sum(book.equity(t) for book in books)
        return total + float(self.transit) if truth.scope == "portfolio" else total

    def touch(self, t: float) -> None:
        """Bring every truth up to `t`: any change since the last call was profit or loss."""
        for truth, books in self.truths:
            truth.earn(t, self._value(truth, books, t))

    def settle(self, t: float, mover: Book | None = None, *, issued: bool = False) -> None:
        """After an action: its change was profit or loss, except for what a flow of `mover` issued or redeemed."""
        for truth, books in self.truths:
            value = self._value(truth, books, t)
            if mover is not None and mover in books and (issued or truth.scope != "portfolio"):
                truth.issue(t, value)
            else:
                truth.earn(t, value)

    def run(self, looks: Iterable[tuple[float, Book]]) -> dict[tuple[str, float], Picture]:
        """Play the world, and take a picture of a book at each of `looks`: (name, instant) → picture."""
        pictures: dict[tuple[str, float], Picture] = {}
        queue = self._events

        def look(book: Book) -> Callable[[float], None]:
            def shoot(t: float) -> None:
                pictures[book.name, t] = book.picture(t)

            return shoot

        for t, book in set(looks):
            queue.append(_Event(t, 2, next(self._numbers), look(book)))
        heapq.heapify(queue)
        for i in range(int(self.seconds / GRID) + 1):
            now = i * GRID
            while queue and queue[0].at < now:
                event = heapq.heappop(queue)
                event.act(event.at)
            self._step(now)
        for event in sorted(queue):
            event.act(event.at)
        return pictures

    def _step(self, t: float) -> None:
        self.touch(t)
        for stop in self.stops:
            if not stop.done:
                stop.check(t)
