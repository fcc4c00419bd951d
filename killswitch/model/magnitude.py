"""Bounds of amounts, sizes and prices.

A text of ten characters such as `1e10000000` is a number that takes minutes to format or to divide by. Adapters reject
such numbers when they parse them; a number that is only too large for a sum counts as unknown in computations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from itertools import chain
from operator import attrgetter
from typing import TypeGuard, TypeVar, cast, get_args

from msgspec import Struct
from msgspec.structs import asdict, fields, replace

from killswitch.model.snapshot import AccountSnapshot, Fill, Instrument, Order, Position, WatchedPrice

MOST_POWER = 30
"""Sums use numbers below 10**30 and not nearer to zero than 10**-30; the smallest unit of a coin is 10**-18."""
READABLE_POWER = 60
"""The bound of readable numbers: rounded floats are nearer to zero than any amount."""
LONGEST = 120
"""The maximum length of a written number: both sides of the decimal point, sign and exponent."""


def sane(value: Decimal) -> bool:
    """Whether a number is usable in sums: finite, with fewer than thirty digits before and after the decimal point."""
    return value.is_finite() and -MOST_POWER < value.adjusted() < MOST_POWER


def are_sane(values: Sequence[Decimal | None]) -> TypeGuard[Sequence[Decimal]]:
    """Whether every value is known and sane: `sane` of a whole column, about ten times as fast."""
    known = cast(Sequence[Decimal], values)
    try:
        powers = [*map(Decimal.adjusted, known)]
    except TypeError:  # one is None
        return False
    if not powers:
        return True
    return max(powers) < MOST_POWER and min(powers) > -MOST_POWER and all(map(Decimal.is_finite, known))


def readable(value: Decimal) -> bool:
    """Whether an adapter accepts a number: finite, and short enough to be formatted."""
    return value.is_finite() and -READABLE_POWER < value.adjusted() < READABLE_POWER


def readable_number(text: str) -> Decimal | None:
    """The number in `text`; None if it is not a number, longer than `LONGEST`, or not readable."""
    if len(text) > LONGEST:
        return None
    try:
        found = Decimal(text)
    except InvalidOperation:
        return None
    return found if readable(found) else None


_Record = TypeVar("_Record", bound=Struct)

LEAST, MOST = Decimal("1e-29"), Decimal("1e30")
"""The range of sane positive numbers: `LEAST` is included, `MOST` is not."""
_POSITIVE = ("contract_size", "amount_step", "price_step", "max_amount")


def _decimals(record: type[Struct], *but: str) -> tuple[str, ...]:
    """The names of the optional numbers of a record."""
    return tuple(
        each.name for each in fields(record) if each.name not in but and Decimal in (each.type, *get_args(each.type))
    )


_of_account = attrgetter(*_decimals(AccountSnapshot))
_of_position = attrgetter(*_decimals(Position, "contracts"))
_of_order = attrgetter(*_decimals(Order))
_of_watched = attrgetter(*_decimals(WatchedPrice))


def sound_account(account: AccountSnapshot) -> AccountSnapshot:
    """The account with every insane optional number unknown, and without orders of insane size; itself if none is.

    Contracts are not checked: an account with insane contracts is not trusted at all.
    """
    sound = account if _are_sane_or_none(_of_account(account)) else _sound(account)
    positions, watched = sound_positions(account.positions), sound_watched(account.watched)
    orders = sound_orders(account.orders)
    if positions is account.positions and orders is account.orders and watched is account.watched:
        return sound
    return replace(sound, positions=positions, orders=orders, watched=watched)


def sound_positions(positions: tuple[Position, ...] | None) -> tuple[Position, ...] | None:
    """The positions with every insane optional number unknown; the same tuple if there is none."""
    if not positions or _are_sane_or_none(chain.from_iterable(map(_of_position, positions))):
        return positions
    return tuple(_sound(position, "contracts") for position in positions)


def sound_orders(orders: tuple[Order, ...] | None) -> tuple[Order, ...] | None:
    """The orders of a sane size with every other insane number unknown; the same tuple if there is none."""
    if not orders or _are_sane_or_none(chain.from_iterable(map(_of_order, orders))):
        return orders
    return tuple(_sound(order, "amount") for order in orders if sane(order.amount))


def sound_watched(watched: tuple[WatchedPrice, ...] | None) -> tuple[WatchedPrice, ...] | None:
    """The watched prices with every insane number unknown; the same tuple if there is none."""
    if not watched or _are_sane_or_none(chain.from_iterable(map(_of_watched, watched))):
        return watched
    return tuple(map(_sound, watched))


def _are_sane_or_none(values: Iterable[Decimal | None]) -> bool:
    return are_sane([value for value in values if value is not None])


def sound_instrument(instrument: Instrument) -> Instrument:
    """The instrument with every insane number, and every size that is not positive, unknown."""
    sound = _sound(instrument)
    bad = {name: None for name in _POSITIVE if (value := getattr(sound, name)) is not None and value <= 0}
    return replace(sound, **bad) if bad else sound


def sound_fill(fill: Fill, rules: Instrument | None) -> Fill | None:
    """The fill with every insane optional number unknown; None if its amount or price is insane.

    Zero is not a valid price of an inverse contract, whose value would be infinite.
    """
    if not (sane(fill.amount) and sane(fill.price)) or fill.amount < 0:
        return None
    if fill.price <= 0 and is_inverse(fill.symbol, rules):
        return None
    return _sound(fill, "amount", "price")


def is_inverse(symbol: str, rules: Instrument | None) -> bool:
    """Whether a contract is settled in its base asset; if its rules are unknown, by its symbol (`BTC/USD:BTC`)."""
    if rules is not None:
        return rules.inverse
    base, _, settlement = symbol.partition("/")
    return bool(settlement) and settlement.partition(":")[2].partition("-")[0] == base


def _sound(record: _Record, *but: str) -> _Record:
    bad = {
        name: None
        for name, value in asdict(record).items()
        if name not in but and isinstance(value, Decimal) and not sane(value)
    }
    return replace(record, **bad) if bad else record
