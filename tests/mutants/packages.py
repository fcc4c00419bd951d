"""The packages that are mutated, and for each the tests that are fast enough to run for every mutant."""

from __future__ import annotations

from msgspec import Struct


class MutatedPackage(Struct, frozen=True):
    """`tests`: paths from the repository, glob patterns allowed; a mutant is tested by those that reach its function.

    `without`: those of them that are too slow to run for every mutant, or that read the sources.
    """

    name: str
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        return f"killswitch/{self.name}"


READS_SOURCES = ("tests/unit/engine/test_notice_titles.py::test_every_kind_of_alert_in_the_program_has_a_title",)
"""Tests that read the sources as text: mutants are written into these, so that they fail before any is chosen."""

PACKAGES = (
    MutatedPackage(
        "engine",
        ("tests/unit/engine", "tests/unit/planning/test_interpreter.py", "tests/property/test_lowering.py"),
        without=READS_SOURCES,
    ),
    MutatedPackage(
        "planning",
        (
            "tests/unit/engine",
            "tests/unit/planning",
            "tests/unit/docs/test_semantics.py",
            "tests/unit/operations/test_apply.py",
            "tests/cases/test_decisions.py",
            "tests/property/test_fast_forward.py",
        ),
        without=READS_SOURCES,
    ),
    MutatedPackage(
        "execution",
        ("tests/unit/execution", "tests/cases"),
        without=(
            "tests/unit/execution/passes/test_closing_stall_reasons.py::test_a_full_close_outlasts_a_closed_market",
            "tests/cases/test_venue_failures.py::test_c15_a_breaker_that_has_opened_closes_when_the_venue_is_back",
            "tests/cases/test_close_execution.py::test_c24_an_order_whose_status_stays_unknown_is_reported_as_abandoned",
        ),
    ),
    MutatedPackage(
        "ratelimit",
        (
            "tests/unit/ratelimit",
            "tests/unit/execution/passes/test_request_budget.py",
            "tests/property/test_circuit_breaker.py",
            "tests/property/test_request_budget.py",
            "tests/unit/accounts/test_poll_budget.py",
        ),
    ),
    MutatedPackage(
        "render", ("tests/unit/render", "tests/unit/incident/test_*report*.py", "tests/unit/lab/test_pages.py")
    ),
    MutatedPackage("policy", ("tests/unit/policy", "tests/unit/graph")),
    MutatedPackage("runner", ("tests/unit/runner",)),
)
