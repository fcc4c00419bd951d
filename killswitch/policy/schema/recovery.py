"""The `RecoveryPlan` document: how trading comes back after a reset, in steps.

The steps are computed, so that none exceeds the factor: of a start s and a factor f the limit of step k is
min(1, s × fᵏ) of the full size, and of a start s and n steps the factor is (1 ÷ s)^(1 ÷ n).
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from killswitch.policy.schema.cross_key_checks import Breach, mapping, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.limits import LimitSize
from killswitch.policy.schema.part import MistakeError, Part, Scalar
from killswitch.policy.schema.scalars import (
    Duration,
    DurationOrZero,
    Expression,
    PeopleCount,
    ProperShare,
    RankCount,
    StageLevel,
    Words,
    number_within,
    plain_number,
    proper_share,
    quoted,
    whole_number,
)

LARGEST_FACTOR = Decimal(10)
MOST_STEPS = 365


def step_factor(value: object) -> Decimal:
    """How much larger a step is than the one before: from 1.01 to 10."""
    try:
        return number_within(value, lambda number: Decimal("1.01") <= number <= LARGEST_FACTOR, "a factor", "")
    except MistakeError:
        message = f"{quoted(value)} is not a factor from 1.01 to {LARGEST_FACTOR}"
        raise MistakeError("KS2343", message, "write a plain number above 1, such as 1.5") from None


StepFactor = Annotated[Decimal, Scalar(step_factor, {"type": "number", "minimum": 1.01, "maximum": 10})]
StepCount = Annotated[int, whole_number(1, MOST_STEPS)]


def steps_needed(start: Decimal, factor: Decimal) -> int:
    """The smallest n with start × factorⁿ ≥ 1. `start`: a share of the full size between 0 and 1."""
    found, reached = 0, start
    while reached < 1:
        found, reached = found + 1, reached * factor
    return found


class Health(Part):
    """What must be true before the first step. Until then nothing is opened."""

    when: Expression
    """Signals of the scope of each policy. Unknown is not healthy."""
    duration: Annotated[DurationOrZero, Field(alias="for")]
    """How long it must have been true, at every evaluation."""


class RecoveryStart(Part):
    """The size at which trading begins again: a share of every limit, or an amount."""

    share: ProperShare | None = None
    """The share of the accounts' `Limits`. Left out: `gross` states the size."""
    gross: LimitSize | None = None
    """The largest sum of the positions, in the unit of `gross` in the accounts' `Limits`; the other limits are reduced
    by the same share. Left out: `share` states the size."""
    positions: RankCount | None = None
    """The largest number of positions at the start. It grows with the steps, to the whole part of it times fᵏ, and is
    unlimited at the full size; the legs of a `HedgeGroup` count as one. Left out: no limit."""


class Ramp(Part):
    """The steps from the start to the full size, which is the accounts' `Limits`."""

    factor: StepFactor | None = None
    """The largest factor between two steps. With it alone the number of steps follows. Left out: it follows from
    `steps`."""
    steps: StepCount | None = None
    """The number of steps to the full size, of equal factors. Left out: it follows from `factor`."""
    every: Duration
    """The watched time without warning or trip before each step. Time in which nothing was evaluated, or anything was
    unknown, does not count, and a warning starts it again."""
    approvals: PeopleCount = 0
    """How many different people approve each step before it is taken, by `ksctl approve --purpose recovery`. Left out:
    0."""
    steps_back: StepCount | None = None
    """How many steps a trip takes back. Left out: all, to the start."""
    thresholds: Literal["scale", "fixed"]
    """`scale`: thresholds of losses shrink by the share of the full size that the step allows. `fixed`: they stay as
    written, so that the ramp is only a wait."""


class Monitoring(Part):
    """Closer attention after a reset, until this much watched time is over."""

    duration: Annotated[Duration, Field(alias="for")]
    """How long, from the first step on; time in which nothing was evaluated does not count."""
    interval: Duration | None = None
    """The interval between two ticks, where that of the run is longer. Left out: that of the run."""
    warnings: ProperShare | None = None
    """The factor by which shares of thresholds warn earlier. A trigger without `warn_at` warns at this share of its
    threshold. Left out: as the triggers declare."""
    report_every: Duration | None = None
    """How often the state of the way back is notified. Left out: at each change only."""


class RecoverySpec(Part):
    """The way back after a reset: health first, a reduced size, closer attention, then steps to the full size.

    It begins with a trip, a firing of a stage at or above `level`. From the trip until the health condition is met
    nothing is opened; then the gate denies what exceeds the step. What reduces passes at every time.
    """

    policies: Words
    """The policies whose firings begin it. A policy has at most one plan."""
    level: StageLevel
    """The lowest level whose firing is a trip. A stage below it in force is a warning."""
    health: Health
    start: RecoveryStart
    ramp: Ramp
    monitoring: Monitoring | None = None
    """Closer attention for a time. Left out: as usual."""


class RecoveryPlanDocument(VersionedPart):
    """How trading comes back after a reset: in steps, each after watched time without a warning."""

    kind: Literal["RecoveryPlan"]
    spec: RecoverySpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """The start has one size, the ramp a pace, and no step exceeds the factor; monitoring changes something."""
        spec = spec_of(written)
        start, ramp, monitoring = (mapping(spec.get(key)) for key in ("start", "ramp", "monitoring"))
        if "start" in spec and ("share" in start) == ("gross" in start):
            both = "share" in start
            message = "the start has two sizes" if both else "the start has no size"
            fix = "keep one of `share` and `gross`" if both else "add `share`, such as 5%, or `gross`, an amount"
            yield Breach("KS2340", ("spec", "start"), message, fix)
        if "ramp" in spec and "factor" not in ramp and "steps" not in ramp:
            message, fix = "the ramp has no pace", "add `factor`, such as 1.5, or `steps`, such as 7"
            yield Breach("KS2341", ("spec", "ramp"), message, fix)
        yield from _too_few_steps(start.get("share"), ramp)
        if "monitoring" in spec and not any(key in monitoring for key in ("interval", "warnings", "report_every")):
            fix = "add `interval`, `warnings` or `report_every`, or remove it"
            yield Breach("KS2344", ("spec", "monitoring"), "it changes nothing", fix)


def _too_few_steps(share: object, ramp: dict[str, object]) -> Iterator[Breach]:
    """A declared number of steps of which one would exceed the declared factor."""
    steps, factor = ramp.get("steps"), plain_number(ramp.get("factor"))
    try:
        start = proper_share(share)
    except (MistakeError, ArithmeticError):
        return
    if factor is None or not Decimal("1.01") <= factor <= LARGEST_FACTOR or not isinstance(steps, int):
        return
    needed = steps_needed(start, factor)
    if steps < needed:
        yield Breach("KS2342", ("spec", "ramp", "steps"), *too_few_steps(steps, start, factor, needed))


def too_few_steps(steps: int, start: Decimal, factor: Decimal, needed: int) -> tuple[str, str]:
    """Message and fix of a number of steps that reaches the full size only with a step above the factor."""
    message = f"{steps} steps of at most ×{factor:f} end at {start * factor**steps:.1%} of the full size"
    return message, f"write at least {needed} steps, or leave one of `steps` and `factor` out"
