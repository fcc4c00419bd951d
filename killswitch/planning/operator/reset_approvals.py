"""Approvals of resets: how many other people must approve the reset of a firing, who has, and what is refused.

A stage declares `reset_approvals`. An approval names the firing, by the id of its decision, so that it counts for
nothing that fires later; who gives it is verified already. It is kept with the state of the scope. The person who gives
the command does not count, and nobody counts twice. Nothing that reduces risk asks here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from killswitch.engine.state import stage_in_force
from killswitch.model.applied_set import same_person
from killswitch.model.decision import Notice
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import Event
from killswitch.model.words import Severity
from killswitch.planning import notices
from killswitch.planning.operator.closes import applies, is_unnamed
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.planning.scopes.trigger_status import approvals_of
from killswitch.render.formats import count_of

BEGINS: Final = "reset/"
"""How the subjects of approvals of resets begin, as those of steps of a way back begin with `recovery/`."""
_COUNTS: Final = "a reset is approved"
_COUNTS_NOT: Final = "an approval does not count"


def reset_subject(policy: str, scope: str, firing: str) -> str:
    """What an approval of a reset names. `firing`: the id of the decision in force."""
    return f"{BEGINS}{policy}/{scope}/firing/{firing}"


def approve_reset(event: Event, evaluators: Iterable[ScopeEvaluator], now: int) -> Notice:
    """Count the approval of a reset by the author of the event; the notice of what came of it."""
    person = event.author or "nobody"
    for evaluator in evaluators:
        found, firing = approvals_of(evaluator), evaluator.decision_in_force
        if found is None or firing is None or event.author is None:
            continue
        if reset_subject(evaluator.policy, evaluator.scope, firing) != event.approves:
            continue
        stage = stage_in_force(evaluator.state)
        if same_person(person) in map(same_person, found.approved):
            text = f"{person} has approved the reset of {stage} already, and one person counts once"
            return _notice(event, now, evaluator, text, _COUNTS_NOT)
        kept = [each for each in evaluator.approved if each[0] == firing]
        evaluator.approved = [*kept, (firing, person)]
        given = f"{len(evaluator.approved)} of {count_of(found.needed, 'approval')}"
        return _notice(event, now, evaluator, f"the reset of {stage} is approved by {person}: {given}", _COUNTS)
    text = f"{person} approves {event.approves}, and nothing in force waits for this approval"
    return _notice(event, now, None, text, _COUNTS_NOT)


def unapproved(event: Event, evaluators: Iterable[ScopeEvaluator], now: int) -> Notice | None:
    """The refusal of a reset that ends a firing which too few other people have approved; None if it may be done."""
    if event.kind != "reset":
        return None
    lacking = [
        f"{stage_in_force(each.state)} of {each.policy} on {each.scope} needs "
        f"{count_of(found.missing(event.author), 'approval')} by other people (`ksctl approve --purpose reset --head "
        f"{each.policy}/{each.scope} --source SOURCE --key KEY --store STORE`)"
        for each in evaluators
        if applies(event, each.scope)
        and not is_unnamed(event, each)
        and (found := approvals_of(each)) is not None
        and found.missing(event.author)
    ]
    if not lacking:
        return None
    text = (
        f"the reset by {event.author or 'unknown'} was not carried out: {' and '.join(lacking)}. The command is not "
        "kept: give it again once they have approved it. Closing, cancelling and stricter locks are possible meanwhile"
    )
    return notices.command_not_carried_out(event, now, text)


def _notice(event: Event, now: int, evaluator: ScopeEvaluator | None, text: str, title: str) -> Notice:
    policy, scope = ("operator", "portfolio") if evaluator is None else (evaluator.policy, evaluator.scope)
    severity: Severity = "info" if title == _COUNTS else "warning"
    return Notice(from_micros(now), policy, scope, "warning", severity, text, event.id, title=title)


def is_of_step(event: Event) -> bool:
    """Whether an approval is of a step of a way back, and of no reset."""
    return event.kind == "approve" and not (event.approves or "").startswith(BEGINS)
