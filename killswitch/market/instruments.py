"""Trading rules of symbols that a market folder or a generated crash gives prices for, but no rules."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from killswitch.model.snapshot import Instrument

_MIN_NOTIONAL = Decimal(5)
_MAX_NOTIONAL_EXPONENT = 7


def derived(symbol: str, price: Decimal, price_step: Decimal) -> Instrument:
    """Rules of the size that venues have, from a price of the symbol and its tick.

    The lot is the largest power of ten worth at most one quote unit, the smallest order one lot and five
    quote units, the largest order the largest power of ten worth at most ten million quote units.
    ValueError unless `price` and `price_step` are above zero.
    """
    if price <= 0 or price_step <= 0:
        raise ValueError(f"{symbol}: price {price} and price step {price_step} must be above zero")
    step = _power_of_ten_worth_at_most(0, price)
    return Instrument(
        symbol=symbol,
        contract_size=Decimal(1),
        inverse=False,
        amount_step=step,
        price_step=price_step,
        min_amount=step,
        max_amount=_power_of_ten_worth_at_most(_MAX_NOTIONAL_EXPONENT, price),
        min_notional=_MIN_NOTIONAL,
        state="open",
    )


def base_asset(symbol: str) -> str:
    """`BTC` of `BTC_USDT`, `BTC/USDT` and `BTC/USDT:USDT`; the whole name where nothing separates."""
    for separator in ("/", "_", "-"):
        head, found, _ = symbol.partition(separator)
        if found:
            return head
    return symbol


def quote_asset(symbol: str) -> str | None:
    """`USDT` of `BTC_USDT`, `BTC/USDT` and `BTC/USDT:USDT`; None where nothing separates."""
    for separator in ("/", "_", "-"):
        _, found, tail = symbol.partition(separator)
        if found:
            return tail.partition(":")[0].partition(separator)[0]
    return None


def lots_down(amount: Decimal, step: Decimal) -> Decimal:
    """The largest multiple of `step` that is at most `amount`."""
    return (amount / step).to_integral_value(ROUND_FLOOR) * step


def lots_up(amount: Decimal, step: Decimal) -> Decimal:
    """The smallest multiple of `step` that is at least `amount`."""
    return (amount / step).to_integral_value(ROUND_CEILING) * step


def _power_of_ten_worth_at_most(exponent: int, price: Decimal) -> Decimal:
    """The largest 10^n with 10^n × price ≤ 10^exponent, written without an exponent."""
    power = exponent - price.adjusted()
    if Decimal(10) ** power * price > Decimal(10) ** exponent:
        power -= 1
    return Decimal(f"{Decimal(10) ** power:f}")
