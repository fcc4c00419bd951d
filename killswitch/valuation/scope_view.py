"""The view of one scope in one snapshot: one account, or the sum of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from decimal import Decimal
from functools import cached_property
from operator import attrgetter

from msgspec.structs import replace

from killswitch.model.instant import to_micros
from killswitch.model.magnitude import LEAST, MOST, sane, sound_account
from killswitch.model.snapshot import AccountSnapshot, Instrument, Position
from killswitch.model.words import ReferenceCurrency
from killswitch.valuation.currency_conversion import ONE, Conversion, conversion, prices_by_venue
from killswitch.valuation.position_measures import HOLDINGS, ZERO, merge_rows, notional, unrealized

PnlKey = tuple[str, str, str]
"""(account, symbol, side): the identity of a position in a scope."""

Instruments = Mapping[tuple[str, str], Instrument]
"""(account, symbol) → the instrument's rules."""

PROFIT_OF_NOTHING = Decimal("0.01")
"""The fraction of equity above which the unrealised profit of an account without positions is more than rounding."""

_contracts = attrgetter("contracts")


def reason_untrusted(account: AccountSnapshot, as_of: int, stale_after: int | None) -> str | None:
    """The reason why the account's numbers are unknown, or None if they are usable."""
    reason = reason_equity_unknown(account, as_of, stale_after)
    return reason_positions_missing(account) if reason is None else reason


def reason_equity_unknown(account: AccountSnapshot, as_of: int, stale_after: int | None) -> str | None:
    """The reason why the account's equity is unknown, or None. Missing positions leave it known; absurd ones do not."""
    if account.quality == "ok" and account.equity is None:
        return f"{account.account} reports no equity"
    if account.quality == "ok" and account.equity is not None and not sane(account.equity):
        return f"{account.account} reports an equity of {account.equity} {account.currency}"
    reason = reason_positions_unusable(account)
    return _stale(account, as_of, stale_after) if reason is None and stale_after is not None else reason


def reason_positions_unusable(account: AccountSnapshot) -> str | None:
    """The reason why the account's positions are unusable, or None, whether or not its equity is known."""
    if account.quality != "ok":
        return f"{account.account} is {account.quality}: {account.reason or 'no reason given'}"
    fault = None if account.positions is None else _impossible_position(account, account.positions)
    return None if fault is None else f"{account.account} {fault}"


def reason_positions_missing(account: AccountSnapshot) -> str | None:
    """The reason if the account does not report its positions, or None."""
    return f"{account.account} reports no positions" if account.positions is None else None


def _impossible_position(account: AccountSnapshot, positions: Sequence[Position]) -> str | None:
    """The impossible value in the positions, if any; it makes the whole answer unusable."""
    sizes = [*map(_contracts, positions)]
    if sizes and all(map(Decimal.is_finite, sizes)) and min(sizes) >= LEAST and max(sizes) < MOST:
        return None  # nearly every snapshot: all positions are open and plausible
    for position in positions:
        if not sane(position.contracts) or position.contracts < ZERO:
            return f"reports {position.contracts} contracts of {position.symbol}"
    if any(sizes):
        return None
    margin = account.margin_used
    if margin is not None and margin.is_finite() and margin > ZERO:
        return f"reports no positions, but {margin} {account.currency} of margin in use"
    if _has_profit(account):
        return f"reports no positions, but {account.unrealized} {account.currency} of unrealised profit"
    return None


def _has_profit(account: AccountSnapshot) -> bool:
    """Whether the account shows a profit that requires positions, although it lists none."""
    profit, equity = account.unrealized, account.equity
    if profit is None or equity is None or account.complete is False or account.market in HOLDINGS:
        return False
    return profit.is_finite() and equity.is_finite() and abs(profit) > PROFIT_OF_NOTHING * abs(equity)


def _stale(account: AccountSnapshot, as_of: int, stale_after: int) -> str | None:
    if account.observed_at is None:
        return f"{account.account} does not report when it was observed"
    if as_of - to_micros(account.observed_at) > stale_after:
        return f"{account.account} was last observed at {account.observed_at.isoformat()}"
    return None


def _is_unchanged(account: AccountSnapshot, before: AccountSnapshot) -> bool:
    """Whether the account is unchanged since `before`; rows and rules are reported only when they are new."""
    if account.flows or account.fills or account.instruments:
        return False
    return account == replace(before, flows=account.flows, fills=account.fills, instruments=account.instruments)


@dataclass(eq=False)
class ScopeView:
    """One scope in one snapshot. `unknown` is the reason why its equity is unusable, or None.

    `positions_unknown` is the reason why its positions are unknown although its equity is known. `all_accounts` are
    the accounts of the snapshot, including those outside the scope. With a `reference` currency, equity, profits,
    notionals and margin are in it; accounts, positions and prices remain as reported.
    """

    as_of: int
    scheduled: bool
    accounts: Sequence[AccountSnapshot]
    instruments: Instruments
    stale_after: int | None
    snapshot: InitVar[Sequence[AccountSnapshot] | None] = None
    """All accounts of the snapshot; None if there are no others."""
    reference: ReferenceCurrency | None = None
    all_accounts: Sequence[AccountSnapshot] = field(init=False)
    unknown: str | None = field(init=False, default=None)
    positions_unknown: str | None = field(init=False, default=None)
    equity: Decimal | None = field(init=False, default=None)
    currency: str | None = field(init=False, default=None)
    _conversions: dict[str, Conversion] = field(init=False, default_factory=dict)

    def __post_init__(self, snapshot: Sequence[AccountSnapshot] | None) -> None:
        self.all_accounts = self.accounts if snapshot is None else snapshot
        self._add_up()

    def is_repetition_of(self, before: ScopeView | None) -> bool:
        """Whether an unscheduled pass repeats every account of `before`, because none of them was polled for it."""
        if self.scheduled or before is None or len(self.accounts) != len(before.accounts):
            return False
        return all(_is_unchanged(one, other) for one, other in zip(self.accounts, before.accounts, strict=True))

    @cached_property
    def sound(self) -> tuple[AccountSnapshot, ...]:
        """The accounts with every insane number unknown."""
        return tuple(sound_account(account) for account in self.accounts)

    def _add_up(self) -> None:
        if not self.accounts:
            self.unknown = "the snapshot does not contain the scope's account"
            return
        total = ZERO
        self.currency = self.accounts[0].currency if self.reference is None else self.reference.currency
        for account in self.accounts:
            reason = reason_equity_unknown(account, self.as_of, self.stale_after)
            if reason is None and account.currency != self.currency:
                reason = self.conversion(account.currency).unknown
            if reason is not None:
                self.unknown = reason
                return
            self.positions_unknown = self.positions_unknown or reason_positions_missing(account)
            assert account.equity is not None  # reason_equity_unknown() has checked
            total += self.converted(account.equity, account)
        self.equity = total

    def trusted(self) -> ScopeView:
        """The scope without untrusted accounts; itself if all are trusted."""
        if self.unknown is None and self.positions_unknown is None:
            return self
        known = [it for it in self.accounts if reason_untrusted(it, self.as_of, self.stale_after) is None]
        return self.with_accounts(known)

    def with_accounts(self, accounts: Sequence[AccountSnapshot]) -> ScopeView:
        """The scope with these accounts instead of its own."""
        return ScopeView(
            self.as_of, self.scheduled, accounts, self.instruments, self.stale_after, self.all_accounts, self.reference
        )

    # Currencies

    def conversion(self, currency: str) -> Conversion:
        """The rate of a currency to the scope's currency, or why it is unknown.

        Only accounts that are fresh enough for their equity to be used count.
        """
        if currency == self.currency:
            return Conversion(ONE)
        found = self._conversions.get(currency)
        if found is None:
            mixed = f"the scope has accounts in {self.currency} and {currency}, and no reference currency"
            found = Conversion(None, mixed) if self.reference is None else self._by_venues(currency, self.reference)
            self._conversions[currency] = found
        return found

    def _by_venues(self, currency: str, reference: ReferenceCurrency) -> Conversion:
        stale = {} if self.stale_after is None else self._stale_reasons(self.stale_after)
        fresh = [account for account in self.all_accounts if account.account not in stale]
        found = conversion(currency, reference, fresh)
        if found.rate is not None or not stale:
            return found
        unused = [account for account in self.all_accounts if account.account in stale]
        reasons = [stale[it.account] for it in unused if prices_by_venue(currency, reference.currency, (it,))]
        return Conversion(None, "; ".join((found.unknown or "", *reasons)))

    def _stale_reasons(self, stale_after: int) -> dict[str, str]:
        """Account → reason, for the stale accounts of the snapshot."""
        reasons = {account.account: _stale(account, self.as_of, stale_after) for account in self.all_accounts}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def rate(self, account: str) -> Decimal:
        """The rate of the account's currency to the scope's currency.

        LookupError if the account is not in the view or its currency cannot be converted; then the view is unknown.
        """
        for each in self.accounts:
            if each.account == account:
                return self.converted(ONE, each)
        raise LookupError(f"{account} is not in the scope, so its currency is unknown")

    def converted(self, amount: Decimal, account: AccountSnapshot) -> Decimal:
        """An amount of the account's currency in the scope's. LookupError as with `rate`."""
        found = self.converted_or_unknown(amount, account)
        if found is None:
            raise LookupError(self.conversion(account.currency).unknown)
        return found

    def converted_or_unknown(self, amount: Decimal, account: AccountSnapshot) -> Decimal | None:
        """An amount of the account's currency in the scope's; None if the rate is unknown."""
        if account.currency == self.currency:
            return amount
        rate = self.conversion(account.currency).rate
        return None if rate is None else amount * rate

    def maintenance(self) -> Decimal | None:
        """The maintenance margin of all accounts; None if one is unknown."""
        total = ZERO
        for account in self.sound:
            margin = account.maintenance_margin
            margin = None if margin is None else self.converted_or_unknown(margin, account)
            if margin is None:
                return None
            total += margin
        return total

    def available(self) -> ScopeView:
        """The scope without accounts of unknown equity; itself if every equity is known."""
        if self.unknown is None:
            return self
        readable = self.available_accounts()
        return self.with_accounts([account for account in self.accounts if account.account in readable])

    def available_accounts(self) -> dict[str, AccountSnapshot]:
        """The accounts of the snapshot whose equity is known, by name, in the scope and around it."""
        return {
            account.account: account
            for account in (*self.all_accounts, *self.accounts)
            if reason_equity_unknown(account, self.as_of, self.stale_after) is None
        }

    def rates_of(self, last: Mapping[str, AccountSnapshot]) -> dict[str, Decimal]:
        """Account → rate, for convertible currencies. `last`: last snapshots of accounts that the view may lack."""
        accounts = {**last, **{account.account: account for account in self.accounts}}
        rates = {name: self.conversion(account.currency).rate for name, account in accounts.items()}
        return {name: rate for name, rate in rates.items() if rate is not None}

    def positions(self) -> list[tuple[AccountSnapshot, Position]]:
        """The open positions with their accounts; rows of zero contracts are skipped.

        Rows of one account, symbol and side (several strategies) are one position, as for the venue.
        """
        rows: dict[PnlKey, tuple[AccountSnapshot, Position]] = {}
        for account in self.sound:
            for position in account.positions or ():
                if sane(position.contracts) and position.contracts > ZERO:
                    key = (account.account, position.symbol, position.side)
                    rows[key] = (account, merge_rows(rows[key][1], position) if key in rows else position)
        return list(rows.values())

    def instrument(self, account: str, symbol: str) -> Instrument | None:
        """The symbol's last reported rules, or None."""
        return self.instruments.get((account, symbol))

    def pnl(self) -> dict[PnlKey, Decimal] | None:
        """The unrealised P&L of every position; None if the P&L of a position, the positions or a rate are unknown."""
        if self.positions_unknown is not None:
            return None
        found: dict[PnlKey, Decimal] = {}
        for account in self.accounts:
            name, rate = account.account, self.conversion(account.currency).rate
            if rate is None:
                return None
            converts = account.currency != self.currency
            for position in account.positions or ():
                value = position.unrealized_pnl
                if value is None or not sane(value):
                    value = self._computed_pnl(account, position)
                    if value is None:
                        if not position.contracts:
                            continue
                        return None
                key = (name, position.symbol, position.side)
                if converts:
                    value *= rate
                found[key] = found[key] + value if key in found else value
        return found

    def _computed_pnl(self, account: AccountSnapshot, position: Position) -> Decimal | None:
        """The P&L computed from entry and mark, if the venue reports none or no valid number."""
        prices = (position.contracts, position.entry_price, position.mark_price)
        if any(price is not None and not sane(price) for price in prices):
            return None
        rules = self.instrument(account.account, position.symbol)
        return unrealized(replace(position, unrealized_pnl=None), account, rules)

    def pnl_of(self, account: AccountSnapshot) -> Decimal | None:
        """The sum of the unrealised P&L of one account, in its own currency; None if a position's P&L is unknown."""
        alone = ScopeView(self.as_of, self.scheduled, (account,), self.instruments, None).pnl()
        return None if alone is None else sum(alone.values(), ZERO)

    def notionals(self) -> list[tuple[AccountSnapshot, Position, Decimal]] | None:
        """Every position with its absolute notional; None if a notional, the positions or a rate are unknown."""
        if self.positions_unknown is not None:
            return None
        rows = []
        for account, position in self.positions():
            value = notional(position, account, self.instrument(account.account, position.symbol))
            value = None if value is None else self.converted_or_unknown(value, account)
            if value is None:
                return None
            rows.append((account, position, value))
        return rows
