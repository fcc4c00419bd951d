"""Corroboration: compares each mark with the index price, or the last price, of the same snapshot.

So is the price of collateral, with the index or last price that was fetched. A price that deviates by more than
`PRICE_TOLERANCE` from the index price (from the last price without an index) fails. It is reported, and the account is
valued at the other price instead; a stage that would not fire at that value is not corroborated. Nothing is averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Instrument, Position
from killswitch.model.venue import Prices
from killswitch.planning.scopes.collateral import (
    at_prices,
    collateral,
    fetched_marks,
    fetched_references,
    with_holding_prices,
)
from killswitch.valuation.market_prices import PRICE_TOLERANCE
from killswitch.valuation.position_measures import ZERO, move_value, settlement, sign
from killswitch.valuation.scope_view import ScopeView

PricesOf = Mapping[str, Mapping[str, Prices]]
"""Account → symbol → freshly fetched prices."""


class Corroborated(Struct, frozen=True):
    """The scope with failing marks replaced, and their texts. `view` is None if it cannot be computed."""

    view: ScopeView | None
    failing: tuple[str, ...]


def corroborate(view: ScopeView, prices: PricesOf = MappingProxyType({})) -> Corroborated:
    """Compare every mark of the scope with its index or last price, if given, and every price of collateral with
    those of `prices`."""
    failing: list[str] = []
    accounts = [_at_references(account, view, failing, prices.get(account.account, {})) for account in view.sound]
    if not failing:
        return Corroborated(view, ())
    known = [account for account in accounts if account is not None]
    return Corroborated(view.with_accounts(known) if len(known) == len(accounts) else None, tuple(failing))


def repriced(view: ScopeView, prices: PricesOf) -> ScopeView | None:
    """The scope at freshly fetched prices; None if an account cannot be valued at them.

    Index and last prices of the snapshot are older than the fetched marks, so they are replaced too. Accounts without
    fetched prices stay unchanged.
    """
    accounts = []
    for account in view.sound:
        found = prices.get(account.account)
        repriced_account = account if found is None or account.positions is None else _at(account, view, found)
        if repriced_account is None:
            return None
        accounts.append(repriced_account)
    return view.with_accounts(accounts)


def _at(account: AccountSnapshot, view: ScopeView, prices: Mapping[str, Prices]) -> AccountSnapshot | None:
    fetched = [prices.get(position.symbol, Prices()) for position in account.positions or ()]
    found = _at_marks(account, view, [each.mark for each in fetched])
    if found is None:
        return None
    pairs = zip(found.positions or (), fetched, strict=True)
    positions = tuple(replace(position, index_price=each.index, last_price=each.last) for position, each in pairs)
    found = with_holding_prices(replace(found, positions=positions), account)
    return at_prices(found, fetched_marks(found, prices))


def _at_references(
    account: AccountSnapshot, view: ScopeView, failing: list[str], prices: Mapping[str, Prices]
) -> AccountSnapshot | None:
    """The account with failing marks replaced; None if it cannot be valued."""
    references = [_reference(position) for position in account.positions or ()]
    failing += [
        f"{position.symbol} mark {position.mark_price} against index {position.index_price}"
        f" and last {position.last_price}"
        for position, reference in zip(account.positions or (), references, strict=True)
        if reference is not None
    ]
    others = {
        it.asset: reference
        for it in collateral(account)
        if (reference := fetched_references(account, prices).get(it.asset)) is not None
        and abs((it.price or ZERO) - reference) > PRICE_TOLERANCE * reference
    }
    failing += [
        f"{it.asset} price {it.price} against {others[it.asset]} {account.currency}"
        for it in account.balances or ()
        if it.asset in others
    ]
    found = _at_marks(account, view, references)
    if found is None:
        return None
    return at_prices(with_holding_prices(replace(found, unrealized=account.unrealized), account), others)


def _at_marks(account: AccountSnapshot, view: ScopeView, marks: Sequence[Decimal | None]) -> AccountSnapshot | None:
    """The account with each position at the given mark (None: unchanged); None if it cannot be valued."""
    equity, unrealized, positions = account.equity, account.unrealized, []
    for position, mark in zip(account.positions or (), marks, strict=True):
        if mark is None or position.mark_price is None or mark == position.mark_price:
            positions.append(position)
            continue
        moved = _moved(position, account, view.instrument(account.account, position.symbol), mark)
        if moved is None or (equity is None and view.has_equity):
            return None
        equity = None if equity is None else equity + moved[1]
        unrealized = None if unrealized is None else unrealized + moved[1]
        positions.append(moved[0])
    kept = None if account.positions is None else tuple(positions)
    return replace(account, equity=equity, unrealized=unrealized, positions=kept)


def _reference(position: Position) -> Decimal | None:
    """The price that contradicts the mark; None if the mark holds, or without a price to compare."""
    other = position.index_price if position.index_price is not None else position.last_price
    if position.mark_price is None or other is None or other <= ZERO or not position.contracts:
        return None
    return None if abs(position.mark_price - other) <= PRICE_TOLERANCE * other else other


def _moved(
    position: Position, account: AccountSnapshot, instrument: Instrument | None, mark: Decimal
) -> tuple[Position, Decimal] | None:
    """A position at another mark, and its gain in the account's currency; None if it cannot be valued.

    It uses the contract's rules, else the given notional. The rules give the gain in the settlement currency; if that
    is not the account's currency, only the notional, which is in the account's currency, gives its value.
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
            # the face of an inverse contract is money, and its settlement currency gains value as the mark rises
            after = None if instrument is None else held if instrument.inverse else held * ratio
    pnl = None if position.unrealized_pnl is None else position.unrealized_pnl + gain
    return replace(position, mark_price=mark, notional=after, unrealized_pnl=pnl), gain
