"""The true snapshot of an exchange's account, and the ways in which one arrives wrong."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Instrument, Position
from tests.faults.exchange import ZERO, Exchange

Wrong = Literal["empty", "page", "stale", "lagging", "malformed", "sign", "nan"]
WRONG: Final[tuple[Wrong, ...]] = ("empty", "page", "stale", "lagging", "malformed", "sign", "nan")
LIES: Final = frozenset({"empty", "page"})
"""Wrong answers that call themselves good, and that only repetition could make believable."""


def statement(exchange: Exchange) -> AccountSnapshot:
    """The account as it is."""
    held = [(key, amount) for key, amount in exchange.held.items() if amount > ZERO]
    value = {key: amount * exchange.markets[key[0]].price for key, amount in held}
    margined = exchange.mode != "spot"
    return AccountSnapshot(
        account=exchange.account,
        venue="exchange",
        market="swap" if margined else "spot",
        currency="USDT",
        quality="ok",
        observed_at=exchange.now()[1],
        equity=Decimal(100_000),
        margin_used=sum(value.values(), ZERO) / 5 if margined else None,
        position_mode={"one_way": "one_way", "hedge": "hedge"}.get(exchange.mode),
        positions=tuple(
            Position(
                symbol=key[0], side=key[1], contracts=amount, mark_price=exchange.markets[key[0]].price,
                notional=value[key], bid=exchange.markets[key[0]].taken_at("sell"),
                ask=exchange.markets[key[0]].taken_at("buy"),
            )
            for key, amount in held
        ),
        orders=exchange.resting(),
        fills=tuple(exchange.fills[-50:]),
        instruments=tuple(
            Instrument(
                market.symbol, contract_size=Decimal(1), amount_step=market.step, min_amount=market.minimum,
                max_amount=market.maximum, price_step=Decimal("0.01"), price_band=market.band, state=market.state,
            )
            for market in exchange.markets.values()
        ),
    )  # fmt: skip


def gone_wrong(true: AccountSnapshot, wrong: Wrong, older: AccountSnapshot) -> AccountSnapshot:
    """`true` as it arrives; `older` is what was true a while before."""
    positions = true.positions or ()
    match wrong:
        case "empty":
            return replace(true, positions=())
        case "page":
            return replace(true, positions=positions[1:])
        case "stale":
            return replace(older, quality="stale", reason="cached")
        case "lagging":
            return older
        case "malformed":
            return replace(true, quality="malformed", reason="not JSON", positions=None)
        case "sign":
            turned = (replace(it, contracts=-it.contracts) for it in positions)
            return replace(true, positions=tuple(turned))
        case "nan":
            odd = (replace(it, contracts=Decimal("NaN")) for it in positions[:1])
            return replace(true, positions=(*odd, *positions[1:]))
