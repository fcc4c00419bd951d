"""The rules of silence: what a watcher concludes from what it hears, at each of its checks. Pure.

All times are seconds of the watcher's monotonic clock, so that no step of the wall clock is a silence. Silence counts
from the latest of the last heartbeat on any way, the watcher's own start, its own wake after a pause, and the end of a
disarm. A gap between two of its own checks of more than twice the interval is a pause of the watcher, and no silence of
others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import SilenceRule
from killswitch.model.instant import SECOND

OWN_PAUSE: Final = 2.0
"""A gap between two checks of more than this many intervals is a pause of the watcher itself."""

Phase = Literal["pending", "armed", "disarmed", "fired"]
"""`pending`: never heard. `armed`: heard once. `disarmed`: for a planned restart. `fired`: nothing takes that back but
`arm`."""


class Beat(Struct, frozen=True):
    """A heartbeat: when it was sent, and the progress that it carries."""

    at: float
    progress: int | None = None


class WayAnswer(Struct, frozen=True):
    """The newest answer of one way: when it came, its heartbeat (None: never one), or why there is no answer."""

    at: float
    beat: Beat | None = None
    error: str | None = None


class Deafness(Struct, frozen=True):
    """Since when a way answers only errors, and the newest one."""

    since: float
    error: str


class SwitchState(Struct, frozen=True):
    """What a watcher remembers of a switch between two checks. `floor`: own start, own wake, end of a disarm."""

    since: float
    """When the watcher began to listen, or when the switch was armed by hand."""
    floor: float
    is_heard: bool = False
    """Whether it was heard once; this outlives a restart of the watcher."""
    is_fired: bool = False
    disarmed_until: float | None = None
    beat: Beat | None = None
    """The last heartbeat."""
    moved_at: float | None = None
    """When its progress changed last."""
    checked: float | None = None
    held_back: float = 0.0
    """Seconds by which own pauses have held firing back since the last heartbeat."""
    silent_checks: int = 0
    deaf: Mapping[str, Deafness] = {}
    """The ways that answer only errors."""


class SwitchProblem(Struct, frozen=True):
    """Something to be notified. `key`: what it is about, stable for as long as it lasts."""

    key: str
    text: str


class SwitchCheck(Struct, frozen=True):
    """The result of one check. `fires`: why the switch fires now; None if it does not."""

    state: SwitchState
    phase: Phase
    silence: float
    """Seconds since the last heartbeat that counts, or since the latest beginning of listening."""
    fires_in: float | None
    """Seconds until the first check at which it may fire, if nothing is heard; None unless it is armed."""
    fires: str | None = None
    problems: tuple[SwitchProblem, ...] = ()


def check(rule: SilenceRule, state: SwitchState, now: float, answers: Mapping[str, WayAnswer]) -> SwitchCheck:
    """Look at the answers of the ways at `now`. `answers`: by way; a way without one has not answered yet."""
    state = _with_newest_beat(_awake(rule, state, now), answers)
    state = replace(state, deaf=_deaf(state, answers, now), checked=now)
    if (until := state.disarmed_until) is not None:
        if now < until:
            return SwitchCheck(replace(state, silent_checks=0), "disarmed", 0.0, None)
        state = replace(state, floor=max(state.floor, until), disarmed_until=None)
    silence = now - _silent_since(rule, state, now)
    phase: Phase = "fired" if state.is_fired else "armed" if state.is_heard else "pending"
    problems = tuple(_problems(rule, state, phase, silence, now, answers))
    if phase == "fired":
        return SwitchCheck(state, phase, silence, None, problems=problems)
    if phase == "pending":
        waited = now - max(state.since, state.floor)
        if waited < _seconds(rule.pending.limit) or rule.pending.then == "page":
            return SwitchCheck(state, phase, silence, None, problems=problems)
        why = f"{_what(rule)} was never heard within {waited:.0f} s"
        return SwitchCheck(replace(state, is_fired=True), "fired", silence, None, why, problems)
    is_silent = silence >= _seconds(rule.timeout) and _counts(rule, state, now, answers)
    state = replace(state, silent_checks=state.silent_checks + 1 if is_silent else 0)
    if state.silent_checks >= rule.checks:
        why = f"no heartbeat of {_what(rule)} for {silence:.0f} s, at {rule.checks} checks in a row"
        return SwitchCheck(replace(state, is_fired=True), "fired", silence, None, why, problems)
    left = max(0.0, _seconds(rule.timeout) - silence)
    further = (rule.checks - state.silent_checks - (0 if is_silent else 1)) * _seconds(rule.check)
    return SwitchCheck(state, phase, silence, left + max(0.0, further), None, problems)


def armed(state: SwitchState, now: float) -> SwitchState:
    """The state after `arm`: a disarm is over; a switch that has fired is pending, and must be heard again."""
    if state.is_fired:
        return SwitchState(since=now, floor=now, checked=state.checked, deaf=state.deaf, beat=state.beat)
    return replace(state, floor=now, disarmed_until=None, silent_checks=0, held_back=0.0)


def disarmed(state: SwitchState, until: float) -> SwitchState:
    """The state after `disarm`: nothing fires until `until`, and silence counts from there."""
    return replace(state, disarmed_until=until, silent_checks=0)


def _awake(rule: SilenceRule, state: SwitchState, now: float) -> SwitchState:
    """The state after a pause of the watcher itself, if there was one: nothing was heard, and nothing is concluded.

    Pauses that have held firing back by one timeout in all count no more: a watcher that always sleeps protects nobody.
    """
    gap = 0.0 if state.checked is None else now - state.checked
    if gap <= OWN_PAUSE * _seconds(rule.check):
        return state
    held_back = state.held_back + gap
    if state.held_back >= _seconds(rule.timeout):
        return replace(state, held_back=held_back)
    return replace(state, floor=now, held_back=held_back, silent_checks=0)


def _with_newest_beat(state: SwitchState, answers: Mapping[str, WayAnswer]) -> SwitchState:
    """The state with the newest heartbeat of all ways. One from before the watcher listened arms nothing."""
    beats = [each.beat for each in answers.values() if each.beat is not None]
    newest = max(beats, key=_sent_at, default=None)
    if newest is None or (state.beat is not None and newest.at <= state.beat.at):
        return state
    has_moved = state.beat is None or newest.progress != state.beat.progress
    is_heard = state.is_heard or newest.at >= state.since
    moved_at = newest.at if has_moved or state.moved_at is None else state.moved_at
    return replace(state, beat=newest, moved_at=moved_at, is_heard=is_heard, held_back=0.0)


def _sent_at(beat: Beat) -> float:
    return beat.at


def _deaf(state: SwitchState, answers: Mapping[str, WayAnswer], now: float) -> dict[str, Deafness]:
    return {
        way: Deafness(state.deaf[way].since if way in state.deaf else now, answer.error)
        for way, answer in answers.items()
        if answer.error is not None
    }


def _silent_since(rule: SilenceRule, state: SwitchState, now: float) -> float:
    """When the last heartbeat that counts was sent, at the earliest when listening began."""
    if state.beat is None:
        return max(state.since, state.floor)
    last = state.beat.at
    if is_stuck(rule, state, now) and state.moved_at is not None:
        last = state.moved_at
    return max(last, state.since, state.floor)


def is_stuck(rule: SilenceRule, state: SwitchState, now: float) -> bool:
    """Whether heartbeats come, and their progress is the same for longer than declared."""
    if rule.progress_timeout is None or state.moved_at is None:
        return False
    return now - state.moved_at >= _seconds(rule.progress_timeout)


def _counts(rule: SilenceRule, state: SwitchState, now: float, answers: Mapping[str, WayAnswer]) -> bool:
    """Whether a silence is one: an error while listening is none.

    With one way in error, that of the others counts only where declared; so does that of ways which have answered only
    errors for a whole timeout.
    """
    sound = [way for way, answer in answers.items() if way not in state.deaf and answer.error is None]
    if len(sound) == len(rule.ways):
        return True
    if rule.on_one_way == "page":
        return False
    if sound:
        return len(sound) + len(state.deaf) == len(rule.ways)
    return len(state.deaf) == len(rule.ways) and all(
        now - each.since >= _seconds(rule.timeout) for each in state.deaf.values()
    )


def _problems(
    rule: SilenceRule, state: SwitchState, phase: Phase, silence: float, now: float, answers: Mapping[str, WayAnswer]
) -> Iterator[SwitchProblem]:
    timeout = _seconds(rule.timeout)
    for way, deaf in state.deaf.items():
        lasting = now - deaf.since
        if lasting >= min(timeout, rule.checks * _seconds(rule.check)):
            declared = "counts" if rule.on_one_way == "fire" else "does not count"
            yield SwitchProblem(
                f"way/{way}",
                f"heartbeats of {_what(rule)} cannot be read by {way}: {deaf.error}; while that lasts, silence "
                f"{declared} (on_one_way: {rule.on_one_way})",
            )
    if state.held_back >= timeout:
        yield SwitchProblem(
            "paused",
            f"the watcher of {_what(rule)} has paused for {state.held_back:.0f} s in all since the last heartbeat, "
            "which has held firing back by a whole timeout: from now on its own pauses count as silence",
        )
    if phase == "pending" and now - max(state.since, state.floor) >= _seconds(rule.pending.limit):
        yield SwitchProblem(
            "pending", f"{_what(rule)} was never heard since the watcher listens: the switch protects nothing"
        )
    if phase == "armed" and is_stuck(rule, state, now):
        text = f"heartbeats of {_what(rule)} come, and their progress does not change: its loop hangs"
        yield SwitchProblem("stuck", text)
    if phase == "armed" and silence >= timeout and not _counts(rule, state, now, answers):
        yield SwitchProblem(
            "undecided", f"{_what(rule)} is silent for too long, and not all ways of hearing it work: see there"
        )


def _what(rule: SilenceRule) -> str:
    return f"the {rule.watches} {rule.beats}"


def _seconds(micros: int) -> float:
    return micros / SECOND
