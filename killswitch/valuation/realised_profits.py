"""Realised profits by owner: what the fills of each strategy, and of nobody, have made in each account, less fees.

Of a position that one owner holds alone it is what the venue states. In a position that several share, the venue's
number is that of the net position, so an owner's profit is (price − its own average entry) × contracts × the value of
one, and the opposite for a short part. Funding, interest and other rows are in nobody's profit: a venue books them for
the net position. Amounts are in the account's currency, and count from the first snapshot of the account, whose own
fills precede it. What one fill makes unknown stays unknown, with the reason, until an operator resets the account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.instant import HOUR
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Fill, Instrument
from killswitch.valuation.ownership import NOBODY, AccountProfits, OwnPart, OwnProfit
from killswitch.valuation.position_measures import ZERO, base_of, contract_value, is_inverse, price_of

READ_BACK: Final = 24 * HOUR
"""How far back fills are read after an outage. After a longer one, some may be missing."""


class FilledPart(Struct, frozen=True):
    """The part of one owner in a fill: `contracts` of it (unsigned), and what it held before.

    `is_alone`: whether the fill and the position are all its own. `unclear`: why `before` is not all it held, or None.
    """

    owner: str
    contracts: Decimal
    before: OwnPart
    is_alone: bool
    unclear: str | None = None


class RealisedProfits:
    """The profits of every owner in every account; one for a run."""

    def __init__(self, accounts: Mapping[str, AccountProfits] | None = None) -> None:
        self.accounts = dict(accounts or {})

    def begin(self, account: AccountSnapshot, now: int) -> bool:
        """Whether the fills of this snapshot count: those of the first one precede it."""
        found = self.accounts.get(account.account)
        if found is None:
            self.accounts[account.account] = AccountProfits(now, now)
            return False
        if account.fills is not None:
            if now - found.read_at > READ_BACK:
                found.unknown = f"fills of {account.account} may be missing: they were not read for more than a day"
            if now - found.read_at >= HOUR:  # not at every tick: it is stored
                found.read_at = now
        return True

    def add(
        self,
        account: AccountSnapshot,
        fill: Fill,
        parts: Sequence[FilledPart],
        instruments: Mapping[tuple[str, str], Instrument],
    ) -> None:
        """Add what a fill made for its owners. Its fee is shared in proportion to their contracts."""
        whole = sum((part.contracts for part in parts), ZERO)
        rules = instruments.get((account.account, fill.symbol))
        fee = fee_of(account, fill)
        for part in parts:
            gain = gain_of(account, fill, part, rules)
            if isinstance(gain, str):
                self.lose(account.account, (part.owner,), gain)
            elif isinstance(fee, str):
                self.lose(account.account, (part.owner,), fee)
            else:
                self.book(account.account, part.owner, gain - (fee * part.contracts / whole if whole else fee))

    def book(self, account: str, owner: str, amount: Decimal) -> None:
        """Add an amount to the profit of an owner."""
        owners = self.accounts[account].owners
        before = owners.get(owner, OwnProfit())
        owners[owner] = replace(before, amount=before.amount + amount)

    def lose(self, account: str, owners: Iterable[str], why: str) -> None:
        """Make the profits of these owners unknown; the first reason stays."""
        found = self.accounts[account].owners
        for owner in owners:
            before = found.get(owner, OwnProfit())
            found[owner] = before if before.unknown is not None else replace(before, unknown=why)

    def restart(self, account: str, now: int) -> None:
        """An operator's reset: an account with an unknown profit counts from now, for all owners."""
        found = self.accounts.get(account)
        if found is not None and (found.unknown is not None or any(it.unknown for it in found.owners.values())):
            self.accounts[account] = AccountProfits(now, now)

    def close_all(
        self,
        account: AccountSnapshot,
        symbol: str,
        parts: Mapping[str, OwnPart],
        fees: Decimal | None,
        rules: Instrument | None,
    ) -> None:
        """Book a close of the whole account, which ends every part of a position.

        `parts`: the owners' parts, and nobody's, whose entry is the average price of the close. `fees`: of the close;
        so far they are nobody's, and each owner bears those of its contracts. None: unknown.
        """
        close = parts.get(NOBODY, OwnPart(ZERO))
        owners = {owner: part for owner, part in parts.items() if owner != NOBODY and part.contracts}
        is_whole = close.contracts == -sum((part.contracts for part in owners.values()), ZERO)
        whole = sum((abs(part.contracts) for part in owners.values()), ZERO)
        for owner, part in owners.items():
            price, size = close.entry if is_whole else None, abs(part.contracts)
            gain = None if price is None else gain_by_entry(account, symbol, part, size, price, rules)
            if gain is None or fees is None:
                why = f"what the close of the whole account made of {size} {symbol} is unknown"
                self.lose(account.account, (owner,), f"{why}: its price, a fee or the entry is not known")
            else:
                fee = fees * size / whole
                self.book(account.account, owner, gain - fee)
                self.book(account.account, NOBODY, fee)


def gain_of(account: AccountSnapshot, fill: Fill, part: FilledPart, rules: Instrument | None) -> Decimal | str:
    """What a fill made for an owner before its fee, in the account's currency; a text is why that is unknown."""
    stated = fill.realized_pnl
    if part.is_alone and stated is not None:
        return stated if sane(stated) else f"the realised P&L of fill {fill.id} is not a usable number"
    if part.unclear is not None:
        is_opening = fill.position_side is not None and (fill.side == "buy") == (fill.position_side == "long")
        return ZERO if is_opening else part.unclear
    before, sign = part.before, 1 if fill.side == "buy" else -1
    if before.contracts * sign >= ZERO:
        return ZERO
    closed = min(abs(before.contracts), part.contracts)
    gain = gain_by_entry(account, fill.symbol, before, closed, fill.price, rules)
    if gain is None:
        return (
            f"what fill {fill.id} of {fill.symbol} made is unknown: its entry or the value of a contract is not known"
        )
    return gain


def gain_by_entry(
    account: AccountSnapshot, symbol: str, part: OwnPart, closed: Decimal, price: Decimal, rules: Instrument | None
) -> Decimal | None:
    """(price − entry) × closed contracts × value, negative for a short part; None if one of them is unknown.

    None for inverse contracts too: the average entry of a part is by contracts, theirs would be by coins.
    """
    value = contract_value(account, symbol, rules)
    if part.entry is None or value is None or is_inverse(symbol, rules) or not sane(price):
        return None
    gain = (price - part.entry) * closed * value
    return gain if part.contracts > ZERO else -gain


def fee_of(account: AccountSnapshot, fill: Fill) -> Decimal | str:
    """The fee in the account's currency; a text is why it is unknown. A fee in the coin is at the fill's price."""
    if fill.fee is None or not sane(fill.fee):
        return f"the venue does not state the fee of fill {fill.id} of {fill.symbol}"
    if not fill.fee or fill.fee_currency == account.currency:
        return fill.fee
    pair = fill.symbol.partition(":")[0].replace("_", "/").replace("-", "/")
    if fill.fee_currency == base_of(fill.symbol) and pair.partition("/")[2] == account.currency:
        return fill.fee * fill.price
    price = None if fill.fee_currency is None else price_of(fill.fee_currency, account)
    if price is None:
        return f"the fee of fill {fill.id} is in {fill.fee_currency or 'an unknown currency'}, whose price is unknown"
    return fill.fee * price
