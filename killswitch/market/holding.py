"""The ledger of one position, and the margin of all positions of an account."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

from msgspec import Struct

from killswitch.model.snapshot import Side

MONEY_STEP = Decimal("0.00000001")
"""Precision of money after a division."""
_ENTRY_STEP = Decimal("0.000000000001")
ZERO = Decimal(0)


class PaperHolding(Struct):
    """A position of `quantity` base units, above zero for long, bought (or sold) for `cost`.

    `cost` is Σ quantity × price of what is open, with the sign of `quantity`. The unrealised P&L is therefore
    quantity × mark − cost, without a rounded average price in between.
    """

    symbol: str
    quantity: Decimal
    cost: Decimal
    leverage: Decimal

    @property
    def side(self) -> Side:
        return "long" if self.quantity > 0 else "short"

    @property
    def entry_price(self) -> Decimal:
        """The average price of what is open, rounded to twelve decimals for display."""
        price = (self.cost / self.quantity).quantize(_ENTRY_STEP, ROUND_HALF_EVEN)
        return Decimal(f"{price:f}".rstrip("0").rstrip("."))

    def unrealized(self, mark: Decimal) -> Decimal:
        """Unrealised P&L at `mark`."""
        return self.quantity * mark - self.cost

    def trade(self, quantity: Decimal, price: Decimal) -> Decimal:
        """Add a fill of signed `quantity` at `price`; return the realised P&L of the closed part, before fees.

        The cost of a closed part is its share of the whole, rounded to `MONEY_STEP`; the remainder stays in the cost,
        so that nothing is lost.
        """
        if self.quantity * quantity >= 0:
            self.quantity += quantity
            self.cost += quantity * price
            return ZERO
        closed = -quantity if abs(quantity) <= abs(self.quantity) else self.quantity
        removed = self._cost_of(closed)
        self.quantity -= closed
        self.cost -= removed
        opened = quantity + closed
        self.quantity += opened
        self.cost += opened * price
        return closed * price - removed

    def _cost_of(self, closed: Decimal) -> Decimal:
        if closed == self.quantity:
            return self.cost
        return (self.cost * closed / self.quantity).quantize(MONEY_STEP, ROUND_HALF_EVEN)


class Margin(Struct, frozen=True):
    """Margin figures in the account's currency, at the given marks."""

    equity: Decimal
    unrealized: Decimal
    used: Decimal
    maintenance: Decimal


def margin_of(wallet: Decimal, holdings: Iterable[tuple[PaperHolding, Decimal]], maintenance_rate: Decimal) -> Margin:
    """Margin of an account with `wallet` and `holdings`, each with its mark.

    Initial margin is the notional at the mark ÷ leverage; equity is the wallet and all unrealised P&L.
    """
    unrealized = used = gross = ZERO
    for holding, mark in holdings:
        notional = abs(holding.quantity) * mark
        unrealized += holding.unrealized(mark)
        used += initial_margin(notional, holding.leverage)
        gross += notional
    return Margin(wallet + unrealized, unrealized, used, gross * maintenance_rate)


def initial_margin(notional: Decimal, leverage: Decimal) -> Decimal:
    """notional ÷ leverage, to a hundred-millionth."""
    return (notional / leverage).quantize(MONEY_STEP, ROUND_HALF_EVEN)


def liquidation_price(
    holding: PaperHolding,
    mark: Decimal,
    account: Margin,
    rate: Decimal,
    price_step: Decimal,
    opposite: PaperHolding | None = None,
) -> Decimal | None:
    """The price of this position's symbol at which the account's equity meets its maintenance margin, all other
    marks as they are; None where no price above zero does that.

    With E and M the account's equity and maintenance margin now, and q the signed quantity:
    E + q·(p − mark) = M + |q|·r·(p − mark), so p = mark − (E − M) ÷ (q − |q|·r). This is the cross-margin
    formula of Binance's "How to calculate liquidation price of USDⓈ-M futures contracts" in one-way mode with
    one maintenance tier. For an account that holds one position and no more than its initial margin it becomes
    the isolated formula, entry × (1 − 1/leverage) ÷ (1 − r) for a long and entry × (1 + 1/leverage) ÷ (1 + r)
    for a short. Rounded to the tick towards the mark, so that it never overstates the room.

    In hedge mode the `opposite` position moves with it: q and |q| are then the sums over both, and a side that gains
    on the way to that price has none.
    """
    quantity, gross = holding.quantity, abs(holding.quantity)
    if opposite is not None:
        quantity, gross = quantity + opposite.quantity, gross + abs(opposite.quantity)
    slope = quantity - gross * rate
    if slope == 0:
        return None
    price = mark - (account.equity - account.maintenance) / slope
    if price <= 0 or (opposite is not None and (price - mark) * holding.quantity > 0):
        return None
    rounding = ROUND_CEILING if holding.quantity > 0 else ROUND_FLOOR
    rounded = (price / price_step).to_integral_value(rounding) * price_step
    return rounded if rounded > 0 else None
