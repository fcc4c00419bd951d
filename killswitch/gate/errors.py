"""Why a lock could not be written."""

from __future__ import annotations


class LockError(Exception):
    """The lock folder could not be written; what stood there before still stands."""


class StaleGenerationError(LockError):
    """A newer runner has written this lock: the older one must not touch it."""
