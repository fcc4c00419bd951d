"""The sentinel: a file whose mere existence halts everything, for the hour when nothing else works.

`touch ks.sqlite.halt` needs no program, no store and no network. What the file holds is never read, and whatever keeps
this program from finding out whether it is there counts as its existence. Removing it lifts nothing: the halt that it
caused lasts until somebody ends it, and nobody can while the file is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from killswitch.deadline import DeadlineError, NoThreadError, call_within
from killswitch.gate.files import sync_folder
from killswitch.model.alert import Alerts, alert_if, together
from killswitch.worker import Worker

LOOK_EVERY: Final = 0.05
"""Seconds between two looks of a run; one takes a few microseconds."""
START_WITHIN: Final = 2.0
"""Seconds that the start of a run waits for the first look."""
HANGS_AFTER: Final = 10.0


def sentinel_of(store_at: str) -> Path:
    """The sentinel of the store at this path or `sqlite:///` URL, unless another path is given."""
    return Path(store_at.removeprefix("sqlite:///") + ".halt")


def sentinel_at(path: Path) -> str | None:
    """Why everything is halted by the sentinel at `path`; None: nothing is there. Never raises, and opens nothing.

    A folder, a device and a link that leads nowhere are there as well.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path} cannot be looked for: {error.strerror}"
    return f"{path} is there"


def create_sentinel(path: Path) -> None:
    """Create the sentinel, on disk when this returns; one that is there already stays. OSError if that fails."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    sync_folder(path.parent)


class SentinelWatch:
    """An observer of a run that looks for its sentinel on a thread of its own, so that no file system delays a tick."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.present: str | None = None
        """Why everything is halted, as of the last look; None: there was no sentinel."""
        self.call_tick: Callable[[], None] = lambda: None
        """Begins a tick at once."""
        self._worker = Worker("sentinel", self.look)

    def start(self) -> None:
        """Look once, and then go on looking. One that cannot be looked for counts as there."""
        try:
            self.present = call_within(START_WITHIN, str(self.path), lambda: sentinel_at(self.path))
        except DeadlineError as error:
            self.present = str(error)
        with suppress(NoThreadError):
            self._worker.wake()

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        self._worker.begin_stop()

    def look(self) -> float | None:
        """Look for the file, and call a tick when it appears; returns the seconds until the next look."""
        if self._worker.is_stopping:
            return None
        before, self.present = self.present, sentinel_at(self.path)
        if self.present is not None and before is None:
            self.call_tick()
        return LOOK_EVERY

    def ticked(self, _report: object) -> None:
        """The next snapshot has what the thread has found."""

    @property
    def judges(self) -> tuple[str, ...]:
        return ("sentinel",)

    @property
    def alerts(self) -> Alerts:
        """A page while the file is there, and one while its file system does not answer."""
        hangs = f"nobody knows whether {self.path} is there: its file system does not answer"
        there = f"everything is halted, because {self.present}. Remove the file, then end the halt that it caused"
        return together((
            alert_if("sentinel/there", None if self.present is None else there),
            alert_if("sentinel/unknown", hangs if self._worker.hangs_for(HANGS_AFTER) else None),
        ))  # fmt: skip
