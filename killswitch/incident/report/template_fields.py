"""The fields that a template can show: those of the record, and numbers computed from them.

A template cannot calculate, so ratios, differences and durations are fields of their record here. They are no part of
`killswitch.incident/v1`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

from msgspec import Struct, UnsetType

from killswitch.incident.record.closed_positions import ClosedPosition
from killswitch.incident.record.document import EquityCurve, Firing, Incident, IncidentBook, Money, NewestExposure
from killswitch.incident.record.firing import is_part_of_accounts
from killswitch.incident.record.first_minute import net_text
from killswitch.incident.record.order_outcomes import OrderOutcome
from killswitch.incident.record.remarks import bound_outcome
from killswitch.incident.record.verdict import fight, is_settled, shown, verdict
from killswitch.incident.report.charts import closing_chart, positions_chart, sides_chart, slippage_chart
from killswitch.incident.report.texts import stakeholder_text, venue_text
from killswitch.model.decision import BookChange
from killswitch.planning.exposures import has_realised_pnl
from killswitch.risk.trading_cost import slippage

UNIT = 100
"""The value of a unit at the first firing."""


def cost_share(incident: Incident) -> Decimal | None:
    """The cost of the close as a fraction of the equity at the first firing."""
    firing, money = incident.firings[0], incident.money
    return _share(money.cost, firing.equity) if money.currency == firing.currency else None


def net(money: Money) -> Decimal | None:
    """Realised P&L after fees."""
    return _difference(money.realised, money.fees)


def leverage(firing: Firing) -> Decimal | None:
    """Gross notional before the decision as a multiple of the equity."""
    return None if firing.book is None else _share(firing.book.before.gross, firing.equity)


def net_before(firing: Firing) -> str:
    """The net exposure before the decision, with its side in words."""
    return net_text(None if firing.book is None else firing.book.before.net, firing.currency)


def net_after(firing: Firing) -> str:
    """The net exposure once every order of the decision is filled; of what was recorded only, the one before it."""
    if firing.book is None:
        return net_text(None, firing.currency)
    return net_text((firing.book.after if firing.acted else firing.book.before).net, firing.currency)


def net_now(newest: NewestExposure) -> str:
    """The net exposure now, with its side in words."""
    return net_text(newest.net, newest.currency)


def cut(book: BookChange) -> Decimal | None:
    """The gross notional that the decision closes if every order fills at the mark."""
    return _difference(book.before.gross, book.after.gross)


def cut_share(book: BookChange) -> Decimal | None:
    """The same as a fraction of the gross notional before it."""
    return _share(cut(book), book.before.gross)


def step(order: OrderOutcome) -> int | None:
    """The step of the ladder, from 1."""
    return None if order.rung is None else order.rung + 1


def unfilled(order: OrderOutcome) -> Decimal | None:
    """The contracts of the order that were not filled."""
    return _difference(order.amount, order.filled)


def filled_share(order: OrderOutcome) -> Decimal | None:
    """The filled contracts as a fraction of the order."""
    return _share(order.filled, order.amount)


def slipped(order: OrderOutcome) -> Decimal | None:
    """The slippage as a fraction of the mark when the order was sent; below zero for a better price."""
    if order.side is None or order.price is None or not order.arrival_mark:
        return None
    return slippage(order.side, order.arrival_mark, order.price)


def answered_after(order: OrderOutcome) -> float | None:
    """Seconds from sending the order to the venue's answer."""
    return None if order.answered_at is None else (order.answered_at - order.sent_at).total_seconds()


def closed(position: ClosedPosition) -> Decimal | None:
    """The contracts by which the position is smaller than at the decision, whoever closed them."""
    return _difference(position.start, position.left)


def closed_share(position: ClosedPosition) -> Decimal | None:
    """The same as a fraction of the position at the decision."""
    return _share(closed(position), position.start)


def has_realised(book: IncidentBook) -> bool:
    """Whether a part of the book states realised P&L, or why it is unknown; an older version kept strategies' only."""
    return any(has_realised_pnl(each) for each in book.book.parts)


def has_unknown(book: IncidentBook) -> bool:
    """Whether an amount of a part of the book is unknown, so that the table says why."""
    return any(each.unknown is not None or each.realised_unknown is not None for each in book.book.parts)


def is_part(incident: Incident) -> bool:
    """Whether the scope owns a part of its accounts, a strategy's or a symbol's, without an equity of its own."""
    return is_part_of_accounts(incident.scope)


def fall(course: EquityCurve) -> float | None:
    """The fall from the highest value in the hour before the firing to the lowest since, as a fraction."""
    return None if course.peak <= 0 else 1 - course.lowest / course.peak


def change(course: EquityCurve) -> float:
    """The last value against that at the first firing, as a fraction; below zero for a loss."""
    return course.last / UNIT - 1


def _difference(whole: Decimal | None, part: Decimal | None) -> Decimal | None:
    return None if whole is None or part is None else whole - part


def _share(part: Decimal | None, whole: Decimal | None) -> Decimal | None:
    """Return a fraction; None where one number is unknown, or there is no whole."""
    return None if part is None or whole is None or whole <= 0 else part / whole


_ALL: tuple[Callable[[Any], object], ...] = (
    *(verdict, shown, is_settled, fight, cost_share, net, leverage, net_before, net_after, net_now, cut, cut_share),
    *(step, unfilled, filled_share, slipped, bound_outcome, answered_after),
    *(closed, closed_share, fall, change, has_realised, has_unknown, is_part),
    *(sides_chart, positions_chart, closing_chart, slippage_chart, venue_text, stakeholder_text),
)


def _by_record() -> Mapping[type[Struct], Mapping[str, Callable[[Any], object]]]:
    found: dict[type[Struct], dict[str, Callable[[Any], object]]] = {}
    for each in _ALL:
        record = next(iter(get_type_hints(each).values()))
        found.setdefault(record, {})[each.__name__] = each
    return found


COMPUTED = _by_record()
"""Record → name → the function that computes the field."""


class Loop(Struct, frozen=True):
    """The variable `loop` inside of a loop."""

    index: int
    """The number of the item, from 1."""
    index0: int
    """The number of the item, from 0."""
    revindex: int
    """The number of the item from the end, from 1."""
    revindex0: int
    """The number of the item from the end, from 0."""
    first: bool
    last: bool
    length: int


@cache
def fields_of(record: type[Struct]) -> Mapping[str, Any]:
    """Return the declared type of each field that a template sees: those that every incident has."""
    hints = get_type_hints(record, include_extras=True)
    own = {name: hints[name] for name in record.__struct_fields__ if UnsetType not in get_args(hints[name])}
    return own | {name: get_type_hints(each)["return"] for name, each in COMPUTED.get(record, {}).items()}


SCALAR: Final = str
"""The type of every value without fields: a text, a number, an instant."""
MIXED: Final = object
"""The type of a choice between a value and a record or list: it can be tested only."""


def type_of(declared: Any) -> Any:
    """Return the type of a declared field: a record, a list, or SCALAR."""
    if get_origin(declared) is Annotated:
        return type_of(get_args(declared)[0])
    if get_origin(declared) in (Union, UnionType):
        real = [option for option in get_args(declared) if option is not NoneType]
        return type_of(real[0]) if len(real) == 1 else SCALAR
    return declared if is_list(declared) or is_record(declared) else SCALAR


def is_record(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, Struct)


def is_list(found: Any) -> bool:
    return get_origin(found) is tuple


def is_scalar(found: Any) -> bool:
    return found is SCALAR or found is Any


def item_of(found: Any) -> Any:
    return type_of(get_args(found)[0]) if is_list(found) else Any


def either(one: Any, other: Any) -> Any:
    return Any if Any in (one, other) else one if one == other else MIXED
