"""The rooms that are mutated, and for each the tests that are quick enough to be run for every mutant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Room:
    """`tests` are paths from the top, glob patterns allowed; of these, a mutant meets those that reach its function."""

    name: str
    tests: tuple[str, ...]

    @property
    def source(self) -> str:
        return f"killswitch/{self.name}"


ROOMS = (
    Room("engine", ("tests/unit/engine", "tests/unit/planning/test_tick.py", "tests/property/test_lowering_agrees.py")),
    Room(
        "planning",
        (
            "tests/unit/engine",
            "tests/unit/planning",
            "tests/unit/docs/test_semantics.py",
            "tests/unit/runner/test_apply.py",
            "tests/cases/test_deciding.py",
            "tests/property/test_passing_over.py",
        ),
    ),
    Room(
        "closing",
        (
            "tests/unit/test_closing*.py",
            "tests/unit/closing",
            "tests/cases",
            "tests/property/test_breaker_closes_again.py",
            "tests/property/test_budget_against_a_log.py",
        ),
    ),
)
