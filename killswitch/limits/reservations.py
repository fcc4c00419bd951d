"""What the gate has allowed and the account's state does not show yet.

A reservation is made in the same step as its verdict. It ends when a read shows its order, when a bot reports that
nothing was sent or that the venue refused it readably, or when no read shows it that began after the order could have
arrived. It never ends by time alone, and an order that is missing from one read proves nothing: requests are late.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.limits.question import GateVerdict, OrderAsked, OutcomeReport
from killswitch.limits.view import GateAccount, ReadTimes, SeenFill
from killswitch.model.snapshot import Order

MINUTE: Final = timedelta(seconds=60)


class ApprovedOrder(Struct, frozen=True):
    """An order that was allowed and is not known to have arrived, or to have come to nothing.

    `order`: as it was judged, with its amount in contracts; of an amendment only what it adds. `gone_by`: the time from
    which no request for it can arrive. `amends`: the resting order that it changes, whose new total is `total`.
    """

    account: str
    question: str
    leg: int
    order: Order
    is_bounded: bool
    approved_at: datetime
    gone_by: datetime
    margin: Decimal = Decimal(0)
    """The margin that it needs at most, which `free` does not show yet, in the account's currency."""
    amends: str | None = None
    total: Decimal | None = None


class Answered(Struct, frozen=True):
    """A verdict that was given, so that the same question id gets it again while it is valid."""

    account: str
    at: datetime
    until: datetime
    verdict: GateVerdict
    has_entry: bool
    """Whether the question opens anything, so that a lock makes a denial of it."""
    orders: tuple[OrderAsked, ...] = ()
    """What was asked: other orders under the same id are another question."""


class Reservations(Struct, frozen=True):
    """The orders that count although no read shows them, and the verdicts and times of the last minute."""

    approved: tuple[ApprovedOrder, ...] = ()
    answered: tuple[Answered, ...] = ()
    sent_at: tuple[tuple[str, datetime], ...] = ()
    """Account and time of each order that was allowed in the last minute."""

    def answer_to(self, account: str, question: str, now: datetime) -> Answered | None:
        """The verdict on the same question, while it is valid."""
        for each in reversed(self.answered):
            if each.verdict.question == question and each.account == account:
                return each if each.at <= now <= each.until else None
        return None

    def sent_within_minute(self, account: str, now: datetime) -> int:
        """The number of orders that were allowed in the last 60 seconds; those of a later time count, too."""
        return sum(name == account and now - at < MINUTE for name, at in self.sent_at)

    def with_verdict(self, answered: Answered, approved: Iterable[ApprovedOrder], orders: int) -> Reservations:
        """With a verdict, what it reserves, and the number of orders that count for the minute."""
        now, answers = answered.at, self.answered
        if answers and now > answers[0].until:
            answers = tuple(each for each in answers if now <= each.until)
        return Reservations(
            (*self.approved, *approved),
            (*answers, answered),
            self.sent_at
            if not orders
            else (*(each for each in self.sent_at if now - each[1] < MINUTE), *[(answered.account, now)] * orders),
        )

    def reported(self, account: str, report: OutcomeReport) -> Reservations:
        """After a bot's report: what was not sent, or was refused readably, counts no longer.

        `sent` ends nothing: the order counts until a read shows it.
        """
        if report.outcome == "sent":
            return self
        kept = tuple(each for each in self.approved if not _is_of(each, account, report))
        return replace(self, approved=kept)

    def seen(self, account: GateAccount) -> Reservations:
        """After a further view of an account: without the orders that its reads show, or prove to be gone."""
        name, present = account.state.account, _present(account)
        fills = {each.client_order_id: each for each in account.filled}
        kept = tuple(
            each for each in self.approved if each.account != name or not _is_over(each, account.reads, present, fills)
        )
        return self if len(kept) == len(self.approved) else replace(self, approved=kept)


def _is_of(approved: ApprovedOrder, account: str, report: OutcomeReport) -> bool:
    return approved.account == account and approved.question == report.question and report.leg in (None, approved.leg)


def _present(account: GateAccount) -> dict[str, Order]:
    """The resting orders by their ids and their client order ids."""
    found: dict[str, Order] = {}
    for order in account.state.orders or ():
        found[order.id] = order
        if order.client_order_id is not None:
            found[order.client_order_id] = order
    return found


def _is_over(approved: ApprovedOrder, reads: ReadTimes, present: dict[str, Order], fills: dict[str, SeenFill]) -> bool:
    """Whether the reads show the order, or prove that it will never arrive."""
    if reads.orders is not None and reads.orders > approved.approved_at and _is_shown(approved, present):
        return True
    name = approved.order.client_order_id
    fill = None if name is None or approved.amends is not None else fills.get(name)
    if fill is not None and reads.positions is not None and fill.contracts >= approved.order.amount > 0:
        return reads.positions > fill.at
    return reads.all_began_after(approved.gone_by)


def _is_shown(approved: ApprovedOrder, present: dict[str, Order]) -> bool:
    """Whether the order rests; an amendment, whether the order rests with its new total."""
    if approved.amends is not None:
        resting = present.get(approved.amends)
        return resting is not None and resting.amount == approved.total
    name = approved.order.client_order_id
    return name is not None and name in present
