"""Refusals of resets and unlocks: a stage may declare a time before which nobody resets its scope.

The time counts from the firing and is in the stored state, so that no edit, reload or restart of a policy shortens it,
also where the policy is gone. The whole command is refused, and nothing of it is kept for later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from killswitch.engine.state import reset_is_refused, stage_in_force
from killswitch.model.decision import Notice
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import Event
from killswitch.planning import notices
from killswitch.planning.operator.closes import Orphan, applies
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.render.formats import duration_text, instant

REFUSED = ("reset", "unlock")
"""The kinds of commands that are refused meanwhile."""


def refusals(
    events: Iterable[Event], evaluators: Iterable[ScopeEvaluator], orphans: Iterable[Orphan], now: int
) -> dict[str, Notice]:
    """Event id of each command that is refused at `now` (microseconds) → the notice that says why, and until when."""
    commands = [event for event in events if event.kind in REFUSED]
    if not commands:
        return {}
    holding = [
        *((each.scope, each.state.no_reset_before, _declared_by(each))
          for each in evaluators if reset_is_refused(each.state, now)),
        *((each.scope, each.no_reset_before, f"{each.stage or 'a stage'} of {each.policy}, which is gone,")
          for each in orphans if each.no_reset_before is not None and now < each.no_reset_before),
    ]  # fmt: skip
    found: dict[str, Notice] = {}
    for event in commands:
        why = [(end or now, scope, stage) for scope, end, stage in holding if applies(event, scope)]
        if why:
            found[event.id] = _refusal(event, sorted(why), now)
    return found


def _declared_by(evaluator: ScopeEvaluator) -> str:
    """The stage that has fired, its policy, and its place in the files."""
    stage = evaluator.machine.in_force(evaluator.state)
    name = stage_in_force(evaluator.state) or "a stage"
    place = "" if stage is None else f" ({stage.place.file}:{stage.place.line})"
    return f"{name} of {evaluator.policy}{place}"


def _refusal(event: Event, holding: Sequence[tuple[int, str, str]], now: int) -> Notice:
    last = from_micros(max(end for end, _, _ in holding))
    stages = " and ".join(f"{stage} allows none on {scope} before {instant(from_micros(end))}"
                          for end, scope, stage in holding)  # fmt: skip
    what = "unlock" if event.kind == "unlock" else "reset"
    text = (
        f"the {what} by {event.author or 'unknown'} was not carried out: {stages}, in "
        f"{duration_text(last - from_micros(now))}. Nobody can lift that earlier, and the command is not kept: give it "
        "again from then on. Closing, cancelling and stricter locks are possible meanwhile"
    )
    return notices.command_not_carried_out(event, now, text)
