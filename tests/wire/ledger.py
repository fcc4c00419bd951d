"""The money of one account at a wire-level venue: wallets, entries, rows, and what a reader of the truth makes of them.

Prices move unrealised profit and never a wallet; flows move a wallet and never unrealised profit; trades realise.
Everything is exact (Decimal), and every answer of a venue about worth, positions or rows is derived from here. A venue
may show what it has late: rows by `fill_lag` and `row_lag`, whole answers by `ages`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from functools import cache
from types import MappingProxyType
from typing import Final, Literal

from killswitch.model.snapshot import Fill
from tests.faults.exchange import ZERO, Exchange, Key

NEVER: Final = math.inf
"""A lag of rows that are never shown."""
ONE: Final = Decimal(1)
RowKind = Literal["trade", "deposit", "withdrawal", "transfer", "funding", "insurance", "rebate"]
Part = Literal["positions", "equity"]


@dataclass(frozen=True)
class Lot:
    """What is held of one position: contracts, and the average price at which they were opened."""

    amount: Decimal
    entry: Decimal


@dataclass(frozen=True)
class Row:
    """One change of a wallet. `amount` in `asset`, of which `profit` was realised and `fee` paid; `balance` after it.

    `at`: the venue's time of it, `shown_from` the seconds of the venue's clock from which on the venue's lists have it.
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


@dataclass(frozen=True)
class Contract:
    """What a symbol's contracts are: base units each (`size`), or units of the quote where `inverse`."""

    settle: str
    size: Decimal = ONE
    inverse: bool = False

    def value(self, amount: Decimal, price: Decimal) -> Decimal:
        """Of so many contracts at a price, in the currency of settlement."""
        return amount * self.size / price if self.inverse else amount * self.size * price

    def profit(self, key: Key, amount: Decimal, entry: Decimal, price: Decimal) -> Decimal:
        """Of so many contracts from one price to another, in the currency of settlement."""
        if not (price.is_finite() and entry.is_finite()):
            return ZERO
        gained = self.value(amount, price) - self.value(amount, entry)
        return gained if (key[1] == "long") is not self.inverse else -gained

    def average(self, lot: Lot, more: Decimal, price: Decimal) -> Decimal:
        """The entry of a lot that grows: harmonic where the contract is inverse."""
        total = lot.amount + more
        if self.inverse:
            return total / (lot.amount / lot.entry + more / price)
        return (lot.amount * lot.entry + more * price) / total


@dataclass(frozen=True)
class Book:
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
        """Of one position, in its currency of settlement."""
        lot = self.lots[key]
        return self.contracts(key[0]).profit(key, lot.amount, lot.entry, self.marks[key[0]])

    def notional(self, key: Key) -> Decimal:
        """Of one position at its mark, in its currency of settlement."""
        mark = self.marks[key[0]]
        return self.contracts(key[0]).value(self.lots[key].amount, mark) if mark.is_finite() else ZERO

    def unrealized_in(self, asset: str) -> Decimal:
        """Of all positions that are settled in it; holdings of a spot account have none."""
        if self.spot:
            return ZERO
        return sum((self.unrealized(key) for key in self.lots if self.contracts(key[0]).settle == asset), ZERO)

    def equity_in(self, asset: str) -> Decimal:
        """Wallet and unrealised profit of one asset."""
        return self.wallets.get(asset, ZERO) + self.unrealized_in(asset)

    @property
    def assets(self) -> tuple[str, ...]:
        """Those with a wallet, and those in which a position is settled."""
        settled = () if self.spot else tuple(self.contracts(symbol).settle for symbol, _ in self.lots)
        return tuple(dict.fromkeys((*self.wallets, *settled)))

    def price(self, asset: str) -> Decimal:
        """In the venue's unit of account."""
        return self.prices.get(asset, ONE)

    @property
    def total(self) -> Decimal:
        """What the account is worth, in the venue's unit of account."""
        found = sum((self.equity_in(asset) * self.price(asset) for asset in self.assets), ZERO)
        if self.spot:
            own = self.price(self.currency)
            found += sum((self.notional(key) for key in self.lots if self.marks[key[0]].is_finite()), ZERO) * own
        return found

    @property
    def equity(self) -> Decimal:
        """What the account is worth, in its own currency."""
        return self.total / self.price(self.currency)

    @property
    def unrealized_total(self) -> Decimal:
        """Unrealised profit of all positions, in the venue's unit of account."""
        return sum((self.unrealized_in(asset) * self.price(asset) for asset in self.assets), ZERO)

    @property
    def gross(self) -> Decimal:
        """Notional of all positions, in the venue's unit of account."""
        return sum((self.notional(key) * self.price(self.contracts(key[0]).settle) for key in self.lots), ZERO)


@dataclass
class Truth:
    """What a reader who sees everything knows: the value of a unit, which flows issue and redeem at its value.

    `falls`: (seconds, drawdown of the unit value from its peak), at every change.
    """

    units: Decimal
    peak: Decimal = ZERO
    falls: list[tuple[float, Decimal]] = field(default_factory=list)

    def seen(self, at: float, equity: Decimal) -> None:
        """The account is worth so much now."""
        value = equity / self.units
        self.peak = max(self.peak, value)
        self.falls.append((at, 1 - value / self.peak if self.peak > ZERO else ZERO))

    def flowed(self, before: Decimal, amount: Decimal) -> None:
        """So much came (or went) while the account was worth `before`."""
        if before > ZERO and before + amount > ZERO:
            self.units *= (before + amount) / before

    def fell_to(self, threshold: Decimal, *, since: float = 0.0, until: float | None = None) -> float | None:
        """Seconds of the first moment between two at which the drawdown was at least this."""
        end = math.inf if until is None else until
        return next((at for at, fall in self.falls if since <= at <= end and fall >= threshold), None)


class Ledger:
    """Books every fill and change of an `Exchange`. The account begins with `deposit` of `currency`, without profit.

    `contracts`: what a symbol's contracts are, by default what `contract_of` reads out of its name. `fees`: what a fill
    has cost, where it is not what the exchange has written on it.
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
        """Seconds after which the fills that are booked from now on are listed as such."""
        self.row_lag = 0.0
        """Seconds after which the rows that are booked from now on stand in the venue's ledger, fills' included."""
        self.ages: dict[Part, float] = {}
        """How old the answers about a part are."""
        self.rows: list[Row] = []
        """All of them, oldest first."""
        self.profits: dict[str, Decimal] = {}
        """Fill → profit that it has realised."""
        self._fills_from: dict[str, float] = {}
        self._past: list[Book] = []
        self.truth = Truth(ONE)
        equity = _fair(self.book())
        self.truth.units = equity if equity > ZERO else ONE
        self.keep()
        exchange.books.append(self)

    # What is

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
        """What the account is worth now, in its own currency."""
        return self.book().equity

    def shown(self, *kinds: RowKind) -> Iterator[Row]:
        """The rows that the venue's ledger shows by now, oldest first; of these kinds, or of all."""
        now = self._now()
        return (row for row in self.rows if row.shown_from <= now and (not kinds or row.kind in kinds))

    def fills(self) -> Iterator[Fill]:
        """The fills that the venue lists by now."""
        now = self._now()
        return (fill for fill in self.exchange.fills if self._fills_from.get(fill.id, 0.0) <= now)

    def keep(self) -> None:
        """Keep the account as it is now, for answers that are older than it, and for the truth."""
        book = self.book()
        if self._past and self._past[-1].at == book.at:
            self._past.pop()
        self._past.append(book)
        self.truth.seen(book.at, _fair(book))

    # What happens

    def flow(self, kind: RowKind, amount: Decimal, asset: str | None = None, *, symbol: str | None = None) -> None:
        """Money comes or goes at once; its row is shown after `row_lag`. Funding and its like issue no units."""
        asset = asset or self.currency
        before = _fair(self.book())
        self.wallets[asset] = self.wallets.get(asset, ZERO) + amount
        if kind in ("deposit", "withdrawal", "transfer"):
            self.truth.flowed(before, _fair(self.book()) - before)
        self._write(kind, asset, amount, symbol=symbol)
        self.keep()

    def set_equity(self, equity: Decimal) -> None:
        """The account is worth so much from now on: money that nothing explains, and no row tells of."""
        book = self.book()
        self.wallets[self.currency] = self.wallets.get(self.currency, ZERO) + equity - book.equity
        self.keep()

    def price_collateral(self, asset: str, price: Decimal) -> None:
        """An asset is worth so much from now on, in the venue's unit of account."""
        self.prices[asset] = price
        self.keep()

    # What the exchange tells

    def repriced(self) -> None:
        """A mark has moved."""
        self.keep()

    def filled(self, fill: Fill) -> None:
        """A fill is booked; the change of its position follows."""
        self._fills_from[fill.id] = self._now() + self.fill_lag
        self.profits[fill.id] = ZERO

    def changed(self, key: Key, before: Decimal, after: Decimal, price: Decimal | None, fill: Fill | None) -> None:
        """A position has changed at a price; None: it was moved, and nobody traded."""
        entry = self.entries.get(key, self.exchange.markets[key[0]].price)
        if price is not None:
            if not price.is_finite():
                price = entry if entry.is_finite() else ZERO  # a market of no price: whatever was paid, nobody knows
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
        self.keep()

    def _realise(self, contract: Contract, key: Key, profit: Decimal, fill: Fill | None) -> None:
        if fill is not None:
            self.profits[fill.id] += profit
        self._pay(contract.settle, profit, fill, key[0], profit)

    def _pay(self, asset: str, amount: Decimal, fill: Fill | None, symbol: str, profit: Decimal = ZERO) -> None:
        """Into a wallet, with the fee of the fill, once: a fill that turns a position changes two."""
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
    """What the account is worth by the indexes, which no print of one market's mark can move."""
    return replace(book, marks=book.indexes).equity


@cache
def contract_of(symbol: str, currency: str) -> Contract:
    """`BTC/USDT:USDT` is settled in USDT, `BTC/USD:BTC` inversely in BTC; a bare name in the account's currency."""
    pair, _, settled = symbol.partition(":")
    base, _, quote = pair.partition("/")
    settle = settled.partition("-")[0] or quote or currency
    return Contract(settle, inverse=bool(settled) and settle == base)
