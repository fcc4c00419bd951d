"""How the last run on a store was started, for the commands of a report."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from killswitch.incident.commands import StartedAs
from killswitch.model.store import Store
from killswitch.runner.status import LIVE_NAME, RunnerView, decode_view


def started_as(store: Store, store_at: str) -> StartedAs:
    """Where a command finds the store and the policies. `store_at`: the store as it was named."""
    view = _view(store)
    path = store_at if "://" in store_at else str(Path(store_at).resolve())
    return StartedAs(path) if view is None else StartedAs(path, view.policies, view.live)


def last_tick(store: Store) -> datetime | None:
    """The `as_of` of the last tick on this store; None if there was none that we can read."""
    view = _view(store)
    return None if view is None else view.as_of


def _view(store: Store) -> RunnerView | None:
    blob = store.live(LIVE_NAME)
    try:
        return None if blob is None else decode_view(blob)
    except msgspec.DecodeError:
        return None  # written by another version: the commands then name the store only
