"""What `status` says of closes by hand: when, by whom, of what, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.cli.wording import instant, money, table
from killswitch.incident.causes import by_hand
from killswitch.incident.results import Result
from killswitch.runner.standing import HandClose


def hands_text(closes: Sequence[HandClose]) -> str:
    """A line for each; empty for none."""
    if not closes:
        return ""
    rows = [
        (
            instant(each.at),
            each.author or "unknown",
            f"{by_hand(each.cause)}: {each.scope} ({each.reason or 'no reason'})",
            "; ".join(outcome(each.result)),
            each.decision,
        )
        for each in closes
    ]
    return "Closes by hand\n" + table(("when", "by", "what", "what came of it", "decision"), rows)


def outcome(result: Result) -> list[str]:
    """How it stands, what was reduced and paid, and why anything is left; without a word on who goes on."""
    positions = f"{result.closed} position{'' if result.closed == 1 else 's'} reduced"
    reasons = [f"{ending.account}: {ending.reason}" for ending in result.endings if ending.reason]
    reasons += [f"{account}: nothing was sent, because nothing is armed for it" for account in result.unsent]
    return [f"{result.standing}, {positions}, fees {money(result.fees)}", *reasons]
