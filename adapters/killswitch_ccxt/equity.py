"""The equity of an account, in its own currency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.parsing import UnreadableError, decimal, required_number, required_text, total
from killswitch.model.snapshot import Balance, Position, Rate

GAP_TOLERANCE: Final = Decimal("1e-6")
"""The difference between the equity and the sum of its parts, as a share of the equity, that counts as rounding."""


class AccountEquity(Struct, frozen=True):
    """The equity of an account with its parts, in the account's currency; None is unknown.

    `why` states why an `equity` is unknown, or what is counted in it without a price. `margin_used` is the initial
    margin of positions without that of open orders: it proves that there are positions, and is unknown where the
    venue states only the sum of both. `has_orders_in_maintenance`: the maintenance margin may include that of
    orders, and then proves nothing.

    `cash` is the part that changes only by fills, flows and fees, never by prices: after a change of it the ledger
    and the fills are fetched at once. `margin_mode` is the venue's own. `unrealized` is the unrealised profit in the
    same answer, `rates` the venue's own prices of the account's currency in others, `as_of` the venue time of the
    answer where it has one, and `positions_as_of` that of the positions. `is_complete` is False where the account
    holds products that are not among the positions.

    With `unrealized` and the `wallet` of every balance that has a price: equity = Σ wallet × price + unrealized.
    """

    equity: Decimal | None
    free: Decimal | None = None
    margin_used: Decimal | None = None
    maintenance_margin: Decimal | None = None
    balances: tuple[Balance, ...] | None = None
    cash: Decimal | None = None
    margin_mode: str | None = None
    unrealized: Decimal | None = None
    rates: tuple[Rate, ...] | None = None
    as_of: datetime | None = None
    positions_as_of: datetime | None = None
    is_complete: bool | None = None
    why: str | None = None
    has_orders_in_maintenance: bool = False

    @property
    def gap(self) -> Decimal | None:
        """Equity less the sum of its parts; None where parts are unknown."""
        if self.equity is None or self.unrealized is None or self.balances is None:
            return None
        wallets = Decimal(0)
        for balance in self.balances:
            if balance.price is None:
                continue
            if balance.wallet is None:
                return None
            wallets += balance.wallet * balance.price
        return self.equity - wallets - self.unrealized


def by_asset(rows: object, field: str = "asset") -> dict[str, Mapping[str, Any]]:
    """The rows of an account by asset, which is in `field`.

    UnreadableError where there is no list, for a row without an asset, and for two rows of one asset: neither can be
    trusted.
    """
    if not isinstance(rows, list):
        raise UnreadableError("the answer has no list of the account's assets")
    found: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        asset = required_text(row.get(field) if isinstance(row, Mapping) else None, "the name of an asset")
        if asset in found:
            raise UnreadableError(f"the account's assets have two rows of {asset}")
        found[asset] = row
    return found


def check_settlement_coins(assets: Iterable[str], coins: Iterable[str]) -> None:
    """UnreadableError where `assets` lack one of the `coins` that positions settle in: a missing row is not a zero."""
    missing = sorted(set(coins) - set(assets))
    if missing:
        raise UnreadableError(f"positions settle in {', '.join(missing)}, and the account's assets have no row of it")


def check_margin(account_equity: AccountEquity, positions: Sequence[Position]) -> None:
    """UnreadableError for margin of positions where there are no positions: one of the two answers is wrong.

    The maintenance margin decides only where nothing else does: some venues keep it for debts and orders, too.
    """
    held, kind = account_equity.margin_used, "initial"
    if held is None and not account_equity.has_orders_in_maintenance:
        held, kind = account_equity.maintenance_margin, "maintenance"
    if not positions and held:
        raise UnreadableError(
            f"positions use {kind} margin of {held} in the account's currency, and there are no positions"
        )


def without_contradicted_equity(account_equity: AccountEquity, positions: Sequence[Position]) -> AccountEquity:
    """Without an equity of exactly zero where there are positions: then the answer lacks the coin in which they settle.

    A negative equity is real for a moment, during a liquidation.
    """
    if not positions or account_equity.equity != 0:
        return account_equity
    why = f"equity: it is 0 beside {len(positions)} positions, so the answer lacks their settlement coin"
    return replace(account_equity, equity=None, unrealized=None, why=why)


def without_contradicted_profit(account_equity: AccountEquity, currency: str) -> AccountEquity:
    """Without the unrealised profit where it and the wallets do not sum up to the equity: then it is unknown."""
    gap, equity = account_equity.gap, account_equity.equity
    if gap is None or equity is None or abs(gap) <= GAP_TOLERANCE * max(abs(equity), Decimal(1)):
        return account_equity
    why = f"unrealised profit: with the wallets it differs from the equity by {gap:.8f} {currency}"
    return replace(account_equity, unrealized=None, why=why)


def value_of(balances: Iterable[Balance]) -> Decimal:
    """Σ amount × price of the balances that have a price."""
    return sum((it.amount * it.price for it in balances if it.price is not None), Decimal(0))


def unrealized_of(balances: Iterable[Balance]) -> Decimal | None:
    """The part of `value_of` that is in no wallet; None where a balance that has a price has no wallet."""
    return total(
        None if it.wallet is None else (it.amount - it.wallet) * it.price for it in balances if it.price is not None
    )


def amounts(balance: Mapping[str, Any]) -> dict[str, Decimal]:
    """Asset → amount held, without zeros, of ccxt's unified balance.

    UnreadableError where an amount is missing.
    """
    total = balance.get("total") or {}
    if not all(isinstance(asset, str) for asset in total):
        raise UnreadableError("the venue's answer has a balance without an asset")
    found = {str(asset): required_number(amount, f"the amount held of {asset}") for asset, amount in total.items()}
    return {asset: amount for asset, amount in found.items() if amount}


def in_one_currency(balance: Mapping[str, Any], currency: str) -> AccountEquity:
    """The equity of a derivatives account that is kept in one currency, as ccxt's balance of that currency states it.

    UnreadableError where the balance lacks the currency: an empty account has a row with zero.
    """
    row = balance.get(currency)
    total = decimal(row.get("total")) if isinstance(row, Mapping) else None
    if total is None:
        raise UnreadableError(f"the account has no balance in {currency} at the venue: write a currency that it holds")
    # What ccxt calls `used` includes what orders freeze.
    return AccountEquity(equity=total, free=decimal(row.get("free")))  # type: ignore[union-attr] # it is one


def rates_in_dollars(price: Decimal | None, currency: str) -> tuple[Rate, ...] | None:
    """The price of the account's currency in USD, where it is known and the currency is another one."""
    return None if price is None or currency == "USD" else (Rate("USD", price),)


def optional_from_dollars(value: Any, price: Decimal | None, currency: str) -> Decimal | None:
    """A number of an answer in USD, as `from_dollars` converts it; None where it is missing."""
    found = decimal(value)
    return None if found is None else from_dollars(found, price, currency)


def from_dollars(dollars: Decimal, price: Decimal | None, currency: str) -> Decimal:
    """An amount in USD, converted to the account's currency by `price`, the venue's own price of it in USD."""
    if currency == "USD":
        return dollars
    if price is None or price <= 0:
        raise UnreadableError(f"the venue states the account's equity in USD and has no price of {currency}")
    return dollars / price
