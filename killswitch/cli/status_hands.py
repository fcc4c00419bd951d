"""What `status` says of closes by hand: when, by whom, of what, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from killswitch.cli.wording import instant, money, table
from killswitch.incident.causes import by_hand
from killswitch.incident.order_lines import ACCEPTED, RESTING, OrderLine
from killswitch.incident.results import Result
from killswitch.model.legible import one_line
from killswitch.runner.standing import HandClose


def hands_text(closes: Sequence[HandClose]) -> str:
    """A line for each; empty for none."""
    if not closes:
        return ""
    told = [outcome(each.result) for each in closes]
    rows = [
        (
            instant(each.at),
            each.author or "unknown",
            f"{by_hand(each.cause)}: {each.scope} ({each.reason or 'no reason'})",
            first,
            each.decision,
        )
        for each, (first, *_) in zip(closes, told, strict=True)
    ]
    below = [f"  {each.decision}: {line}" for each, (_, *more) in zip(closes, told, strict=True) for line in more]
    head = ("when", "by", "what", "what came of it", "decision")
    return "\n".join(("Closes by hand\n" + table(head, rows), *below))


def outcome(result: Result) -> list[str]:
    """How it stands, what was reduced and paid, and why anything is left; without a word on who goes on."""
    positions = f"{result.closed} position{'' if result.closed == 1 else 's'} reduced"
    reasons = [f"{ending.account}: {ending.reason}" for ending in result.endings if ending.reason]
    reasons += [f"{account}: nothing was sent, because nothing is armed for it" for account in result.unsent]
    if result.standing == "closing":
        reasons += _left(result)
    return [f"{result.standing}, {positions}, fees {money(result.fees)}", *reasons]


def _left(result: Result) -> Iterator[str]:
    """What is not where it was to be yet, why as far as its last order tells it, and what a person can do."""
    hints: dict[str, None] = {}
    over = {ending.account for ending in result.endings}  # and why, its ending says
    for each in result.positions:
        held = each.start if each.left is None else each.left
        if held <= each.target or each.account in over:
            continue
        mine = (each.account, each.symbol, each.side)
        sent = [it for it in result.orders if (it.account, it.symbol, it.position_side) == mine]
        why, hint = _why(sent[-1]) if sent else ("no order was sent yet", "")
        yield f"left: {held - each.target:f} {each.symbol} {each.side or ''}".rstrip() + f": {why}"
        hints |= {hint: None} if hint else {}
    yield from hints


def _why(order: OrderLine) -> tuple[str, str]:
    said = f" ({one_line(order.text)})" if order.text else ""
    if order.outcome in (RESTING, ACCEPTED):
        return (
            f"the venue has the order and has not filled it{said}",
            "where trading is halted, what rests is filled when trading goes on; to take it back, cancel it there",
        )
    if order.outcome == f"rejected: {CLOSED}":
        return (
            f"the venue takes no orders for it now: the market is closed, or trading in it is halted{said}",
            "what is refused so leaves when trading goes on, while a runner lives",
        )
    return f"its last order: {order.outcome}{said}", ""


CLOSED = "market_closed"
"""Why an order is refused that an opening lets through."""
