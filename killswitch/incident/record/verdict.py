"""The verdict of an incident: its state, what was lost, with how many orders, and in which time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

from killswitch.incident.record.document import EquityCurve, Firing, Incident
from killswitch.incident.record.firing import is_part_of_accounts
from killswitch.incident.record.totals import add_up
from killswitch.render.formats import count_of, money, rounded_duration

MOST_NAMES = 3
"""Positions that a sentence names."""
SHORT = timedelta(seconds=10)
"""A close below it is stated in tenths of a second."""
UNIT = Decimal(100)
"""The value of a unit at the first firing."""


def verdict(incident: Incident) -> str:
    """Return the answer in one line: `FLAT, -7,105.97 USDT, -7.2%, 13 orders, closed in 15 s`.

    An unknown part has its reason.

    The loss is that from the peak that the triggers measured to the end of the curve; where none measured one, from the
    highest value of the hour before.
    """
    return ", ".join((_state(incident), *_loss(incident), count_of(len(incident.orders), "order"), _time(incident)))


def _state(incident: Incident) -> str:
    standings = [each.standing for each in incident.firings]
    unclear = sum(not order.final for order in incident.orders)
    if "closing" in standings:
        return f"CLOSING, {count_of(len(incident.left), 'position')} not at target yet"
    if incident.left:
        return f"NOT CLOSED: {count_of(len(incident.left), 'position')} left"
    if unclear:
        return f"UNKNOWN: {count_of(unclear, 'order')} of unknown status"
    if not any(each.acted for each in incident.firings):
        return "NOTHING SENT: the account or the policy only observes"
    if "abandoned" in standings:
        return "UNKNOWN: a close was given up"
    return _settled(incident, standings)


def _settled(incident: Incident, standings: list[str]) -> str:
    """Return the state of a close that has ended with nothing left: FLAT only where the whole book was to be closed."""
    hedges = sum(order.purpose == "hedge" and bool(order.filled) for order in incident.orders)
    if hedges:
        return f"AT TARGET, {count_of(hedges, 'temporary hedge')} opened"
    if "partly recorded only" in standings:
        return "AT TARGET on armed accounts, nothing sent on the others"
    if set(standings) <= {"nothing to close", "recorded only"}:
        return (
            f"NOTHING CLOSED: {count_of(len(incident.held), 'position')} held" if incident.held else "NOTHING TO CLOSE"
        )
    last = incident.firings[-1]
    is_whole = "flat" in standings and last.book is not None and last.book.after.gross == 0
    return "FLAT" if is_whole else "AT TARGET"


def shown(incident: Incident) -> str:
    """Return what the venue shows of the positions that were to be reduced, where none is left."""
    settled = incident.settled
    kept = [each for each in settled if each.contracts]
    gone = f"the venue shows {len(settled) - len(kept)} of {count_of(len(settled), 'position')} closed"
    if not kept:
        return gone
    names = [
        f"{each.contracts.normalize():f} {each.symbol} {each.side or ''}".strip() for each in kept if each.contracts
    ]
    what = f"{', '.join(names[:MOST_NAMES])}{f' and {len(names) - MOST_NAMES} more' if names[MOST_NAMES:] else ''}"
    at_target = f"{count_of(len(kept), 'position')} at target and open ({what})"
    return f"the venue shows {at_target}" if len(kept) == len(settled) else f"{gone}, and {at_target}"


def is_settled(incident: Incident) -> bool:
    """Whether the venue shows all of it at its target, and the exposure since then is known: a plan adds nothing."""
    newest = incident.newest
    return newest is not None and newest.net is not None and bool(incident.settled) and not incident.left


def fight(incident: Incident) -> str | None:
    """Return what the answers to breaches of the lock came to: orders, size and cost; None where there was none."""
    answers = {each.decision for each in incident.firings if each.kind == "breach"}
    if not answers:
        return None
    orders = [each for each in incident.orders if each.decision in answers]
    closed: dict[str, Decimal] = {}
    for each in orders:
        name = f"{each.symbol} {each.position_side or ''}".strip()
        closed[name] = closed.get(name, Decimal(0)) + (each.filled or 0)
    sizes = ", ".join(f"{amount.normalize():f} {name}" for name, amount in closed.items()) or "nothing"
    sums = add_up(orders, has_whole_book=False)
    parts = (sums["fees"], sums["slippage"])
    spent = "unknown" if None in parts else money(sum(parts, Decimal(0)), incident.money.currency)
    return f"{count_of(len(answers), 'answer')}, {count_of(len(orders), 'order')}, closed {sizes}, cost {spent}"


def _loss(incident: Incident) -> Iterator[str]:
    """Yield the loss in money, and as a fraction of the peak."""
    curve = incident.course
    if curve is None:
        realised = incident.money.realised
        if is_part_of_accounts(incident.scope):
            yield "realised unknown" if realised is None else f"realised {money(realised, incident.money.currency)}"
        else:
            yield "loss unknown: no equity curve was kept"
        return
    measured = []
    for each in incident.firings:
        value = _value_at(curve, each, is_first=each is incident.firings[0])
        if each.loss is not None and each.loss.share is not None and each.loss.share < 1 and value is not None:
            measured.append((value / (1 - each.loss.share), value, each))
    highest = (Decimal(str(curve.peak)), UNIT, incident.firings[0])
    peak, at_firing, firing = max(measured, key=lambda each: each[0], default=highest)
    if peak <= 0:
        yield "loss unknown: the value was at or below zero"
        return
    share = Decimal(str(curve.last)) / peak - 1
    if firing.equity is None:
        why = "unknown" if firing.loss is None or firing.loss.unknown is None else firing.loss.unknown
        yield f"in money unknown ({why})"
    else:
        change = firing.equity * (Decimal(str(curve.last)) - peak) / at_firing
        yield f"{_plus(change)}{money(change, firing.currency)}"
    yield f"{_plus(share)}{share:.1%}"


def _plus(change: Decimal) -> str:
    """A gain has its sign: where losses are expected, a number without one is read as a loss."""
    return "+" if change > 0 else ""


def _value_at(curve: EquityCurve, firing: Firing, *, is_first: bool) -> Decimal | None:
    """Return the value of a unit at a firing; None where none is known before it."""
    if is_first:
        return UNIT
    values = [point.value for point in curve.points if point.at <= firing.at and point.value > 0]
    return Decimal(str(values[-1])) if values else None


def _time(incident: Incident) -> str:
    """Return the time from the first firing to the end of the last close, and whether everything was closed by then."""
    ends = [each.at for each in incident.endings if each.at is not None]
    if any(each.standing == "closing" for each in incident.firings):
        return f"{rounded_duration(incident.as_of - incident.opened_at)} so far"
    if not ends:
        return "no close has ended"
    took = max(ends) - incident.opened_at
    is_done = not incident.left and all(each.status == "flat" for each in incident.endings)
    exact = f"{took.total_seconds():.1f} s" if took < SHORT else rounded_duration(took)
    return f"{'closed in' if is_done else 'ended after'} {exact}"
