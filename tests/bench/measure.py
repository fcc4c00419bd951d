"""A promised number: ours and its reference, measured in the same run, compared with a limit."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from msgspec import Struct


class Measure(Struct, frozen=True):
    """`ours` may be at most `limit` × `reference`; `unit` is the unit of both. Without a limit it is only printed.

    `machine`: the part of `ours` that this machine adds to the one that the limit is for. It is printed, and does not
    count against the limit.
    """

    name: str
    ours: float
    reference: float
    against: str
    limit: float | None = None
    unit: str = "ms"
    machine: float = 0.0

    @property
    def ratio(self) -> float:
        return self.ours / self.reference

    @property
    def ratio_without_machine(self) -> float:
        return (self.ours - self.machine) / self.reference

    @property
    def holds(self) -> bool:
        return self.limit is None or self.ratio_without_machine <= self.limit

    def line(self) -> str:
        """One line for people: both numbers, their ratio, the limit, and whether it holds."""
        judged = "(no limit)" if self.limit is None else f"(limit {self.limit:g}) {'ok' if self.holds else 'MISSED'}"
        machine = ""
        if self.machine:
            machine = f", without the machine's own {self.machine:,.4f} {self.unit} {self.ratio_without_machine:.2f}"
        return (
            f"{self.name}: {self.ours:,.3f} {self.unit}, {self.against}: {self.reference:,.3f} {self.unit}, "
            f"ratio {self.ratio:.2f}{machine} {judged}"
        )


def best_of(rounds: int, ours: Callable[[], object], reference: Callable[[], object]) -> tuple[float, float]:
    """The shortest time in seconds of each, measured alternately so that both have the same load."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for durations, work in zip(times, (ours, reference), strict=True):
            gc.collect()
            begun = time.perf_counter()
            work()
            durations.append(time.perf_counter() - begun)
    return min(times[0]), min(times[1])
