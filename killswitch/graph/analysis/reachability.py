"""Reachability: finds stages that can never fire, and higher levels that are no stricter than lower ones.

A *way* to fire a stage is one of its `any` triggers together with all of its `all` triggers. Of several stages that
could fire at once only the first does, by level, then in the order written. A stage whose every way also fires an
earlier stage therefore never fires, unless the earlier one may decline.

A push message causes an evaluation that counts no tick. A confirmation in time, or none, can end on it; a confirmation
in ticks cannot, not even one of a single tick.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf

from msgspec import Struct

from killswitch.graph.actions.registry import action_kind
from killswitch.graph.nodes import OnUnknown, Stage, ThresholdStep, Trigger, step_of
from killswitch.graph.problems import Findings
from killswitch.policy.schema.policy import AnyPolicy
from killswitch.policy.schema.trigger import ExpressionTrigger
from killswitch.policy.yaml.source_map import Path

Way = frozenset[int]


def condition_path(policy: AnyPolicy, name: str) -> Path:
    """Path of a trigger's condition: its comparison or its expression."""
    written = policy.triggers[name]
    if isinstance(written, ExpressionTrigger):
        return ("spec", "triggers", name, "when")
    return ("spec", "triggers", name, written.comparison or "signal")


def check_reachable(
    policy: AnyPolicy,
    triggers: Sequence[Trigger | None],
    stages: Sequence[Stage],
    never: Collection[int],
    found: Findings,
) -> None:
    """Report stages that can never fire, and higher levels that are no stricter than lower ones.

    Stages count from 0 in the order written; `never` are the triggers that can never be true.
    """
    # unresolved names are reported already; their consequences are not
    analysis = _Analysis(policy, triggers, stages, frozenset(never), found)
    resolved = [number for number in range(len(stages)) if analysis.is_resolved(number)]
    earlier: list[int] = []
    for number in sorted(resolved, key=lambda number: (-stages[number].level, number)):
        if not analysis.out_of_reach(number) and not analysis.shadowed(number, earlier):
            analysis.shares_level(number, earlier)
            earlier.append(number)


def ways(stage: Stage) -> list[Way]:
    """Every minimal set of triggers that fires the stage if all are confirmed."""
    needed = frozenset(stage.all_of)
    return [needed | {each} for each in stage.any_of] or [needed]


def can_decline(stage: Stage) -> bool:
    """Whether the stage may leave firing to the next stage although its triggers hold: see `docs/adr/0005`.

    It does if its prices are not corroborated, or if its closes select nothing of a non-empty book.
    """
    selections = {action_kind(action).selection(action) for action in stage.actions}
    return stage.corroborate or ("part" in selections and "whole" not in selections)


class _Analysis(Struct, frozen=True):
    policy: AnyPolicy
    triggers: Sequence[Trigger | None]
    stages: Sequence[Stage]
    never: frozenset[int]
    found: Findings

    def is_resolved(self, number: int) -> bool:
        """Whether every name in the stage is resolved."""
        if self.found.gaps.has_flaw(("spec", "stages", number)):
            return False
        written, made = self.policy.stages[number], self.stages[number]
        names = {*written.any_of, *written.all_of}
        numbers = {*made.any_of, *made.all_of}
        return len(names) == len(numbers) and all(self.triggers[each] is not None for each in numbers)

    def out_of_reach(self, number: int) -> bool:
        """Report a stage without a possible way to fire; True if reported."""
        possible = [way for way in ways(self.stages[number]) if not way & self.never]
        if possible and not all(self._contradicts(way) for way in possible):
            return False
        why = "its triggers contradict each other" if possible else "it needs a trigger that can never hold"
        self._unreachable(number, why, "correct the triggers, or take the stage out")
        return True

    def shadowed(self, lower: int, earlier: Sequence[int]) -> bool:
        """Report a stage if an earlier one always fires instead; True if reported."""
        weaker = [higher for higher in earlier if self._no_stricter(higher, lower)]
        for higher in earlier:
            first, second = self.stages[higher], self.stages[lower]
            covered = all(any(self._implies(way, other) for other in ways(first)) for way in ways(second))
            if covered and higher not in weaker and can_decline(first):
                message = f"stage `{second.name}` fires only when level {first.level} `{first.name}` declines to"
                fix = "if that is meant, leave it; otherwise give it a lower threshold or a shorter confirmation"
                self.found.warning("KS5008", ("spec", "stages", lower, "name"), message, fix)
            elif covered and higher not in weaker:
                why = f"whenever its triggers hold, level {first.level} `{first.name}` fires instead"
                fix = "give it a lower threshold or a shorter confirmation, or take it out"
                if first.level == second.level:
                    fix = f"give it a level above {first.level}, or take it out"
                self._unreachable(lower, why, fix)
                return True
        return False

    def shares_level(self, number: int, earlier: Sequence[int]) -> None:
        """Warn of two stages with one level: a level fires once, and then only on a new loss."""
        stage = self.stages[number]
        first = next((each for each in earlier if self.stages[each].level == stage.level), None)
        if first is not None:
            other = self.stages[first].name
            message = f"level {stage.level} is that of `{other}` too: of the two, only the one that fires first acts"
            fix = f"give it a level of its own, or make one stage of `{other}` and this one"
            self.found.warning("KS5009", ("spec", "stages", number, "level"), message, fix)

    def _no_stricter(self, higher: int, lower: int) -> bool:
        """Report triggers, each sufficient for the higher level, that are no stricter than one of the lower level."""
        first, second = self.stages[higher], self.stages[lower]
        if first.level == second.level:
            return False
        enough = [each for way in ways(first) if len(way) == 1 for each in way]
        needed = sorted({*second.any_of, *second.all_of})
        pairs = [(strong, weak) for strong in enough for weak in needed if strong != weak]
        return sum(self._not_stricter(first, strong, second, weak) for strong, weak in pairs) > 0

    def _not_stricter(self, first: Stage, strong: int, second: Stage, weak: int) -> bool:
        """Report `strong`, sufficient for the higher level, if it is no stricter than `weak` of the lower level."""
        above, below = self._trigger(strong), self._trigger(weak)
        one, other = step_of(above.condition), step_of(below.condition)
        if one is None or other is None or (one.index, one.rising) != (other.index, other.rising):
            return False
        if one.severity > other.severity:
            return False
        path = condition_path(self.policy, above.name)
        levels = f"level {first.level} `{first.name}`", f"level {second.level} `{second.name}`"
        if one.severity == other.severity and not is_confirmed_with(above, below):
            what = "answer to unknown" if _confirms_no_longer(above, below) else "confirmation"
            message = f"only its {what} makes {levels[0]} stricter than {levels[1]}: the threshold is the same"
            self.found.warning("KS5004", path, message, "give the higher level a threshold of its own")
            return False
        message = f"{levels[0]} asks for no more than {levels[1]}: {_written(above)} against {_written(below)}"
        direction = "above" if one.rising else "below"
        fix = f"set `{above.name}` {direction} {_written(below)}, or exchange the levels"
        self.found.error("KS3022", path, message, fix)
        return True

    def _implies(self, way: Way, other: Way) -> bool:
        """Whether all triggers of `other` are confirmed whenever those of `way` are."""
        return all(any(self._follows(each, from_) for from_ in way) for each in other)

    def _follows(self, number: int, from_: int) -> bool:
        if number == from_:
            return True
        one, other = self._trigger(number), self._trigger(from_)
        if not is_confirmed_with(one, other):
            return False
        step, reached = step_of(one.condition), step_of(other.condition)
        if step is None or reached is None:
            return one.condition == other.condition
        return (step.index, step.rising) == (reached.index, reached.rising) and step.severity <= reached.severity

    def _contradicts(self, way: Way) -> bool:
        """Whether two thresholds of `way` exclude each other."""
        triggers = [each for each in map(self._trigger, way) if each.on_unknown != "trip"]
        steps = [step for each in triggers if (step := step_of(each.condition)) is not None]
        return any(_are_disjoint(low, high) for low in steps if low.rising for high in steps if not high.rising)

    def _unreachable(self, number: int, why: str, fix: str) -> None:
        message = f"stage `{self.stages[number].name}` can never fire: {why}"
        self.found.error("KS3021", ("spec", "stages", number, "name"), message, fix)

    def _trigger(self, number: int) -> Trigger:
        found = self.triggers[number]
        if found is None:
            raise AssertionError("stages with a faulty trigger are not analysed")
        return found


def _are_disjoint(low: ThresholdStep, high: ThresholdStep) -> bool:
    """Whether no value satisfies both the rising step `low` and the falling step `high`."""
    if low.index != high.index:
        return False
    return low.value > high.value or (low.value == high.value and (low.strict or high.strict))


def is_confirmed_with(one: Trigger, other: Trigger) -> bool:
    """Whether `one` is confirmed at every evaluation at which `other` is, if its condition is true whenever that is."""
    return _holds_no_less(one, other) and _confirms_no_longer(one, other)


def _holds_no_less(one: Trigger, other: Trigger) -> bool:
    """Whether `one` keeps its clock and its confirmation through unknown values wherever `other` does."""
    through: dict[OnUnknown, int] = {"warn": 0, "hold": 1, "trip": 2}
    return through[one.on_unknown] >= through[other.on_unknown]


def _confirms_no_longer(one: Trigger, other: Trigger) -> bool:
    """Whether `one` is confirmed whenever `other` is, if both hold since the same evaluation.

    Ticks and time are not comparable: any time may pass without a tick, and any number of ticks in a short time. A
    single tick is longer than no confirmation, which any evaluation completes.
    """
    if one.confirm_ticks:
        return one.confirm_ticks <= other.confirm_ticks
    return one.confirm == 0 or (other.confirm_ticks == 0 and one.confirm <= other.confirm)


def _written(trigger: Trigger) -> str:
    if trigger.threshold is not None:
        return trigger.threshold.written
    step = step_of(trigger.condition)
    return f"{inf if step is None else step.value:g}"
