"""How the last run on a store was started, for the commands of a report."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from killswitch.incident.commands import StartedAs
from killswitch.incident.note import Runbooks, keep_runbooks
from killswitch.model.clock import Clock
from killswitch.model.store import Store
from killswitch.runner.clock import now_after
from killswitch.runner.status import LIVE_NAME, RunnerView, decode_view, last_clock_state

_RECORDING = "recording"


def keep_start(store: Store, digest: str, runbooks: Runbooks, recording: Path | None) -> None:
    """Write down, at the start of a run, what a report needs that no tick says: runbooks, and what is recorded to."""
    keep_runbooks(store, digest, runbooks)
    # Not resolved: that asks a disk that may hang.
    store.put_live(_RECORDING, b"" if recording is None else str(recording.absolute()).encode())


def started_as(store: Store, store_at: str) -> StartedAs:
    """Where a command finds the store and the policies. `store_at`: the store as it was named."""
    view = _view(store)
    path = store_at if "://" in store_at else str(Path(store_at).resolve())
    recording = (store.live(_RECORDING) or b"").decode()
    # A packed recording cannot be read while it is written, so it is not offered.
    replayed = recording if recording.endswith(".jsonl") else None
    return StartedAs(path) if view is None else StartedAs(path, view.policies, view.live, replayed)


def last_tick(store: Store) -> datetime | None:
    """The `as_of` of the last tick on this store; None if there was none that we can read."""
    view = _view(store)
    return None if view is None else view.as_of


def tick_time(store: Store | None, clock: Clock) -> datetime:
    """Now, as the next tick on the store is dated: what is given to a tick, and held against its dates, is dated so."""
    return now_after(None if store is None else last_clock_state(_view(store)), clock)


def _view(store: Store) -> RunnerView | None:
    blob = store.live(LIVE_NAME)
    try:
        return None if blob is None else decode_view(blob)
    except msgspec.DecodeError:
        return None  # written by another version: the commands then name the store only
