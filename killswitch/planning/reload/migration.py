"""The state of a policy on a scope under the next text of the policy. Pure.

What has fired stays in force (R1): no reload un-latches a stage, shortens its lock, or lets it fire again. Numbers of
levels follow the names of stages (R3). Of the old and the new text the stricter applies to what is in force (R2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from killswitch.engine.state import (
    PartialFiring,
    PendingClose,
    StoredState,
    StoredTrigger,
    level_in_force,
    partial_in_force,
    stage_in_force,
)
from killswitch.graph.nodes import AutoReset, Stage
from killswitch.planning.reload.continuation import PolicyLink, resolved


def migrated(state: StoredState, link: PolicyLink, decision: str | None = None) -> StoredState:
    """The state under the new text. `decision`: the id of the last firing, for a stage in force that is gone."""
    if link.is_same:
        return state
    in_force = level_in_force(state) > 0
    after = _with_levels(state, link, decision or "") if in_force else state
    return replace(
        after,
        triggers=_triggers(state.triggers, link),
        spent=None if state.spent is None else tuple(
            name for name, trigger in link.triggers.items() if trigger.former in state.spent
        ),
        by_hand=after.by_hand or (in_force and needs_operator_reset(state, link)),
        reset_since=None if state.reset_since is None or not _reset_is_same(state, link) else state.reset_since,
        cooldown_until=_cooldown(state, link),
        acted=_acted(state.acted, link),
        barren=tuple(record for each in state.barren if (record := _of_stage(each, link)) is not None),
        waiting=None if state.waiting is None else waiting_after(state.waiting, link),
    )  # fmt: skip


def numbered(state: StoredState, stages: Sequence[Stage]) -> StoredState:
    """The state with the levels that its stages have now, by their names; for a state whose own text is not known.

    An orphan that has its place again is latched (R7).
    """
    levels = {stage.name: stage.level for stage in stages}
    partial = state.partial
    if partial is not None and partial.is_orphan and partial.level > state.level and partial.stage in levels:
        return replace(state, level=levels[partial.stage], stage=partial.stage, partial=None, by_hand=True)
    level = levels.get(state.stage or "", state.level) if state.level else 0
    if partial is not None:
        above = level + 1 if partial.level > state.level else 0  # one without a place stays above what it was above
        partial = replace(partial, level=levels.get(partial.stage, max(partial.level, above)))
    return replace(state, level=level, partial=partial)


def _with_levels(state: StoredState, link: PolicyLink, decision: str) -> StoredState:
    """The state with the new numbers of the stages in force, by their names.

    A stage that is gone stays in force as one that fired and did not latch: nothing but an operator's reset ends it,
    what was above it may still fire, and what was not may not.
    """
    latched = link.stage_after(state.stage) if state.level else None
    in_force = partial_in_force(state)
    returned = None
    if in_force is None or in_force.is_orphan:
        returned = _returned(stage_in_force(state) or "", link)
    if returned is not None:  # an orphan has its place again: latched, so that it does not fire a second time
        return replace(state, level=returned.level, stage=returned.name, partial=None, by_hand=True)
    partial = None if state.partial is None else _partial(state.partial, link)
    if not state.level:
        return replace(state, partial=partial, by_hand=state.by_hand or _is_gone(state.partial, link))
    if latched is not None:
        return replace(state, level=latched.level, stage=latched.name, partial=partial)
    covered = [
        after
        for stage in link.before.stages
        if stage.level <= state.level and (after := link.stage_after(stage.name)) is not None
    ]
    highest = max(covered, key=lambda each: each.level, default=None)
    level = 0 if highest is None else highest.level
    if partial is None or in_force is None or partial.level <= level:
        partial = PartialFiring(state.stage or "", level + 1, state.fired_at or 0, decision, is_orphan=True)
    return replace(state, level=level, stage=None if highest is None else highest.name, partial=partial, by_hand=True)


def _returned(stage: str, link: PolicyLink) -> Stage | None:
    """The stage of this name in the next text, if the former one had none of it; None otherwise."""
    if link.stage_before(stage) is not None:
        return None
    return next((each for each in link.after.stages if each.name == stage), None)


def _partial(partial: PartialFiring, link: PolicyLink) -> PartialFiring:
    """The firing under the new number of its stage; of one that is gone, above every stage that was not above it."""
    after = link.stage_after(partial.stage) or _returned(partial.stage, link)
    if after is not None:
        return replace(partial, stage=after.name, level=after.level)
    below = [
        each.level
        for stage in link.before.stages
        if stage.level <= partial.level and (each := link.stage_after(stage.name)) is not None
    ]
    return replace(partial, level=max(below, default=0) + 1)


def _is_gone(partial: PartialFiring | None, link: PolicyLink) -> bool:
    return partial is not None and link.stage_after(partial.stage) is None


def is_orphaned(state: StoredState, link: PolicyLink) -> bool:
    """Whether the stage in force has no place in the new text (R7)."""
    name = stage_in_force(state)
    return level_in_force(state) > 0 and link.stage_after(name) is None and _returned(name or "", link) is None


def needs_operator_reset(state: StoredState, link: PolicyLink) -> bool:
    """Whether only an operator may reset what is in force, because the old or the new text says so (R2).

    A condition that is another one has to hold next to the old one; as the state keeps no text, an operator judges
    that.
    """
    name = stage_in_force(state)
    before, after = link.stage_before(name or ""), link.stage_after(name)
    if after is None:
        return True
    if after.reset is None:
        return False  # the next text says so itself
    return before is None or before.reset is None or not _resets_no_earlier(before.reset, after.reset, link)


def _resets_no_earlier(before: AutoReset, after: AutoReset, link: PolicyLink) -> bool:
    """Whether the new text resets no earlier than the old one: the same condition, held as long or longer."""
    return (
        _condition(before, link, of_before=True) == _condition(after, link, of_before=False)
        and after.hold >= before.hold
        and (before.at_most is None or (after.at_most is not None and after.at_most <= before.at_most))
        and (before.accept or not after.accept)
    )


def _condition(reset: AutoReset, link: PolicyLink, *, of_before: bool) -> object:
    graph = link.before if of_before else link.after
    return resolved(graph.conditions[reset.condition], graph.signals)


def _reset_is_same(state: StoredState, link: PolicyLink) -> bool:
    """Whether the reset's clock has watched what the new condition says (R4)."""
    name = stage_in_force(state)
    before, after = link.stage_before(name or ""), link.stage_after(name)
    if before is None or after is None or before.reset is None or after.reset is None:
        return False
    old, new = _condition(before.reset, link, of_before=True), _condition(after.reset, link, of_before=False)
    return old == new and link.measures_alike


def _cooldown(state: StoredState, link: PolicyLink) -> int | None:
    """The end of the running cooldown: the earlier of both texts (R2)."""
    until, fired_at = state.cooldown_until, state.fired_at
    after = link.stage_after(state.stage)
    if until is None or fired_at is None or after is None:
        return until
    return min(until, max(fired_at + after.cooldown, fired_at))


def _acted(acted: Mapping[str, int], link: PolicyLink) -> dict[str, int]:
    """Ends of cooldowns of stages that acted without latching: the earlier of both texts."""
    found = {}
    for record, until in acted.items():
        former, _, account = record.partition("/")
        before, after = link.stage_before(former), link.stage_after(former)
        if before is not None and after is not None:
            found[f"{after.name}/{account}"] = min(until, until - before.cooldown + after.cooldown)
    return found


def _of_stage(record: str, link: PolicyLink) -> str | None:
    """A record of a stage under its new name; None if the stage is gone."""
    former, _, rest = record.partition("/")
    after = link.stage_after(former)
    return None if after is None else f"{after.name}/{rest}"


def waiting_after(waiting: PendingClose, link: PolicyLink) -> PendingClose:
    """The pending close under the new names; targets, accounts and limits are the firing's (R1)."""
    after = link.stage_after(waiting.stage)
    names = tuple(link.new_triggers.get(name, name) for name in waiting.triggers)
    return replace(waiting, stage=waiting.stage if after is None else after.name, triggers=names)


def dropped_close(waiting: PendingClose, link: PolicyLink) -> str | None:
    """Why the new text would drop the pending close; None if it would not (R7)."""
    stage: Stage | None = link.stage_after(waiting.stage)
    if stage is None:
        return f"the stage {waiting.stage} is gone"
    if link.before.mode == "enforce" and link.after.mode != "enforce":
        return "the policy only observes"
    return None


def _triggers(triggers: Mapping[str, StoredTrigger], link: PolicyLink) -> dict[str, StoredTrigger]:
    """The triggers that are the same, with their clocks as far as these have watched the new condition (R4, R5)."""
    found = {}
    for name, trigger in link.triggers.items():
        stored = triggers.get(trigger.former)
        if stored is None:
            continue
        if not trigger.keeps_clock:
            stored = replace(stored, held=False, confirmed=False, since=None, ticks=None)
        found[name] = stored
    return found
