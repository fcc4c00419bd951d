"""Callbacks of a monitor inside another program: they are called next to the ticks, and never disturb one.

The tick only puts what happened into a queue that is bounded; a thread of its own calls the callbacks in their order.
What does not fit into the queue is dropped and counted, and what a callback raises is kept as a problem.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, cast

from msgspec import Struct

from killswitch.model.decision import Notice
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.runner.observers import TickReport

MOST_WAITING: Final = 1000
"""Calls that wait for a callback at most; further ones are dropped."""
_END: Final = object()


class StageChange(Struct, frozen=True):
    """Another stage is in force on a scope of a policy. Level 0 is normal; a stage is None where none is in force.

    `decision` is the id of the decision that fired the stage; None after a reset.
    """

    at: datetime
    policy: str
    scope: str
    level: int
    stage: str | None
    level_before: int
    stage_before: str | None
    decision: str | None


OnStage = Callable[[StageChange], Any]
OnNotice = Callable[[Notice], Any]
"""Callbacks; what they return is ignored, and awaited if it is a coroutine of a monitor that asyncio started."""


class Callbacks:
    """An observer of the run that queues stage changes and notices, and the thread that calls back."""

    def __init__(
        self,
        on_stage: OnStage | None,
        on_notice: OnNotice | None,
        loop: asyncio.AbstractEventLoop | None = None,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """`loop`: the event loop of the caller, in which callbacks are called; None: they are called on the thread."""
        self._on_stage = on_stage
        self._on_notice = on_notice
        self._loop = loop
        self._waiting: queue.Queue[object] = queue.Queue(most_waiting)
        self._stages: dict[tuple[str, str], tuple[int, str | None]] = {}
        self._thread = threading.Thread(target=self._call_back, name="killswitch-callbacks", daemon=True)
        self.dropped = 0
        """Calls that did not fit into the queue."""
        self.problem: str | None = None
        """What a callback raised last."""

    def start(self) -> None:
        """Begin to call back."""
        self._thread.start()

    def ticked(self, report: TickReport) -> None:
        """Queue what the tick has changed; this neither waits nor calls anything of the caller."""
        if self._on_stage is not None:
            for machine in report.machines():
                change = self._changed(machine, report.snapshot.as_of)
                if change is not None:
                    self._put((self._on_stage, change))
        if self._on_notice is not None:
            for notice in report.notices:
                self._put((self._on_notice, notice))

    def stop(self, timeout: float) -> bool:
        """Call what is queued, for at most `timeout` seconds; whether all was called."""
        if not self._thread.is_alive():
            return True
        try:
            self._waiting.put(_END, timeout=timeout)
        except queue.Full:
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _changed(self, machine: MachineStatus, at: datetime) -> StageChange | None:
        """The change of a scope since the last tick; a stage in force at the first tick is one, too."""
        key, now = (machine.policy, machine.scope), (machine.level, machine.stage)
        level, stage = self._stages.get(key, (0, None))
        self._stages[key] = now
        if now == (level, stage):
            return None
        decision = machine.decision if machine.level else None
        return StageChange(at, *key, *now, level, stage, decision)

    def _put(self, call: object) -> None:
        try:
            self._waiting.put_nowait(call)
        except queue.Full:
            self.dropped += 1

    def _call_back(self) -> None:
        while (call := self._waiting.get()) is not _END:
            callback, value = cast("tuple[Callable[[Any], Any], Any]", call)
            try:
                self._call(callback, value)
            except Exception as error:  # noqa: BLE001 - it is the caller's code, and must disturb nothing here
                self.problem = f"a callback failed: {type(error).__name__}: {error}"

    def _call(self, callback: Callable[[Any], Any], value: object) -> None:
        if self._loop is None:
            callback(value)
            return

        async def in_loop() -> None:
            found = callback(value)
            if inspect.isawaitable(found):
                await found

        asyncio.run_coroutine_threadsafe(in_loop(), self._loop).result()
