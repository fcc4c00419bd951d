"""Texts about an incident to send on, filled in from its record: to a venue, and to stakeholders.

They state what the record proves. What a person must add is in square brackets, and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator

from killswitch.incident.record.close_causes import DRILL
from killswitch.incident.record.document import Incident, PositionLeft
from killswitch.incident.record.first_minute import net_text
from killswitch.incident.record.verdict import is_settled, verdict
from killswitch.render.formats import count_of, instant, money

MOST_ORDERS = 12
"""The most orders that the text to a venue lists; the closing report has all of them."""


def is_of_drill(incident: Incident) -> bool:
    """Whether the incident is one of a drill: on the paper market, or a close by hand for that reason."""
    return incident.reason is not None and incident.reason.cause == "drill"


def venue_text(incident: Incident) -> str:
    """The text to the venues: which orders were sent, which are unclear, what they are asked to confirm."""
    return "\n".join(_to_venue(incident))


def _to_venue(incident: Incident) -> Iterator[str]:
    is_drill = is_of_drill(incident)
    accounts = ", ".join(dict.fromkeys(each.account for each in incident.orders)) or "[account]"
    what = "DRILL, emergency close" if is_drill else "emergency close"
    yield f"Subject: {what} on account {accounts}, {instant(incident.opened_at)}"
    yield ""
    if is_drill and incident.reason is not None:
        yield incident.reason.tone
    yield f"Our kill functionality acted at {instant(incident.opened_at)} (UTC) on our account {accounts}."
    yield f"It sent {count_of(len(incident.orders), 'order')}; all client order ids begin with `ks`."
    unclear = [each for each in incident.orders if not each.final]
    if unclear:
        yield f"We do not know the final status of {count_of(len(unclear), 'order')}. Please state status and fills of:"
        for each in unclear[:MOST_ORDERS]:
            yield f"  - {each.client_order_id}, {each.symbol}, sent at {instant(each.sent_at)}"
    else:
        yield "We know the final status of each."
    if incident.left:
        yield "We have not seen these positions closed; please state what is left of each, and what prevents it:"
        for left in incident.left[:MOST_ORDERS]:
            yield f"  - {left.symbol} {left.side or ''} on {left.account}: {_held(left)}, target {left.target}"
    yield "Please confirm open positions and resting orders of the account as of now, and keep your logs of it."
    yield "[our name, firm and client number; a number at which we are reached]"


def _held(left: PositionLeft) -> str:
    """The contracts that are left: as the venue showed them last, else what our orders leave."""
    if left.contracts is not None:
        seen = "" if left.verified_at is None else f" at {instant(left.verified_at)}"
        return f"{left.contracts.normalize():f} contracts{seen}"
    if left.expected is not None:
        return f"{left.expected.normalize():f} contracts by our orders"
    return "unknown contracts" if left.start is None else f"at most {left.start.normalize():f} contracts"


def stakeholder_text(incident: Incident) -> str:
    """The text to stakeholders: what happened, what it cost, what is open, and what follows."""
    return "\n".join(_to_stakeholders(incident))


def _exposures(incident: Incident) -> Iterator[str]:
    """The exposure before, and now; what the orders would leave only while that is not known to have come about."""
    last = incident.firings[-1]
    before, after = (None, None) if last.book is None else (incident.firings[0].book, last.book.after)
    begins = f"Net exposure {net_text(None if before is None else before.before.net, last.currency)} before"
    now = incident.newest if incident.state == "open" else None
    if not is_settled(incident):
        begins += f", {net_text(None if after is None else after.net, last.currency)} once every order is filled"
    yield f"{begins}."
    if now is not None:
        yield f"At {instant(now.at)} it was {net_text(now.net, now.currency)}, gross {money(now.gross, now.currency)}."


def _to_stakeholders(incident: Incident) -> Iterator[str]:
    last, is_drill = incident.firings[-1], is_of_drill(incident)
    marked = "" if not is_drill or incident.title.startswith(DRILL) else DRILL
    yield f"Subject: {marked}{incident.title}: {verdict(incident)}"
    yield ""
    if is_drill and incident.reason is not None:
        yield incident.reason.tone
    yield f"At {instant(incident.opened_at)} (UTC) the kill switch acted: {incident.title}, policy {incident.policy}."
    if incident.by_hand:
        yield f"It was ordered by {last.author or 'unknown'}: {last.reason or 'no reason is recorded'}."
    for each in incident.firings:
        if each.loss is not None and each.loss.share is not None:
            amount = "in money unknown" if each.loss.amount is None else money(each.loss.amount, each.currency)
            least = "at least " if each.loss.is_least else ""
            yield f"Loss from the peak at {each.stage}: {least}{each.loss.share:.2%}, {amount}."
    yield from _exposures(incident)
    yield f"Realised {money(incident.money.realised, incident.money.currency)} before fees, " + (
        f"cost of the close {money(incident.money.cost, incident.money.currency)}."
    )
    open_text = f"{count_of(len(incident.left), 'position')} not at target" if incident.left else "nothing"
    yield f"Still open of what was to be closed: {open_text}."
    if incident.state == "closed" and incident.reset is not None:
        yield f"It ended at {instant(incident.reset.at)}, reset by {incident.reset.author or 'its own condition'}."
    elif any(each.locked_at is not None for each in incident.firings):
        yield "Trading is locked until the scope is reset; nobody may trade on it."
    else:
        yield "Trading was not locked."
    yield f"Incident {incident.id}, state as of {instant(incident.as_of)}. [next update: time and person]"
