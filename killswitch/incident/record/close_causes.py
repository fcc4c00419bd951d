"""Texts about closes: the declared reason of a manual close (heading, explanation, to-do items), and its orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from killswitch.model.words import Cause, close_text

if TYPE_CHECKING:
    from killswitch.model.decision import Decision, Intent

_LEAST_GROUPED = 4
"""This many equal orders in a row become one line."""


class CauseText(Struct, frozen=True):
    """The texts of a declared reason: `heading` replaces "Close by hand", `tone` explains it in a sentence or two.

    `todo` lists what only a person can do, as (key, title, what to check).
    """

    heading: str
    tone: str
    todo: tuple[tuple[str, str, str], ...] = ()


CAUSES: Mapping[Cause, CauseText] = {
    "market": CauseText(
        "Market close by hand",
        "Prices moved fast, and a person closed before a policy did. Compare the cost with that of waiting.",
        (
            ("policy", "Policy reviewed", "why no stage fired first: threshold, window or scope"),
            ("hedges", "Hedges checked", "hedges of the closed positions on other accounts are now exposed"),
        ),
    ),
    "system-failure": CauseText(
        "Close after a system failure",
        "Our own systems failed. Bots and records may be wrong about the time before the close: rely on the venue's "
        "data.",
        (
            ("stopped", "Failing systems stopped", "every bot that could still send: process, host and its keys"),
            ("state", "Own records rebuilt", "positions, orders and P&L from the venue's statements, not from bots"),
            ("restart", "Restart agreed", "what failed is understood, and who starts what in which order"),
        ),
    ),
    "exchange-breach": CauseText(
        "Close after a breach of the venue",
        "The venue may be broken into, or insolvent. A flat account is not a safe one: balances left there are at "
        "risk.",
        (
            ("keys", "API keys revoked", "every key of this venue; new ones only after it has explained what happened"),
            ("withdrawn", "Funds withdrawn", "to addresses that were allowed before; note each transaction"),
            ("elsewhere", "Other venues checked", "the same keys and addresses elsewhere, and the hedges there"),
            ("statement", "Venue's statement kept", "balances, fills and its announcements, saved with their times"),
        ),
    ),
    "regulatory": CauseText(
        "Close for a regulatory reason",
        "An authority, or compliance, demanded it. This report is part of the record: add to it, and correct "
        "nothing.",
        (
            ("informed", "Compliance informed", "the compliance officer; through them the authority and the venues"),
            ("order", "Demand on file", "who demanded what, when, in writing; and who decided here"),
            ("owners", "Cancelled orders attributed",
             "algorithm, trader, desk and client of every order (RTS 6, Article 12)"),
            ("kept", "Records kept", "store, log and this report under the retention that applies; nothing is pruned"),
        ),
    ),
    "counterparty": CauseText(
        "Close after a counterparty failed",
        "A bank, a broker or the issuer of a stable coin failed, or may. Equity in its currency may be "
        "worth less than shown.",
        (
            ("exposure", "Exposure listed", "balances, collateral and open transfers with it, on all accounts"),
            ("collateral", "Collateral exchanged", "out of its coin or its bank, at every venue that accepts another"),
            ("transfers", "Transfers stopped", "nothing more is sent to it or through it"),
        ),
    ),
    "dead-man": CauseText(
        "Close by a dead-man's switch",
        "Whoever the switch listens to was silent for longer than its timeout. The program closed without a person.",
        (
            ("silent", "Silence explained", "process, host and network of what was silent; whether it still trades"),
            ("timeout", "Timeout reviewed", "whether the silence was a death, or a pause that the timeout must allow"),
            ("armed", "Switch armed again", "what beats again, and `ksctl deadman status` shows it"),
        ),
    ),
    "drill": CauseText(
        "DRILL: close by hand",
        "This is a DRILL. Nothing was wrong. Orders that are listed were really sent.",
        (
            ("measured", "DRILL: times noted", "from the alarm to the command, and from the command to flat"),
            ("differences", "DRILL: differences noted", "where the drill deviated from the runbook"),
            ("restored", "DRILL: book restored", "positions that the drill closed, if they are to be opened again"),
        ),
    ),
    "operator": CauseText("Close by hand", "A person's own judgement."),
}  # fmt: skip


DRILL: Final = "DRILL: "
"""Begins the title of everything about a drill: of a message a phone shows no more."""


def cause_text(cause: Cause | None) -> CauseText | None:
    """Return the texts of a declared reason; None where none was declared, or only `operator`."""
    return None if cause is None or cause == "operator" else CAUSES.get(cause)


def command_text(decision: Decision) -> str:
    """Return a manual close, a hold or an unlock in a few words for one line."""
    if decision.is_unlock:
        return "unlock by hand"
    return f"{decision.command or 'lock'} by hand" if decision.is_hold else manual_close_text(decision.cause)


def manual_close_text(cause: Cause | None) -> str:
    """Return a manual close in a few words for one line; a drill is named first. No hand gave a dead man's."""
    if cause_text(cause) is None or cause == "dead-man":
        return close_text(cause)
    return "DRILL: close by hand" if cause == "drill" else f"close by hand ({(cause or '').replace('-', ' ')})"


def remainders(intents: Sequence[Intent]) -> tuple[Decimal, ...]:
    """Return what each order leaves of its position; of several slices, the last one reaches the target."""
    later: dict[tuple[str, ...], Decimal] = {}
    found = []
    for intent in reversed(intents):
        key = (intent.account, intent.symbol, intent.position_side, intent.purpose)
        remainder = later.get(key, Decimal(0))
        found.append(intent.target + remainder)
        later[key] = remainder + intent.contracts
    return tuple(reversed(found))


class OrderGroup(Struct, frozen=True):
    """Equal orders of one position in a row: the first of them, how many, and what the last one leaves."""

    intent: Intent
    number: int
    leaves: Decimal

    @property
    def amount(self) -> str:
        """`100`; for several orders `15 × 100`."""
        times = "" if self.number == 1 else f"{self.number} × "
        return f"{times}{self.intent.contracts:f}"


def group_orders(intents: Sequence[Intent]) -> tuple[OrderGroup, ...]:
    """Group equal orders in a row; only the steps between them are left out."""
    found: list[OrderGroup] = []
    for _, run in groupby(zip(intents, remainders(intents), strict=True), key=lambda pair: pair[0]):
        same = list(run)
        if len(same) < _LEAST_GROUPED:
            found += [OrderGroup(intent, 1, left) for intent, left in same]
        else:
            found.append(OrderGroup(same[0][0], len(same), same[-1][1]))
    return tuple(found)


def order_texts(intents: Sequence[Intent]) -> tuple[str, ...]:
    """Return the orders of a decision, one line each, equal ones together; a hedge and a second hop leave nothing."""
    return tuple(map(_intended, group_orders(intents)))


def _intended(orders: OrderGroup) -> str:
    intent, left = orders.intent, f"leaving {orders.leaves:f}"
    if intent.purpose == "hedge":
        left = "as a temporary hedge"
    elif intent.purpose == "hop" and intent.after is None:
        left = f"on another market than the holding is listed on, leaving {orders.leaves:f} of it"
    elif intent.purpose == "hop":
        left = "of the proceeds of an earlier order"
    what = f"{intent.side} {orders.amount} {intent.symbol} ({intent.position_side}) on {intent.account}"
    return f"{what}, {left}"
