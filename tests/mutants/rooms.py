"""The rooms that are mutated, and for each the tests that are quick enough to be run for every mutant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Room:
    """`tests` are paths from the top, glob patterns allowed; of these, a mutant meets those that reach its function.

    `without` are those of them that take too long to be run for every mutant.
    """

    name: str
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        return f"killswitch/{self.name}"


ROOMS = (
    Room("engine", ("tests/unit/engine", "tests/unit/planning/test_tick.py", "tests/property/test_lowering.py")),
    Room(
        "planning",
        (
            "tests/unit/engine",
            "tests/unit/planning",
            "tests/unit/docs/test_semantics.py",
            "tests/unit/operations/test_apply.py",
            "tests/cases/test_deciding.py",
            "tests/property/test_fast_forward.py",
        ),
    ),
    Room(
        "execution",
        ("tests/unit/execution", "tests/cases"),
        without=(
            "tests/unit/execution/passes/test_closing_patience.py::test_a_full_close_outlasts_a_closed_market",
            "tests/cases/test_venues.py::test_c15_a_breaker_that_has_opened_closes_when_the_venue_is_back",
            "tests/cases/test_unwinding.py::test_c24_an_order_that_nobody_can_ever_tell_of_is_said_to_be_that",
        ),
    ),
    Room(
        "ratelimit",
        (
            "tests/unit/ratelimit",
            "tests/unit/execution/passes/test_closing_budget.py",
            "tests/property/test_circuit_breaker.py",
            "tests/property/test_request_budget.py",
            "tests/unit/accounts/test_metering.py",
        ),
    ),
)
