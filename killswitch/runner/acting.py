"""Which decisions are acted on, and by which accounts."""

from __future__ import annotations

from msgspec import structs

from killswitch.model.decision import Decision
from killswitch.runner.accounts import Arming


def to_act_on(decision: Decision, arming: Arming) -> Decision | None:
    """The part of `decision` that armed accounts carry out; None if it is recorded only.

    An observing policy is recorded only, and so is every decision whose scope holds no armed account. A reset
    takes back what the policy did while it was enforced, so it counts whatever the mode is now.
    """
    armed = arming.reached_by(decision.policy, decision.scope)
    if not armed or (decision.mode != "enforce" and decision.kind != "reset"):
        return None
    return structs.replace(
        decision,
        intents=tuple(intent for intent in decision.intents if intent.account in armed),
        cancels=tuple(cancel for cancel in decision.cancels if cancel.account in armed),
    )
