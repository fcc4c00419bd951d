"""Keeps what goes on beside a close from keeping it up: locks, timers, suspensions, notices, recordings.

Whatever goes wrong there, foreseen or not, is a problem that is paged, and the pass goes on to close (ADR 0115). Only
the store ends a run: a runner that cannot record must not act.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from killswitch.model.legible import legible
from killswitch.model.store import StoreTroubleError

T = TypeVar("T")


D = TypeVar("D")


class Beside:
    """Each part by its name, and why it failed when it was called last."""

    def __init__(self) -> None:
        self._failing: dict[str, str] = {}

    @property
    def problems(self) -> tuple[str, ...]:
        """Of every part whose last call failed, in words that stay the same for as long as the cause does."""
        return tuple(self._failing.values())

    def call(self, part: str, do: Callable[[], T], otherwise: D) -> T | D:
        """What `do` returns, or `otherwise` where it fails. Raises what must end a run."""
        with self._kept_apart(part):
            return do()
        return otherwise

    async def wait(self, part: str, do: Callable[[], Awaitable[T]], otherwise: D) -> T | D:
        """The same of what is waited for."""
        with self._kept_apart(part):
            return await do()
        return otherwise

    @contextmanager
    def _kept_apart(self, part: str) -> Iterator[None]:
        """A failure inside is noted and goes no further; only the store's does."""
        try:
            yield
        except StoreTroubleError:
            raise
        except Exception as error:  # noqa: BLE001 - a mistake of ours or of an adapter must not leave positions open
            why = legible(str(error) or type(error).__name__)
            self._failing[part] = f"{part} cannot be dealt with ({type(error).__name__}: {why}); closing goes on"
        else:
            self._failing.pop(part, None)
