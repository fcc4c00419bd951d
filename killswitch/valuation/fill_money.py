"""Notional and fee of a fill, as floats in the account's currency; None means unknown."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from killswitch.model.magnitude import sane
from killswitch.valuation.position_measures import contract_value, is_inverse, price_of

if TYPE_CHECKING:
    from killswitch.model.snapshot import Fill
    from killswitch.valuation.account_facts import AccountFacts


def notional_of(facts: AccountFacts, symbol: str, amount: float, price: float) -> float | None:
    """The notional of so many contracts at a price: amount × size × price, inverse contracts amount × size ÷ price."""
    rules = facts.rules.get((facts.name, symbol))
    value = contract_value(facts.account, symbol, rules)
    if value is None or not price:
        return None
    face = abs(amount) * float(value)
    return face / price if is_inverse(symbol, rules) else face * price


def fee_of(facts: AccountFacts, fill: Fill) -> float | None:
    """The fee; None if it is in a coin without a price. A fill without a fee pays none itself (Alpaca books fees
    apart)."""
    fee, account = fill.fee, facts.account
    if fee is None or not fee:
        return 0.0
    if not sane(fee):
        return None
    base, _, quote = fill.symbol.partition(":")[0].replace("_", "/").partition("/")
    if fill.fee_currency in (None, account.currency):
        price: Decimal | None = Decimal(1)
    elif fill.fee_currency == base and quote == account.currency:
        price = fill.price  # the coin that is traded, at the price of the trade
    else:
        price = price_of(fill.fee_currency or "", account)
    return None if price is None else float(fee * price)
