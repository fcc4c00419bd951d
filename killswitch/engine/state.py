"""The state of one policy on one scope, as `step` moves it. Immutable; times in microseconds."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct
from msgspec.structs import replace

NEVER = 1 << 62
"""A time that does not come: later than any instant in microseconds."""


class Triggers(Struct, frozen=True):
    """All triggers: bit i of a mask, or key i, is trigger i of the graph. The dicts are never changed in place.

    held: counts as true. confirmed: was true for long enough, and stays so while it is held.
    reported: its long unknown was told. since: when it began to be held.
    ticks: scheduled ticks held, of the pending ones that confirm in ticks. unknown_since: when it became unknown.
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


class Waiting(Struct, frozen=True):
    """A stage that fired while accounts could not be read, and whose close is kept for them.

    `triggers` are those that were confirmed; `since` and `until` are microseconds; `accounts` could not be read.
    `reported`: with which accounts readable people were told that it waits, so that they are told once.
    """

    stage: str
    triggers: tuple[str, ...]
    since: int
    until: int
    accounts: tuple[str, ...]
    reported: tuple[str, ...] = ()


class PartialFiring(Struct, frozen=True):
    """The last firing that did not latch, because accounts could not be read: in force until a latch or a reset.

    What it locked stays locked and what it closed stays closed, so that status, reset and the incident go by it as by a
    latch; only the stage may fire again as if it had not. `fired_at` in microseconds, `decision` its id.
    """

    stage: str
    level: int
    fired_at: int
    decision: str


class State(Struct, frozen=True):
    """A stage machine and its triggers.

    `fired_value` is the unit value at the last firing, None where it was unknown.
    `barren` are the stages that should fire and could not, and after a slash why: each is told once.
    `acted` are accounts on which a stage that could not latch has acted all the same, and until when that rests.
    `spent`: bit i where a stage has fired on trigger i and it has not been seen false since.
    `waiting`: the close that accounts which cannot be read still owe.
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
    waiting: Waiting | None = None
    partial: PartialFiring | None = None


def initial() -> State:
    """Nothing held, nothing fired."""
    return State(QUIET)


class StoredTrigger(Struct, frozen=True):
    """One trigger as serialised."""

    held: bool
    confirmed: bool
    reported: bool
    since: int | None
    ticks: int | None
    unknown_since: int | None


class StoredState(Struct, frozen=True):
    """A state as serialised: triggers by name, so that an edit of the policy keeps what it can.

    `spent` is None in what versions before it have stored.
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
    waiting: Waiting | None = None
    partial: PartialFiring | None = None


def after_outage(stored: StoredState, since: int, now: int, cooldowns: Mapping[str, int]) -> StoredState:
    """The state of `since` as it goes on at `now`, after time that nothing has measured: that counts for no duration.

    What is left of a cooldown, a confirmation, a wait or an automatic reset is left afterwards; no cooldown is longer
    than its stage declares (`cooldowns`, by stage).
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


def level_in_force(state: State | StoredState) -> int:
    """The level of the stage that has fired and was not reset since, whether or not it has latched; 0 is normal."""
    return state.level if state.partial is None else max(state.level, state.partial.level)


def partial_in_force(state: State | StoredState) -> PartialFiring | None:
    """The firing without a latch, where that is what is in force: none above it, or at its level, has latched."""
    return state.partial if state.partial is not None and state.partial.level > state.level else None


def stage_in_force(state: State | StoredState) -> str | None:
    """The stage of that level."""
    partial = partial_in_force(state)
    return state.stage if partial is None else partial.stage


def to_stored(state: State, names: tuple[str, ...]) -> StoredState:
    """What is worth keeping: triggers that are neither held nor unknown are left out."""
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


def from_stored(stored: StoredState, names: tuple[str, ...]) -> State:
    """The state for a policy with these triggers: new ones are quiet, gone ones forgotten, latches stay."""
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
        due=0,  # whatever the policy says now, look at the next step
    )
    return State(
        triggers, stored.level, stored.stage, stored.fired_at, stored.fired_value,
        stored.cooldown_until, stored.reset_since, stored.barren, stored.acted,
        mask([name in _spent(stored) for name in names]), stored.waiting, stored.partial,
    )  # fmt: skip


def _spent(stored: StoredState) -> Collection[str]:
    """What a state stored by an older version must have fired on: what has held since before it fired."""
    if stored.spent is not None or stored.fired_at is None:
        return stored.spent or ()
    fired_at = stored.fired_at
    return [name for name, each in stored.triggers.items() if each.since is not None and each.since <= fired_at]
