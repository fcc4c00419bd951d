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

    account: Annotated[Words | None, Field(description="Names of accounts.")] = None
    venue: Annotated[Words | None, Field(description="Names of venues.")] = None
    market: Annotated[Markets | None, Field(description="Kinds of market.")] = None
    currency: Annotated[Words | None, Field(description="Currencies of account.")] = None


class Scope(Part):
    """What gets a stage machine of its own."""

    each: Annotated[
        Literal["account", "venue", "portfolio"],
        Field(
            description="One stage machine for each matching account, for each venue, or one for all of them together."
        ),
    ]
    match: Annotated[Match, Field(description="Which accounts; `{}` is every account.")]


class Unexplained(Part):
    """How a change of equity that no price and no row explains is judged."""

    tolerance: Annotated[
        Fraction,
        Field(
            description=(
                "Fraction of equity below which it is noise; half of it where the venue gives the wallet. Left out: "
                "0.1%."
            )
        ),
    ] = DEFAULT_TOLERANCE
    flow_grace: Annotated[
        DurationOrZero,
        Field(
            description=(
                "How long a change that trades may account for waits for a ledger that does not answer, before it "
                "counts as profit or loss. Left out: 60s."
            )
        ),
    ] = DEFAULT_FLOW_GRACE


class Reference(Part):
    """The currency that a scope with accounts of several is measured in, and what converts to it."""

    currency: Annotated[Word, Field(description="Equity, profits, flows, notionals and thresholds in money are in it.")]
    rates_from: Annotated[
        RankCount,
        Field(
            description="How many venues of the snapshot must agree on a price, each of them one voice. Left out: 2."
        ),
    ] = 2
    within: Annotated[
        Fraction, Field(description="How far apart prices of venues that agree may be. Left out: 1%.")
    ] = DEFAULT_AGREEMENT
    otherwise: Annotated[
        dict[str, Price],
        Field(
            description=(
                "What one unit of a currency is taken for where too few venues agree. Left out: none, and then the "
                "scope is unknown."
            )
        ),
    ] = {}  # noqa: RUF012 # pydantic copies it


class ThresholdTrigger(Part):
    """A signal held against a number: exactly one of `at_least`, `at_most`, `above`, `below`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [key]} for key in COMPARISONS]})

    signal: Annotated[Text, Field(description="A signal of the catalogue; `ksctl schema signals` lists it.")]
    window: Annotated[Duration | None, Field(description="Time it is taken over, for signals that have a window.")] = (
        None
    )
    at_least: Annotated[Threshold | None, Field(description="True from this value upwards.")] = None
    at_most: Annotated[Threshold | None, Field(description="True from this value downwards.")] = None
    above: Annotated[Threshold | None, Field(description="True beyond this value.")] = None
    below: Annotated[Threshold | None, Field(description="True short of this value.")] = None
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
    duration: Annotated[
        DurationOrZero, Field(alias="for", description="How long it must have held, at every evaluation.")
    ]


class AutoReset(Part):
    """`auto`, as the other choice beside `manual`."""

    auto: Annotated[Auto, Field(description="When a stage returns to normal by itself; its cooldown must be over too.")]


def reset_form(written: object) -> str:
    """A mapping is meant to be `auto`; anything else must be the word `manual`."""
    return "auto" if isinstance(written, dict | AutoReset) else "manual"


Reset = Annotated[Annotated[Manual, Tag("manual")] | Annotated[AutoReset, Tag("auto")], Discriminator(reset_form)]


class AttributionRule(Part):
    """Which side counts as losing, and what is selected when neither does."""

    source_at_least: Annotated[Majority, Field(description="Share of the losses that makes a side the losing one.")]
    if_mixed: Annotated[Fallback, Field(description="What is selected when neither side has that share.")]
    if_unknown: Annotated[Fallback, Field(description="What is selected when the shares are unknown.")]


class WhenUnreachable(Part):
    """What becomes of a close on accounts that cannot be read when the stage fires."""

    close_within: Annotated[
        DurationOrZero,
        Field(
            description=(
                "It is carried out when the account answers again, if that is within this time of the last evaluation "
                "at which the stage's triggers held. `0s` keeps nothing: only triggers that hold then close. Left "
                "out: 10m."
            )
        ),
    ] = DEFAULT_CLOSE_WITHIN


class Stage(Part):
    """A level of response: when it fires, what it does, and how it ends."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["any"]}, {"required": ["all"]}]})

    name: Annotated[Name, Field(description="Unique in the policy.")]
    level: Annotated[StageLevel, Field(description="1 to 9; a higher level may always fire over a lower one.")]
    any_of: Annotated[
        tuple[Text, ...],
        Field(alias="any", description="Triggers of which one must be confirmed. Left out: no demand."),
    ] = ()
    all_of: Annotated[
        tuple[Text, ...], Field(alias="all", description="Triggers that must all be confirmed. Left out: no demand.")
    ] = ()
    cooldown: Annotated[
        DurationOrZero,
        Field(
            description=(
                "How long before the same level may fire again, and then only on a new loss, or on a condition "
                "(exposure, leverage, margin, venue health) that has been false and is true again."
            )
        ),
    ]
    reset: Annotated[Reset, Field(description="Who returns the scope to normal.")]
    corroborate: Annotated[
        StrictBool,
        Field(
            description="Re-read once, and hold the mark against index and last price, before acting. Left out: false."
        ),
    ] = False
    attribution: Annotated[
        AttributionRule | None,
        Field(description="Which side counts as losing. Needed by `close: {side: losing}`. Left out: not asked."),
    ] = None
    actions: Annotated[tuple[Action, ...], Field(description="What to do; `[]` records and notifies only.")]
    notify: Annotated[tuple[Name, ...], Field(description="Whom to tell. Left out: nobody beyond the record.")] = ()
    runbook: Annotated[Name | None, Field(description="The runbook to open. Left out: none.")] = None
    when_unreachable: Annotated[
        WhenUnreachable,
        Field(description="What becomes of a close on accounts that cannot be read. Left out: close_within 10m."),
    ] = WhenUnreachable()


class Override(Part):
    """What a variant changes of a trigger; whatever is left out stays as the policy has it."""

    at_least: Annotated[Threshold | None, Field(description="For a trigger with `at_least`.")] = None
    at_most: Annotated[Threshold | None, Field(description="For a trigger with `at_most`.")] = None
    above: Annotated[Threshold | None, Field(description="For a trigger with `above`.")] = None
    below: Annotated[Threshold | None, Field(description="For a trigger with `below`.")] = None
    confirm: Annotated[
        Confirmation | None, Field(description="How long it must be true. Left out: as the policy has it.")
    ] = None
    grace: Annotated[
        Duration | None, Field(description="How long it may be unknown. Left out: as the policy has it.")
    ] = None


class Variant(Part):
    """The same policy with other thresholds."""

    triggers: Annotated[dict[str, Override], Field(description="What changes, by the names of the policy's triggers.")]


class PolicySpec(Part):
    """When a book has gone wrong, and what then happens."""

    mode: Annotated[PolicyMode, Field(description="`enforce`, or `observe`: decide, record and notify, but never act.")]
    scope: Scope
    max_gap: Annotated[
        Duration, Field(description="A gap between evaluations longer than this makes a window partly known.")
    ]
    unexplained: Annotated[
        Unexplained,
        Field(
            description=(
                "Below which size a change of equity is noise, and how long one that trades may account for waits for "
                "a silent ledger. Left out: tolerance 0.1%, flow_grace 60s."
            )
        ),
    ] = Unexplained()
    on_unexplained: Annotated[
        Literal["hold", "close"],
        Field(
            description=(
                "What a fall of equity that neither prices nor trades explain is. `hold`: money that moved; it pages "
                "and never closes. `close`: a loss, once the ledger was read past it and has no row for it. Left out: "
                "hold."
            )
        ),
    ] = "hold"
    on_suspicion: Annotated[
        Literal["lock", "page"],
        Field(
            description=(
                "While it is not known whether a fall is a loss. `lock`: the lock of a stage that would fire is "
                "written for at most 20 s. `page`: nothing is written. Left out: lock."
            )
        ),
    ] = "lock"
    stale_after: Annotated[
        Duration | None,
        Field(
            description="Data observed longer ago than this is unknown. Left out: the adapter's word on quality holds."
        ),
    ] = None
    reference: Annotated[
        Reference | None,
        Field(
            description=(
                "The currency that a scope with accounts of several is measured in. Left out: the accounts' own, "
                "which must be one."
            )
        ),
    ] = None
    variant: Annotated[
        Name | None,
        Field(description="Which of `variants` holds. Left out: none, the triggers hold as they are written."),
    ] = None
    variants: Annotated[
        dict[str, Variant],
        Field(
            description=(
                "The policy with other thresholds, by name. Every one is checked, whichever holds. Left out: none."
            )
        ),
    ] = {}  # noqa: RUF012 # pydantic copies it
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
