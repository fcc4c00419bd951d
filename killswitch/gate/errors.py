"""Why a lock could not be written."""

from __future__ import annotations


class LockError(Exception):
    """The lock folder could not be written; its former content is unchanged."""


class StaleGenerationError(LockError):
    """A newer runner has written this lock: the older one must not open it."""


class GuardError(LockError):
    """The guard of the lock folder cannot be had: another writer may be at work, or its file is none of ours."""


class UnwritableError(LockError):
    """The folder refuses a new file: rights, a full or read-only disk."""
