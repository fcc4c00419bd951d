"""Watches the store's file and its disk: free space, the reserve, whether writes still reach the file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from killswitch.model.alert import Alerts, alert_if, together
from killswitch.runner.observers import TickReport
from killswitch.store.adjacent_files import in_units
from killswitch.store.handle import StoreHandle

CHECK_EVERY: Final = 5.0
"""Seconds between two checks."""
FEWEST_INODES: Final = 1_000
"""Fewest free inodes. Killswitch needs a handful; programs that exhaust inodes do so by the thousand."""


class DiskSpace:
    """An observer that reports low disk space and a store that cannot be written."""

    def __init__(self, store: StoreHandle, folder: Path, least: int, monotonic: Callable[[], float]) -> None:
        """`folder`: the folder of the store. `least`: bytes that should be free there."""
        self._store = store
        self._folder = folder
        self._least = least
        self._monotonic = monotonic
        self._next_check = monotonic()
        self._short: dict[str, str] = {}
        """Scarce resource → its first message, so that changing numbers are not reported."""
        self._no_reserve: str | None = None
        self._displaced = store.displaced
        self._check()

    def ticked(self, _report: TickReport) -> None:
        """Check the disk every `CHECK_EVERY` seconds, and at each tick whether the store's file is still in place."""
        self._displaced = self._store.displaced
        if self._monotonic() >= self._next_check:
            self._check()

    @property
    def judges(self) -> tuple[str, ...]:
        return ("disk", "store")

    @property
    def alerts(self) -> Alerts:
        """A page for each problem of the store; if there is none, for each of the disk."""
        failing = together(alert_if(f"store/{kind}", text) for kind, text in self._store.troubles.items())
        failing += alert_if("store/displaced", self._displaced)
        if failing.found:
            return Alerts(failing.found, ("disk",))
        short = together(alert_if(f"disk/{what}", text) for what, text in self._short.items())
        unknown = ("disk/space", "disk/inodes") if "unknown" in self._short else ()
        return alert_if("disk/reserve", self._no_reserve) + short + Alerts(unknown=unknown)

    def _check(self) -> None:
        self._next_check = self._monotonic() + CHECK_EVERY
        failed = self._store.renew_reserve()
        if failed is None or self._no_reserve is None:
            self._no_reserve = failed
        try:
            disk = os.statvfs(self._folder)
        except OSError as error:
            self._short.setdefault("unknown", f"the free space of {self._folder} is unknown: {error.strerror}")
            return
        self._short.pop("unknown", None)
        free = disk.f_bavail * disk.f_frsize
        self._note("space", free < self._least, f"{in_units(free)} are free", f"{in_units(self._least)} (--min-free)")
        # A file system without a table of inodes (btrfs) reports a total of 0.
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
