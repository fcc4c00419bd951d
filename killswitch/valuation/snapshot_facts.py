"""Facts of all accounts of one snapshot, shared by the views of all policies and scopes.

What concerns more than one account is here: the rates between currencies, which the venues' accounts agree on, and the
accounts whose equity is known. Both are computed once for each maximum age that policies declare; a scope that computed
them itself would read all accounts of the snapshot, and a tick would take the square of their number.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, TypeVar

from msgspec import Struct

from killswitch.model.flags import NO_FLAGS, Flags
from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.model.words import ReferenceCurrency
from killswitch.valuation.account_facts import AccountFacts
from killswitch.valuation.currency_conversion import Conversion, conversion, prices_by_venue
from killswitch.valuation.ownership import AccountOwnership, strategy_part, symbol_part
from killswitch.valuation.position_measures import Instruments
from killswitch.valuation.trust import reason_stale

T = TypeVar("T")

NO_OWNERSHIP = AccountOwnership()


class BookPart(Struct, frozen=True):
    """A part of the books of accounts: the positions, orders and fills of a strategy, or in a symbol."""

    kind: Literal["strategy", "symbol"]
    name: str


class SnapshotFacts:
    """Facts of the accounts of one snapshot at `as_of` (microseconds)."""

    def __init__(
        self,
        as_of: int,
        accounts: Sequence[AccountSnapshot],
        rules: Instruments,
        before: Mapping[str, AccountFacts] | None = None,
        *,
        tick: Snapshot | None = None,
        flags: Flags = NO_FLAGS,
    ) -> None:
        """`before`: facts of the accounts in the last snapshot, by name.

        `tick`: the snapshot, for what it contains besides accounts; None if that is unknown. `flags`: those in force.
        """
        self.as_of = as_of
        self.accounts = accounts
        self.tick = tick
        self.flags = flags
        self.rules = rules
        """The rules of all instruments, which later snapshots extend."""
        earlier = before or {}
        self.by_name = {each.account: _facts_of(each, rules, earlier.get(each.account)) for each in accounts}
        """The facts of each account; of the last one if a name is there twice."""
        self._available: dict[int | None, Mapping[str, AccountSnapshot]] = {}
        self._conversions: dict[tuple[str, ReferenceCurrency, int | None], Conversion] = {}
        self.ownership: Mapping[str, AccountOwnership] = {}
        """Account → the owners of its positions and orders; empty if no strategy is declared."""
        self._prices: dict[tuple[str, str, int | None], Mapping[str, Decimal]] = {}
        self._computed: dict[Hashable, Any] = {}

    def next(self, as_of: int, tick: Snapshot, flags: Flags = NO_FLAGS) -> SnapshotFacts:
        """Facts of the next snapshot, whose new rules are in `rules` already. What did not change is shared."""
        return SnapshotFacts(as_of, tick.accounts, self.rules, self.by_name, tick=tick, flags=flags)

    def of(self, account: AccountSnapshot) -> AccountFacts:
        """Facts of an account of the snapshot, or of one that is valued differently."""
        found = self.by_name.get(account.account)
        return found if found is not None and found.account is account else AccountFacts(account, self.rules)

    def once(self, inputs: Hashable, compute: Callable[[], T]) -> T:
        """`compute`, which must depend on nothing but `inputs`: once for all scopes that have the same ones."""
        if inputs not in self._computed:
            self._computed[inputs] = compute()
        found: T = self._computed[inputs]
        return found

    def owned(self, account: str) -> AccountOwnership:
        """The owners in an account: nobody, if no strategy is declared."""
        return self.ownership.get(account, NO_OWNERSHIP)

    def part_of(self, account: AccountSnapshot, part: BookPart) -> tuple[AccountSnapshot, str | None]:
        """The account with only a part of its book, and why that part is unknown, or None."""
        whole = self.of(account)
        if part.kind == "symbol":
            return symbol_part(account, part.name), whole.positions_unusable
        owned = self.owned(account.account)
        reason = whole.positions_unusable or owned.reason_unknown(part.name)
        return strategy_part(account, owned, part.name), reason

    def available(self, stale_after: int | None) -> Mapping[str, AccountSnapshot]:
        """The accounts whose equity is known, by name."""
        found = self._available.get(stale_after)
        if found is None:
            known = (
                each for each in map(self.of, self.accounts) if each.equity_unknown(self.as_of, stale_after) is None
            )
            found = self._available[stale_after] = {each.name: each.account for each in known}
        return found

    def conversion(self, currency: str, reference: ReferenceCurrency, stale_after: int | None) -> Conversion:
        """The rate of a currency to the reference currency; only accounts that are fresh enough count."""
        key = (currency, reference, stale_after)
        found = self._conversions.get(key)
        if found is None:
            found = self._conversions[key] = self._by_venues(currency, reference, stale_after)
        return found

    def prices(self, currency: str, other: str, stale_after: int | None) -> Mapping[str, Decimal]:
        """Venue → the price of one unit of `currency` in `other`, by accounts that are fresh enough."""
        key = (currency, other, stale_after)
        found = self._prices.get(key)
        if found is None:
            fresh = (each for each in self.accounts if reason_stale(each, self.as_of, stale_after) is None)
            found = self._prices[key] = prices_by_venue(currency, other, fresh)
        return found

    def _by_venues(self, currency: str, reference: ReferenceCurrency, stale_after: int | None) -> Conversion:
        reasons = {each.account: reason_stale(each, self.as_of, stale_after) for each in self.accounts}
        found = conversion(currency, reference, [each for each in self.accounts if reasons[each.account] is None])
        if found.rate is not None or not any(reasons.values()):
            return found
        unused = [each for each in self.accounts if prices_by_venue(currency, reference.currency, (each,))]
        texts = [reason for each in unused if (reason := reasons[each.account]) is not None]
        return Conversion(None, "; ".join((found.unknown or "", *texts)))


def _facts_of(account: AccountSnapshot, rules: Instruments, before: AccountFacts | None) -> AccountFacts:
    """Facts of the account: those of `before` for the same snapshot; new rules change what is known of positions."""
    if before is None or account.instruments:
        return AccountFacts(account, rules)
    return before if before.account is account else AccountFacts(account, rules, before)
