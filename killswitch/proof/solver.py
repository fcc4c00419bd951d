"""The solver: the one version of z3 that proofs run with, a shared solver with a time limit, and its answers.

z3 is an optional extra. Without it, or with another version, nothing is proved: a proof by an untested version, or a
smaller one, would look the same to its reader.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

DISTRIBUTION, VERSION = "z3-solver", "5.4.1.0"
"""The version that the lowering is tested with; `pyproject.toml` names the same."""

LIMIT = 10.0
"""Default seconds of one question."""

Term = Any
"""A z3 expression: z3 ships no type information."""

Answer = Literal["sat", "unsat", "unknown"]


class SolverMissingError(Exception):
    """z3 is not installed, or another version of it; the message states how to install it."""


def require_z3(installed: Callable[[str], str] = version) -> Any:
    """The module z3. SolverMissingError if the tested version is not installed."""
    way_out = "install it with `pip install 'killswitch[prove]'`"
    try:
        found = installed(DISTRIBUTION)
    except PackageNotFoundError:
        raise SolverMissingError(
            f"`ksctl prove` needs {DISTRIBUTION} {VERSION}, which is not installed: {way_out}"
        ) from None
    if found != VERSION:
        message = f"`ksctl prove` needs {DISTRIBUTION} {VERSION}, and {found} is installed: {way_out}"
        raise SolverMissingError(message)
    return importlib.import_module("z3")


class Prover:
    """One solver that all questions share, each in a scope of its own.

    `clock`: seconds, to measure proofs. `limit`: seconds of one question. `until`: the time of the clock after which
    every question is unanswered; None: there is none.
    """

    def __init__(self, clock: Callable[[], float], limit: float = LIMIT, *, until: float | None = None) -> None:
        self.clock = clock
        self.z3 = require_z3()
        self._solver = self.z3.Solver()
        self._solver.set("timeout", max(1, int(limit * 1000)))
        self.limit = limit
        self._until = until
        self.unanswered = 0
        """Questions for which the time was too short."""

    @property
    def is_over(self) -> bool:
        """Whether the time for all questions together is over."""
        return self._until is not None and self.clock() >= self._until

    def model(self, *facts: Term) -> tuple[Answer, Any]:
        """Whether all facts can be true at once, with a model if they can."""
        if self._until is not None:
            left = self._until - self.clock()
            if left <= 0:
                self.unanswered += 1
                return "unknown", None
            self._solver.set("timeout", max(1, int(min(left, self.limit) * 1000)))
        self._solver.push()
        try:
            self._solver.add(*facts)
            answer: Answer = str(self._solver.check())  # type: ignore[assignment]  # one of the three words
            self.unanswered += answer == "unknown"
            return answer, self._solver.model() if answer == "sat" else None
        finally:
            self._solver.pop()

    def is_impossible(self, *facts: Term) -> bool | None:
        """Whether the facts exclude each other; None if the time was too short."""
        answer, _ = self.model(*facts)
        return None if answer == "unknown" else answer == "unsat"


def real(z3: Any, value: float) -> Term:
    """The exact real number of a finite float."""
    exact = Fraction(value)
    return z3.Q(exact.numerator, exact.denominator)


def integer_of(model: Any, term: Term) -> int:
    """Value of an integer term in a model."""
    return int(model.eval(term, model_completion=True).as_long())


def truth_of(model: Any, term: Term) -> bool:
    """Value of a boolean term in a model."""
    return bool(str(model.eval(term, model_completion=True)) == "True")


def float_of(model: Any, term: Term) -> float:
    """The float nearest to the value of a real term in a model; infinite beyond the largest float."""
    found = model.eval(term, model_completion=True)
    exact = Fraction(found.numerator_as_long(), found.denominator_as_long())
    try:
        return float(exact)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


def any_of(z3: Any, terms: Sequence[Term]) -> Term:
    """Whether one of the terms is true; false without terms."""
    return z3.Or(*terms) if terms else z3.BoolVal(False)


def all_of(z3: Any, terms: Sequence[Term]) -> Term:
    """Whether all of the terms are true; true without terms."""
    return z3.And(*terms) if terms else z3.BoolVal(True)
