"""Alpaca's assets as instruments: steps, sizes, and whether the market accepts orders now."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal

from msgspec import Struct

from killswitch.model.parsing import Row, UnreadableError, positive, required_text
from killswitch.model.snapshot import Instrument, InstrumentState, Position, Withdrawals
from killswitch_alpaca.hours import Session
from killswitch_alpaca.positions import CRYPTO, OPTION, symbol_of

FRACTION = Decimal("0.000000001")
"""Amount step of fractional shares and of coins: nine decimals."""
PENNY, SUB_PENNY, DOLLAR = Decimal("0.01"), Decimal("0.0001"), Decimal(1)
LARGEST_CRYPTO = Decimal(200_000)
"""Largest value of one order for coins, in US dollars. Amounts leave a margin of a fifth for price moves."""


class Asset(Struct, frozen=True):
    """An asset as Alpaca describes it, under its symbol here."""

    symbol: str
    is_crypto: bool
    is_option: bool
    is_tradable: bool
    is_active: bool | None
    is_fractionable: bool | None
    least: Decimal | None
    step: Decimal | None
    tick: Decimal | None


def read_asset(found: Row) -> Asset:
    """Parse one asset. Raises UnreadableError where it has no field tradable."""
    asset_class = found.get("class", found.get("asset_class"))
    symbol = symbol_of(required_text(found.get("symbol"), "symbol"), asset_class)
    tradable = found.get("tradable")
    if not isinstance(tradable, bool):
        raise UnreadableError(f"asset {symbol} has no field tradable")
    return Asset(
        symbol=symbol,
        is_crypto=asset_class == CRYPTO,
        is_option=asset_class == OPTION,
        is_tradable=tradable,
        is_active={"active": True, "inactive": False}.get(str(found.get("status"))),
        is_fractionable=divisible if isinstance(divisible := found.get("fractionable"), bool) else None,
        least=positive(found.get("min_order_size")),
        step=positive(found.get("min_trade_increment")),
        tick=positive(found.get("price_increment")),
    )


def instrument(
    asset: Asset, position: Position | None, session: Session | None, *, extended: bool, barred: bool
) -> Instrument:
    """The current rules of an asset. `extended`: orders may use the extended session; `barred`: the account may only
    cancel. While the session is unknown, so is the state of an asset that has hours."""
    price = position.mark_price if position is not None else None
    most = None
    if asset.is_crypto:
        lot = asset.step or FRACTION
        step: Decimal | None = lot
        least: Decimal | None = asset.least or lot
        tick = asset.tick
        if price is not None:
            most = (LARGEST_CRYPTO * 4 / 5 / _rounded_up(price) / lot).to_integral_value(ROUND_FLOOR) * lot
    else:
        # A short is held in whole shares, however divisible they are.
        whole = asset.is_option or asset.is_fractionable is False or (position is not None and position.side == "short")
        step = least = Decimal(1) if whole else FRACTION if asset.is_fractionable else None
        tick = PENNY if asset.is_option or price is None or price >= DOLLAR else SUB_PENNY
    return Instrument(
        asset.symbol,
        Decimal(100) if asset.is_option else Decimal(1),
        amount_step=step,
        price_step=tick,
        min_amount=least,
        max_amount=most,
        state=_state(asset, session, extended=extended, barred=barred),
    )


def _state(asset: Asset, session: Session | None, *, extended: bool, barred: bool) -> InstrumentState | None:
    if not asset.is_active:
        return None if asset.is_active is None else "delisted"
    if barred:
        return "cancel_only"
    if not asset.is_tradable:
        return "halted"
    if asset.is_crypto or session == "regular":
        return "open"
    if session is None:
        return None
    return "limit_only" if session == "extended" and extended and not asset.is_option else "halted"


def _rounded_up(price: Decimal) -> Decimal:
    """The price rounded up to one digit, so that what depends on it does not change with every tick."""
    power = Decimal(10) ** price.adjusted()
    return (price / power).to_integral_value(ROUND_FLOOR) * power + power


CLOSED = frozenset({"ACCOUNT_CLOSED", "DISABLED", "INACTIVE", "REJECTED", "SUBMISSION_FAILED"})
"""Statuses of an account that cannot trade. Other statuses than ACTIVE, such as ACCOUNT_UPDATED, are temporary."""


def withdrawals(account: Row, currency: str) -> tuple[Withdrawals, ...] | None:
    """Whether transfers of money are blocked, which the account states; None if it does not."""
    blocked = account.get("transfers_blocked")
    return (Withdrawals(currency, blocked),) if isinstance(blocked, bool) else None


def bar_reason(account: Row) -> str | None:
    """Why the account accepts no orders; None if it does."""
    found = [
        text
        for name, text in (
            ("account_blocked", "the account is blocked at Alpaca"),
            ("trading_blocked", "trading is blocked at Alpaca"),
            ("trade_suspended_by_user", "trading is suspended in the account's configuration (suspend_trade)"),
        )
        if account.get(name) is True
    ]
    status = str(account.get("status"))
    if status in CLOSED:
        found.append(f"the account's status is {status}")
    return "; ".join(found) or None
