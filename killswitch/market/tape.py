"""Price bars, and the market state of one symbol."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from msgspec import Struct, field

from killswitch.market.holding import ZERO
from killswitch.market.rules import MarketRules, lots_down
from killswitch.model.snapshot import Instrument, InstrumentState, OrderSide

SHUT: frozenset[InstrumentState | None] = frozenset({"halted", "delisted", "cancel_only"})
"""States in which nothing trades and no order is accepted."""


class Tape(Struct):
    """The market of one symbol. Quantities are in base units; the symbol has no price before its first bar."""

    instrument: Instrument
    size: Decimal
    """Base units of one contract."""
    step: Decimal
    """Contracts: the lot."""
    tick: Decimal
    last: Decimal | None = None
    volume: Decimal = ZERO
    traded: dict[OrderSide, Decimal] = field(default_factory=lambda: {"buy": ZERO, "sell": ZERO})

    @property
    def is_shut(self) -> bool:
        return self.instrument.state in SHUT

    @property
    def has_market_orders(self) -> bool:
        return self.instrument.state not in {"limit_only", "post_only"}

    def begin(self, bar: MarketBar | None) -> None:
        """Start a bar, whose volume becomes available; None is a bar without volume."""
        self.volume = ZERO if bar is None else bar.volume
        self.traded["buy"] = self.traded["sell"] = ZERO

    def available(self, participation: Decimal) -> Decimal:
        """Contracts that may still be traded in this bar, in whole lots."""
        room = self.volume * participation - self.traded["buy"] - self.traded["sell"]
        return lots_down(room / self.size, self.step) if room > 0 else ZERO

    def bid(self, rules: MarketRules) -> Decimal | None:
        return None if self.last is None else self.to_tick(self.last * (1 - rules.half_spread), "sell")

    def ask(self, rules: MarketRules) -> Decimal | None:
        return None if self.last is None else self.to_tick(self.last * (1 + rules.half_spread), "buy")

    def slippage(self, side: OrderSide, quantity: Decimal, rules: MarketRules) -> Decimal:
        """Fraction of the last price by which a trade of `quantity` fills worse on average, without the spread.

        The book is assumed to be equally deep at every price (Kyle, "Continuous auctions and insider trading",
        Econometrica 53, 1985: price impact linear in quantity): the n-th unit of the bar costs 2 · impact · n ÷ volume,
        so splitting an order inside a bar makes it no cheaper.
        """
        if self.volume == 0:
            return ZERO
        return rules.impact * (2 * self.traded[side] + quantity) / self.volume

    def within(self, side: OrderSide, limit: Decimal, rules: MarketRules) -> Decimal:
        """Contracts, in whole lots, that the same book has at `limit` and better.

        The n-th unit costs the half spread and 2 · impact · n ÷ volume of the last price.
        """
        if self.last is None:
            return ZERO
        away = (limit - self.last if side == "buy" else self.last - limit) / self.last - rules.half_spread
        if away < 0:
            return ZERO
        if rules.impact == 0:
            return lots_down(self.volume / self.size, self.step)
        room = away * self.volume / (2 * rules.impact) - self.traded[side]
        return lots_down(room / self.size, self.step) if room > 0 else ZERO

    def to_tick(self, price: Decimal, side: OrderSide) -> Decimal:
        """`price` rounded to the tick against the trader on `side`, at least one tick."""
        rounding = ROUND_CEILING if side == "buy" else ROUND_FLOOR
        return max(self.tick, (price / self.tick).to_integral_value(rounding) * self.tick)


def tape_of(instrument: Instrument) -> Tape:
    """The tape of an instrument. Raises ValueError for one that the paper market cannot trade: inverse, or without
    its steps."""
    if instrument.inverse:
        raise ValueError(f"{instrument.symbol}: the paper market has no inverse contracts")
    for name in ("contract_size", "amount_step", "price_step"):
        value = getattr(instrument, name)
        if value is None or value <= 0:
            raise ValueError(f"{instrument.symbol}: {name} must be given, above zero")
    assert instrument.contract_size and instrument.amount_step and instrument.price_step  # for the type checker
    return Tape(instrument, instrument.contract_size, instrument.amount_step, instrument.price_step)


class MarketBar(Struct, frozen=True, gc=False):
    """Prices in quote per base, volume in base units (contracts × contract size) traded in the bar.

    `carried` marks an interval without trades: the venue has no bar for it, and the last price is repeated.
    """

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    carried: bool = False


def carried_bar(price: Decimal) -> MarketBar:
    """The bar of an interval without a trade after a last price of `price`."""
    return MarketBar(price, price, price, price, Decimal(0), carried=True)


def path(bar: MarketBar) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """The four prices that a bar is assumed to have passed, in order.

    A bar has its extremes but not their order. As back-testers do, a bar that closes at or above its open is assumed to
    have gone down first (open, low, high, close), and one that falls to have gone up first (open, high, low, close).
    """
    if bar.close >= bar.open:
        return bar.open, bar.low, bar.high, bar.close
    return bar.open, bar.high, bar.low, bar.close
