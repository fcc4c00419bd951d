"""What a `Policy` holds: when a book has gone wrong, and what then happens.

Times are whole microseconds, percentages are Decimal fractions, sequences are tuples. A key without a value on
its class may not be left out; what leaving out any other means is said beside it, and in the JSON Schema.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, StrictBool, Tag

from killswitch.model.instant import MINUTE, SECOND
from killswitch.model.words import PolicyMode
from killswitch.policy.schema import cross_key_checks
from killswitch.policy.schema.actions import Action as Action
from killswitch.policy.schema.cross_key_checks import COMPARISONS as COMPARISONS
from killswitch.policy.schema.cross_key_checks import Breach
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, Part
from killswitch.policy.schema.scalars import (
    AT_ONCE,
    Confirmation,
    Duration,
    DurationOrZero,
    Expression,
    Fraction,
    Majority,
    Manual,
    Markets,
    Name,
    Price,
    RankCount,
    StageLevel,
    Text,
    Threshold,
    Word,
    Words,
)

DEFAULT_TOLERANCE = Decimal("0.001")
DEFAULT_FLOW_GRACE = 60 * SECOND
DEFAULT_GRACE = 60 * SECOND
DEFAULT_AGREEMENT = Decimal("0.01")
DEFAULT_CLOSE_WITHIN = 10 * MINUTE
DEFAULT_CLOSING_SHARE = Decimal("0.5")

OnUnknown = Literal["hold", "trip", "warn"]
Fallback = Literal["worst_ranked", "both", "none"]

WhenUnknown = Annotated[
    OnUnknown,
    Field(
        description=(
            "What unknown data does: `hold` keeps what the trigger was and its confirmation clock, `trip` counts "
            "as true, `warn` counts as false and notifies."
        )
    ),
]
Confirming = Annotated[
    Confirmation,
    Field(description="How long it must be true at every evaluation: a time, or scheduled ticks. Left out: at once."),
]
Grace = Annotated[
    Duration, Field(description="How long it may be unknown before that is itself reported. Left out: 60s.")
]


class Match(Part):
    """Which accounts a policy watches. A key left out matches any; several values match any of them."""

    account: Words | None = None
    """Names of accounts."""
    venue: Words | None = None
    """Names of venues."""
    market: Markets | None = None
    """Kinds of market."""
    currency: Words | None = None
    """Currencies of account."""


class Scope(Part):
    """What gets a stage machine of its own."""

    each: Literal["account", "venue", "portfolio"]
    """One stage machine for each matching account, for each venue, or one for all of them together."""
    match: Match
    """Which accounts; `{}` is every account."""


class Unexplained(Part):
    """How a change of equity that no price and no row explains is judged."""

    tolerance: Fraction = DEFAULT_TOLERANCE
    """Fraction of equity below which it is noise; half of it where the venue gives the wallet. Left out: 0.1%."""
    flow_grace: DurationOrZero = DEFAULT_FLOW_GRACE
    """How long a change that trades may account for waits for a ledger that does not answer, before it counts as profit
    or loss. Left out: 60s."""


class Reference(Part):
    """The currency that a scope with accounts of several is measured in, and what converts to it."""

    currency: Word
    """Equity, profits, flows, notionals and thresholds in money are in it."""
    rates_from: RankCount = 2
    """How many venues of the snapshot must agree on a price, each of them one voice. Left out: 2."""
    within: Fraction = DEFAULT_AGREEMENT
    """How far apart prices of venues that agree may be. Left out: 1%."""
    otherwise: dict[str, Price] = {}  # noqa: RUF012 # pydantic copies it
    """What one unit of a currency is taken for where too few venues agree. Left out: none, and then the scope is
    unknown."""


class ThresholdTrigger(Part):
    """A signal held against a number: exactly one of `at_least`, `at_most`, `above`, `below`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [key]} for key in COMPARISONS]})

    signal: Text
    """A signal of the catalogue; `ksctl schema signals` lists it."""
    window: Duration | None = None
    """Time it is taken over, for signals that have a window."""
    at_least: Threshold | None = None
    """True from this value upwards."""
    at_most: Threshold | None = None
    """True from this value downwards."""
    above: Threshold | None = None
    """True beyond this value."""
    below: Threshold | None = None
    """True short of this value."""
    confirm: Confirming = AT_ONCE
    on_unknown: WhenUnknown
    grace: Grace = DEFAULT_GRACE


class ExpressionTrigger(Part):
    """A condition written in CEL."""

    when: Expression
    confirm: Confirming = AT_ONCE
    on_unknown: WhenUnknown
    grace: Grace = DEFAULT_GRACE


def trigger_form(written: object) -> str:
    """`when` makes it an expression, unless `signal` is there too: then the superfluous `when` is the mistake."""
    is_expression = isinstance(written, dict) and "when" in written and "signal" not in written
    return "expression" if is_expression else "threshold"


Trigger = Annotated[
    Annotated[ThresholdTrigger, Tag("threshold")] | Annotated[ExpressionTrigger, Tag("expression")],
    Discriminator(trigger_form),
]


class Auto(Part):
    """A reset without a person."""

    when: Expression
    duration: Annotated[DurationOrZero, Field(alias="for")]
    """How long it must have held, at every evaluation."""


class AutoReset(Part):
    """`auto`, as the other choice beside `manual`."""

    auto: Auto
    """When a stage returns to normal by itself; its cooldown must be over too."""


def reset_form(written: object) -> str:
    """A mapping is meant to be `auto`; anything else must be the word `manual`."""
    return "auto" if isinstance(written, dict | AutoReset) else "manual"


Reset = Annotated[Annotated[Manual, Tag("manual")] | Annotated[AutoReset, Tag("auto")], Discriminator(reset_form)]


class AttributionRule(Part):
    """Which side counts as losing, and what is selected when neither does."""

    source_at_least: Majority
    """Share of the losses that makes a side the losing one."""
    if_mixed: Fallback
    """What is selected when neither side has that share."""
    if_unknown: Fallback
    """What is selected when the shares are unknown."""


class WhenUnreachable(Part):
    """What becomes of a close on accounts that cannot be read when the stage fires."""

    close_within: DurationOrZero = DEFAULT_CLOSE_WITHIN
    """It is carried out when the account answers again, if that is within this time of the last evaluation at which the
    stage's triggers held. `0s` keeps nothing: only triggers that hold then close. Left out: 10m."""


class Stage(Part):
    """A level of response: when it fires, what it does, and how it ends."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["any"]}, {"required": ["all"]}]})

    name: Name
    """Unique in the policy."""
    level: StageLevel
    """1 to 9; a higher level may always fire over a lower one."""
    any_of: Annotated[tuple[Text, ...], Field(alias="any")] = ()
    """Triggers of which one must be confirmed. Left out: no demand."""
    all_of: Annotated[tuple[Text, ...], Field(alias="all")] = ()
    """Triggers that must all be confirmed. Left out: no demand."""
    cooldown: DurationOrZero
    """How long before the same level may fire again, and then only on a new loss, or on a condition (exposure,
    leverage, margin, venue health) that has been false and is true again."""
    reset: Reset
    """Who returns the scope to normal."""
    corroborate: StrictBool = False
    """Re-read once, and hold the mark against index and last price, before acting. Left out: false."""
    attribution: AttributionRule | None = None
    """Which side counts as losing. Needed by `close: {side: losing}`. Left out: not asked."""
    actions: tuple[Action, ...]
    """What to do; `[]` records and notifies only."""
    notify: tuple[Name, ...] = ()
    """Whom to tell. Left out: nobody beyond the record."""
    runbook: Name | None = None
    """The runbook to open. Left out: none."""
    when_unreachable: WhenUnreachable = WhenUnreachable()
    """What becomes of a close on accounts that cannot be read. Left out: close_within 10m."""


class Override(Part):
    """What a variant changes of a trigger; whatever is left out stays as the policy has it."""

    at_least: Threshold | None = None
    """For a trigger with `at_least`."""
    at_most: Threshold | None = None
    """For a trigger with `at_most`."""
    above: Threshold | None = None
    """For a trigger with `above`."""
    below: Threshold | None = None
    """For a trigger with `below`."""
    confirm: Confirmation | None = None
    """How long it must be true. Left out: as the policy has it."""
    grace: Duration | None = None
    """How long it may be unknown. Left out: as the policy has it."""


class Variant(Part):
    """The same policy with other thresholds."""

    triggers: dict[str, Override]
    """What changes, by the names of the policy's triggers."""


class PolicySpec(Part):
    """When a book has gone wrong, and what then happens."""

    mode: PolicyMode
    """`enforce`, or `observe`: decide, record and notify, but never act."""
    scope: Scope
    max_gap: Duration
    """A gap between evaluations longer than this makes a window partly known."""
    unexplained: Unexplained = Unexplained()
    """Below which size a change of equity is noise, and how long one that trades may account for waits for a silent
    ledger. Left out: tolerance 0.1%, flow_grace 60s."""
    on_unexplained: Literal["hold", "close"] = "hold"
    """What a fall of equity that neither prices nor trades explain is. `hold`: money that moved; it pages and never
    closes. `close`: a loss, once the ledger was read past it and has no row for it. Left out: hold."""
    on_suspicion: Literal["lock", "page"] = "lock"
    """While it is not known whether a fall is a loss. `lock`: the lock of a stage that would fire is written for at
    most 20 s. `page`: nothing is written. Left out: lock."""
    stale_after: Duration | None = None
    """Data observed longer ago than this is unknown. Left out: the adapter's word on quality holds."""
    reference: Reference | None = None
    """The currency that a scope with accounts of several is measured in. Left out: the accounts' own, which must be
    one."""
    variant: Name | None = None
    """Which of `variants` holds. Left out: none, the triggers hold as they are written."""
    variants: dict[str, Variant] = {}  # noqa: RUF012 # pydantic copies it
    """The policy with other thresholds, by name. Every one is checked, whichever holds. Left out: none."""
    triggers: dict[str, Trigger]
    stages: Annotated[tuple[Stage, ...], AtLeastOne()]


class PolicyDocument(VersionedPart):
    """A policy: triggers, stages and what they do."""

    kind: Literal["Policy"]
    spec: PolicySpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """See `cross_key_checks`."""
        return cross_key_checks.policy(written)
