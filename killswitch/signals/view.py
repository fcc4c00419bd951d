"""What one scope shows in one snapshot: one account as it is, or several added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from killswitch.model.instant import SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Instrument, Position
from killswitch.signals.position import ZERO, notional, unrealized

PnlKey = tuple[str, str, str]
"""(account, symbol, side): what makes a position one position in a scope."""

Instruments = Mapping[tuple[str, str], Instrument]
"""(account, symbol) → the symbol's rules."""


def distrust(account: AccountSnapshot, as_of: int, stale_after: int | None) -> str | None:
    """Why the account's numbers are unknown, or None where they may be used."""
    if account.quality != "ok":
        return f"{account.account} is {account.quality}: {account.reason or 'no reason given'}"
    if account.equity is None or account.positions is None:
        missing = "equity" if account.equity is None else "positions"
        return f"{account.account} gives no {missing}"
    if not account.equity.is_finite():
        return f"{account.account} gives {account.equity} as its equity"
    if not account.positions and account.margin_used is not None and account.margin_used > ZERO:
        return f"{account.account} shows no positions, but {account.margin_used} of margin in use"
    return None if stale_after is None else _stale(account, as_of, stale_after)


def _stale(account: AccountSnapshot, as_of: int, stale_after: int) -> str | None:
    if account.observed_at is None:
        return f"{account.account} does not say when it was observed"
    if as_of - to_micros(account.observed_at) > stale_after:
        return f"{account.account} was last observed at {account.observed_at.isoformat()}"
    return None


class ScopeView:
    """One scope in one snapshot. `unknown` says why its numbers may not be used, or is None."""

    __slots__ = ("accounts", "as_of", "currency", "equity", "instruments", "scheduled", "unknown")

    def __init__(
        self,
        as_of: int,
        scheduled: bool,
        accounts: Sequence[AccountSnapshot],
        instruments: Instruments,
        stale_after: int | None,
    ) -> None:
        self.as_of = as_of
        self.scheduled = scheduled
        self.accounts = accounts
        self.instruments = instruments
        self.unknown: str | None = None
        self.equity: Decimal | None = None
        self.currency: str | None = None
        self._add_up(stale_after)

    def _add_up(self, stale_after: int | None) -> None:
        if not self.accounts:
            self.unknown = "the snapshot does not hold the scope's account"
            return
        total = ZERO
        self.currency = self.accounts[0].currency
        for account in self.accounts:
            reason = distrust(account, self.as_of, stale_after)
            if reason is None and account.currency != self.currency:
                reason = f"the scope mixes {self.currency} and {account.currency}; nothing converts between them"
            if reason is not None:
                self.unknown = reason
                return
            assert account.equity is not None  # distrust() has looked
            total += account.equity
        self.equity = total

    def positions(self) -> list[tuple[AccountSnapshot, Position]]:
        """Open positions with their accounts; a row of zero contracts is no position."""
        return [
            (account, position)
            for account in self.accounts
            for position in account.positions or ()
            if position.contracts > ZERO
        ]

    def instrument(self, account: str, symbol: str) -> Instrument | None:
        """The symbol's rules as last given, or None."""
        return self.instruments.get((account, symbol))

    def pnl(self) -> dict[PnlKey, Decimal] | None:
        """Unrealised P&L of every position; None if one position's is unknown."""
        found: dict[PnlKey, Decimal] = {}
        for account in self.accounts:
            name = account.account
            for position in account.positions or ():
                value = position.unrealized_pnl
                if value is None:
                    value = unrealized(position, self.instrument(name, position.symbol))
                    if value is None:
                        return None
                found[(name, position.symbol, position.side)] = value
        return found

    def notionals(self) -> list[tuple[AccountSnapshot, Position, Decimal]] | None:
        """Every position with its absolute notional; None if one is unknown."""
        rows = []
        for account, position in self.positions():
            value = notional(position, self.instrument(account.account, position.symbol))
            if value is None or not value.is_finite():
                return None
            rows.append((account, position, value))
        return rows

    def age(self) -> float | None:
        """Seconds since the oldest account was observed; None where one does not say."""
        oldest = 0
        for account in self.accounts:
            if account.observed_at is None:
                return None
            oldest = max(oldest, self.as_of - to_micros(account.observed_at))
        return oldest / SECOND if self.accounts else None
