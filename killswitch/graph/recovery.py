"""Recovery rules: the way back of a policy's scopes after a reset, with its steps computed. Times are microseconds."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Final, Literal

from msgspec import Struct

from killswitch.graph.freezing import frozen_from
from killswitch.model.words import Place
from killswitch.policy.schema import recovery as schema
from killswitch.signals.arguments import HedgeLegs

ONE: Final = Decimal(1)
_DIGITS: Final = 12
"""Significant digits of a share, which is rounded down, so that rounding makes no step larger than the factor."""
_COUNT_DIGITS: Final = 1000
"""Digits of start × fᵏ before it is cut to a whole number: exact for a factor of two places and 365 steps."""
_FINEST: Final = Decimal("1e-9")
"""A factor that follows from a number of steps is rounded up by this, so that the last step reaches the full size."""


def factor_of(start: Decimal, factor: Decimal | None, steps: int | None) -> Decimal:
    """The factor f of a ramp. `start`: between 0 and 1.

    With `steps` f is (1 ÷ start)^(1 ÷ steps), at most `factor`; else it is `factor`. ValueError without either.
    """
    if steps is not None:
        with localcontext(prec=50):
            even = ((ONE / start).ln() / steps).exp().quantize(_FINEST, ROUND_CEILING) + _FINEST
        factor = even if factor is None else min(even, factor)
    if factor is None:
        raise ValueError("a ramp needs a factor or a number of steps")
    return factor


def step_shares(start: Decimal, factor: Decimal | None, steps: int | None) -> tuple[Decimal, ...]:
    """The shares of the full size from the start, step 0, to 1: min(1, start × fᵏ), none above the factor.

    Arguments and ValueError: as of `factor_of`.
    """
    factor, found = factor_of(start, factor, steps), [start]
    with localcontext(prec=_DIGITS, rounding=ROUND_FLOOR):
        while found[-1] < ONE:
            found.append(min(ONE, found[-1] * factor))
    return tuple(found)


def step_count(start: int, factor: Decimal, step: int) -> int:
    """The number of positions at a step: the whole part of start × fᵏ, so that it is never above start × fᵏ.

    Five by 1.5 are 5, 7, 11, 16: each from the exact product, and not from the rounded number before, by which one
    position would stay one for ever.
    """
    with localcontext(prec=_COUNT_DIGITS, rounding=ROUND_FLOOR):
        return int(start * factor**step)


@frozen_from(schema.Health, by_hand=["when"], hold="for")
class HealthRule(Struct, frozen=True):
    """What must be true before the first step, for `hold` microseconds."""

    condition: int
    """Its index in the conditions of the policy's graph."""
    hold: int


@frozen_from(schema.Ramp, by_hand=["factor", "steps"])
class RampRule(Struct, frozen=True):
    """The steps to the full size. `every`: watched time without warning or trip before each (microseconds)."""

    shares: tuple[tuple[str, tuple[Decimal, ...]], ...]
    """Account → its share of its limits at each step, the last of which is 1."""
    every: int
    thresholds: Literal["scale", "fixed"]
    approvals: int = 0
    steps_back: int | None = None
    """How many steps a trip takes back; None: all."""
    factors: tuple[tuple[str, Decimal], ...] = ()
    """Account → the factor between two of its steps."""

    @property
    def last(self) -> int:
        """The number of the step at which every account has its full size."""
        return max((len(shares) - 1 for _, shares in self.shares), default=0)

    def share(self, account: str, step: int) -> Decimal:
        """The share of its limits that an account has at a step; 1 for one without limits."""
        shares = next((shares for name, shares in self.shares if name == account), (ONE,))
        return shares[min(step, len(shares) - 1)]

    def smallest(self, accounts: Iterable[str], step: int) -> Decimal:
        """The smallest share of these accounts at a step."""
        return min((self.share(account, step) for account in accounts), default=ONE)


@frozen_from(schema.Monitoring, lasts="for", warnings=("warnings", float))
class MonitoringRule(Struct, frozen=True):
    """Closer attention for `lasts` watched microseconds. None: as usual."""

    lasts: int
    interval: int | None = None
    warnings: float | None = None
    report_every: int | None = None


@frozen_from(schema.RecoverySpec, by_hand=["policies", "start"])
class RecoveryRule(Struct, frozen=True):
    """The way back of one policy, on each of its scopes."""

    name: str
    place: Place
    level: int
    health: HealthRule
    ramp: RampRule
    positions: int | None = None
    """The largest number of positions at the start, which grows by the ramp's factor; None: no limit."""
    monitoring: MonitoringRule | None = None
    hedges: tuple[HedgeLegs, ...] = ()
    """Declared hedges, whose legs count as one position."""

    def most_positions(self, account: str, step: int) -> int | None:
        """The largest number of positions of an account at a step; None: no limit, as at the full size."""
        if self.positions is None or step >= self.ramp.last:
            return None
        factor = next((factor for name, factor in self.ramp.factors if name == account), ONE)
        return step_count(self.positions, factor, step)
