"""When a level fires again, read naively from the rules: by losses and by conditions of the book.

This module shares no line with the product. It keeps every look that was had, and at each one asks the rules of all of
them anew; nothing is carried from one look to the next but the list of what fired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Look:
    """One evaluation: the value of a unit, the fall and the leverage; None is unknown. `at` in seconds."""

    at: int
    value: Fraction | None
    fall: Fraction | None
    leverage: Fraction | None


@dataclass(frozen=True)
class Limit:
    """A condition that is true from `threshold` on, for `confirm` seconds. `loss`: it is about money lost."""

    name: str
    threshold: Fraction
    confirm: int
    loss: bool

    def answer(self, look: Look) -> bool | None:
        """Whether it is broken in this look; None where that is unknown."""
        seen = look.fall if self.loss else look.leverage
        return None if seen is None else seen >= self.threshold


@dataclass(frozen=True)
class Rung:
    """A stage: it may fire when one of its limits is confirmed."""

    name: str
    level: int
    limits: tuple[Limit, ...]
    cooldown: int


@dataclass(frozen=True)
class Firing:
    """What fired in which look, and on which limits."""

    place: int
    rung: Rung
    limits: tuple[Limit, ...]


def firings(looks: Sequence[Look], rungs: Sequence[Rung]) -> list[Firing]:
    """Every firing. `rungs` highest level first; unknown keeps what a limit was, and completes no confirmation."""
    fired: list[Firing] = []
    for place in range(len(looks)):
        for rung in rungs:
            standing = tuple(limit for limit in rung.limits if _confirmed(limit, looks[: place + 1]))
            if standing and _may(rung, standing, looks[: place + 1], fired):
                fired.append(Firing(place, rung, standing))
                break
    return fired


def _confirmed(limit: Limit, looks: Sequence[Look]) -> bool:
    """Whether, in an unbroken run up to now, a look that saw it broken came late enough after the first."""
    run: list[Look] = []
    for look in reversed(looks):
        if limit.answer(look) is False:
            break
        run.insert(0, look)
    broken = [look for look in run if limit.answer(look)]
    return any(look.at - broken[0].at >= limit.confirm for look in broken)


def _may(rung: Rung, standing: tuple[Limit, ...], looks: Sequence[Look], fired: Sequence[Firing]) -> bool:
    """A higher level always; the same one after its cooldown, and only for something new; a lower one never."""
    if not fired or rung.level > fired[-1].rung.level:
        return True
    last, now = fired[-1], looks[-1]
    if rung.level < last.rung.level or now.at < looks[last.place].at + last.rung.cooldown:
        return False
    before = looks[last.place].value
    if now.value is not None and before is not None and now.value < before:
        return True
    return any(_broken_anew(limit, looks, fired) for limit in standing if not limit.loss)


def _broken_anew(limit: Limit, looks: Sequence[Look], fired: Sequence[Firing]) -> bool:
    """Whether it was seen within its bound since something fired on it last, if anything did."""
    answered = [firing.place for firing in fired if limit in firing.limits]
    return not answered or any(limit.answer(look) is False for look in looks[answered[-1] + 1 :])
