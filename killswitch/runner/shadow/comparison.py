"""What a shadow set would have done, and where that differs from what the deployed set did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from msgspec import Struct

from killswitch.model.decision import Decision
from killswitch.model.effects import sizes_of
from killswitch.model.store import Store
from killswitch.render.formats import count_of, instant
from killswitch.runner.shadow.evaluation import Fired
from killswitch.runner.shadow.record import (
    REMEMBERED,
    SeenTicks,
    ShadowPast,
    ShadowRecord,
    of_shadow,
    past_of,
    shadow_records,
)

SHADOW_REPORT_FORMAT: Final = "killswitch.shadow/v1"
SAME_WITHIN: Final = timedelta(seconds=10)
"""Time between two firings of the same stage that count as one: a stage that fetches prices again may be later."""


class StageCount(Struct, frozen=True):
    """How often a stage of a policy fired on a scope: in shadow, and deployed while the shadow set saw the ticks."""

    policy: str
    scope: str
    stage: str
    shadow: int
    deployed: int


class Difference(Struct, frozen=True):
    """A firing of one set only, or of both with other effects; `what` says which and how."""

    as_of: datetime
    policy: str
    scope: str
    stage: str
    what: str
    shadow: str | None = None
    """The id of the decision in the store of the shadow set."""
    deployed: str | None = None
    """The id of the decision in the store of the runner."""


class ShadowReport(Struct, frozen=True, kw_only=True):
    """One shadow set next to the deployed one. `until`: the end of the time that is compared."""

    format: str = SHADOW_REPORT_FORMAT
    record: ShadowRecord
    until: datetime
    seconds: float
    """The time that it has seen, without the gaps."""
    ticks: int
    missed: int
    gaps: tuple[tuple[datetime, datetime], ...]
    unread: str | None
    counts: tuple[StageCount, ...]
    firings: tuple[Decision, ...]
    """What would have fired, oldest first."""
    differences: tuple[Difference, ...]
    unseen: tuple[Decision, ...]
    """What the deployed set fired at ticks that the shadow set did not see: nothing is known of those."""

    @property
    def is_partly_known(self) -> bool:
        """Whether there are ticks that the shadow set has not seen."""
        return bool(self.gaps or self.missed or self.unseen or self.unread)


def shadow_reports(store: Store, now: datetime, id_prefix: str = "") -> tuple[ShadowReport, ...]:
    """The report of each shadow set of a runner's store whose id begins so, the newest first."""
    deployed = [stored.decision for stored in store.decisions(REMEMBERED)]
    found = [each for each in shadow_records(store) if each.id.startswith(id_prefix)]
    return tuple(compared(each, past_of(each), deployed, each.ended_at or now) for each in reversed(found))


def compared(
    record: ShadowRecord, past: ShadowPast, deployed: Iterable[Decision], until: datetime
) -> ShadowReport:  # fmt: skip
    """Compare what a shadow set has decided with what the deployed set has, in the time that it was in shadow."""
    seen = past.seen
    firings = _in_time(past.decisions, seen)
    in_shadow = (it for it in deployed if seen.covers(it.as_of) or record.begun_at < it.as_of <= until)
    others = of_shadow(in_shadow)
    comparable = _in_time(others, seen)
    unseen = tuple(sorted((it for it in others if not seen.covers(it.as_of)), key=lambda it: it.as_of))
    return ShadowReport(
        record=record, until=until, seconds=seen.time.total_seconds(), ticks=seen.ticks, missed=seen.missed,
        gaps=seen.gaps, unread=past.unread, counts=_counts(firings, comparable), firings=firings,
        differences=differences(firings, comparable), unseen=unseen,
    )  # fmt: skip


def _in_time(decisions: Iterable[Decision], seen: SeenTicks) -> tuple[Decision, ...]:
    return tuple(sorted((it for it in of_shadow(decisions) if seen.covers(it.as_of)), key=lambda it: it.as_of))


def _counts(firings: Iterable[Decision], deployed: Iterable[Decision]) -> tuple[StageCount, ...]:
    in_shadow, as_deployed = Counter(map(_place, firings)), Counter(map(_place, deployed))
    return tuple(
        StageCount(*place, in_shadow[place], as_deployed[place]) for place in sorted({*in_shadow, *as_deployed})
    )


def _place(decision: Decision) -> tuple[str, str, str]:
    return decision.policy, decision.scope, decision.stage or ""


def differences(firings: Sequence[Decision], deployed: Sequence[Decision]) -> tuple[Difference, ...]:
    """Each firing without one of the same stage in the other set, or with other effects; the oldest first."""
    found: list[Difference] = []
    left = list(deployed)
    for firing in firings:
        same = min(
            (each for each in left if _place(each) == _place(firing) and _apart(each, firing) <= SAME_WITHIN),
            key=lambda each: _apart(each, firing),
            default=None,
        )
        if same is None:
            found.append(_difference(firing, "only the shadow set fires it", shadow=firing.id))
            continue
        left.remove(same)
        if (what := _effects_differ(firing, same)) is not None:
            found.append(_difference(firing, what, shadow=firing.id, deployed=same.id))
    found += [_difference(each, "only the deployed set fires it", deployed=each.id) for each in left]
    return tuple(sorted(found, key=lambda each: each.as_of))


class FiringComparison:
    """The firings of a set in shadow and of the deployed one while both run, until each has its counterpart."""

    def __init__(self) -> None:
        self._in_shadow: list[Fired] = []
        self._deployed: list[Fired] = []
        self._differ: list[tuple[Fired, str]] = []

    def add(self, in_shadow: Iterable[Fired], deployed: Iterable[Fired]) -> None:
        """Note what has fired; firings of one stage within `SAME_WITHIN` are one."""
        self._in_shadow += in_shadow
        self._deployed += deployed
        for firing in tuple(self._in_shadow):
            same = next((each for each in self._deployed if _is_same(firing, each)), None)
            if same is None:
                continue
            self._in_shadow.remove(firing)
            self._deployed.remove(same)
            if firing.orders != same.orders:
                what = f"the shadow set has {count_of(firing.orders, 'order')}, the deployed one {same.orders}"
                self._differ.append((firing, what))

    def differences(self, seen: datetime | None, was_lost: Callable[[datetime], bool]) -> list[tuple[Fired, str]]:
        """The firings of only one set, and those with another number of orders, each once.

        `seen`: the last snapshot that the set in shadow has evaluated: later ones may still have a counterpart. What
        the deployed set fired at a snapshot that the other has lost is compared with nothing.
        """
        found, self._differ = self._differ, []
        if seen is None:
            return found
        for firings, what in (
            (self._in_shadow, "only the shadow set fires it"), (self._deployed, "only the deployed set fires it"),
        ):  # fmt: skip
            due = [each for each in firings if each.as_of + SAME_WITHIN < seen]
            found += [(each, what) for each in due if firings is self._in_shadow or not was_lost(each.as_of)]
            firings[:] = [each for each in firings if each not in due]
        return found


def difference_text(set_id: str, source: str, firing: Fired, what: str) -> str:
    """A difference in a sentence, with the command that shows it whole."""
    return (
        f"{firing.stage} of {firing.policy} on {firing.scope} at {instant(firing.as_of)}: {what} (the set {set_id} of "
        f"{source}). `ksctl shadow report {set_id}` compares them"
    )


def _is_same(one: Fired, other: Fired) -> bool:
    place, others = ((each.policy, each.scope, each.stage) for each in (one, other))
    return place == others and abs(one.as_of - other.as_of) <= SAME_WITHIN


def _apart(one: Decision, other: Decision) -> timedelta:
    return abs(one.as_of - other.as_of)


def _difference(decision: Decision, what: str, *, shadow: str | None = None, deployed: str | None = None) -> Difference:
    return Difference(decision.as_of, *_place(decision), what, shadow, deployed)


def _effects_differ(shadow: Decision, deployed: Decision) -> str | None:
    """How the effects of two firings of one stage differ; None if they are the same."""
    mine, others = _amounts(shadow), _amounts(deployed)
    if mine != others:
        more = sum(mine.get(key, Decimal(0)) > others.get(key, Decimal(0)) for key in {*mine, *others})
        less = sum(mine.get(key, Decimal(0)) < others.get(key, Decimal(0)) for key in {*mine, *others})
        return f"the shadow set closes more of {more} and less of {less} positions"
    lock, deployed_lock = shadow.lock, deployed.lock
    if (lock is None) != (deployed_lock is None) or (
        lock is not None and deployed_lock is not None and lock.mode != deployed_lock.mode
    ):
        modes = [each.mode if each is not None else "no lock" for each in (lock, deployed_lock)]
        return f"the shadow set locks {modes[0]}, the deployed one {modes[1]}"
    if shadow.mode != deployed.mode:
        return f"the shadow set is in mode {shadow.mode}, the deployed one in mode {deployed.mode}"
    if len(shadow.cancels) != len(deployed.cancels):
        return f"the shadow set cancels {len(shadow.cancels)} orders, the deployed one {len(deployed.cancels)}"
    sizes, deployed_sizes = sizes_of(shadow.effects), sizes_of(deployed.effects)
    kinds = [key for key in sizes if (sizes[key] > 0) != (deployed_sizes[key] > 0)]
    return f"only one of the two sets has effects of the kind {', '.join(kinds)}" if kinds else None


def _amounts(decision: Decision) -> dict[tuple[str, str, str, str], Decimal]:
    """Contracts to trade by account, symbol, side of the position and of the order."""
    amounts: dict[tuple[str, str, str, str], Decimal] = {}
    for each in decision.intents:
        key = (each.account, each.symbol, each.position_side, each.side)
        amounts[key] = amounts.get(key, Decimal(0)) + each.contracts
    return amounts
