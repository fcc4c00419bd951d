"""The view of one scope in one snapshot: one account, or the sum of several."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from killswitch.model.computed_once import computed_once
from killswitch.model.snapshot import AccountSnapshot, Instrument, Position, Snapshot
from killswitch.model.words import ReferenceCurrency
from killswitch.valuation.account_facts import AccountFacts, PriceRow
from killswitch.valuation.currency_conversion import ONE, Conversion, agreed_price
from killswitch.valuation.ownership import AccountOwnership
from killswitch.valuation.position_columns import PositionColumns
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.position_measures import Instruments as Instruments
from killswitch.valuation.position_measures import PnlKey as PnlKey
from killswitch.valuation.snapshot_facts import BookPart, SnapshotFacts
from killswitch.valuation.trust import reason_stale

if TYPE_CHECKING:
    from killswitch.valuation.held_positions import Floats


def _is_unchanged(account: AccountSnapshot, before: AccountSnapshot) -> bool:
    """Whether the account is unchanged since `before`; rows and rules are reported only when they are new."""
    if account.flows or account.fills or account.instruments:
        return False
    return account == replace(before, flows=account.flows, fills=account.fills, instruments=account.instruments)


_SAME = Conversion(ONE)
T = TypeVar("T")


class ScopeView:
    """One scope in one snapshot. `unknown` is the reason why its equity is unusable, or None.

    `positions_unknown` is the reason why its positions are unknown although its equity is known. `all_accounts` are
    the accounts of the snapshot, including those outside the scope. With a `reference` currency, equity, profits,
    notionals and margin are in it; accounts, positions and prices remain as reported. What is read from one account is
    a fact of that account (`AccountFacts`), which other views of the same snapshot share.
    """

    def __init__(
        self,
        as_of: int,
        scheduled: bool,
        accounts: Sequence[AccountSnapshot],
        instruments: Instruments,
        stale_after: int | None,
        snapshot: Sequence[AccountSnapshot] | None = None,
        reference: ReferenceCurrency | None = None,
        *,
        around: SnapshotFacts | None = None,
        part: BookPart | None = None,
        cut: Mapping[str, str | None] | None = None,
    ) -> None:
        """`snapshot`: all accounts of the snapshot; None if there are no others. `around`: their facts, if shared.

        `part`: the scope is only a part of the books of these accounts, and has no equity. `cut`: `accounts` are such
        parts already, with the reason why each is unknown, or None.
        """
        self.as_of = as_of
        self.scheduled = scheduled
        self.accounts = accounts
        self.instruments = instruments
        self.stale_after = stale_after
        self.reference = reference
        self._around = around or SnapshotFacts(as_of, accounts if snapshot is None else snapshot, instruments)
        self.part = part
        self._cut = cut or {}
        if part is not None and cut is None:
            parts = [self._around.part_of(account, part) for account in accounts]
            self.accounts = tuple(account for account, _ in parts)
            self._cut = {account.account: reason for account, reason in parts}
        self.facts: tuple[AccountFacts, ...] = tuple(map(self._around.of, self.accounts))
        self.unknown: str | None = None
        self.positions_unknown: str | None = None
        self.equity: Decimal | None = None
        self.currency: str | None = None
        self._conversions: dict[str, Conversion] = {}
        self._add_up()

    @property
    def all_accounts(self) -> Sequence[AccountSnapshot]:
        return self._around.accounts

    @property
    def tick(self) -> Snapshot | None:
        """The snapshot, for what it contains besides accounts; None if that is unknown."""
        return self._around.tick

    def once(self, inputs: Hashable, compute: Callable[[], T]) -> T:
        """`compute`, which must depend on nothing but `inputs`: once for all scopes of the snapshot with the same
        ones."""
        return self._around.once(inputs, compute)

    def has_flag(self, name: str) -> bool:
        """Whether a flag of this name is set for every account of the scope."""
        return self._around.flags.is_set(name, ((each.account, each.venue) for each in self.accounts))

    def is_repetition_of(self, before: ScopeView | None) -> bool:
        """Whether an unscheduled pass repeats every account of `before`, because none of them was polled for it."""
        if self.scheduled or before is None or len(self.accounts) != len(before.accounts):
            return False
        return all(_is_unchanged(one, other) for one, other in zip(self.accounts, before.accounts, strict=True))

    @computed_once
    def sound(self) -> tuple[AccountSnapshot, ...]:
        """The accounts with every insane number unknown."""
        return tuple(facts.sound for facts in self.facts)

    def _add_up(self) -> None:
        if not self.accounts:
            self.unknown = "the snapshot does not contain the scope's account"
            return
        total = ZERO
        self.currency = self.accounts[0].currency if self.reference is None else self.reference.currency
        for facts in self.facts:
            account = facts.account
            reason = self._unusable(facts)
            equity = ZERO if self.part is not None else account.equity
            if reason is None and account.currency != self.currency:
                found = self.conversion(account.currency)
                reason = found.unknown
                equity = None if equity is None or found.rate is None else equity * found.rate
            if reason is not None:
                self.unknown = reason
                return
            self.positions_unknown = self.positions_unknown or facts.positions_missing
            assert equity is not None  # equity_unknown() and conversion() have checked
            total += equity
        self.equity = total if self.part is None else None

    def _unusable(self, facts: AccountFacts) -> str | None:
        """The reason why the account's equity, or the part of it without an equity, is unknown, or None."""
        if self.part is None:
            return facts.equity_unknown(self.as_of, self.stale_after)
        reason = self._cut.get(facts.name)
        return reason or reason_stale(facts.account, self.as_of, self.stale_after)

    def reason_unknown(self, facts: AccountFacts) -> str | None:
        """The reason why an account of the scope, or the scope's part of it, is unknown, or None."""
        return self._unusable(facts) or facts.positions_missing

    @property
    def has_equity(self) -> bool:
        """Whether the scope has an equity of its own, whether or not it is known."""
        return self.part is None

    def at_venue(self, account: str) -> AccountSnapshot | None:
        """The account with all of its book, as its venue reported it; None if the snapshot lacks it."""
        found = self._around.by_name.get(account)
        return None if found is None else found.account

    def owned(self, account: str) -> AccountOwnership:
        """The owners of the positions and orders of an account."""
        return self._around.owned(account)

    def trusted(self) -> ScopeView:
        """The scope without untrusted accounts; itself if all are trusted."""
        if self.unknown is None and self.positions_unknown is None:
            return self
        usable = [each for each in self.facts if self.reason_unknown(each) is None]
        return self.with_accounts([each.account for each in usable])

    def with_accounts(self, accounts: Sequence[AccountSnapshot]) -> ScopeView:
        """The scope with these accounts instead of its own; with a `part`, they are such parts."""
        return ScopeView(
            self.as_of, self.scheduled, accounts, self.instruments, self.stale_after, None, self.reference,
            around=self._around, part=self.part, cut=None if self.part is None else self._cut,
        )  # fmt: skip

    def alone(self, account: str) -> ScopeView | None:
        """A scope of this account of the snapshot alone, in its own currency; None if the snapshot lacks it."""
        found = self.at_venue(account)
        if found is None:
            return None
        return ScopeView(self.as_of, self.scheduled, (found,), self.instruments, self.stale_after, around=self._around)

    # Currencies

    def conversion(self, currency: str) -> Conversion:
        """The rate of a currency to the scope's currency, or why it is unknown.

        Only accounts that are fresh enough for their equity to be used count.
        """
        if currency == self.currency:
            return _SAME
        found = self._conversions.get(currency)
        if found is None:
            mixed = f"the scope has accounts in {self.currency} and {currency}, and no reference currency"
            found = (
                Conversion(None, mixed)
                if self.reference is None
                else self._around.conversion(currency, self.reference, self.stale_after)
            )
            self._conversions[currency] = found
        return found

    def agreed_price(self, currency: str) -> Decimal | None:
        """The price of `currency` in the reference currency on which at least two venues agree, or more if the
        reference declares more; None if they are too few.

        Neither a declared rate nor an account's price of its own currency is a source.
        """
        reference = self.reference
        if reference is None or currency == reference.currency:
            return None
        prices = self._around.prices(currency, reference.currency, self.stale_after)
        return agreed_price(prices, replace(reference, venues=max(2, reference.venues)))

    @computed_once
    def _by_name(self) -> dict[str, AccountSnapshot]:
        """Account → its snapshot; the first one if a name is there twice."""
        return {account.account: account for account in reversed(self.accounts)}

    def rate(self, account: str) -> Decimal:
        """The rate of the account's currency to the scope's currency.

        LookupError if the account is not in the view or its currency cannot be converted; then the view is unknown.
        """
        alone = len(self.accounts) == 1 and self.accounts[0].account == account
        found = self.accounts[0] if alone else self._by_name.get(account)
        if found is None:
            raise LookupError(f"{account} is not in the scope, so its currency is unknown")
        return self.converted(ONE, found)

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
        return self._sum(facts.maintenance for facts in self.facts)

    def open_profit(self) -> Decimal | None:
        """The unrealised profit of all accounts; None if one is unknown."""
        return self._sum(facts.open_profit for facts in self.facts)

    def _sum(self, amounts: Iterable[Decimal | None]) -> Decimal | None:
        """The sum of an amount of each account, in its currency; None if one is unknown."""
        total = ZERO
        for own, facts in zip(amounts, self.facts, strict=True):
            amount = None if own is None else self.converted_or_unknown(own, facts.account)
            if amount is None:
                return None
            total += amount
        return total

    def available(self) -> ScopeView:
        """The scope without accounts of unknown equity; itself if every equity is known."""
        if self.unknown is None:
            return self
        return self.with_accounts([each.account for each in self.facts if self._unusable(each) is None])

    def available_accounts(self) -> Mapping[str, AccountSnapshot]:
        """The accounts of the snapshot whose equity is known, by name, in the scope and around it."""
        around = self._around.available(self.stale_after)
        own = [
            each for each in self.facts
            if around.get(each.name) is not each.account and each.equity_unknown(self.as_of, self.stale_after) is None
        ]  # fmt: skip
        return {**around, **{each.name: each.account for each in own}} if own else around

    def rates_of(self, last: Mapping[str, AccountSnapshot]) -> dict[str, Decimal]:
        """Account → rate, for convertible currencies. `last`: last snapshots of accounts that the view may lack."""
        accounts = {**last, **{account.account: account for account in self.accounts}}
        rates = {name: self.conversion(account.currency).rate for name, account in accounts.items()}
        return {name: rate for name, rate in rates.items() if rate is not None}

    def positions(self) -> list[tuple[AccountSnapshot, Position]]:
        """The open positions with their accounts; rows of zero contracts are skipped.

        Rows of one account, symbol and side (several strategies) are one position, as for the venue.
        """
        return [(facts.sound, position) for facts in self.facts for position in facts.held.merged]

    def priced(self, symbol: str) -> Sequence[tuple[AccountFacts, tuple[PriceRow, ...] | None]]:
        """Each account that prices the symbol, with its rows; None for one that cannot be read and may do so."""
        found = self._priced.get(symbol)
        if found is None:
            rows = [
                (each, each.priced(symbol) if each.is_priced(self.as_of, self.stale_after) else None)
                for each in self.facts
            ]
            found = self._priced[symbol] = [each for each in rows if each[1] != ()]
        return found

    @computed_once
    def _priced(self) -> dict[str, Sequence[tuple[AccountFacts, tuple[PriceRow, ...] | None]]]:
        return {}

    def instrument(self, account: str, symbol: str) -> Instrument | None:
        """The symbol's last reported rules, or None."""
        return self.instruments.get((account, symbol))

    def pnl(self) -> dict[PnlKey, Decimal] | None:
        """The unrealised P&L of every position; None if the P&L of a position, the positions or a rate are unknown.

        It is shared: it must not be changed.
        """
        if self.positions_unknown is None and len(self.facts) == 1 and self.accounts[0].currency == self.currency:
            return self.facts[0].held.pnl
        return self._added_pnl

    @computed_once
    def _added_pnl(self) -> dict[PnlKey, Decimal] | None:
        if self.positions_unknown is not None:
            return None
        found: dict[PnlKey, Decimal] = {}
        for facts in self.facts:
            own, rate = facts.held.pnl, self.conversion(facts.account.currency).rate
            if own is None or rate is None:
                return None
            if facts.account.currency != self.currency:
                own = {key: value * rate for key, value in own.items()}
            found |= own
        return found

    def profits(self) -> dict[str, Decimal | None]:
        """Account → the total unrealised profit of its positions, in its own currency; None if one is unknown."""
        return {facts.name: facts.unrealised for facts in self.facts}

    def notionals(self) -> list[tuple[AccountSnapshot, Position, Decimal]] | None:
        """Every position with its absolute notional; None if a notional, the positions or a rate are unknown."""
        if self.positions_unknown is not None:
            return None
        rows = []
        for facts in self.facts:
            for position, own in zip(facts.held.merged, facts.held.notionals, strict=True):
                value = None if own is None else self.converted_or_unknown(own, facts.account)
                if value is None:
                    return None
                rows.append((facts.sound, position, value))
        return rows

    @computed_once
    def unowned(self) -> tuple[Floats, Floats]:
        """Least and greatest fraction of each position, in the order of `columns`, that no strategy owns."""
        import numpy as np

        found = [
            tuple(float(each / position.contracts) for each in self.owned(facts.name).unowned(position))
            for facts in self.facts
            for position in facts.held.merged
        ]
        if self.part is not None and self.part.kind == "strategy":
            found = [(0.0, 0.0) for _ in found]
        bounds = np.array(found, dtype=np.float64).reshape(-1, 2)
        return bounds[:, 0], bounds[:, 1]

    @computed_once
    def columns(self) -> PositionColumns | None:
        """The open positions as columns; None if they or equity are unknown, see `positions_unknown` and `unknown`."""
        if self.unknown is not None or self.positions_unknown is not None:
            return None
        return PositionColumns([(each.held, self.conversion(each.account.currency).rate) for each in self.facts])
