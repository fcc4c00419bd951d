"""Numbers that cannot be numbers are unknown: NaN, infinities, and magnitudes that no money has."""

from __future__ import annotations

from decimal import Decimal
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import asdict, replace

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Fill, Instrument

_Record = TypeVar("_Record", bound=Struct)

LEAST, MOST = Decimal("1e-29"), Decimal("1e30")
"""A positive number is sane from the one on and below the other."""
_POSITIVE = ("contract_size", "amount_step", "price_step", "max_amount")


def sound_account(account: AccountSnapshot) -> AccountSnapshot:
    """The account with every insane optional number unknown. An order of insane size is left out.

    Contracts are not looked at: an account that gives insane ones is not trusted at all.
    """
    positions, orders = account.positions, account.orders
    return replace(
        _sound(account),
        positions=None if positions is None else tuple(_sound(position, "contracts") for position in positions),
        orders=None if orders is None else tuple(_sound(order, "amount") for order in orders if sane(order.amount)),
    )


def sound_instrument(instrument: Instrument) -> Instrument:
    """The rules with every insane number, and every size that is not above zero, unknown."""
    sound = _sound(instrument)
    bad = {name: None for name in _POSITIVE if (value := getattr(sound, name)) is not None and value <= 0}
    return replace(sound, **bad) if bad else sound


def sound_fill(fill: Fill, rules: Instrument | None) -> Fill | None:
    """The fill with every insane optional number unknown; None where its amount or its price is insane.

    Zero is no price of an inverse contract: it would be worth infinitely much.
    """
    if not (sane(fill.amount) and sane(fill.price)) or fill.amount < 0:
        return None
    if fill.price <= 0 and is_inverse(fill.symbol, rules):
        return None
    return _sound(fill, "amount", "price")


def is_inverse(symbol: str, rules: Instrument | None) -> bool:
    """Whether a contract is settled in its base; where its rules are not known, by its name (`BTC/USD:BTC`)."""
    if rules is not None:
        return rules.inverse
    base, _, rest = symbol.partition("/")
    return bool(rest) and rest.partition(":")[2].partition("-")[0] == base


def _sound(record: _Record, *but: str) -> _Record:
    bad = {
        name: None
        for name, value in asdict(record).items()
        if name not in but and isinstance(value, Decimal) and not sane(value)
    }
    return replace(record, **bad) if bad else record
