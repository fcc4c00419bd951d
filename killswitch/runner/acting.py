"""Which decisions are acted on, and what an earlier run has left to do."""

from __future__ import annotations

from killswitch.model.decision import Decision
from killswitch.model.store import Store
from killswitch.runner.accounts import Arming

REMEMBERED = 10_000
"""How many decisions back a start looks for what still stands."""


def is_acted_on(decision: Decision, arming: Arming) -> bool:
    """Whether anything is done about `decision`, or it is recorded only.

    An observing policy is recorded only, and so is every decision whose scope holds no armed account. A reset
    takes back what the policy did while it was enforced, so it counts whatever the mode is now.
    """
    if decision.mode != "enforce" and decision.kind != "reset":
        return False
    return bool(arming.reached_by(decision.policy, decision.scope))


def observed_latches(store: Store, arming: Arming) -> tuple[Decision, ...]:
    """Firings that still stand on scopes that are armed now, but were only observed when they fired.

    Their stages are latched, so nothing will happen about them by itself: a person must know.
    """
    newest: dict[tuple[str, str], Decision] = {}
    for stored in store.decisions(REMEMBERED):
        if not stored.decision.is_suspicion:  # it latches nothing, and leaves what is latched
            newest.setdefault((stored.decision.policy, stored.decision.scope), stored.decision)
    return tuple(
        decision
        for decision in newest.values()
        if decision.kind is None
        and is_acted_on(decision, arming)
        and (decision.intents or decision.cancels or decision.lock)
        and not any(entry.kind == "planned" for entry in store.journal(decision.id))
    )


def left_to_do(store: Store) -> dict[str, tuple[Decision, ...]]:
    """Account → decisions whose work on it was planned and is not finished, oldest first."""
    found: dict[str, tuple[Decision, ...]] = {}
    for stored in store.unfinished():
        journal = store.journal(stored.decision.id)
        planned = {entry.account for entry in journal if entry.kind == "planned" and entry.account is not None}
        finished = {entry.account for entry in journal if entry.kind == "finished"}
        for account in sorted(planned - finished):
            found[account] = (*found.get(account, ()), stored.decision)
    return found
