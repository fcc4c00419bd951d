"""What a tick makes of the orders of hands: closes and saved plans, each carried out or refused in words."""

from __future__ import annotations

from collections.abc import Iterable

from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Event, Snapshot
from killswitch.planning import notices as tell
from killswitch.planning.hands import RefusedHandError, close_by_hand
from killswitch.planning.saved import LONGEST_WAIT, RefusedPlanError, apply_plan
from killswitch.signals.view import Instruments, doubt_of_positions


class HandEvents:
    """Takes the events of hands that order something, and remembers what they need from earlier ticks."""

    def __init__(self, policies: PolicySet) -> None:
        self._policies = policies
        self._applied: set[str] = set()
        self.read_last: dict[str, AccountSnapshot] = {}
        """Each account as it was last read with an answer that makes sense."""

    def restore(self, past: Iterable[Decision]) -> None:
        """Take up which plans were applied before."""
        self._applied.update(decision.id for decision in past if decision.kind == "manual")

    def learn(self, snapshot: Snapshot) -> None:
        """Remember each account as it was read last: a close by force goes by it where it cannot be read any more."""
        for account in snapshot.accounts:
            if account.positions is None or (not account.positions and account.margin_used):
                continue
            if doubt_of_positions(account) is None:
                self.read_last[account.account] = account

    def take(
        self, event: Event, snapshot: Snapshot, now: int, instruments: Instruments, told: list[Notice]
    ) -> list[Decision]:
        """The decisions that the event brings about; what a person must know of it goes to `told`."""
        if event.kind == "close":
            return self._close(event, snapshot, now, instruments, told)
        if event.kind == "apply":
            return self._apply(event, snapshot, now, instruments, told)
        return []

    def _close(
        self, event: Event, snapshot: Snapshot, now: int, instruments: Instruments, told: list[Notice]
    ) -> list[Decision]:
        waited = now - to_micros(event.at)
        if waited > LONGEST_WAIT:
            why = f"it was given {waited // SECOND} s ago, for a book that may be another by now: give it again"
            told.append(tell.hand_not_followed(event, now, f"the close by hand was not carried out: {why}"))
            return []
        try:
            found = close_by_hand(event, snapshot, now, instruments, self._policies, self.read_last)
        except RefusedHandError as refused:
            told.append(tell.hand_not_followed(event, now, f"the close by hand was not carried out: {refused}"))
            return []
        told += [tell.hand_not_followed(event, now, f"not closed by hand: {problem}") for problem in found.problems]
        told += [tell.hand_followed_blind(event, now, f"closed by force: {remark}") for remark in found.remarks]
        return [found.decision]

    def _apply(
        self, event: Event, snapshot: Snapshot, now: int, instruments: Instruments, told: list[Notice]
    ) -> list[Decision]:
        try:
            decisions = apply_plan(event, snapshot, now, self._policies, instruments)
        except RefusedPlanError as refused:
            told.append(tell.hand_not_followed(event, now, f"the saved plan was not applied: {refused}"))
            return []
        ids = {decision.id for decision in decisions}
        if ids & self._applied:
            told.append(tell.hand_not_followed(event, now, "the saved plan was not applied: it has been already"))
            return []
        self._applied |= ids
        return list(decisions)
