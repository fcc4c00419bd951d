"""Which decisions are acted on, and what an earlier run has left to do."""

from __future__ import annotations

from killswitch.model.decision import Decision
from killswitch.model.store import Store
from killswitch.runner.accounts import Arming


def is_acted_on(decision: Decision, arming: Arming) -> bool:
    """Whether anything is done about `decision`, or it is recorded only.

    An observing policy is recorded only, and so is every decision whose scope holds no armed account. A reset
    takes back what the policy did while it was enforced, so it counts whatever the mode is now.
    """
    if decision.mode != "enforce" and decision.kind != "reset":
        return False
    return bool(arming.reached_by(decision.policy, decision.scope))


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
