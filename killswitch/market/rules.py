"""Trading rules of the paper market: costs, margins, steps and sizes of symbols."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from msgspec import Struct

from killswitch.model.snapshot import Instrument


class MarketRules(Struct, frozen=True):
    """Fees, spread, impact and margins of the paper venue, all of them fractions. The defaults are of the size that
    large venues publish."""

    taker_fee: Decimal = Decimal("0.0005")
    """Of the notional, for an order that takes liquidity."""
    maker_fee: Decimal = Decimal("0.0002")
    """Of the notional, for a resting order."""
    half_spread: Decimal = Decimal("0.0001")
    """Bid and ask lie this far from the last price."""
    impact: Decimal = Decimal("0.1")
    """Linear slippage: taking the fraction v of the bar's volume moves the price by impact × v on average."""
    jitter: Decimal = Decimal(0)
    """The slippage of each fill is multiplied by a number drawn from [1 − jitter, 1 + jitter]."""
    participation: Decimal = Decimal("0.1")
    """At most this fraction of a bar's volume is available to all accounts together; the rest of an order works on."""
    maintenance: Decimal = Decimal("0.005")
    """Maintenance margin, of the notional at the mark."""
    liquidation_fee: Decimal = Decimal("0.005")
    """Of the notional, for a liquidation by the venue."""
    liquidation_step: Decimal = Decimal("0.25")
    """The venue liquidates this part of the position with the largest maintenance margin at a time."""
    liquidates: bool = True
    """False lets an account fall below its maintenance margin, and below zero."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__[:-1]:
            value: Decimal = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} {value} is not between 0 and 1")
        if self.liquidation_step == 0:
            raise ValueError("liquidation_step must be above 0: nothing would ever be liquidated")


_MIN_NOTIONAL = Decimal(5)
_MAX_NOTIONAL_EXPONENT = 7


def derived(symbol: str, price: Decimal, price_step: Decimal) -> Instrument:
    """Rules of a typical size, derived from a price of the symbol and its tick.

    The lot is the largest power of ten worth at most one quote unit, the smallest order one lot and five quote units,
    the largest order the largest power of ten worth at most ten million quote units. Raises ValueError unless `price`
    and `price_step` are above zero.
    """
    if price <= 0 or price_step <= 0:
        raise ValueError(f"{symbol}: price {price} and price step {price_step} must be above zero")
    step = _largest_power_of_ten(0, price)
    return Instrument(
        symbol=symbol,
        contract_size=Decimal(1),
        inverse=False,
        amount_step=step,
        price_step=price_step,
        min_amount=step,
        max_amount=_largest_power_of_ten(_MAX_NOTIONAL_EXPONENT, price),
        min_notional=_MIN_NOTIONAL,
        state="open",
    )


def base_asset(symbol: str) -> str:
    """`BTC` of `BTC_USDT`, `BTC/USDT` and `BTC/USDT:USDT`; the whole name where nothing separates."""
    return _assets(symbol)[0]


def quote_asset(symbol: str) -> str | None:
    """`USDT` of `BTC_USDT`, `BTC/USDT` and `BTC/USDT:USDT`; None where nothing separates."""
    return _assets(symbol)[1]


def _assets(symbol: str) -> tuple[str, str | None]:
    for separator in ("/", "_", "-"):
        head, found, tail = symbol.partition(separator)
        if found:
            return head, tail.partition(":")[0].partition(separator)[0]
    return symbol, None


def lots_down(amount: Decimal, step: Decimal) -> Decimal:
    """The largest multiple of `step` that is at most `amount`."""
    return (amount / step).to_integral_value(ROUND_FLOOR) * step


def lots_up(amount: Decimal, step: Decimal) -> Decimal:
    """The smallest multiple of `step` that is at least `amount`."""
    return (amount / step).to_integral_value(ROUND_CEILING) * step


def _largest_power_of_ten(exponent: int, price: Decimal) -> Decimal:
    """The largest 10^n with 10^n × price ≤ 10^exponent, written without an exponent."""
    power = exponent - price.adjusted()
    if Decimal(10) ** power * price > Decimal(10) ** exponent:
        power -= 1
    return Decimal(f"{Decimal(10) ** power:f}")
