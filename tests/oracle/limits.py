"""A naive implementation of repeated firing of a level: by losses and by conditions of the book.

This module shares no line with the product. It keeps all evaluations, and applies the rules to all of them at each new
one; only the list of firings is carried from one evaluation to the next."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from msgspec import Struct


class Evaluation(Struct, frozen=True):
    """One evaluation: the value of a unit, the fall and the leverage; None is unknown. `at` in seconds."""

    at: int
    value: Fraction | None
    fall: Fraction | None
    leverage: Fraction | None


class Limit(Struct, frozen=True):
    """A condition that is true from `threshold` on, for `confirm` seconds. `loss`: it is about a loss of money."""

    name: str
    threshold: Fraction
    confirm: int
    loss: bool

    def answer(self, evaluation: Evaluation) -> bool | None:
        """Whether the limit is exceeded in this evaluation; None if unknown."""
        seen = evaluation.fall if self.loss else evaluation.leverage
        return None if seen is None else seen >= self.threshold


class StageRule(Struct, frozen=True):
    """A stage: it may fire when one of its limits is confirmed."""

    name: str
    level: int
    limits: tuple[Limit, ...]
    cooldown: int


class Firing(Struct, frozen=True):
    """What fired in which evaluation, and on which limits."""

    place: int
    stage: StageRule
    limits: tuple[Limit, ...]


def firings(evaluations: Sequence[Evaluation], stages: Sequence[StageRule]) -> list[Firing]:
    """Every firing. `stages` highest level first; unknown keeps what a limit was, and completes no confirmation."""
    fired: list[Firing] = []
    for place in range(len(evaluations)):
        for stage in stages:
            confirmed = tuple(limit for limit in stage.limits if _confirmed(limit, evaluations[: place + 1]))
            if confirmed and _may(stage, confirmed, evaluations[: place + 1], fired):
                fired.append(Firing(place, stage, confirmed))
                break
    return fired


def _confirmed(limit: Limit, evaluations: Sequence[Evaluation]) -> bool:
    """Whether, in an unbroken run up to now, an evaluation that exceeds it came late enough after the first."""
    run: list[Evaluation] = []
    for evaluation in reversed(evaluations):
        if limit.answer(evaluation) is False:
            break
        run.insert(0, evaluation)
    broken = [evaluation for evaluation in run if limit.answer(evaluation)]
    return any(evaluation.at - broken[0].at >= limit.confirm for evaluation in broken)


def _may(
    stage: StageRule, confirmed: tuple[Limit, ...], evaluations: Sequence[Evaluation], fired: Sequence[Firing]
) -> bool:
    """A higher level always; the same one after its cooldown, and only for something new; a lower one never."""
    if not fired or stage.level > fired[-1].stage.level:
        return True
    last, now = fired[-1], evaluations[-1]
    if stage.level < last.stage.level or now.at < evaluations[last.place].at + last.stage.cooldown:
        return False
    before = evaluations[last.place].value
    if now.value is not None and before is not None and now.value < before:
        return True
    return any(_exceeded_again(limit, evaluations, fired) for limit in confirmed if not limit.loss)


def _exceeded_again(limit: Limit, evaluations: Sequence[Evaluation], fired: Sequence[Firing]) -> bool:
    """Whether it was within its bound in some evaluation since something last fired on it, if anything did."""
    answered = [firing.place for firing in fired if limit in firing.limits]
    return not answered or any(limit.answer(evaluation) is False for evaluation in evaluations[answered[-1] + 1 :])
