"""The first check of a question: whether it can be understood, and its orders in contracts.

A price or an amount that is no number, a unit without its currency, a change without its order is refused with what to
write. An amount in money is rounded down to the venue's step, never up; every other amount is judged as it is.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.limits.book import GateBook
from killswitch.limits.question import LONGEST_LIST, OrderAsked, Question
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import Order
from killswitch.planning.rounding import whole_steps

ZERO: Final = Decimal(0)
UNKNOWN_AMOUNT: Final = Decimal("Infinity")
"""The amount of an order in contracts that cannot be computed: it fits no position."""


class Leg(Struct, frozen=True):
    """One order of a question in contracts.

    `problem`: why its amount in contracts is not known, so that it can only be a bounded exit. `changed`: the resting
    order that an amendment or a replacement names.
    """

    asked: OrderAsked
    order: Order
    problem: str | None = None
    changed: Order | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether its amount is rounded down to nothing, which is no order."""
        return not self.order.amount and not self.asked.close_position

    @property
    def claims_exit(self) -> bool:
        """Whether the order says that it only reduces."""
        return self.asked.reduce_only or self.asked.close_position or self.asked.is_exit

    @property
    def is_amendment(self) -> bool:
        """Whether the venue changes a resting order in one step."""
        return self.asked.change == "amend"


def mistake_in(question: Question) -> str | None:
    """What is wrong with the question itself, with the way out; None if it can be judged."""
    if not question.id or not question.account:
        return "a question needs an id and an account"
    if not 1 <= len(question.orders) <= LONGEST_LIST:
        return f"a question has 1 to {LONGEST_LIST} orders, and this one has {len(question.orders)}"
    for number, order in enumerate(question.orders):
        found = _mistake_in_order(order, number)
        if found is not None:
            return found if len(question.orders) == 1 else f"orders[{number}]: {found}"
    return None


def _mistake_in_order(order: OrderAsked, number: int) -> str | None:
    if not order.symbol:
        return "`symbol` is empty"
    if order.amount_is == "remaining":
        return "send the new total: what fills on the way would be added to a remaining amount"
    if (order.change == "new") == (order.order is not None):
        return "`order` names what an amend or a replace changes"
    if order.parent is not None and not 0 <= order.parent < number:
        return "`parent` is the index of an earlier order"
    return _mistake_in_numbers(order)


def _mistake_in_numbers(order: OrderAsked) -> str | None:
    amount = order.amount
    if not sane(amount) or (amount <= ZERO and not order.close_position):
        return f"`amount` must be a usable number above 0, and is {amount}"
    if order.close_position and amount != ZERO:
        return "an order of the whole position has no amount: write 0"
    if any(each is not None and (not sane(each) or each <= ZERO) for each in (order.price, order.trigger_price)):
        return "a price must be a usable number above 0"
    if (order.unit == "money") != (order.currency is not None):
        return "`currency` and the unit `money` belong together"
    return None


def legs_of(question: Question, book: GateBook) -> tuple[Leg, ...]:
    """The orders of a question in contracts."""
    return tuple(_leg(order, book) for order in question.orders)


def _leg(asked: OrderAsked, book: GateBook) -> Leg:
    contracts, problem = _contracts(asked, book)
    changed = None if asked.order is None else book.by_id.get(asked.order)
    order = Order(
        id=asked.order or asked.client_order_id or "",
        symbol=asked.symbol,
        side=asked.side,
        amount=UNKNOWN_AMOUNT if contracts is None else contracts,
        client_order_id=asked.client_order_id,
        position_side=asked.position_side,
        type=asked.type,
        price=asked.price,
        trigger_price=asked.trigger_price,
        reduce_only=asked.reduce_only or asked.close_position,
    )
    if asked.change == "amend" and changed is not None:
        order = replace(order, filled=changed.filled)
    return Leg(asked, order, problem, changed)


def _contracts(asked: OrderAsked, book: GateBook) -> tuple[Decimal | None, str | None]:
    """The amount in contracts; None, and why, if it cannot be computed."""
    if asked.unit == "contracts" or asked.close_position:
        return asked.amount, None
    contract = book.contract(asked.symbol)
    size = None if contract.rules is None else contract.rules.contract_size
    if asked.unit == "base":
        units = contract.base_units
        if not units:
            return None, f"the contract size of {asked.symbol} is unknown: write the amount in contracts"
        return asked.amount / units, None
    currency, each = book.account.state.currency, contract.value_at(None)
    if asked.currency != currency:
        return None, f"the account is in {currency}, and no rate of {asked.currency} is guessed: write it in {currency}"
    if not each or size is None:
        return None, f"a mark of {asked.symbol} is unknown: write the amount in contracts"
    step = None if contract.rules is None else contract.rules.amount_step
    contracts = asked.amount / each
    return (whole_steps(contracts, step) if step else contracts), None
