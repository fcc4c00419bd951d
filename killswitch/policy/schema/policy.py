"""The `Policy` document: when a book has gone wrong, and what happens then.

Times are whole microseconds, percentages are Decimal fractions, sequences are tuples. A key without a default is
required; the description of any other key says what leaving it out means.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, StrictBool, Tag

from killswitch.model.instant import MINUTE, SECOND
from killswitch.model.words import PolicyMode
from killswitch.policy.schema import cross_key_checks
from killswitch.policy.schema.actions import Action, NetExposure
from killswitch.policy.schema.cross_key_checks import Breach
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.expectation import ExpectedReach, expectation_breaches
from killswitch.policy.schema.part import AtLeastOne, Part
from killswitch.policy.schema.scalars import (
    BreachPause,
    Duration,
    DurationOrZero,
    Expression,
    Fraction,
    Majority,
    Manual,
    Markets,
    Moment,
    Name,
    PeopleCount,
    Price,
    RankCount,
    StageLevel,
    Text,
    Word,
    Words,
    ZonedTime,
)
from killswitch.policy.schema.trigger import Override, Trigger

DEFAULT_TOLERANCE = Decimal("0.001")
DEFAULT_FLOW_GRACE = 60 * SECOND
DEFAULT_AGREEMENT = Decimal("0.01")
DEFAULT_CLOSE_WITHIN = 10 * MINUTE
DEFAULT_BREACH_PAUSE = 10 * SECOND
DEFAULT_CLOSING_SHARE = Decimal("0.5")

Fallback = Literal["worst_ranked", "larger_side", "both", "none"]
"""Selection for MIXED and UNKNOWN attribution: the worst ranked positions of both sides, the side of the larger
notional (long if they are equal, both while a notional is unknown), both sides, or nothing."""


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
    """The scopes of a policy; each has its own stage machine."""

    each: Literal["account", "venue", "portfolio", "strategy", "symbol", "label"]
    """One stage machine for each matching account, for each venue, or one for all of them together; for each `Strategy`
    or each symbol, which has no equity of its own unless the accounts are the strategy's alone; or for each value of a
    label of the accounts."""
    match: Match
    """Which accounts; `{}` is every account."""
    label: Word | None = None
    """The label of the Account documents whose values are the scopes; an account without it is in none. Required by
    `each: label`. Left out: not used."""
    strategy: Words | None = None
    """Names of `Strategy` documents, with `each: strategy`. Left out: every one of the policy set."""
    symbol: Words | None = None
    """Symbols as the venues write them, with `each: symbol`. Left out: every symbol that is held or has an order."""


class Unexplained(Part):
    """How a change of equity that neither prices nor ledger rows explain is judged."""

    tolerance: Fraction = DEFAULT_TOLERANCE
    """The fraction of equity below which a change is noise; half of it if the venue reports the wallet balance. Left
    out: 0.1%."""
    flow_grace: DurationOrZero = DEFAULT_FLOW_GRACE
    """How long a change that trades may explain waits for a ledger that does not answer, before it counts as profit or
    loss. Left out: 60s."""


class Reference(Part):
    """The currency that a scope with accounts in several currencies is measured in, and the conversion rates."""

    currency: Word
    """The currency of equity, profits, flows, notionals and thresholds in money."""
    rates_from: RankCount = 2
    """How many venues of the snapshot must agree on a price; each venue counts once. Left out: 2."""
    within: Fraction = DEFAULT_AGREEMENT
    """How far apart the prices of venues that agree may be. Left out: 1%."""
    otherwise: dict[str, Price] = {}  # noqa: RUF012 # pydantic copies it
    """The rate of a currency to use where too few venues agree. Left out: none; the scope is unknown then."""


class Auto(Part):
    """An automatic reset."""

    when: Expression
    duration: Annotated[DurationOrZero, Field(alias="for")]
    """How long the condition must have been true, at every evaluation."""
    at_most: RankCount | None = None
    """How many automatic resets are allowed within 24 hours. A stage that fires after as many is reset by hand, and
    that is paged. Left out: any number; a breaker requires it."""
    accept: StrictBool = False
    """Whether the reset also accepts the loss: start and peak become the present value, as by a reset by hand. Left
    out: no, they stay."""


class AutoReset(Part):
    """An automatic reset, the alternative to `manual`."""

    auto: Auto
    """When a stage returns to normal automatically; its cooldown must be over, too."""


def reset_form(written: object) -> str:
    """The form of a reset: `auto` for a mapping, else `manual`."""
    return "auto" if isinstance(written, dict | AutoReset) else "manual"


Reset = Annotated[Annotated[Manual, Tag("manual")] | Annotated[AutoReset, Tag("auto")], Discriminator(reset_form)]


class AttributionRule(Part):
    """Which side counts as losing, and what to select when neither does."""

    source_at_least: Majority
    """The share of the losses that makes a side the losing one."""
    if_mixed: Fallback
    """What to select when neither side has that share: the worst ranked positions of both sides, the side of the larger
    notional (long if they are equal, both while a notional is unknown), both sides, or nothing."""
    if_unknown: Fallback
    """What to select when the shares are unknown."""


class WhenUnreachable(Part):
    """What happens to a close on accounts that are unreachable when the stage fires."""

    close_within: DurationOrZero = DEFAULT_CLOSE_WITHIN
    """The close is executed when the account answers again, if that is within this time of the last evaluation at which
    the stage's triggers held. `0s`: only triggers that hold then close the positions. Left out: 10m."""


class BreachLimits(Part):
    """The limits of `on_breach: close`: between them the answers to a bot that trades against the lock are paused."""

    ceiling: Fraction
    """The exposure that others have opened, as a fraction of the equity of its account, above which it is closed at
    once, without a pause."""
    cost_per_hour: Fraction
    """The cost of the answers within an hour, as a fraction of the equity of the account, above which the longest pause
    applies, and a page is sent. It never ends the closing."""
    pause: BreachPause = DEFAULT_BREACH_PAUSE
    """The longest pause between two answers, at most 60s. The first pause is 1s, and each is twice the one before; it
    starts again after ten quiet minutes. Left out: 10s."""


class Level(Part):
    """The name and the level of a stage, its triggers, and how it ends."""

    name: Name
    """The stage's name, unique in the policy."""
    level: StageLevel
    """1 to 9; a higher level can always fire over a lower one."""
    formerly: Name | None = None
    """The name that the stage had in the set before: what it has in force, and its cooldowns, stay with it. Left out:
    it had this name, or is new."""
    any_of: Annotated[tuple[Text, ...], Field(alias="any")] = ()
    """Triggers of which at least one must be confirmed. Left out: no requirement."""
    all_of: Annotated[tuple[Text, ...], Field(alias="all")] = ()
    """Triggers that must all be confirmed. Left out: no requirement."""
    reset: Reset
    """How the scope returns to normal."""


class Response(Part):
    """What a stage or a circuit breaker does, and how long until it can do so again."""

    cooldown: DurationOrZero
    """How long before the same level can fire again, and then only on a new loss, or on a condition (exposure,
    leverage, margin, venue health) that has been false and is true again."""
    no_reset_for: Duration | None = None
    """How long after a firing nothing and nobody resets the scope: neither the condition of `reset` nor an operator.
    There is no way around it. Left out: a reset is possible at any time, or from `no_reset_before`."""
    no_reset_before: ZonedTime | None = None
    """The time of the day, the next one after a firing, before which nothing and nobody resets the scope. Left out: as
    `no_reset_for` says."""
    reset_approvals: PeopleCount = 0
    """How many other people must approve a reset by hand, by `ksctl approve --purpose reset`, before it is carried out.
    A reset ends every stage that has fired: the largest number of them counts. An automatic reset needs none. Left out:
    0."""
    corroborate: StrictBool = False
    """Whether to read prices once more, and compare the mark with index and last price, before acting. Left out: false.
    """
    attribution: AttributionRule | None = None
    """Which side counts as losing. Required by `close: {side: losing}`. Left out: not determined."""
    actions: tuple[Action, ...]
    """The actions of the stage; `[]` only records and notifies."""
    notify: tuple[Name, ...] = ()
    """Names for notification routes. Left out: none; the firing is only recorded."""
    runbook: Name | None = None
    """The runbook to render. Left out: none."""
    when_unreachable: WhenUnreachable = WhenUnreachable()
    """What happens to a close on unreachable accounts. Left out: close_within 10m."""
    on_breach: Literal["page", "cancel", "close"] = "page"
    """What happens when others open risk under the lock of the stage. It is always paged. `cancel` also cancels the
    entries of the account; `close` also closes what they opened, within the limits of `breach`. Left out: page."""
    breach: BreachLimits | None = None
    """The limits of `on_breach: close`, which requires them. Left out: there is no such close."""


class Stage(Response, Level):
    """A level of response: when it fires, what it does, and how it ends."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["any"]}, {"required": ["all"]}]})


class CircuitBreaker(Response):
    """A circuit breaker: active, tripped while its trigger has fired, recovering, and active again."""

    trip: Trigger
    """The trigger. With `warn_at` it warns before it trips."""
    recovery: Reset
    """How the breaker becomes active again: `manual`, or `auto` with `at_most`. A condition that closing cannot cure,
    such as the loss from the start, recovers automatically only with `accept: true`."""


class Disabled(Part):
    """Why and until when a policy does not fire. What it has locked or latched stays."""

    reason: Text
    """The reason, which plan and status show."""
    until: Moment
    """When it fires again, such as 2026-12-01T08:00:00Z."""


class Variant(Part):
    """The same policy with other thresholds."""

    triggers: dict[str, Override]
    """The changes, by the name of the policy's trigger."""


class Watch(Part):
    """What a policy watches, and how it measures equity."""

    mode: PolicyMode
    """`enforce`, or `observe`, which decides, records and notifies, but never acts."""
    scope: Scope
    max_gap: Duration
    """The longest gap between evaluations; a longer one makes a window partly known."""
    unexplained: Unexplained = Unexplained()
    """How unexplained changes of equity are judged. Left out: tolerance 0.1%, flow_grace 60s."""
    on_unexplained: Literal["hold", "close"] = "hold"
    """How a fall of equity that neither prices nor trades explain is treated. `hold`: as a transfer; it pages and never
    closes. `close`: as a loss, once the ledger is known past it and has no row for it. Left out: hold."""
    on_suspicion: Literal["lock", "page"] = "lock"
    """What to do while it is not known whether a fall is a loss. `lock`: write the lock of a stage that would fire, for
    at most 20 s. `page`: write no lock. Left out: lock."""
    stale_after: Duration | None = None
    """The age beyond which data is unknown. Left out: the `quality` that the adapter reports decides."""
    reference: Reference | None = None
    """The currency that a scope with accounts in several currencies is measured in. Left out: the accounts' own
    currency, which must be the same."""
    expect: ExpectedReach | None = None
    """The most that the policy is expected to touch. Where it is more, `plan` exits 1, a first start refuses, and a run
    pages; nothing that fires is declined or cut. Left out: anything."""
    net_exposure: NetExposure | None = None
    """What is shown of the exposure to the market that is not hedged. Left out: nothing."""
    disabled: Disabled | None = None
    """Switches the policy off for a time: it evaluates, and fires and warns of nothing. Left out: it is on."""
    formerly: Name | None = None
    """The name that the policy had in the set before: its state, history and locks move to the new name. Left out: it
    had this name, or is new."""


class PolicySpec(Watch):
    """When a book has gone wrong, and what happens then."""

    @classmethod
    def instead_of(cls, key: str) -> str | None:
        """A circuit breaker is a policy of its own."""
        if key == "breaker":
            return "write either `breaker`, or `triggers` and `stages`: a breaker is a policy of its own"
        return None

    variant: Name | None = None
    """Which of `variants` applies. Left out: none, the triggers apply as written."""
    variants: dict[str, Variant] = {}  # noqa: RUF012 # pydantic copies it
    """Variants of the policy with other thresholds, by name. All of them are validated, whichever applies. Left out:
    none."""
    triggers: dict[str, Trigger]
    stages: Annotated[tuple[Stage, ...], AtLeastOne()]


TRIP = "trip"
"""The name of the only trigger of a circuit breaker."""
TRIPPED = "tripped"
"""The name of its only stage."""


class BreakerSpec(Watch):
    """A circuit breaker: a policy with a single stage, which warns, trips and recovers."""

    breaker: CircuitBreaker
    """The circuit breaker, in place of `triggers` and `stages`."""

    @property
    def triggers(self) -> dict[str, Trigger]:
        """The trigger of the breaker, as a policy with stages would have it."""
        return {TRIP: self.breaker.trip}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage of the breaker, as a policy with stages would have it."""
        of_response = {name: getattr(self.breaker, name) for name in Response.model_fields}
        return (
            Stage.model_construct(
                name=TRIPPED, level=1, any_of=(TRIP,), all_of=(), reset=self.breaker.recovery, **of_response
            ),
        )

    @property
    def variant(self) -> None:
        """A breaker has no variants."""
        return None

    @property
    def variants(self) -> dict[str, Variant]:
        """A breaker has no variants."""
        return {}


AnyPolicy = PolicySpec | BreakerSpec


def policy_form(written: object) -> str:
    """The form of a policy: `breaker` if that key is given without `stages`, else `stages`."""
    if isinstance(written, dict):
        return "breaker" if "breaker" in written and "stages" not in written else "stages"
    return "breaker" if isinstance(written, BreakerSpec) else "stages"


class PolicyDocument(VersionedPart):
    """A policy: triggers, stages and their actions, or a circuit breaker."""

    ALIASES = {  # noqa: RUF012 - pydantic takes a ClassVar of the base for one
        ("spec", "triggers", TRIP): ("spec", "breaker", "trip"),
        ("spec", "stages", 0, "reset"): ("spec", "breaker", "recovery"),
        ("spec", "stages", 0, "name"): ("spec", "breaker"),
        ("spec", "stages", 0, "any"): ("spec", "breaker", "trip"),
        ("spec", "stages", 0): ("spec", "breaker"),
    }

    kind: Literal["Policy"]
    spec: Annotated[
        Annotated[PolicySpec, Tag("stages")] | Annotated[BreakerSpec, Tag("breaker")], Discriminator(policy_form)
    ]

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """See `cross_key_checks`."""
        yield from cross_key_checks.policy(written)
        yield from expectation_breaches(cross_key_checks.spec_of(written))
