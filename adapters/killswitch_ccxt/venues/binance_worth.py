"""What a Binance futures account is worth: wallet and unrealised profit of each asset, at the venue's own index.

Equity is the sum of its parts, at prices that are read beside them. In multi-assets mode the venue tells a total too,
which it reckons at an index of another moment, and for which its documents leave open whether haircuts are in it: a
total that moves by more than the parts would be a loss that nobody had. It is used where an asset has no price. In
single-asset mode its totals are of USDT alone, and of no use where something else is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from killswitch.model.snapshot import Balance, Rate
from killswitch_ccxt.numbers import decimal, needed, told_of
from killswitch_ccxt.venues.binance_rows import told

Row = Mapping[str, Any]


def in_own(dollars: Mapping[str, Decimal], currency: str) -> dict[str, Decimal]:
    """Asset → price in the account's currency, of prices in USD; the currency itself alone where it has none."""
    own = Decimal(1) if currency == "USD" else dollars.get(currency)
    found = {} if own is None else {asset: price / own for asset, price in dollars.items()}
    return found | {currency: Decimal(1)}


def rates(dollars: Mapping[str, Decimal], currency: str) -> tuple[Rate, ...] | None:
    """What the account's currency costs in USD by the venue's index, where that was read."""
    own = dollars.get(currency)
    return None if own is None or currency == "USD" else (Rate("USD", own),)


def balances(rows: Iterable[Row], prices: Mapping[str, Decimal]) -> tuple[Balance, ...]:
    """Every asset with something in it; `prices` in the account's currency.

    UnreadableError where an asset has a wallet, and its worth with what is unrealised is not told.
    """
    found = []
    for row in rows:
        asset = told_of(row.get("asset"), "the name of an asset")
        equity, wallet = decimal(row.get("marginBalance", row.get("balance"))), told(row.get("walletBalance"))
        if equity or wallet:
            equity = needed(equity, f"the margin balance of {asset}")
            found.append(Balance(asset, equity, prices.get(asset), wallet=wallet, equity=equity))
    return tuple(sorted(found, key=lambda it: it.asset))


def unrealized(rows: Iterable[Row], prices: Mapping[str, Decimal]) -> Decimal | None:
    """The unrealised profit of all assets that have a price, in the account's currency; None where one is not told."""
    total = Decimal(0)
    for row in rows:
        asset, profit = str(row.get("asset")), told(row.get("unrealizedProfit"))
        wallet, equity = told(row.get("walletBalance")), told(row.get("marginBalance"))
        if profit is None and wallet is not None and equity is not None:
            profit = equity - wallet
        if asset in prices:
            if profit is None:
                return None
            total += profit * prices[asset]
    return total
