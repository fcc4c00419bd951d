"""How large a number of money, size or price can be, and which numbers are none.

A text of ten characters such as `1e10000000` is a number that takes minutes to write out or to divide by. Adapters
refuse such numbers where they read them; what is merely too large for a sum is unknown to whoever reckons with it.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import asdict, replace

from killswitch.model.snapshot import AccountSnapshot, Fill, Instrument

MOST_POWER = 30
"""A sum is made of numbers below 10**30 and not nearer to zero than 10**-30; the smallest unit of a coin is 10**-18."""
READABLE_POWER = 60
"""What is read at all: rounded floats come nearer to zero than any amount."""
LONGEST = 120
"""Characters of a number that is written out: both sides of the point, its sign and an exponent."""


def sane(value: Decimal) -> bool:
    """Whether sums can be made with a number: finite, and of fewer than thirty digits before and after its point."""
    return value.is_finite() and -MOST_POWER < value.adjusted() < MOST_POWER


def readable(value: Decimal) -> bool:
    """Whether an adapter passes a number on: finite, and short enough to be written out."""
    return value.is_finite() and -READABLE_POWER < value.adjusted() < READABLE_POWER


def readable_number(text: str) -> Decimal | None:
    """The number that `text` writes; None for what is none, is longer than `LONGEST`, or is not readable."""
    if len(text) > LONGEST:
        return None
    try:
        found = Decimal(text)
    except InvalidOperation:
        return None
    return found if readable(found) else None


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
