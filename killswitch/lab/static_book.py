"""The value of accounts while nothing is traded, computed from bars alone."""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from killswitch.lab.price_matrix import Floats, PriceMatrix, weighted_sum
from killswitch.market.account import CASH_MARKETS
from killswitch.model.snapshot import AccountSnapshot, Side, Snapshot
from killswitch.signals.history.scope import ObservedScope
from killswitch.valuation.scope_view import PnlKey


class StaticAccount:
    """One account of a snapshot at instant `number` of the matrix.

    Arrays are over instants `[first, end)` after it.
    """

    def __init__(self, matrix: PriceMatrix, account: AccountSnapshot, number: int) -> None:
        """ValueError for an account without equity, positions or one of their numbers, which the paper market always
        has."""
        if account.equity is None or account.positions is None:
            raise ValueError(f"{account.account} shows no equity or positions")
        sizes = {i.symbol: i.contract_size or Decimal(1) for i in matrix.instruments}
        self.name = account.account
        self.is_idle = not account.orders
        self.is_on_margin = account.market not in CASH_MARKETS
        self.equity = account.equity
        self.keys: list[PnlKey] = [(self.name, p.symbol, p.side) for p in account.positions]
        self._matrix = matrix
        self._columns = matrix.columns([p.symbol for p in account.positions])
        self._prices = matrix.select(tuple(self._columns))
        self._quantities = [p.contracts * sizes[p.symbol] * (1 if p.side == "long" else -1) for p in account.positions]
        self._marks = [p.mark_price or Decimal(0) for p in account.positions]
        self._pnl = [p.unrealized_pnl or Decimal(0) for p in account.positions]
        self.quantity: Floats = np.array([float(q) for q in self._quantities])
        self._mark: Floats = np.array([float(m) for m in self._marks])
        self.profits_now: Floats = np.array([float(p) for p in self._pnl])
        """Unrealised P&L of each position now."""
        self.is_priced_by_bars = all(
            p.notional == abs(q * m) and p.entry_price is not None
            for p, q, m in zip(account.positions, self._quantities, self._marks, strict=True)
        )
        """Whether notionals are those at the prices of the bars, in the account's currency."""
        prices = [matrix.decimals(column) for column in self._columns]
        of_moves = [each - _exponent(q) for each, q in zip(prices, self._quantities, strict=True)]
        self.decimals = max((-_exponent(self.equity), *of_moves))
        """The decimals that its equity has at most, at any price."""
        self._watched = [each.symbol for each in account.watched or () if each.symbol in matrix.symbols]
        self._next = number + 1
        self._equities: Floats = np.empty(0)

    def equities(self, first: int, end: int) -> Floats:
        """Return equity at each close; cached."""
        known = self._next + len(self._equities)
        if end > known:
            constant = float(self.equity) - float(self._mark @ self.quantity)
            more = weighted_sum(self._prices.close[:, known:end], self.quantity) + constant
            self._equities = np.concatenate([self._equities, more])
        return self._equities[first - self._next : end - self._next]

    def pnl(self, side: Side, first: int, end: int) -> Floats:
        """Return the unrealised P&L of one side's positions at each close."""
        mine = np.array([key[2] == side for key in self.keys], dtype=bool)
        quantity = np.where(mine, self.quantity, 0.0)
        constant = float(sum((p for p, own in zip(self._pnl, mine, strict=True) if own), Decimal(0)))
        return weighted_sum(self._prices.close[:, first:end], quantity) + (constant - float(self._mark @ quantity))

    def gross(self, first: int, end: int) -> Floats:
        """Return gross notional at each close."""
        return weighted_sum(self._prices.close[:, first:end], np.abs(self.quantity))

    def notionals(self, first: int, end: int) -> Floats:
        """Return the signed notional of each position at each close: (positions × instants)."""
        return self._prices.close[:, first:end] * self.quantity[:, np.newaxis]

    def profits(self, first: int, end: int) -> Floats:
        """Return the unrealised P&L of each position at each close: (positions × instants)."""
        moves: Floats = self._prices.close[:, first:end] - self._mark[:, np.newaxis]
        return moves * self.quantity[:, np.newaxis] + self.profits_now[:, np.newaxis]

    def room(self, first: int, end: int, maintenance: Decimal) -> Floats:
        """Return equity less maintenance margin with every symbol at its worst price in each bar; `first` is at least
        1.

        This is `Liquidator.is_out_of_reach` for many bars at once: liquidation is possible at or below zero.
        """
        long = np.maximum(self.quantity, 0.0)
        short = np.minimum(self.quantity, 0.0) - float(maintenance) * np.abs(self.quantity)
        constant = float(self.equity) - float(self._mark @ self.quantity)
        lowest, highest = self._prices.lowest[:, first:end], self._prices.highest[:, first:end]
        return weighted_sum(lowest, long) + weighted_sum(highest, short) + constant

    def observed(self, number: int, *, with_marks: bool) -> ObservedScope:
        """Return the account at one close, exactly; without marks where nothing samples them."""
        prices = [self._matrix.price(number, column) for column in self._columns]
        moves = [q * (price - m) for q, price, m in zip(self._quantities, prices, self._marks, strict=True)]
        marks = {(self.name, key[1]): float(price) for key, price in zip(self.keys, prices, strict=True)}
        if with_marks:
            columns = zip(self._watched, self._matrix.columns(self._watched), strict=True)
            marks |= {(self.name, it): float(self._matrix.price(number, column)) for it, column in columns}
        return ObservedScope(
            at=int(self._matrix.at[number]),
            equity=self.equity + sum(moves, Decimal(0)),
            pnl={key: before + move for key, before, move in zip(self.keys, self._pnl, moves, strict=True)},
            marks=marks if with_marks else {},
        )


def _exponent(number: Decimal) -> int:
    """The power of ten of the last digit of a finite number."""
    found = number.as_tuple().exponent
    return found if isinstance(found, int) else 0


class StaticBook:
    """All accounts of a snapshot at instant `number` of the matrix."""

    def __init__(self, matrix: PriceMatrix, snapshot: Snapshot, number: int) -> None:
        self.number = number
        self.accounts = tuple(StaticAccount(matrix, account, number) for account in snapshot.accounts)
        self._matrix = matrix

    def equities(self, places: tuple[int, ...], first: int, end: int) -> Floats:
        """Return the joint equity of the accounts at these places, at each close."""
        if len(places) == 1:
            return self.accounts[places[0]].equities(first, end)
        return sum((self.accounts[place].equities(first, end) for place in places), np.zeros(end - first))

    def observed(self, places: tuple[int, ...], number: int, *, with_marks: bool) -> ObservedScope:
        """Return the accounts at these places together at one close, exactly; without marks where nothing samples
        them."""
        found = [self.accounts[place].observed(number, with_marks=with_marks) for place in places]
        if len(found) == 1:
            return found[0]
        return ObservedScope(
            at=int(self._matrix.at[number]),
            equity=sum((each.equity for each in found), Decimal(0)),
            pnl={key: value for each in found for key, value in each.pnl.items()},
            marks={key: mark for each in found for key, mark in each.marks.items()},
        )
