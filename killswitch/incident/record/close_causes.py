"""How a close reads: by hand by its declared reason (heading, what it is about, what a person does), and its orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from killswitch.model.words import Cause

if TYPE_CHECKING:
    from killswitch.model.decision import Intent

_TOGETHER = 4
"""So many like orders in a row are told together."""


@dataclass(frozen=True, slots=True)
class CauseText:
    """`heading` stands in place of "Close by hand"; `tone` says in a sentence or two what kind of thing this is.

    `todo`: what only a person can do, as (key, title, what to look at).
    """

    heading: str
    tone: str
    todo: tuple[tuple[str, str, str], ...] = ()


CAUSES: Mapping[Cause, CauseText] = {
    "market": CauseText(
        "Market close by hand",
        "Prices ran away, and a person closed before a policy did. Compare what it cost with what waiting would have.",
        (
            ("policy", "Policy reviewed", "why no stage fired first: threshold, window or scope"),
            ("hedges", "Hedges looked at", "what stood against the closed positions on other accounts is naked now"),
        ),
    ),
    "system-failure": CauseText(
        "Close after a system failure",
        "Our own systems failed. What bots and records say of the time before the close may be wrong: the venue's word "
        "counts.",
        (
            ("stopped", "Failing systems stopped", "every bot that could still send: process, host and its keys"),
            ("state", "Own records rebuilt", "positions, orders and P&L from the venue's statements, not from bots"),
            ("restart", "Restart agreed", "what failed is understood, and who starts what in which order"),
        ),
    ),
    "exchange-breach": CauseText(
        "Close after a breach of the venue",
        "The venue may be broken into, or insolvent. Being flat there is not being safe: what is left on it is at its "
        "mercy.",
        (
            ("keys", "API keys revoked", "every key of this venue; new ones only after it has said what happened"),
            ("withdrawn", "Funds withdrawn", "to addresses that were allowed before; note each transaction"),
            ("elsewhere", "Other venues looked at", "the same keys and addresses elsewhere, and the hedges there"),
            ("statement", "Venue's statement kept", "balances, fills and its announcements, saved with their times"),
        ),
    ),
    "regulatory": CauseText(
        "Close for a regulatory reason",
        "An authority, or compliance, demanded it. This report is part of the record: correct nothing in it, add to "
        "it.",
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
        "A bank, a broker or the issuer of a stable coin failed, or may. Equity that is counted in its money is not "
        "what it says.",
        (
            ("exposure", "Exposure listed", "balances, collateral and open transfers with it, on all accounts"),
            ("collateral", "Collateral exchanged", "out of its coin or its bank, at every venue that takes another"),
            ("transfers", "Transfers stopped", "nothing more is sent to it or through it"),
        ),
    ),
    "drill": CauseText(
        "DRILL: close by hand",
        "This is a DRILL. Nothing was wrong. Orders that are listed were really sent.",
        (
            ("measured", "DRILL: times noted", "from the alarm to the command, and from the command to flat"),
            ("differences", "DRILL: differences noted", "what went otherwise than the runbook says"),
            ("restored", "DRILL: book restored", "positions that the drill closed, if they are to be opened again"),
        ),
    ),
    "operator": CauseText("Close by hand", "A person's own judgement."),
}  # fmt: skip


def text_of(cause: Cause | None) -> CauseText | None:
    """The words for a declared reason; None where none was declared, or it is only that someone judged so."""
    return None if cause is None or cause == "operator" else CAUSES.get(cause)


def by_hand(cause: Cause | None) -> str:
    """A close by hand in a few words, for one line: a drill says so first."""
    if text_of(cause) is None:
        return "close by hand"
    return "DRILL: close by hand" if cause == "drill" else f"close by hand ({(cause or '').replace('-', ' ')})"


def remainders(intents: Sequence[Intent]) -> tuple[Decimal, ...]:
    """What each order leaves of its position, in their order: of several slices, the last one reaches the target."""
    later: dict[tuple[str, ...], Decimal] = {}
    found = []
    for intent in reversed(intents):
        key = (intent.account, intent.symbol, intent.position_side, intent.purpose)
        rest = later.get(key, Decimal(0))
        found.append(intent.target + rest)
        later[key] = rest + intent.contracts
    return tuple(reversed(found))


class Alike(NamedTuple):
    """Orders of one position and size that follow each other: the first of them, how many, and what the last leaves."""

    intent: Intent
    number: int
    leaves: Decimal

    @property
    def amount(self) -> str:
        """`100`; of several `15 × 100`."""
        times = "" if self.number == 1 else f"{self.number} × "
        return f"{times}{self.intent.contracts:f}"


def alike(intents: Sequence[Intent]) -> tuple[Alike, ...]:
    """The orders in their sequence, many like ones together: nothing of them is lost but the steps in between."""
    found: list[Alike] = []
    for _, run in groupby(zip(intents, remainders(intents), strict=True), key=lambda pair: pair[0]):
        same = list(run)
        if len(same) < _TOGETHER:
            found += [Alike(intent, 1, left) for intent, left in same]
        else:
            found.append(Alike(same[0][0], len(same), same[-1][1]))
    return tuple(found)


def intended(intents: Sequence[Intent]) -> tuple[str, ...]:
    """The orders of a decision, a line each, many like ones one line; a hedge and a second hop leave nothing."""
    return tuple(map(_intended, alike(intents)))


def _intended(orders: Alike) -> str:
    intent, left = orders.intent, f"leaving {orders.leaves:f}"
    if intent.purpose == "hedge":
        left = "as a temporary hedge"
    elif intent.purpose == "hop" and intent.after is None:
        left = f"on another market than the holding is listed on, leaving {orders.leaves:f} of it"
    elif intent.purpose == "hop":
        left = "of what an order before it brings in"
    what = f"{intent.side} {orders.amount} {intent.symbol} ({intent.position_side}) on {intent.account}"
    return f"{what}, {left}"
