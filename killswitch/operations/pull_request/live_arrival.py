"""What would fire on arrival: both sets evaluated on one present snapshot that a runner made.

The snapshot is a line of the runner's recording, the states are those of its store, read-only. No account is opened:
neither endpoints nor adapters nor credentials of any document are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from msgspec import Struct

from killswitch.graph.nodes import PolicySet
from killswitch.lab.recording import RecordingError, read
from killswitch.model.decision import Decision
from killswitch.model.effects import Lock, Orders, sizes_of, tag_of
from killswitch.model.snapshot import Instant, Snapshot
from killswitch.model.store import Store
from killswitch.operations.preview import Preview, from_recording, from_store, preview
from killswitch.operations.review.arrival import StoredRun, arrival
from killswitch.render.formats import count_of, duration_text, instant
from killswitch.source.candidate import ArrivalFiring


class LiveArrival(Struct, frozen=True):
    """What each set fires at its first tick on the snapshot. `new`: what only head fires.

    `missing`: why it is not known, or not of the present; then what is shown is not to be relied upon.
    """

    as_of: Instant | None
    age: float | None
    """Seconds between the snapshot and the present."""
    memory: str
    base: tuple[ArrivalFiring, ...] = ()
    head: tuple[ArrivalFiring, ...] = ()
    new: tuple[ArrivalFiring, ...] = ()
    missing: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    """What the reload does to each stage in force, lock and clock (R10); empty without a store."""


class LiveInput(Struct, frozen=True):
    """The recording of a runner, its store if there is one, the present, and the age from which a snapshot is old."""

    recording: Path
    store: Store | None
    now: datetime
    oldest: timedelta


def live_arrival(given: LiveInput, base: PolicySet, head: PolicySet, armed: frozenset[str]) -> LiveArrival:
    """Evaluate both sets. A recording that is missing, damaged, empty or old is named in `missing`; never an error."""
    try:
        last = _last(given.recording)
    except (RecordingError, OSError) as error:
        return LiveArrival(None, None, "", missing=(f"no snapshot of a runner: {error}",))
    if last is None:
        return LiveArrival(None, None, "", missing=(f"no snapshot of a runner: {given.recording.name} has none",))
    missing = list(_missing(last, given))
    shown = [_previewed(given, policies, last, armed) for policies in (base, head)]
    before, after = (tuple(_firings(each.decisions)) for each in shown)
    known = {(each.policy, each.scope, each.stage) for each in before}
    new = tuple(each for each in after if (each.policy, each.scope, each.stage) not in known)
    reload: tuple[str, ...] = ()
    if given.store is not None:
        found = arrival(base, head, last, _state(given.store), text=closed_share)
        new, reload = found.firings, found.preview.lines
    missing += [f"an account cannot be read: {each}" for each in shown[0].unreadable]
    age = (given.now - last.as_of).total_seconds()
    return LiveArrival(last.as_of, age, shown[0].memory, before, after, new, tuple(missing), reload)


def _state(store: Store) -> StoredRun:
    return StoredRun(lambda policies: from_store(policies, store)[0], tuple(store.states()), store.rows)


def _last(recording: Path) -> Snapshot | None:
    last: Snapshot | None = None
    for each in read(recording):
        last = each
    return last


def _missing(last: Snapshot, given: LiveInput) -> Iterator[str]:
    age = given.now - last.as_of
    if age > given.oldest:
        yield (
            f"the newest snapshot is of {instant(last.as_of)}, {duration_text(age)} ago, and a runner makes one "
            f"every few seconds: it does not answer, or the file is old (limit: {duration_text(given.oldest)})"
        )
    elif age < -given.oldest:
        yield f"the newest snapshot is of {instant(last.as_of)}, which is in the future: one of the clocks is wrong"


def _previewed(given: LiveInput, policies: PolicySet, last: Snapshot, armed: frozenset[str]) -> Preview:
    if given.store is not None:
        interpreter, memory = from_store(policies, given.store)
    else:
        interpreter, _, memory = from_recording(policies, read(given.recording))
    return preview(policies, last, interpreter, memory, armed)


def _firings(decisions: Iterable[Decision]) -> Iterator[ArrivalFiring]:
    """The stages that fire."""
    for each in decisions:
        if each.kind is None and each.stage is not None:
            yield ArrivalFiring(each.policy, each.scope, each.stage, closed_share(each))


def closed_share(decision: Decision) -> str:
    """What a firing closes, as a share of the book: no symbols and no amounts."""
    share = _share(decision)
    closed = "an unknown share of the gross" if share is None else f"{share:.0%} of the gross"
    sizes = sizes_of(decision.effects)
    orders = sizes[tag_of(Orders)]
    does = f"closes {closed} with {count_of(orders, 'order')}" if orders else "closes nothing"
    return f"{does}{', and locks trading' if sizes[tag_of(Lock)] else ''}{_mode(decision)}"


def _mode(decision: Decision) -> str:
    return "" if decision.mode == "enforce" else " (it only observes)"


def _share(decision: Decision) -> Decimal | None:
    if decision.book is None or not decision.book.before.gross or decision.book.after.gross is None:
        return None
    return 1 - decision.book.after.gross / decision.book.before.gross
