"""What the documents hold: `Policy`, `Ranking`, `CorrelationGroup`.

Times are whole microseconds, percentages are Decimal fractions, sequences are tuples. A key without a value on
its class may not be left out; what leaving out any other means is said beside it, and in the JSON Schema.
"""

# No `from __future__ import annotations` here: `shape` reads the annotations as objects.

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from killswitch.model.instant import MINUTE, SECOND
from killswitch.model.words import LockMode, PolicyMode
from killswitch.policy.schema.cross_key_checks import COMPARISONS as COMPARISONS
from killswitch.policy.schema.ranking import RankingSpec as RankingSpec
from killswitch.policy.schema.scalars import (
    AT_ONCE,
    Confirmation,
    Duration,
    DurationOrZero,
    Fraction,
    Majority,
    Manual,
    Markets,
    Name,
    OrderNumber,
    Price,
    RankCount,
    StageLevel,
    Text,
    Threshold,
    Word,
    Words,
)
from killswitch.policy.schema.shape import AtLeastOne, Choice, Part

API_VERSION = "killswitch.dev/v1"

DEFAULT_TOLERANCE = Decimal("0.001")
DEFAULT_FLOW_GRACE = 60 * SECOND
DEFAULT_GRACE = 60 * SECOND
DEFAULT_AGREEMENT = Decimal("0.01")
DEFAULT_CLOSE_WITHIN = 10 * MINUTE
DEFAULT_CLOSING_SHARE = Decimal("0.5")

ApiVersion = Literal["killswitch.dev/v1"]
OnUnknown = Literal["hold", "trip", "warn"]
Fallback = Literal["worst_ranked", "both", "none"]

WhenUnknown = Annotated[
    OnUnknown,
    "What unknown data does: `hold` keeps what the trigger was and its confirmation clock, `trip` counts as true, "
    "`warn` counts as false and notifies.",
]
Confirming = Annotated[
    Confirmation, "How long it must be true at every evaluation: a time, or scheduled ticks. Left out: at once."
]
Grace = Annotated[Duration, "How long it may be unknown before that is itself reported. Left out: 60s."]
Expression = Annotated[Text, "A condition in CEL over signals."]


class Metadata(Part):
    """Who a document is, and whose."""

    name: Annotated[Name, "Unique among documents of the same kind."]
    labels: Annotated[dict[str, Text], "For people and for selecting. Left out: none."] = {}  # noqa: RUF012 - frozen
    annotations: Annotated[dict[str, Text], "For tools and for notes. Left out: none."] = {}  # noqa: RUF012 - frozen


class Match(Part):
    """Which accounts a policy watches. A key left out matches any; several values match any of them."""

    account: Annotated[Words | None, "Names of accounts."] = None
    venue: Annotated[Words | None, "Names of venues."] = None
    market: Annotated[Markets | None, "Kinds of market."] = None
    currency: Annotated[Words | None, "Currencies of account."] = None


class Scope(Part):
    """What gets a stage machine of its own."""

    each: Annotated[
        Literal["account", "venue", "portfolio"],
        "One stage machine for each matching account, for each venue, or one for all of them together.",
    ]
    match: Annotated[Match, "Which accounts; `{}` is every account."]


class Unexplained(Part):
    """How a change of equity that no price and no row explains is judged."""

    tolerance: Annotated[
        Fraction,
        "Fraction of equity below which it is noise; half of it where the venue gives the wallet. Left out: 0.1%.",
    ] = DEFAULT_TOLERANCE
    flow_grace: Annotated[
        DurationOrZero,
        "How long a change that trades may account for waits for a ledger that does not answer, before it counts as "
        "profit or loss. Left out: 60s.",
    ] = DEFAULT_FLOW_GRACE


class Reference(Part):
    """The currency that a scope with accounts of several is measured in, and what converts to it."""

    currency: Annotated[Word, "Equity, profits, flows, notionals and thresholds in money are in it."]
    rates_from: Annotated[
        RankCount, "How many venues of the snapshot must agree on a price, each of them one voice. Left out: 2."
    ] = 2
    within: Annotated[Fraction, "How far apart prices of venues that agree may be. Left out: 1%."] = DEFAULT_AGREEMENT
    otherwise: Annotated[
        dict[str, Price],
        "What one unit of a currency is taken for where too few venues agree. Left out: none, and then the scope is "
        "unknown.",
    ] = {}  # noqa: RUF012 - frozen


class ThresholdTrigger(Part):
    """A signal held against a number: exactly one of `at_least`, `at_most`, `above`, `below`."""

    SCHEMA: ClassVar = {"oneOf": [{"required": [key]} for key in COMPARISONS]}

    signal: Annotated[Text, "A signal of the catalogue; `ksctl schema signals` lists it."]
    window: Annotated[Duration | None, "Time it is taken over, for signals that have a window."] = None
    at_least: Annotated[Threshold | None, "True from this value upwards."] = None
    at_most: Annotated[Threshold | None, "True from this value downwards."] = None
    above: Annotated[Threshold | None, "True beyond this value."] = None
    below: Annotated[Threshold | None, "True short of this value."] = None
    confirm: Confirming = AT_ONCE
    on_unknown: WhenUnknown
    grace: Grace = DEFAULT_GRACE


class ExpressionTrigger(Part):
    """A condition written in CEL."""

    when: Expression
    confirm: Confirming = AT_ONCE
    on_unknown: WhenUnknown
    grace: Grace = DEFAULT_GRACE


Trigger = ThresholdTrigger | ExpressionTrigger


def trigger_form(written: object) -> int:
    """`when` makes it an expression, unless `signal` is there too: then the superfluous `when` is the mistake."""
    return int(isinstance(written, dict) and "when" in written and "signal" not in written)


TRIGGER = Choice(trigger_form, ThresholdTrigger, ExpressionTrigger)


class Auto(Part):
    """A reset without a person."""

    KEYS: ClassVar = {"duration": "for"}

    when: Expression
    duration: Annotated[DurationOrZero, "How long it must have held, at every evaluation."]


class AutoReset(Part):
    """`auto`, as the other choice beside `manual`."""

    auto: Annotated[Auto, "When a stage returns to normal by itself; its cooldown must be over too."]


def reset_form(written: object) -> int:
    """A mapping is meant to be `auto`; anything else must be the word `manual`."""
    return int(isinstance(written, dict))


RESET = Choice(reset_form, Manual, AutoReset)


class AttributionRule(Part):
    """Which side counts as losing, and what is selected when neither does."""

    source_at_least: Annotated[Majority, "Share of the losses that makes a side the losing one."]
    if_mixed: Annotated[Fallback, "What is selected when neither side has that share."]
    if_unknown: Annotated[Fallback, "What is selected when the shares are unknown."]


class LockTrading(Part):
    """Tell the bots to stop."""

    KEYS: ClassVar = {"duration": "for"}

    mode: Annotated[LockMode, "`reduce_only` forbids new risk; `all` forbids every order."]
    duration: Annotated[Duration | None, "How long. Left out: until it is lifted."] = None


class CancelOrders(Part):
    """Cancel resting orders."""

    kind: Annotated[Literal["entry", "all"], "`entry` cancels what would add risk; `all` protective orders too."]


class Close(Part):
    """Close positions, worst first."""

    side: Annotated[
        Literal["losing", "long", "short", "both"], "Which positions. `losing` needs the stage's `attribution`."
    ]
    rank: Annotated[Name, "The ranking that orders them. Left out: `default`."] = "default"
    top: Annotated[RankCount | None, "Only so many, by rank. Left out: all selected."] = None
    worst: Annotated[
        Fraction | None,
        "When attribution falls back to `worst_ranked`: this part of the positions by rank, at least one. "
        "Left out: all of them, or `top`.",
    ] = None
    fraction: Annotated[Fraction, "How much of each position to close."]
    share_cap: Annotated[
        Fraction | None,
        "After the close no selected position is worth more than this part of the scope's gross notional at firing. "
        "Gross counts what is known, which can only lower the cap; a selected position whose worth is unknown is "
        "closed wholly, and the decision says so. Left out: no cap.",
    ] = None
    spread: Annotated[
        Literal["each", "by_rank"],
        "`each` closes the fraction of every selected position; `by_rank` closes the fraction of the selected gross, "
        "from the worst ranked on. By component risk that is the cut which leaves the scope's P&L with the least "
        "variance. While a worth or the component risk is unknown it closes as `each`, and the decision says so. "
        "Left out: each.",
    ] = "each"
    all_if: Annotated[
        Expression | None, "A condition over `position.*` signals; where true, all of the position. Left out: never."
    ] = None
    symbols: Annotated[
        tuple[Word, ...] | None, AtLeastOne(), "Only these symbols, or base assets of spot symbols. Left out: any."
    ] = None
    except_assets: Annotated[tuple[Word, ...], "Base assets that are never sold. Left out: none."] = ()
    unwinding: Annotated[
        Name | None,
        "The Unwinding by which it is carried out. Left out: the one called `default` where there is one, else market "
        "orders as fast as the venue allows.",
    ] = None


class Action(Part):
    """One thing to do: exactly one key. The order of acting is the program's, not the file's."""

    SCHEMA: ClassVar = {"minProperties": 1, "maxProperties": 1}

    lock_trading: Annotated[LockTrading | None, "Tell the bots to stop."] = None
    cancel_orders: Annotated[CancelOrders | None, "Cancel resting orders."] = None
    close: Annotated[Close | None, "Close positions."] = None

    @property
    def kind(self) -> Literal["lock_trading", "cancel_orders", "close"]:
        """Which of the actions it is."""
        if self.lock_trading is not None:
            return "lock_trading"
        return "cancel_orders" if self.cancel_orders is not None else "close"


class WhenUnreachable(Part):
    """What becomes of a close on accounts that cannot be read when the stage fires."""

    close_within: Annotated[
        DurationOrZero,
        "It is carried out when the account answers again, if that is within this time of the last evaluation at which "
        "the stage's triggers held. `0s` keeps nothing: only triggers that hold then close. Left out: 10m.",
    ] = DEFAULT_CLOSE_WITHIN


class Stage(Part):
    """A level of response: when it fires, what it does, and how it ends."""

    KEYS: ClassVar = {"any_of": "any", "all_of": "all"}
    SCHEMA: ClassVar = {"anyOf": [{"required": ["any"]}, {"required": ["all"]}]}

    name: Annotated[Name, "Unique in the policy."]
    level: Annotated[StageLevel, "1 to 9; a higher level may always fire over a lower one."]
    any_of: Annotated[tuple[Text, ...], "Triggers of which one must be confirmed. Left out: no demand."] = ()
    all_of: Annotated[tuple[Text, ...], "Triggers that must all be confirmed. Left out: no demand."] = ()
    cooldown: Annotated[
        DurationOrZero,
        "How long before the same level may fire again, and then only on a new loss, or on a condition (exposure, "
        "leverage, margin, venue health) that has been false and is true again.",
    ]
    reset: Annotated[Literal["manual"] | AutoReset, RESET, "Who returns the scope to normal."]
    corroborate: Annotated[
        bool, "Re-read once, and hold the mark against index and last price, before acting. Left out: false."
    ] = False
    attribution: Annotated[
        AttributionRule | None, "Which side counts as losing. Needed by `close: {side: losing}`. Left out: not asked."
    ] = None
    actions: Annotated[tuple[Action, ...], "What to do; `[]` records and notifies only."]
    notify: Annotated[tuple[Name, ...], "Whom to tell. Left out: nobody beyond the record."] = ()
    runbook: Annotated[Name | None, "The runbook to open. Left out: none."] = None
    when_unreachable: Annotated[
        WhenUnreachable, "What becomes of a close on accounts that cannot be read. Left out: close_within 10m."
    ] = WhenUnreachable()


class Override(Part):
    """What a variant changes of a trigger; whatever is left out stays as the policy has it."""

    at_least: Annotated[Threshold | None, "For a trigger with `at_least`."] = None
    at_most: Annotated[Threshold | None, "For a trigger with `at_most`."] = None
    above: Annotated[Threshold | None, "For a trigger with `above`."] = None
    below: Annotated[Threshold | None, "For a trigger with `below`."] = None
    confirm: Annotated[Confirmation | None, "How long it must be true. Left out: as the policy has it."] = None
    grace: Annotated[Duration | None, "How long it may be unknown. Left out: as the policy has it."] = None


class Variant(Part):
    """The same policy with other thresholds."""

    triggers: Annotated[dict[str, Override], "What changes, by the names of the policy's triggers."]


class PolicySpec(Part):
    """When a book has gone wrong, and what then happens."""

    mode: Annotated[PolicyMode, "`enforce`, or `observe`: decide, record and notify, but never act."]
    scope: Scope
    max_gap: Annotated[Duration, "A gap between evaluations longer than this makes a window partly known."]
    unexplained: Annotated[
        Unexplained,
        "Below which size a change of equity is noise, and how long one that trades may account for waits for a silent "
        "ledger. Left out: tolerance 0.1%, flow_grace 60s.",
    ] = Unexplained()
    on_unexplained: Annotated[
        Literal["hold", "close"],
        "What a fall of equity that neither prices nor trades explain is. `hold`: money that moved; it pages and never "
        "closes. `close`: a loss, once the ledger was read past it and has no row for it. Left out: hold.",
    ] = "hold"
    on_suspicion: Annotated[
        Literal["lock", "page"],
        "While it is not known whether a fall is a loss. `lock`: the lock of a stage that would fire is written for at "
        "most 20 s. `page`: nothing is written. Left out: lock.",
    ] = "lock"
    stale_after: Annotated[
        Duration | None,
        "Data observed longer ago than this is unknown. Left out: the adapter's word on quality holds.",
    ] = None
    reference: Annotated[
        Reference | None,
        "The currency that a scope with accounts of several is measured in. Left out: the accounts' own, which must be "
        "one.",
    ] = None
    variant: Annotated[
        Name | None, "Which of `variants` holds. Left out: none, the triggers hold as they are written."
    ] = None
    variants: Annotated[
        dict[str, Variant],
        "The policy with other thresholds, by name. Every one is checked, whichever holds. Left out: none.",
    ] = {}  # noqa: RUF012 - frozen
    triggers: dict[str, Annotated[ThresholdTrigger | ExpressionTrigger, TRIGGER]]
    stages: Annotated[tuple[Stage, ...], AtLeastOne()]


class CorrelationGroupSpec(Part):
    """Symbols that fall together, closed in one place of the order."""

    symbols: Annotated[tuple[Word, ...], AtLeastOne()]
    order: Annotated[OrderNumber, "Groups with a smaller number close first."]


class PolicyDocument(Part):
    """A policy: triggers, stages and what they do."""

    KEYS: ClassVar = {"api_version": "apiVersion"}

    api_version: ApiVersion
    kind: Literal["Policy"]
    metadata: Metadata
    spec: PolicySpec


class RankingDocument(Part):
    """A ranking of positions."""

    KEYS: ClassVar = {"api_version": "apiVersion"}

    api_version: ApiVersion
    kind: Literal["Ranking"]
    metadata: Metadata
    spec: RankingSpec


class CorrelationGroupDocument(Part):
    """A group of correlated symbols."""

    KEYS: ClassVar = {"api_version": "apiVersion"}

    api_version: ApiVersion
    kind: Literal["CorrelationGroup"]
    metadata: Metadata
    spec: CorrelationGroupSpec


AnyDocument = PolicyDocument | RankingDocument | CorrelationGroupDocument
