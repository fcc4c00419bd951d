"""Checks of circuit breakers: warnings before the threshold, and recoveries that cost more than they seem to."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.graph.actions.kind import Surroundings
from killswitch.graph.nodes import Stage, Trigger
from killswitch.graph.wording import signals_of
from killswitch.policy.schema.policy import TRIP, TRIPPED, AnyPolicy, BreakerSpec
from killswitch.policy.yaml.source_map import Path
from killswitch.render.formats import count_of
from killswitch.signals.catalogue import BY_NAME


def check_warnings(triggers: Sequence[Trigger | None], around: Surroundings) -> None:
    """Report `warn_at` of a threshold that has no shares: one that a value falls to, or of 0."""
    for trigger in triggers:
        if trigger is None or not trigger.warn_at:
            continue
        threshold = trigger.threshold
        if threshold is not None and threshold.op in (">", ">=") and threshold.value > 0:
            continue
        path: Path = ("spec", "triggers", trigger.name, "warn_at")
        message = f"`{trigger.name}` has no threshold above 0 that a value rises to, so that there is no share of it"
        around.found.error("KS3070", path, message, "use it with `at_least` or `above`, or take it out", key=True)


def check_recovery(
    policy: AnyPolicy, triggers: Sequence[Trigger | None], stages: Sequence[Stage], around: Surroundings
) -> None:
    """Report an automatic recovery that closing cannot bring about, and what several of them may cost."""
    trip = next((each for each in triggers if each is not None and each.name == TRIP), None)
    stage = next((each for each in stages if each.name == TRIPPED), None)
    if not isinstance(policy, BreakerSpec) or trip is None or stage is None or stage.reset is None:
        return
    signals = around.columns.signals
    kept = sorted({name for index in signals_of(trip.condition) if BY_NAME[name := signals[index].name].axioms.is_kept})
    if not kept:
        return
    path: Path = ("spec", "stages", 0, "reset", "auto")
    if not stage.reset.accept:
        message = f"closing cannot cure `{kept[0]}`: the breaker would trip again, or never recover"
        fix = "write `recovery: manual`, or `accept: true`, which counts the loss from the present value then"
        around.found.error("KS3071", path, message, fix)
        return
    threshold, most = trip.threshold, stage.reset.at_most
    if threshold is None or most is None or BY_NAME[signals[threshold.index].name].unit != "fraction":
        return
    lost = 1.0 - (1.0 - threshold.value) ** (most + 1)
    message = (
        f"each recovery accepts the loss: with {count_of(most, 'recovery')} a day the breaker may lose "
        f"{lost:.1%} of the equity before a person has to look"
    )
    fix = "write `recovery: manual`, or fewer recoveries, unless that is intended"
    around.found.warning("KS5050", (*path, "accept"), message, fix, key=True)
