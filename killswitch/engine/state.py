"""State of one policy on one scope, updated by `step`. Immutable; times in microseconds."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct
from msgspec.structs import asdict, replace

NEVER = 1 << 62
"""Later than any instant in microseconds."""


class Triggers(Struct, frozen=True):
    """State of all triggers: bit i of a mask, or key i, is trigger i of the graph. The dicts are never modified.

    held: counts as true. confirmed: was true for its confirmation time, and stays confirmed while held.
    since: when it became held.
    ticks: scheduled ticks held, for pending triggers that confirm in ticks. unknown_since: when it became unknown.
    due: before this instant nothing changes unless held or unknown do.
    """

    held: int
    confirmed: int
    unknown: int
    since: dict[int, int]
    ticks: dict[int, int]
    unknown_since: dict[int, int]
    due: int = NEVER


QUIET = Triggers(0, 0, 0, {}, {}, {})
"""No trigger is held or unknown."""


class PendingClose(Struct, frozen=True):
    """A pending close: its stage fired while accounts could not be read.

    `triggers` were confirmed at the firing; `since` and `until` are microseconds; `accounts` could not be read.
    """

    stage: str
    triggers: tuple[str, ...]
    since: int
    until: int
    accounts: tuple[str, ...]


class PartialFiring(Struct, frozen=True):
    """The last firing that did not latch, because accounts could not be read or `where` is true for no position.

    It is in force until a latch or a reset: its lock and its closes remain, so that status, reset and incident treat it
    like a latch; only the stage may fire again. `fired_at` is in microseconds, `decision` is the decision's id.
    `held_back`: `where` holds back its close. `is_orphan`: the stage had latched, and the text of the policy
    has it no more; where a text has it again, it is latched again and does not fire a second time.
    """

    stage: str
    level: int
    fired_at: int
    decision: str
    held_back: bool = False
    is_orphan: bool = False


class StoredTrigger(Struct, frozen=True):
    """One trigger as serialised. `reported`: an earlier version has notified that it is unknown; now always false."""

    held: bool
    confirmed: bool
    reported: bool
    since: int | None
    ticks: int | None
    unknown_since: int | None


class StageState(Struct, frozen=True, kw_only=True):
    """A stage machine and its triggers, which have another form while it runs than in the store.

    `fired_value`: unit value at the last firing; None if it was unknown.
    `barren`: "stage/accounts" of stages that fired without latching, and of which accounts could then be read.
    `acted`: "stage/account" of stages that acted without latching → end of their cooldown.
    `spent`: triggers on which a stage has fired and that were not observed false since.
    `waiting`: the pending close of accounts that cannot be read.
    `partial`: a firing that is in force and not latched.
    `recovered`: times of the automatic resets of the last 24 hours, where the stage limits them.
    `by_hand`: the stage that has fired is not reset automatically, because it was as often as it may be.
    `no_reset_before`: before it nothing and nobody resets the scope; the latest of the firings in force.
    """

    triggers: Triggers | dict[str, StoredTrigger]
    level: int
    stage: str | None
    fired_at: int | None
    fired_value: float | None
    cooldown_until: int | None
    reset_since: int | None
    barren: tuple[str, ...]
    acted: dict[str, int]
    spent: int | tuple[str, ...] | None
    waiting: PendingClose | None = None
    partial: PartialFiring | None = None
    recovered: tuple[int, ...] = ()
    by_hand: bool = False
    no_reset_before: int | None = None


class StageMachineState(StageState, frozen=True, kw_only=True):
    """The state while it runs: trigger i of the graph is bit i."""

    triggers: Triggers
    spent: int


class StoredState(StageState, frozen=True, kw_only=True):
    """The serialised state: triggers by name, so that edits of the policy keep the state of unchanged triggers.

    `spent` is None in states stored by versions without it.
    """

    triggers: dict[str, StoredTrigger]
    spent: tuple[str, ...] | None = None


def initial() -> StageMachineState:
    """The initial state: nothing held, nothing fired."""
    return StageMachineState(
        triggers=QUIET, level=0, stage=None, fired_at=None, fired_value=None, cooldown_until=None, reset_since=None,
        barren=(), acted={}, spent=0,
    )  # fmt: skip


def as_old_as_before(at: int, since: int, now: int) -> int:
    """When something happened that is as old `now` as it was at `since`, before an outage that counts for nothing."""
    return min(at + now - since, now)


def after_outage(
    stored: StoredState, since: int, now: int, cooldowns: Mapping[str, int], no_reset_for: int = 0
) -> StoredState:
    """The state of `since` shifted to `now` after an outage, whose time counts for no duration.

    Cooldowns, confirmations, waits and automatic resets keep their remaining time, and the resets of the last 24 hours
    their age; no cooldown becomes longer than its
    stage declares (`cooldowns`, by stage), and the time without a reset no longer than `no_reset_for`.
    """
    gap = now - since

    def begun(at: int | None) -> int | None:
        return None if at is None else as_old_as_before(at, since, now)

    def ends(until: int, longest: int | None) -> int:
        if until <= since:
            return until
        return until + gap if longest is None else min(until + gap, max(until, now + longest))

    waiting, cooldown, no_reset = stored.waiting, stored.cooldown_until, stored.no_reset_before
    return replace(
        stored,
        triggers={
            name: replace(each, since=begun(each.since), unknown_since=begun(each.unknown_since))
            for name, each in stored.triggers.items()
        },
        cooldown_until=None if cooldown is None else ends(cooldown, cooldowns.get(stored.stage or "")),
        reset_since=begun(stored.reset_since),
        no_reset_before=None if no_reset is None else ends(no_reset, no_reset_for),
        acted={name: ends(until, cooldowns.get(name.partition("/")[0])) for name, until in stored.acted.items()},
        waiting=None if waiting is None else replace(waiting, until=ends(waiting.until, None)),
        recovered=tuple(as_old_as_before(at, since, now) for at in stored.recovered),
    )


def level_in_force(state: StageState) -> int:
    """Level of the stage that has fired and was not reset since, latched or not; 0 is normal."""
    return state.level if state.partial is None else max(state.level, state.partial.level)


def partial_in_force(state: StageState) -> PartialFiring | None:
    """The partial firing, if it is in force: no stage at or above its level has latched."""
    return state.partial if state.partial is not None and state.partial.level > state.level else None


def reset_is_refused(state: StageState, now: int) -> bool:
    """Whether nobody may reset the scope yet, whatever has fired there."""
    return state.no_reset_before is not None and now < state.no_reset_before


def may_reset_from(state: StageState) -> int:
    """The first instant at which cooldown and time without a reset are over; 0 if neither runs."""
    return max(state.cooldown_until or 0, state.no_reset_before or 0)


def stage_in_force(state: StageState) -> str | None:
    """Name of the stage at the level in force."""
    partial = partial_in_force(state)
    return state.stage if partial is None else partial.stage


def to_stored(state: StageMachineState, names: tuple[str, ...]) -> StoredState:
    """Serialise a state; triggers that are neither held nor unknown are omitted."""
    now = state.triggers
    triggers = {
        name: StoredTrigger(
            bool(now.held >> i & 1), bool(now.confirmed >> i & 1), False,
            now.since.get(i), now.ticks.get(i), now.unknown_since.get(i),
        )
        for i, name in enumerate(names)
        if (now.held | now.unknown) >> i & 1
    }  # fmt: skip
    spent = tuple(name for i, name in enumerate(names) if state.spent >> i & 1)
    return StoredState(**asdict(state) | {"triggers": triggers, "spent": spent})


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
        since={i: t.since for i, t in enumerate(found) if t.since is not None},
        ticks={i: t.ticks for i, t in enumerate(found) if t.ticks is not None},
        unknown_since={i: t.unknown_since for i, t in enumerate(found) if t.unknown_since is not None},
        due=0,  # the policy may have changed: evaluate at the next step
    )
    spent = mask([name in _spent(stored) for name in names])
    return StageMachineState(**asdict(stored) | {"triggers": triggers, "spent": spent})


def _spent(stored: StoredState) -> Collection[str]:
    """Triggers on which the stage fired; for states of older versions, those held since before the firing."""
    if stored.spent is not None or stored.fired_at is None:
        return stored.spent or ()
    fired_at = stored.fired_at
    return [name for name, each in stored.triggers.items() if each.since is not None and each.since <= fired_at]
