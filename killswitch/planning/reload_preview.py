"""What a reload does to what is in force, before it happens (R10), and why it is refused or has to wait. Pure.

It is refused where a policy or a stage with something in force would lose its place to another name that does not say
so (R6). It waits where it would drop a close that waits for accounts (R7).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from msgspec import Struct

from killswitch.engine.state import StoredState, level_in_force, stage_in_force
from killswitch.model.instant import from_micros
from killswitch.planning.reload.continuation import PolicyLink, SetContinuation, no_rest
from killswitch.planning.reload.migration import dropped_close, is_orphaned, migrated, needs_operator_reset
from killswitch.planning.scopes.compiled_policy import Identity, compile_policy
from killswitch.planning.scopes.migrated_states import ScopeState
from killswitch.planning.scopes.prepared_reload import is_drawn
from killswitch.render.formats import instant


class ReloadEffect(Struct, frozen=True):
    """What a reload does to one thing of a policy on a scope; names are those before it."""

    policy: str
    scope: str
    subject: str
    """The stage, the trigger, or the policy."""
    text: str

    @property
    def line(self) -> str:
        return f"{self.policy} on {self.scope}: {self.text}"


class ReloadPreview(Struct, frozen=True):
    """What a reload does. `refused` and `held` say why it is not taken, or not yet."""

    stays: tuple[ReloadEffect, ...] = ()
    """Stages in force that stay so, with their new name and level, and how they are reset from now on."""
    orphans: tuple[ReloadEffect, ...] = ()
    """Stages in force without a place: they stay until an operator resets them."""
    clocks: tuple[ReloadEffect, ...] = ()
    """Clocks of confirmations and resets that begin again."""
    windows: tuple[ReloadEffect, ...] = ()
    """Windows that are longer than the history, and until when they are partly known (R9)."""
    held: tuple[ReloadEffect, ...] = ()
    refused: tuple[ReloadEffect, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """Every effect in a line, the gravest first."""
        kinds = (self.refused, self.held, self.orphans, self.stays, self.clocks, self.windows)
        return tuple(each.line for kind in kinds for each in kind)


def reload_preview(
    change: SetContinuation,
    states: Iterable[ScopeState],
    present: Sequence[Identity] = (),
    symbols: Collection[str] = (),
    now: int = 0,
    rest: Callable[[], None] = no_rest,
) -> ReloadPreview:
    """What the reload does. `present`: the accounts of the last snapshot; `symbols`: those that are traded.

    `rest` is called between two scopes.
    """
    states = tuple(states)
    found: dict[str, list[ReloadEffect]] = {
        "stays": [], "orphans": [], "clocks": [], "windows": [], "held": [], "refused": [*_refused(change, states)],
    }  # fmt: skip
    keeps: dict[str, tuple[int, int]] = {}
    gone = {graph.policy for graph in change.gone}
    for state in states:
        rest()
        link = change.links.get(state.policy)
        if link is None:
            if state.policy in gone:  # else it was an orphan before, and stays one or finds its policy again
                _of_gone(state, "the policy is gone", found)
        elif not is_drawn(link, state.scope, present, symbols):
            _of_gone(state, "the policy no longer draws this scope", found)
        else:
            _of_link(state, link, found)
            if not link.is_same and state.known_since is not None:
                if link.former not in keeps:
                    keeps[link.former] = compile_policy(link.before).keep, compile_policy(link.after).keep
                found["windows"] += _young_windows(state, link, keeps[link.former], now)
    return ReloadPreview(**{kind: tuple(effects) for kind, effects in found.items()})


def _of_gone(state: ScopeState, why: str, found: dict[str, list[ReloadEffect]]) -> None:
    waiting = state.engine.waiting
    if waiting is not None:
        text = f"the close of {waiting.stage} waits for accounts that cannot be read, and {why}"
        found["held"].append(ReloadEffect(state.policy, state.scope, waiting.stage, text))
    if level_in_force(state.engine):
        stage = stage_in_force(state.engine) or "a stage"
        text = f"{stage} stays in force until an operator resets it, because {why}"
        found["orphans"].append(ReloadEffect(state.policy, state.scope, stage, text))


def _of_link(state: ScopeState, link: PolicyLink, found: dict[str, list[ReloadEffect]]) -> None:
    engine, place = state.engine, (state.policy, state.scope)
    if engine.waiting is not None and (why := dropped_close(engine.waiting, link)) is not None:
        text = f"the close of {engine.waiting.stage} waits for accounts that cannot be read, and {why}"
        found["held"].append(ReloadEffect(*place, engine.waiting.stage, text))
    after = migrated(engine, link, state.decision)
    if level_in_force(engine):
        stage = stage_in_force(engine) or "a stage"
        if is_orphaned(engine, link):
            text = f"{stage} stays in force until an operator resets it, because the stage is gone"
            found["orphans"].append(ReloadEffect(*place, stage, text))
        else:
            found["stays"].append(ReloadEffect(*place, stage, _stays(engine, after, stage, link)))
        if engine.reset_since is not None and after.reset_since is None:
            found["clocks"].append(ReloadEffect(*place, stage, f"the time until the reset of {stage} begins again"))
    for name, trigger in engine.triggers.items():
        continued = link.new_triggers.get(name)
        kept = None if continued is None else after.triggers.get(continued)
        if trigger.since is not None and (kept is None or kept.since is None) and not link.is_same:
            what = "begins again" if continued is not None else "ends, because the trigger is gone"
            found["clocks"].append(ReloadEffect(*place, name, f"the confirmation of {name} {what}"))


def _stays(before: StoredState, after: StoredState, stage: str, link: PolicyLink) -> str:
    name, old, new = stage_in_force(after) or stage, level_in_force(before), level_in_force(after)
    parts = [f"{stage} stays in force"]
    if name != stage or link.is_renamed:
        parts.append(f"as {name} of {link.after.policy}")
    if old != new:
        parts.append(f"at level {new} (it was {old})")
    if not link.is_same and after.by_hand and not before.by_hand and needs_operator_reset(before, link):
        parts.append("and is reset by an operator only, since the conditions of its reset differ")
    return " ".join(parts)


def _young_windows(state: ScopeState, link: PolicyLink, keeps: tuple[int, int], now: int) -> Iterator[ReloadEffect]:
    """`keeps`: the longest windows before and after, microseconds."""
    before, after = keeps
    until = max(state.known_since or 0, now - before) + after
    if after > before and until > now:
        text = f"its longest window is partly known until {instant(from_micros(until))}"
        yield ReloadEffect(state.policy, state.scope, link.after.policy, text)


def _refused(change: SetContinuation, states: Sequence[ScopeState]) -> Iterator[ReloadEffect]:
    """Renames that are not declared while anything is in force (R6)."""
    active = [each for each in states if not each.is_at_rest]
    by_policy = {each.policy for each in active}
    added = ", ".join(graph.policy for graph in change.added)
    for state in active:
        link = change.links.get(state.policy)
        if link is None:
            if added and any(graph.policy == state.policy for graph in change.gone):
                text = (
                    f"the policy is gone while a stage is in force, and {added} is new: write "
                    f"`formerly: {state.policy}` where it is the same, or make two changes of it"
                )
                yield ReloadEffect(state.policy, state.scope, state.policy, text)
            continue
        new = [stage.name for stage in link.after.stages if stage.name not in link.stages]
        for stage in _stages_of(state.engine):
            if link.stage_after(stage) is None and link.stage_before(stage) is not None and new:
                text = (
                    f"the stage {stage} is gone while it is in force, and {', '.join(new)} is new: write "
                    f"`formerly: {stage}` where it is the same, or make two changes of it"
                )
                yield ReloadEffect(state.policy, state.scope, stage, text)
    for former, other in change.moved_content.items() if by_policy else ():
        if {former, other} & by_policy:
            name = change.links[former].after.policy
            text = f"it has the content that {other} had: write `formerly: {other}` if the names have changed places"
            yield ReloadEffect(name, "every scope", name, text)
    taken = {link.after.policy for link in change.links.values() if link.is_renamed} - change.links.keys()
    for state in active:
        if state.policy in taken:
            text = "an earlier policy of this name has left a stage in force: reset it first, or choose another name"
            yield ReloadEffect(state.policy, state.scope, state.policy, text)


def _stages_of(engine: StoredState) -> Iterable[str]:
    """The stages with something in force, or a close that waits."""
    names = [engine.stage if engine.level else None]
    names += [None if engine.partial is None else engine.partial.stage]
    names += [None if engine.waiting is None else engine.waiting.stage]
    return dict.fromkeys(name for name in names if name is not None)
