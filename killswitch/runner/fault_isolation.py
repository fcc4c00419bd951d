"""Isolates closing from failures of other parts: locks, timers, suspensions, notices, observers.

Any such failure is a problem that is paged, and the pass continues to close (ADR 0104). Only a failure of the store
ends a run: a runner that cannot record must not act.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from killswitch.model.alert import Alerts, alert_if, together
from killswitch.model.legible import legible
from killswitch.model.store import StoreTroubleError

T = TypeVar("T")


D = TypeVar("D")


class FaultIsolation:
    """Calls parts of the runner by name, and keeps the error of each part whose last call failed."""

    def __init__(self) -> None:
        self._failing: dict[str, str] = {}
        self._called = set[str]()
        """The parts that were called in this run."""

    @property
    def judges(self) -> tuple[str, ...]:
        return tuple(f"part/{name}" for name in self._called)

    @property
    def alerts(self) -> Alerts:
        """A page for each part whose last call failed."""
        return together(alert_if(f"part/{part}", text) for part, text in self._failing.items())

    def call(self, part: str, do: Callable[[], T], otherwise: D) -> T | D:
        """Return the result of `do`, or `otherwise` if it fails. Only errors of the store are raised."""
        with self._isolated(part):
            return do()
        return otherwise

    async def call_async(self, part: str, do: Callable[[], Awaitable[T]], otherwise: D) -> T | D:
        """Await `do`; the same as `call` otherwise."""
        with self._isolated(part):
            return await do()
        return otherwise

    @contextmanager
    def _isolated(self, part: str) -> Iterator[None]:
        """Record a failure; only one of the store propagates."""
        self._called.add(part)
        try:
            yield
        except StoreTroubleError:
            raise
        except Exception as error:  # noqa: BLE001 - a defect here or in an adapter must not leave positions open
            why = legible(str(error) or type(error).__name__)
            self._failing[part] = f"{part} failed ({type(error).__name__}: {why}); closing continues"
        else:
            self._failing.pop(part, None)
