"""Irregularities of a close as sentences, for the first reader of an incident's report or of a decision's page."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from killswitch.engine.notice_titles import OVER
from killswitch.incident.record.closed_positions import ClosedPosition
from killswitch.incident.record.document import PositionLeft
from killswitch.incident.record.filters import amount, place
from killswitch.incident.record.order_outcomes import OrderOutcome
from killswitch.incident.record.unprotected import Exposure
from killswitch.journal.entries import Place
from killswitch.model.decision import Notice
from killswitch.render.formats import instant, money

_SINCE: Final = re.compile(r"over since \S+: ")
"""What the end of an alert has before the text that it began with."""


class Closed(Protocol):
    """What an incident and the result of a decision have in common."""

    @property
    def orders(self) -> Sequence[OrderOutcome]: ...
    @property
    def positions(self) -> Sequence[ClosedPosition]: ...
    @property
    def exposures(self) -> Sequence[Exposure]: ...
    @property
    def swept(self) -> Sequence[str]: ...


def remarks(
    closed: Closed, holdings: Collection[Place], unsent: Iterable[str], currencies: Mapping[str, str | None]
) -> tuple[str, ...]:
    """Return one sentence for each irregularity; none for a regular close.

    `holdings` are the markets on which holdings are sold that are listed on others. `unsent` are the accounts on which
    nothing was sent, although something was decided for them. `currencies` are those of the accounts, where known.
    """
    found = [
        f"nothing was sent on {account}, although orders or cancels were decided for it: it was not armed, and its "
        "positions are unchanged"
        for account in unsent
    ]
    for order in closed.orders:
        found += _order(order, holdings)
    for position in closed.positions:
        found += _position(position, closed.swept, currencies.get(position.account))
    for exposure in closed.exposures:
        found += _exposure(exposure)
    found += [
        f"the venue was requested to close the whole book of {account} at once: its fills have no orders here"
        for account in closed.swept
    ]
    return tuple(dict.fromkeys(found))


def obstacles(notices: Iterable[Notice], left: Sequence[PositionLeft]) -> tuple[str, ...]:
    """Return why what is left is not closed: the notices about it that no later one has ended, oldest first.

    `notices`: those of the incident, oldest first. They are about a market, the close on an account, or an account that
    cannot be read.
    """
    symbols = {each.symbol for each in left}
    begins = tuple(
        begin
        for account in dict.fromkeys(each.account for each in left)
        for begin in (f"closing on account {account} ", f"closing on account {account}:", f"account {account} cannot ")
    )
    found: dict[str, str] = {}
    for notice in notices:
        if notice.title.startswith(OVER):
            title, ended = notice.title.removeprefix(OVER), _SINCE.sub("", notice.text)
            is_named = ended != notice.text  # else it has a text of its own, of a kind that has one alert at a time
            found = {text: of for text, of in found.items() if of != title or (is_named and text != ended)}
        elif (notice.kind == "blocked" and notice.subject in symbols) or notice.text.startswith(begins):
            found[notice.text] = notice.title
    return tuple(found)


def _order(order: OrderOutcome, holdings: Collection[Place]) -> Iterator[str]:
    position = place(order.account, order.symbol, order.position_side)
    name = f"order {order.number} ({order.side} {_amount(order)} {position}, {order.client_order_id})"
    if order.fate == "abandoned":
        yield f"{name} has an unknown status and is no longer queried: it may have filled, or may still fill"
    elif order.fate == "set aside":
        yield (
            f"{name} has an unknown status and is detached: the venue is still queried, and all but a full close of a "
            "swap or future counts it as filled"
        )
    if order.purpose == "hedge":
        yield f"{name} opened a temporary hedge and closes nothing: close it once the hedged position is closed"
    elif order.purpose == "hop" and order.place in holdings:
        yield f"{name} sold a holding on another market than it is listed on"
    elif order.purpose == "hop":
        yield f"{name} is a hop on the way to the account's currency: it sold what another order had bought"
    bound = order.bound
    if bound is None or not order.filled:
        return
    if bound.beyond_limit:
        limit = f"its own limit of {amount(order.limit)}"
        yield f"{name} was filled at {amount(order.price)}, worse than {limit}: clarify it with the venue"
    if not bound.sent:
        yield f"{name} was sent without a bound{_slipped(order)}"
    elif bound.kept is False:
        yield f"{name} exceeded its bound{_slipped(order)}"


def bound_outcome(order: OrderOutcome) -> str | None:
    """The outcome of the slippage that was declared for the order, in a few words; None where none was."""
    bound = order.bound
    if bound is None:
        return None
    if not order.final:
        kept = "unknown"
    elif not order.filled:
        kept = "nothing filled"
    else:
        kept = {True: "kept", False: "exceeded", None: "unknown"}[bound.kept]
    more = ("", ", beyond its own limit")[bound.beyond_limit]
    return f"{kept}{'' if bound.sent else ', sent without a bound'}{more}"


def _slipped(order: OrderOutcome) -> str:
    if order.bound is None or order.bound.slipped is None:
        return ": its slippage is unknown"
    return f": slippage {order.bound.slipped:.2%} against the declared {order.bound.declared:.2%}"


def _amount(order: OrderOutcome) -> str:
    return "an unknown amount of" if order.amount is None else amount(order.amount)


def _position(position: ClosedPosition, whole_book_accounts: Sequence[str], currency: str | None) -> Iterator[str]:
    name = place(position.account, position.symbol, position.side)
    if position.others is not None and position.others > 0:
        causes = "the whole-book request, a liquidation" if position.account in whole_book_accounts else "a liquidation"
        yield (
            f"{amount(position.others)} of the {amount(position.start)} {name} was closed without an order of ours: by "
            f"{causes}, deleveraging or a person at the venue; its P&L is not included here"
        )
    elif position.others is not None and position.others < 0:
        yield f"{name} has grown by {amount(-position.others)} since the decision: somebody else trades on this account"
    if position.other_decisions:
        yield (
            f"{amount(position.other_decisions)} of the {amount(position.start)} {name} was closed by orders of "
            "other decisions of ours, which include its P&L"
        )
    if position.left and position.dust:
        value = "" if position.worth is None else f", worth {money(position.worth, currency)}"
        yield f"{amount(position.left)} {name} is left as dust, below the venue's minimum{value}"


def _exposure(exposure: Exposure) -> Iterator[str]:
    position = place(exposure.account, exposure.symbol, exposure.position_side)
    name = f"{position} without its protective order {exposure.order}"
    if exposure.seconds is None:
        why = {"refused": f", the venue {exposure.text}", "unknown": ", it is unknown whether the new one rests"}
        yield f"{name} since {instant(exposure.since)}: it was not replaced{why.get(exposure.end, '')}"
    else:
        how = {"put back": "then it was restored", "position closed": "then the position was closed"}
        yield f"{name} for {exposure.seconds:.1f} s; {how.get(exposure.end, 'then none was needed')}"
