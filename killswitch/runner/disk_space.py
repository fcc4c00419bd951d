"""Watches the file of the store and the disk under it: what is free, the reserve, whether writes still reach it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from killswitch.runner.observers import TickReport
from killswitch.store.handle import StoreHandle
from killswitch.store.reserve import in_units

LOOK_EVERY: Final = 5.0
"""Seconds between two looks."""
FEWEST_INODES: Final = 1_000
"""Lock files, reports and the store's own logs are a handful; what runs out of inodes does so by the thousand."""


class DiskSpace:
    """An observer that reports low disk space and a store that cannot be written."""

    def __init__(self, store: StoreHandle, folder: Path, least: int, monotonic: Callable[[], float]) -> None:
        """`folder`: where the store lies. `least`: bytes that should be free there."""
        self._store = store
        self._folder = folder
        self._least = least
        self._monotonic = monotonic
        self._look_at = monotonic()
        self._short: dict[str, str] = {}
        """Scarce resource → the message when that was first seen, so that changing numbers are not reported."""
        self._no_reserve: str | None = None
        self._displaced = store.displaced
        self._look()

    def ticked(self, _report: TickReport) -> None:
        """Check the disk every `LOOK_EVERY` seconds, and at each tick whether the file is still in its place."""
        self._displaced = self._store.displaced
        if self._monotonic() >= self._look_at:
            self._look()

    @property
    def problem(self) -> str | None:
        """The current problem of the disk or the store; None if there is none."""
        failing = (self._store.trouble, self._displaced)
        found = failing if any(failing) else (self._no_reserve, *self._short.values())
        return "; ".join(each for each in found if each is not None) or None

    def _look(self) -> None:
        self._look_at = self._monotonic() + LOOK_EVERY
        failed = self._store.renew_reserve()
        if failed is None or self._no_reserve is None:
            self._no_reserve = failed
        try:
            disk = os.statvfs(self._folder)
        except OSError as error:
            self._short.setdefault("asked", f"the free space of {self._folder} is unknown: {error.strerror}")
            return
        self._short.pop("asked", None)
        free = disk.f_bavail * disk.f_frsize
        self._note("space", free < self._least, f"{in_units(free)} are free", f"{in_units(self._least)} (--min-free)")
        # A file system without a table of inodes (btrfs) reports none in all.
        few = disk.f_files > 0 and disk.f_favail < FEWEST_INODES
        self._note("inodes", few, f"{disk.f_favail} inodes are free", f"{FEWEST_INODES}")

    def _note(self, what: str, is_short: bool, found: str, wanted: str) -> None:
        if not is_short:
            self._short.pop(what, None)
        elif what not in self._short:
            self._short[what] = (
                f"the disk of the store is filling up: {found} in {self._folder}, fewer than {wanted}; "
                "free space before closes can no longer be journaled"
            )
