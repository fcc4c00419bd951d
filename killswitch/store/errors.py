"""The ways in which a store refuses, each with a sentence for the person who runs it."""

from __future__ import annotations

from killswitch.model.store import OvertakenError, StoreTroubleError


class StoreError(StoreTroubleError):
    """The store could not do what was asked; nothing of the call was written."""


class StoreMissingError(StoreError):
    """There is no store at that place, and it was opened to read."""


class StoreVersionError(StoreError):
    """The store's schema is not one that this program may use."""


class DuplicateDecisionError(StoreError):
    """A decision with this id is already recorded: a tick was committed twice."""


class FencedError(StoreError, OvertakenError):
    """The lease that this handle writes under has passed to another: what it knows is older than the store."""
