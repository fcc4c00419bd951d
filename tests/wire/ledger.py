"""The money of one account at a wire-level venue: wallets, entry prices, rows, and the true drawdown.

Prices move unrealised profit and never a wallet; flows move a wallet and never unrealised profit; trades realise.
Everything is exact (Decimal), and every answer of a venue about equity, positions or rows is derived from here. A venue
may show what it has late: rows by `fill_lag` and `row_lag`, whole answers by `ages`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from functools import cache
from types import MappingProxyType
from typing import Final, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from killswitch.model.snapshot import Fill
from tests.faults.exchange import ZERO, Exchange, Key

NEVER: Final = math.inf
"""The lag of rows that are never shown."""
ONE: Final = Decimal(1)
RowKind = Literal["trade", "deposit", "withdrawal", "transfer", "funding", "insurance", "rebate"]
Part = Literal["positions", "equity"]


class Lot(Struct, frozen=True):
    """One position: contracts, and the average price at which they were opened."""

    amount: Decimal
    entry: Decimal


class Row(Struct, frozen=True):
    """One change of a wallet. `amount` in `asset`, of which `profit` was realised and `fee` paid; `balance` after it.

    `at`: the venue's time of it; `shown_from`: the seconds of the venue's clock from which on its lists contain it.
    """

    number: int
    kind: RowKind
    at: datetime
    shown_from: float
    asset: str
    amount: Decimal
    balance: Decimal
    symbol: str | None = None
    fill: Fill | None = None
    profit: Decimal = ZERO
    fee: Decimal = ZERO

    @property
    def at_ms(self) -> int:
        return int(self.at.timestamp() * 1000)


class Contract(Struct, frozen=True):
    """The contract of a symbol: base units each (`size`), or units of the quote if `inverse`."""

    settle: str
    size: Decimal = ONE
    inverse: bool = False

    def value(self, amount: Decimal, price: Decimal) -> Decimal:
        """The value of contracts at a price, in the settlement currency."""
        return amount * self.size / price if self.inverse else amount * self.size * price

    def profit(self, key: Key, amount: Decimal, entry: Decimal, price: Decimal) -> Decimal:
        """The profit of contracts from one price to another, in the settlement currency."""
        if not (price.is_finite() and entry.is_finite()):
            return ZERO
        gained = self.value(amount, price) - self.value(amount, entry)
        return gained if (key[1] == "long") is not self.inverse else -gained

    def average(self, lot: Lot, more: Decimal, price: Decimal) -> Decimal:
        """The entry of a lot that grows: harmonic for an inverse contract."""
        total = lot.amount + more
        if self.inverse:
            return total / (lot.amount / lot.entry + more / price)
        return (lot.amount * lot.entry + more * price) / total


class Book(Struct, frozen=True):
    """An account at one moment. `prices`: asset → price in the venue's unit of account; the others: symbol → price."""

    at: float
    currency: str
    wallets: Mapping[str, Decimal]
    lots: Mapping[Key, Lot]
    marks: Mapping[str, Decimal]
    indexes: Mapping[str, Decimal]
    lasts: Mapping[str, Decimal]
    prices: Mapping[str, Decimal]
    contracts: Callable[[str], Contract]
    spot: bool = False

    def unrealized(self, key: Key) -> Decimal:
        """The unrealised profit of one position, in its settlement currency."""
        lot = self.lots[key]
        return self.contracts(key[0]).profit(key, lot.amount, lot.entry, self.marks[key[0]])

    def notional(self, key: Key) -> Decimal:
        """The notional of one position at its mark, in its settlement currency."""
        mark = self.marks[key[0]]
        return self.contracts(key[0]).value(self.lots[key].amount, mark) if mark.is_finite() else ZERO

    def unrealized_in(self, asset: str) -> Decimal:
        """Unrealised profit of all positions that settle in the asset; spot holdings have none."""
        if self.spot:
            return ZERO
        return sum((self.unrealized(key) for key in self.lots if self.contracts(key[0]).settle == asset), ZERO)

    def equity_in(self, asset: str) -> Decimal:
        """Wallet and unrealised profit of one asset."""
        return self.wallets.get(asset, ZERO) + self.unrealized_in(asset)

    @property
    def assets(self) -> tuple[str, ...]:
        """The assets with a wallet, and those in which a position settles."""
        settled = () if self.spot else tuple(self.contracts(symbol).settle for symbol, _ in self.lots)
        return tuple(dict.fromkeys((*self.wallets, *settled)))

    def price(self, asset: str) -> Decimal:
        """The price of an asset, in the venue's unit of account."""
        return self.prices.get(asset, ONE)

    @property
    def total(self) -> Decimal:
        """The equity of the account, in the venue's unit of account."""
        found = sum((self.equity_in(asset) * self.price(asset) for asset in self.assets), ZERO)
        if self.spot:
            own = self.price(self.currency)
            found += sum((self.notional(key) for key in self.lots if self.marks[key[0]].is_finite()), ZERO) * own
        return found

    @property
    def equity(self) -> Decimal:
        """The equity of the account, in its own currency."""
        return self.total / self.price(self.currency)

    @property
    def unrealized_total(self) -> Decimal:
        """Unrealised profit of all positions, in the venue's unit of account."""
        return sum((self.unrealized_in(asset) * self.price(asset) for asset in self.assets), ZERO)

    @property
    def gross(self) -> Decimal:
        """Notional of all positions, in the venue's unit of account."""
        return sum((self.notional(key) * self.price(self.contracts(key[0]).settle) for key in self.lots), ZERO)


class Truth(Struct):
    """What an all-seeing observer knows: the value of a unit; flows issue and redeem units at that value.

    `falls`: (seconds, drawdown of the unit value from its peak), at every change.
    """

    units: Decimal
    peak: Decimal = ZERO
    falls: list[tuple[float, Decimal]] = field(default_factory=list)

    def seen(self, at: float, equity: Decimal) -> None:
        """Record the equity at a time."""
        value = equity / self.units
        self.peak = max(self.peak, value)
        self.falls.append((at, 1 - value / self.peak if self.peak > ZERO else ZERO))

    def flowed(self, before: Decimal, amount: Decimal) -> None:
        """Record a flow of this amount into (or out of) an equity of `before`."""
        if before > ZERO and before + amount > ZERO:
            self.units *= (before + amount) / before

    def fell_to(self, threshold: Decimal, *, since: float = 0.0, until: float | None = None) -> float | None:
        """Seconds of the first moment between two at which the drawdown reached the threshold."""
        end = math.inf if until is None else until
        return next((at for at, fall in self.falls if since <= at <= end and fall >= threshold), None)


class Ledger:
    """Books every fill and change of an `Exchange`. The account begins with `deposit` of `currency`, without profit.

    `contracts`: the contract of a symbol, by default derived from its name by `contract_of`. `fees`: the fee of a fill,
    where it differs from the one that the exchange has recorded.
    """

    def __init__(
        self,
        exchange: Exchange,
        deposit: Decimal,
        *,
        currency: str = "USDT",
        contracts: Callable[[str], Contract] | None = None,
        fees: Callable[[Fill], Decimal] = lambda fill: fill.fee or ZERO,
    ) -> None:
        self.exchange = exchange
        self.currency = currency
        self.contracts = contracts or (lambda symbol: contract_of(symbol, currency))
        self.fees = fees
        self.wallets: dict[str, Decimal] = {currency: deposit}
        self.prices: dict[str, Decimal] = {currency: ONE}
        self.entries: dict[Key, Decimal] = {
            key: exchange.markets[key[0]].price for key, amount in exchange.held.items() if amount > ZERO
        }
        self.fill_lag = 0.0
        """Seconds after which fills booked from now on are listed."""
        self.row_lag = 0.0
        """Seconds after which rows booked from now on are in the venue's ledger, those of fills included."""
        self.ages: dict[Part, float] = {}
        """The age of the answers about a part."""
        self.rows: list[Row] = []
        """All rows, oldest first."""
        self.profits: dict[str, Decimal] = {}
        """Fill → its realised profit."""
        self._fills_from: dict[str, float] = {}
        self._past: list[Book] = []
        self.truth = Truth(ONE)
        equity = _fair(self.book())
        self.truth.units = equity if equity > ZERO else ONE
        self.record()
        exchange.books.append(self)

    # State

    def book(self, part: Part | None = None) -> Book:
        """The account now, or as old as the venue's answers about a part are."""
        age = self.ages.get(part, 0.0) if part is not None else 0.0
        if age:
            until = self._now() - age
            return next((it for it in reversed(self._past) if it.at <= until), self._past[0])
        exchange = self.exchange
        lots = {
            key: Lot(amount, self.entries.get(key, exchange.markets[key[0]].price))
            for key, amount in exchange.held.items()
            if amount > ZERO
        }
        return Book(
            self._now(), self.currency, MappingProxyType(dict(self.wallets)), lots,
            {symbol: market.price for symbol, market in exchange.markets.items()},
            {symbol: market.index_price for symbol, market in exchange.markets.items()},
            {symbol: market.last_price for symbol, market in exchange.markets.items()},
            MappingProxyType(dict(self.prices)), self.contracts, spot=exchange.mode == "spot",
        )  # fmt: skip

    @property
    def equity(self) -> Decimal:
        """The equity of the account now, in its own currency."""
        return self.book().equity

    def shown(self, *kinds: RowKind) -> Iterator[Row]:
        """The rows that the venue's ledger shows by now, oldest first; of these kinds, or all."""
        now = self._now()
        return (row for row in self.rows if row.shown_from <= now and (not kinds or row.kind in kinds))

    def fills(self) -> Iterator[Fill]:
        """The fills that the venue lists by now."""
        now = self._now()
        return (fill for fill in self.exchange.fills if self._fills_from.get(fill.id, 0.0) <= now)

    def record(self) -> None:
        """Record the account as it is now, for answers with an age, and for the truth."""
        book = self.book()
        if self._past and self._past[-1].at == book.at:
            self._past.pop()
        self._past.append(book)
        self.truth.seen(book.at, _fair(book))

    # Changes by the test

    def flow(self, kind: RowKind, amount: Decimal, asset: str | None = None, *, symbol: str | None = None) -> None:
        """Money moves at once; its row is shown after `row_lag`. Funding and similar kinds issue no units."""
        asset = asset or self.currency
        before = _fair(self.book())
        self.wallets[asset] = self.wallets.get(asset, ZERO) + amount
        if kind in ("deposit", "withdrawal", "transfer"):
            self.truth.flowed(before, _fair(self.book()) - before)
        self._write(kind, asset, amount, symbol=symbol)
        self.record()

    def set_equity(self, equity: Decimal) -> None:
        """Set the equity from now on: money that no row explains."""
        book = self.book()
        self.wallets[self.currency] = self.wallets.get(self.currency, ZERO) + equity - book.equity
        self.record()

    def price_collateral(self, asset: str, price: Decimal) -> None:
        """Set the price of an asset from now on, in the venue's unit of account."""
        self.prices[asset] = price
        self.record()

    # Events of the exchange

    def repriced(self) -> None:
        """A mark has moved."""
        self.record()

    def filled(self, fill: Fill) -> None:
        """Book a fill; the change of its position follows."""
        self._fills_from[fill.id] = self._now() + self.fill_lag
        self.profits[fill.id] = ZERO

    def changed(self, key: Key, before: Decimal, after: Decimal, price: Decimal | None, fill: Fill | None) -> None:
        """A position changed at a price; None: it was moved without a trade."""
        entry = self.entries.get(key, self.exchange.markets[key[0]].price)
        if price is not None:
            if not price.is_finite():
                price = entry if entry.is_finite() else ZERO  # a market without a price: the amount paid is unknown
            contract = self.contracts(key[0])
            if self.exchange.mode == "spot":
                self._pay(contract.settle, -contract.value(after - before, price), fill, key[0])
            elif after < before:
                self._realise(contract, key, contract.profit(key, before - after, entry, price), fill)
            elif fill is not None:
                self._realise(contract, key, ZERO, fill)
            if after > before and entry.is_finite():
                entry = contract.average(Lot(before, entry), after - before, price)
        if after > ZERO:
            self.entries[key] = entry
        else:
            self.entries.pop(key, None)
        self.record()

    def _realise(self, contract: Contract, key: Key, profit: Decimal, fill: Fill | None) -> None:
        if fill is not None:
            self.profits[fill.id] += profit
        self._pay(contract.settle, profit, fill, key[0], profit)

    def _pay(self, asset: str, amount: Decimal, fill: Fill | None, symbol: str, profit: Decimal = ZERO) -> None:
        """Book an amount to a wallet, with the fill's fee once: a fill that turns a position changes two."""
        fee = ZERO
        if fill is not None and not any(row.fill is fill for row in self.rows[-1:]):
            charged = self.fees(fill)
            fee = charged if charged.is_finite() else ZERO
        self.wallets[asset] = self.wallets.get(asset, ZERO) + amount - fee
        if fill is not None:
            self._write("trade", asset, amount - fee, symbol=symbol, fill=fill, profit=profit, fee=fee)

    def _write(
        self, kind: RowKind, asset: str, amount: Decimal, *, symbol: str | None = None, fill: Fill | None = None,
        profit: Decimal = ZERO, fee: Decimal = ZERO,
    ) -> None:  # fmt: skip
        seconds, at = self.exchange.now()
        self.rows.append(
            Row(
                len(self.rows) + 1, kind, at, seconds + self.row_lag, asset, amount, self.wallets[asset],
                symbol, fill, profit, fee,
            )
        )  # fmt: skip

    def _now(self) -> float:
        return self.exchange.now()[0]


def _fair(book: Book) -> Decimal:
    """The equity by the index prices, which no print of one market's mark can move."""
    return replace(book, marks=book.indexes).equity


@cache
def contract_of(symbol: str, currency: str) -> Contract:
    """`BTC/USDT:USDT` settles in USDT, `BTC/USD:BTC` inversely in BTC; a bare name in the account's currency."""
    pair, _, settled = symbol.partition(":")
    base, _, quote = pair.partition("/")
    settle = settled.partition("-")[0] or quote or currency
    return Contract(settle, inverse=bool(settled) and settle == base)
