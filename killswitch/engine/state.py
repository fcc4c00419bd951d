"""State of one policy on one scope, updated by `step`. Immutable; times in microseconds."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct
from msgspec.structs import replace

NEVER = 1 << 62
"""Later than any instant in microseconds."""


class Triggers(Struct, frozen=True):
    """State of all triggers: bit i of a mask, or key i, is trigger i of the graph. The dicts are never modified.

    held: counts as true. confirmed: was true for its confirmation time, and stays confirmed while held.
    reported: its unknown state was reported. since: when it became held.
    ticks: scheduled ticks held, for pending triggers that confirm in ticks. unknown_since: when it became unknown.
    due: before this instant nothing changes unless held or unknown do.
    """

    held: int
    confirmed: int
    unknown: int
    reported: int
    since: dict[int, int]
    ticks: dict[int, int]
    unknown_since: dict[int, int]
    due: int = NEVER


QUIET = Triggers(0, 0, 0, 0, {}, {}, {})
"""No trigger is held or unknown."""


class PendingClose(Struct, frozen=True):
    """A pending close: its stage fired while accounts could not be read.

    `triggers` were confirmed at the firing; `since` and `until` are microseconds; `accounts` could not be read.
    `reported`: sets of readable accounts for which the wait was already notified.
    """

    stage: str
    triggers: tuple[str, ...]
    since: int
    until: int
    accounts: tuple[str, ...]
    reported: tuple[str, ...] = ()


class PartialFiring(Struct, frozen=True):
    """The last firing that did not latch, because accounts could not be read or `where` is true for no position.

    It is in force until a latch or a reset: its lock and its closes remain, so that status, reset and incident treat it
    like a latch; only the stage may fire again. `fired_at` is in microseconds, `decision` is the decision's id.
    `held_back`: `where` holds back its close.
    """

    stage: str
    level: int
    fired_at: int
    decision: str
    held_back: bool = False


class StageMachineState(Struct, frozen=True):
    """A stage machine and its triggers.

    `fired_value`: unit value at the last firing; None if it was unknown.
    `barren`: "stage/reason" of stages that should fire and could not; each is notified once.
    `acted`: "stage/account" of stages that acted without latching → end of their cooldown.
    `spent`: bit i is set if a stage has fired on trigger i and the trigger was not observed false since.
    `waiting`: the pending close of accounts that cannot be read.
    `partial`: a firing that is in force and not latched.
    """

    triggers: Triggers
    level: int = 0
    stage: str | None = None
    fired_at: int | None = None
    fired_value: float | None = None
    cooldown_until: int | None = None
    reset_since: int | None = None
    barren: tuple[str, ...] = ()
    acted: dict[str, int] = {}
    spent: int = 0
    waiting: PendingClose | None = None
    partial: PartialFiring | None = None


def initial() -> StageMachineState:
    """The initial state: nothing held, nothing fired."""
    return StageMachineState(QUIET)


class StoredTrigger(Struct, frozen=True):
    """One trigger as serialised."""

    held: bool
    confirmed: bool
    reported: bool
    since: int | None
    ticks: int | None
    unknown_since: int | None


class StoredState(Struct, frozen=True):
    """A serialised state: triggers by name, so that edits of the policy keep the state of unchanged triggers.

    `spent` is None in states stored by versions without it.
    """

    triggers: dict[str, StoredTrigger]
    level: int
    stage: str | None
    fired_at: int | None
    fired_value: float | None
    cooldown_until: int | None
    reset_since: int | None
    barren: tuple[str, ...]
    acted: dict[str, int]
    spent: tuple[str, ...] | None = None
    waiting: PendingClose | None = None
    partial: PartialFiring | None = None


def after_outage(stored: StoredState, since: int, now: int, cooldowns: Mapping[str, int]) -> StoredState:
    """The state of `since` shifted to `now` after an outage, whose time counts for no duration.

    Cooldowns, confirmations, waits and automatic resets keep their remaining time; no cooldown becomes longer than its
    stage declares (`cooldowns`, by stage).
    """
    gap = now - since

    def begun(at: int | None) -> int | None:
        return None if at is None else min(at + gap, now)

    def ends(until: int, longest: int | None) -> int:
        if until <= since:
            return until
        return until + gap if longest is None else min(until + gap, max(until, now + longest))

    waiting, cooldown = stored.waiting, stored.cooldown_until
    return replace(
        stored,
        triggers={
            name: replace(each, since=begun(each.since), unknown_since=begun(each.unknown_since))
            for name, each in stored.triggers.items()
        },
        cooldown_until=None if cooldown is None else ends(cooldown, cooldowns.get(stored.stage or "")),
        reset_since=begun(stored.reset_since),
        acted={name: ends(until, cooldowns.get(name.partition("/")[0])) for name, until in stored.acted.items()},
        waiting=None if waiting is None else replace(waiting, until=ends(waiting.until, None)),
    )


def level_in_force(state: StageMachineState | StoredState) -> int:
    """Level of the stage that has fired and was not reset since, latched or not; 0 is normal."""
    return state.level if state.partial is None else max(state.level, state.partial.level)


def partial_in_force(state: StageMachineState | StoredState) -> PartialFiring | None:
    """The partial firing, if it is in force: no stage at or above its level has latched."""
    return state.partial if state.partial is not None and state.partial.level > state.level else None


def stage_in_force(state: StageMachineState | StoredState) -> str | None:
    """Name of the stage at the level in force."""
    partial = partial_in_force(state)
    return state.stage if partial is None else partial.stage


def to_stored(state: StageMachineState, names: tuple[str, ...]) -> StoredState:
    """Serialise a state; triggers that are neither held nor unknown are omitted."""
    now = state.triggers
    triggers = {
        name: StoredTrigger(
            bool(now.held >> i & 1), bool(now.confirmed >> i & 1), bool(now.reported >> i & 1),
            now.since.get(i), now.ticks.get(i), now.unknown_since.get(i),
        )
        for i, name in enumerate(names)
        if (now.held | now.unknown) >> i & 1
    }  # fmt: skip
    return StoredState(
        triggers, state.level, state.stage, state.fired_at, state.fired_value,
        state.cooldown_until, state.reset_since, state.barren, state.acted,
        tuple(name for i, name in enumerate(names) if state.spent >> i & 1), state.waiting, state.partial,
    )  # fmt: skip


_ABSENT = StoredTrigger(held=False, confirmed=False, reported=False, since=None, ticks=None, unknown_since=None)


def from_stored(stored: StoredState, names: tuple[str, ...]) -> StageMachineState:
    """Restore the state for these triggers: new ones start quiet, removed ones are dropped, latches stay."""
    found = [stored.triggers.get(name, _ABSENT) for name in names]

    def mask(bits: list[bool]) -> int:
        return sum(1 << i for i, bit in enumerate(bits) if bit)

    triggers = Triggers(
        held=mask([t.held for t in found]),
        confirmed=mask([t.confirmed for t in found]),
        unknown=mask([t.unknown_since is not None for t in found]),
        reported=mask([t.reported for t in found]),
        since={i: t.since for i, t in enumerate(found) if t.since is not None},
        ticks={i: t.ticks for i, t in enumerate(found) if t.ticks is not None},
        unknown_since={i: t.unknown_since for i, t in enumerate(found) if t.unknown_since is not None},
        due=0,  # the policy may have changed: evaluate at the next step
    )
    return StageMachineState(
        triggers, stored.level, stored.stage, stored.fired_at, stored.fired_value,
        stored.cooldown_until, stored.reset_since, stored.barren, stored.acted,
        mask([name in _spent(stored) for name in names]), stored.waiting, stored.partial,
    )  # fmt: skip


def _spent(stored: StoredState) -> Collection[str]:
    """Triggers on which the stage fired; for states of older versions, those held since before the firing."""
    if stored.spent is not None or stored.fired_at is None:
        return stored.spent or ()
    fired_at = stored.fired_at
    return [name for name, each in stored.triggers.items() if each.since is not None and each.since <= fired_at]
