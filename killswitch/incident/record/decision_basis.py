"""What the orders of a decision are measured against: the intents of each position, and the positions held."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

from msgspec.structs import replace

from killswitch.journal.entries import Place
from killswitch.model.decision import Decision, Intent
from killswitch.model.snapshot import Position, Snapshot
from killswitch.model.words import Rung, close_text

Purpose = Literal["reduce", "hop", "hedge"]

_CLIENT_ORDER_ID = re.compile(r"ks[0-9a-z]{20}([0-9a-z]{4})[0-9a-z]{5}")
"""A client order id that contains the index of its intent in base 36."""


def stage_text(decision: Decision) -> str:
    """Return the stage that fired, or the text that replaces it where none did."""
    if decision.kind == "hedge":
        return "temporary hedge"
    return decision.stage or close_text(decision.cause)


NO_OWNER = "no strategy is declared for this position: algorithm, trader, desk and client are for you to add"


class DecisionBasis:
    """The intents of a decision and the positions of its snapshot, by position."""

    def __init__(self, decision: Decision, snapshot: Snapshot | None) -> None:
        """`snapshot` is what the decision was made on, where it was kept."""
        self.decision = decision
        self.ladder: Sequence[Rung] = () if decision.unwinding is None else decision.unwinding.ladder
        self._intents_at: dict[Place, list[Intent]] = {}
        for intent in decision.intents:
            self._intents_at.setdefault(place_of(intent), []).append(intent)
        rows: dict[Place, list[Position]] = {}
        for account in () if snapshot is None else snapshot.accounts:
            for position in account.positions or ():
                rows.setdefault((account.account, position.symbol, position.side), []).append(position)
        self._held = {key: _combined(found) for key, found in rows.items()}
        self._strategies = {
            key: tuple(dict.fromkeys(each.strategy for each in found if each.strategy)) for key, found in rows.items()
        }

    def purpose(self, key: Place, client_order_id: str | None) -> Purpose:
        """Return the purpose of the order's intent; where a position has several, the order id decides."""
        purposes = {intent.purpose for intent in self._intents_at.get(key, ())}
        if len(purposes) == 1:
            return purposes.pop()
        parsed = _CLIENT_ORDER_ID.fullmatch(client_order_id or "")
        index, intents = int(parsed[1], 36) if parsed else -1, self.decision.intents
        return intents[index].purpose if 0 <= index < len(intents) else "reduce"

    def band(self, key: Place) -> Decimal | None:
        """Return the declared slippage of the position; None where none was declared."""
        return next((intent.band for intent in self._intents_at.get(key, ())), None)

    def owner(self, key: Place) -> tuple[str, str | None]:
        """Return the strategies whose parts of the position are closed, and None; without one, why none is known."""
        parts = [part.strategy for intent in self._intents_at.get(key, ()) for part in intent.parts]
        named = dict.fromkeys((*parts, *self._strategies.get(key, ())))
        return (", ".join(named), None) if named else ("", NO_OWNER)

    def held(self, key: Place) -> Position | None:
        """Return the position as it was decided on; None where it was not read."""
        return self._held.get(key)


def first_hops(decision: Decision) -> frozenset[Place]:
    """Return the markets on which the decision sells a holding that is listed on another market."""
    return frozenset(place_of(each) for each in decision.intents if each.purpose == "hop" and each.after is None)


def closes_all(decision: Decision) -> bool:
    """Whether the decision leaves nothing of any position it is about.

    The target of a second hop is what was there before the first one, so it does not count.
    """
    return not any(intent.target for intent in decision.intents if intent.after is None)


def only_passed_through(decision: Decision) -> frozenset[Place]:
    """Return the markets on which the decision only sells what an earlier order has bought."""
    passed = {place_of(each) for each in decision.intents if each.after is not None}
    return frozenset(passed - {place_of(each) for each in decision.intents if each.after is None})


def place_of(intent: Intent) -> Place:
    """Return the position that an intent is about."""
    return (intent.account, intent.symbol, intent.position_side)


def _combined(rows: Sequence[Position]) -> Position:
    """Combine the rows of one position, one for each strategy: sums and the average entry price, None where a row is
    incomplete.

    The venue closes the position as a whole and realises P&L against the average.
    """
    first = rows[0]
    if len(rows) == 1:
        return first
    contracts = sum((row.contracts for row in rows), Decimal(0))
    paid = _sum([None if row.entry_price is None else row.entry_price * row.contracts for row in rows])
    return replace(
        first,
        contracts=contracts,
        entry_price=None if paid is None or not contracts else paid / contracts,
        mark_price=first.mark_price if len({row.mark_price for row in rows}) == 1 else None,
        notional=_sum([row.notional for row in rows]),
        unrealized_pnl=_sum([row.unrealized_pnl for row in rows]),
        strategy=None,
    )


def _sum(parts: Sequence[Decimal | None]) -> Decimal | None:
    known = [part for part in parts if part is not None]
    return sum(known, Decimal(0)) if len(known) == len(parts) else None
