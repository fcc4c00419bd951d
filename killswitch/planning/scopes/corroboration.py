"""Holding a mark against the index and the last price of its own moment before acting on it.

A mark that lies further than `MARK_TOLERANCE` from the index (from the last price, where no index is given) is a
print that does not hold. It is named, and the account is supposed as it would be at that other price; a stage
that would not fire then is not corroborated. Nothing is averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Instrument, Position
from killswitch.model.venue import Prices
from killswitch.signals.position import ZERO, move_value, settlement, sign
from killswitch.signals.view import ScopeView

MARK_TOLERANCE = Decimal("0.05")
"""Marks of liquid contracts stay within 1–2% of the index even in a crash; a stray print is off by tens."""


PricesOf = Mapping[str, Mapping[str, Prices]]
"""Account → symbol → what a second look has found."""


class Corroborated(Struct, frozen=True):
    """The scope with failing prints replaced, and their names. `view` is None where that cannot be computed."""

    view: ScopeView | None
    failing: tuple[str, ...]


def corroborate(view: ScopeView) -> Corroborated:
    """Hold every mark of the scope against its index, or its last price, where they are given."""
    failing: list[str] = []
    accounts = [_replaced(account, view, failing) for account in view.sound]
    if not failing:
        return Corroborated(view, ())
    known = [account for account in accounts if account is not None]
    return Corroborated(view.of(known) if len(known) == len(accounts) else None, tuple(failing))


def repriced(view: ScopeView, prices: PricesOf) -> ScopeView | None:
    """The scope at the prices of a second look; None where an account's worth at them cannot be computed.

    A price of the first reading is older than the mark of the second, and so is nothing to hold it against. Accounts
    that the second look did not reach stay as they were.
    """
    accounts = []
    for account in view.sound:
        found = prices.get(account.account)
        looked = account if found is None or account.positions is None else _at(account, view, found)
        if looked is None:
            return None
        accounts.append(looked)
    return view.of(accounts)


def _at(account: AccountSnapshot, view: ScopeView, prices: Mapping[str, Prices]) -> AccountSnapshot | None:
    looked = [prices.get(position.symbol) for position in account.positions or ()]
    found = _at_marks(account, view, [None if each is None else each.mark for each in looked])
    if found is None:
        return None
    positions = (
        replace(
            position, index_price=None if each is None else each.index, last_price=None if each is None else each.last
        )
        for position, each in zip(found.positions or (), looked, strict=True)
    )
    return replace(found, positions=tuple(positions))


def _replaced(account: AccountSnapshot, view: ScopeView, failing: list[str]) -> AccountSnapshot | None:
    """The account at prices that hold; None where a failing print's worth cannot be computed."""
    references = [_reference(position) for position in account.positions or ()]
    failing += [
        f"{position.symbol} mark {position.mark_price} against index {position.index_price}"
        f" and last {position.last_price}"
        for position, reference in zip(account.positions or (), references, strict=True)
        if reference is not None
    ]
    found = _at_marks(account, view, references)
    return None if found is None else replace(found, unrealized=account.unrealized)


def _at_marks(account: AccountSnapshot, view: ScopeView, marks: Sequence[Decimal | None]) -> AccountSnapshot | None:
    """The account with each position at its mark, None where it keeps its own; None where that cannot be valued."""
    equity, unrealized, positions = account.equity, account.unrealized, []
    for position, mark in zip(account.positions or (), marks, strict=True):
        if mark is None or position.mark_price is None or mark == position.mark_price:
            positions.append(position)
            continue
        moved = _moved(position, account, view.instrument(account.account, position.symbol), mark)
        if moved is None or equity is None:
            return None
        equity += moved[1]
        unrealized = None if unrealized is None else unrealized + moved[1]
        positions.append(moved[0])
    kept = None if account.positions is None else tuple(positions)
    return replace(account, equity=equity, unrealized=unrealized, positions=kept)


def _reference(position: Position) -> Decimal | None:
    """The price that the mark fails against; None where it holds, or there is nothing to hold it against."""
    other = position.index_price if position.index_price is not None else position.last_price
    if position.mark_price is None or other is None or other <= ZERO or not position.contracts:
        return None
    return None if abs(position.mark_price - other) <= MARK_TOLERANCE * other else other


def _moved(
    position: Position, account: AccountSnapshot, instrument: Instrument | None, mark: Decimal
) -> tuple[Position, Decimal] | None:
    """A position at another mark, and what the move makes in the account's currency; None where it cannot be valued.

    By the contract's rules, else in proportion to the notional given. The rules say what it makes in the currency that
    it settles in: of another than the account's only the notional, which is in the account's, tells what that is worth.
    """
    gain = move_value(position, account, instrument, (position.mark_price, mark))
    own = settlement(position.symbol) in ("", account.currency)
    after: Decimal | None = None
    if gain is None or not own:
        if position.notional is None or not position.mark_price:
            return None
        held, ratio = abs(position.notional), mark / position.mark_price
        gain = held * (ratio - 1) * sign(position)
        if not own:
            # the face of an inverse contract is money already, and what it settles in is worth more as its mark rises
            after = None if instrument is None else held if instrument.inverse else held * ratio
    pnl = None if position.unrealized_pnl is None else position.unrealized_pnl + gain
    return replace(position, mark_price=mark, notional=after, unrealized_pnl=pnl), gain
