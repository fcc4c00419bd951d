"""Nodes of the decision graph: a compiled policy with all references resolved.

Times are whole microseconds. Conditions read *columns*: index `i` of the column lists is signal `i` of
`Graph.signals`. All nodes are frozen data; `lowering` compiles the conditions to code.
"""

from __future__ import annotations

from decimal import Decimal
from math import isfinite
from typing import Literal

from msgspec import Struct

from killswitch.graph.freezing import frozen_from
from killswitch.graph.limits import LimitsRule
from killswitch.graph.recovery import RecoveryRule
from killswitch.graph.routing import MessageSilence, NotificationRoot, Route
from killswitch.graph.unwinding import UnwindingRule
from killswitch.model.instant import LocalTime, from_micros, to_micros
from killswitch.model.venue import TriggerPrice
from killswitch.model.words import Place as Place
from killswitch.model.words import PolicyMode, ReferenceCurrency
from killswitch.model.words import StrategyRule as StrategyRule
from killswitch.policy.schema import policy as schema
from killswitch.policy.schema.actions import NetExposure as WrittenNetExposure
from killswitch.policy.schema.actions import OpenedHedge as WrittenHedge
from killswitch.policy.schema.catastrophe_stop import CatastropheStopSpec
from killswitch.policy.schema.dead_man import DeadManSpec, OnOneWay, OnSilence, PendingLimit, SilenceSpec, Watched
from killswitch.policy.schema.expectation import AtMost, ExpectedReach
from killswitch.policy.schema.policy import Fallback as Fallback
from killswitch.policy.schema.ranking import CorrelationGroupSpec, GroupEstimate, RankingSpec
from killswitch.policy.schema.strategy import StrategySpec
from killswitch.policy.schema.trigger import COMPARISONS, ExpressionTrigger, ThresholdTrigger
from killswitch.policy.schema.trigger import OnUnknown as OnUnknown
from killswitch.signals.arguments import EstimatedCorrelations, HedgeLegs, SymbolGroup, Value
from killswitch.signals.catalogue import ARGUMENTS, BY_NAME

ComparisonOp = Literal["<", "<=", ">", ">=", "==", "!="]
ArithmeticOp = Literal["+", "-", "*", "/"]


class SignalRef(Struct, frozen=True):
    """A signal in use: its catalogue name, and the values of its arguments in the order declared."""

    name: str
    arguments: tuple[Value, ...] = ()

    @property
    def window(self) -> int | None:
        """The argument `window` (microseconds); None for a signal without one."""
        for argument, value in zip(BY_NAME[self.name].arguments, self.arguments, strict=True):
            if argument.key == "window":
                return value if isinstance(value, int) else None
        return None


class SignalRead(Struct, frozen=True):
    """The interval of column `index`."""

    index: int


class Number(Struct, frozen=True):
    value: float


class Arithmetic(Struct, frozen=True):
    op: ArithmeticOp
    left: NumberNode
    right: NumberNode


NumberNode = SignalRead | Number | Arithmetic


class Compare(Struct, frozen=True):
    op: ComparisonOp
    left: NumberNode
    right: NumberNode


class TextIs(Struct, frozen=True):
    """Whether the text of column `index` is one of `values`; unknown text is unknown."""

    index: int
    values: tuple[str, ...]


class AllOf(Struct, frozen=True):
    parts: tuple[ConditionNode, ...]


class AnyOf(Struct, frozen=True):
    parts: tuple[ConditionNode, ...]


class Not(Struct, frozen=True):
    part: ConditionNode


class Constant(Struct, frozen=True):
    value: bool


ConditionNode = Compare | TextIs | AllOf | AnyOf | Not | Constant


def is_true(index: int, wanted: bool = True) -> Compare:
    """The condition that column `index` of a boolean signal is true."""
    return Compare(">=" if wanted else "<", SignalRead(index), Number(1.0))


class AdaptiveRule(Struct, frozen=True):
    """A threshold that is computed: a quantile of the signal's own past, or a multiple of another signal.

    Times are microseconds. It lies between `floor` and `cap`; `initial` applies until it can be computed.
    """

    floor: float
    cap: float
    initial: float
    quantile: float | None = None
    history: int = 0
    """How far back the quantile looks."""
    block: int = 0
    """One sample is the maximum of a block of this length: the window of the signal, 15m if it has none."""
    times: float | None = None
    column: int | None = None
    """The column of the signal that the threshold is a multiple of."""
    identity: str = ""
    """What is stored with a computed threshold: after an edit of the trigger it begins again."""


class Threshold(Struct, frozen=True):
    """Threshold of a trigger, for headroom and attribution: signal `index` `op` `value`."""

    index: int
    op: ComparisonOp
    value: float
    written: str
    """Text of the value in the policy: `4.5%`."""
    adaptive: AdaptiveRule | None = None
    """How it is computed; then `value` is the initial one."""


@frozen_from(
    ThresholdTrigger, ExpressionTrigger, by_hand=["when", "signal", "is", "warn_at", *ARGUMENTS, *COMPARISONS],
    confirm="confirm.micros", confirm_ticks="confirm.ticks",
)  # fmt: skip
class Trigger(Struct, frozen=True):
    """A trigger; condition `i` of the graph belongs to trigger `i`."""

    name: str
    condition: ConditionNode
    threshold: Threshold | None
    confirm: int
    """Microseconds for which the condition must be true at every evaluation; 0: immediately."""
    confirm_ticks: int
    """Consecutive scheduled ticks at which the condition must be true; 0 if it confirms by time."""
    on_unknown: OnUnknown
    grace: int | None
    """Microseconds after which an unknown trigger is reported; None: immediately."""
    place: Place
    rearms: bool = False
    """Whether it reads a signal that is no loss: the level may fire again once this was false and is true again."""
    warn_at: tuple[float, ...] = ()
    """Shares of the threshold at which a warning is sent, ascending."""
    formerly: str | None = None
    """Its name in the set before; None: the same, or it is new."""


@frozen_from(schema.Auto, by_hand=["when"], hold="for")
class AutoReset(Struct, frozen=True):
    """Automatic reset: the condition with index `condition` in `Graph.conditions` must hold for `hold` microseconds."""

    condition: int
    hold: int
    at_most: int | None = None
    """Automatic resets within 24 hours, after which a firing is reset by hand; None: any number."""
    accept: bool = False
    """Whether start and peak become the present unit value."""


@frozen_from(schema.AttributionRule, source_at_least=("source_at_least", float))
class AttributionRule(Struct, frozen=True):
    source_at_least: float
    if_mixed: Fallback
    if_unknown: Fallback


class Action(Struct, frozen=True):
    """Base of the actions of a stage. Each kind has its own node in `killswitch.graph.actions`."""


@frozen_from(schema.BreachLimits)
class BreachRule(Struct, frozen=True):
    """The limits of closing what others open under a lock: fractions of the account's equity, and microseconds."""

    ceiling: Decimal
    cost_per_hour: Decimal
    pause: int


@frozen_from(schema.Stage, by_hand=["any", "all", "reset", "actions"], close_within="when_unreachable.close_within")
class Stage(Struct, frozen=True):
    name: str
    level: int
    any_of: tuple[int, ...]
    all_of: tuple[int, ...]
    """Trigger indexes: the stage fires if one of `any_of` and all of `all_of` are confirmed (empty: not required)."""
    cooldown: int
    reset: AutoReset | None
    """None: the reset is manual."""
    corroborate: bool
    attribution: AttributionRule | None
    actions: tuple[Action, ...]
    notify: tuple[str, ...]
    runbook: str | None
    place: Place
    close_within: int = 0
    """Microseconds for which the close of an unreadable account stays pending; 0: it does not."""
    on_breach: Literal["page", "cancel", "close"] = "page"
    breach: BreachRule | None = None
    """None only if `on_breach` does not close."""
    no_reset_for: int | None = None
    """Microseconds from the firing during which nobody resets the scope; None: none."""
    no_reset_before: LocalTime | None = None
    """The time of the day before which nobody resets the scope."""
    reset_approvals: int = 0
    """How many other people must approve a reset by hand."""
    formerly: str | None = None
    """Its name in the set before; None: the same, or it is new."""

    def no_reset_until(self, fired_at: int) -> int | None:
        """The end of the time in which nobody resets the scope after a firing at `fired_at`; None without one."""
        if self.no_reset_before is not None:
            return to_micros(self.no_reset_before.next_after(from_micros(fired_at)))
        return None if self.no_reset_for is None else fired_at + self.no_reset_for


@frozen_from(schema.Disabled)
class Disabled(Struct, frozen=True):
    """Why a policy does not fire, and the instant (microseconds) from which it does again."""

    reason: str
    until: int


Stages = tuple[Stage, ...]

RankingFormula = Literal["normalised", "killswitch-v6", "component-risk", "genesis"]
RankingTerm = Literal["pnl_delta", "loss", "liquidation_proximity", "notional_share", "margin_loss", "bleed_rate"]


@frozen_from(RankingSpec, by_hand=["weights"])
class RankingRule(Struct, frozen=True):
    """Ranking of positions: the formula, and the weight of each term; `genesis` has no terms."""

    name: str
    formula: RankingFormula
    weights: tuple[tuple[RankingTerm, float], ...]
    window: int
    """Window of the P&L delta if no trigger provides one, and of the returns of component risk and genesis
    (microseconds)."""
    sample: int | None = None
    """Sampling interval of marks of component risk and genesis (microseconds); else None."""
    least: int = 0
    """Minimum number of returns for a known component risk or volatility."""
    if_unknown: Literal["normalised", "killswitch-v6"] | None = None
    """Formula that ranks while the component risk is unknown; None for other formulas."""


frozen_from(GroupEstimate)(EstimatedCorrelations)


@frozen_from(CorrelationGroupSpec, by_hand=["correlations"], join=("join", float), leave=("leave", float))
class CorrelationGroupRule(Struct, frozen=True):
    """A correlation group; its positions are closed in the order of the groups."""

    name: str
    symbols: tuple[str, ...]
    order: int
    correlations: tuple[tuple[str, str, float], ...] = ()
    """Two symbols, the smaller first, and their declared correlation."""
    estimate: EstimatedCorrelations | None = None
    join: float = 0.7
    leave: float = 0.6

    @property
    def group(self) -> SymbolGroup:
        """The group as signals read it."""
        return SymbolGroup(self.name, self.symbols, self.correlations, self.estimate, self.join, self.leave)


frozen_from(
    StrategySpec, accounts="match.account", venues="match.venue", markets="match.market", currencies="match.currency",
    order_prefixes="order_ids",
)(StrategyRule)  # fmt: skip


@frozen_from(
    schema.Scope, accounts="match.account", venues="match.venue", markets="match.market", currencies="match.currency",
    by_hand=["label", "strategy"], symbols="symbol",
)  # fmt: skip
class ScopeRule(Struct, frozen=True):
    """Scopes with a stage machine, of the matching accounts: each account, venue, strategy, symbol or label, or all."""

    each: Literal["account", "venue", "portfolio", "strategy", "symbol", "label"]
    accounts: tuple[str, ...] | None
    venues: tuple[str, ...] | None
    markets: tuple[str, ...] | None
    currencies: tuple[str, ...] | None
    strategies: tuple[StrategyRule, ...] = ()
    """With `each: strategy`: which; else empty."""
    symbols: tuple[str, ...] | None = None
    """With `each: symbol`: which; None: every symbol that is held or has an order."""
    labels: tuple[tuple[str, str], ...] = ()
    """With `each: label`: the accounts that have the label, and its value as the name of a scope: `desk=alpha`."""

    def has_equity(self, scope: str) -> bool:
        """Whether a scope of this rule has an equity of its own, which is that of whole accounts."""
        if self.each == "symbol":
            return False
        return self.each != "strategy" or any(it.whole for it in self.strategies if f"strategy/{it.name}" == scope)


frozen_from(schema.Reference, venues="rates_from", declared="otherwise")(ReferenceCurrency)


@frozen_from(
    schema.PolicySpec,
    schema.BreakerSpec,
    tolerance=("unexplained.tolerance", float),
    flow_grace="unexplained.flow_grace",
    closes_unexplained=("on_unexplained", lambda written: written == "close"),
    locks_on_suspicion=("on_suspicion", lambda written: written == "lock"),
)
class EquityRule(Struct, frozen=True):
    """Settings of the equity history."""

    max_gap: int
    """Longest gap between evaluations within a fully known window (microseconds)."""
    tolerance: float
    """Fraction of equity below which an unexplained change is noise; half of it if the wallet balance is known."""
    flow_grace: int
    """How long a pending change waits for an unavailable ledger (microseconds)."""
    stale_after: int | None
    """Age from which data is unknown (microseconds); None: only the adapter's data quality counts."""
    closes_unexplained: bool = False
    """Whether a fall unexplained by prices and trades counts as a loss once the ledger was read past it."""
    locks_on_suspicion: bool = True
    """Whether a stage locks on suspicion, while it is unknown whether it should fire."""
    reference: ReferenceCurrency | None = None
    """Currency in which scopes are measured; None: the common currency of the accounts."""


@frozen_from(ExpectedReach)
class ExpectationRule(Struct, frozen=True):
    """The most that a policy is expected to touch; None: any number."""

    accounts: AtMost | None = None
    positions: AtMost | None = None


@frozen_from(WrittenHedge, by_hand=["at_most"])
class OpenedHedge(Struct, frozen=True):
    """A position that may be opened as a hedge; `at_most` in `currency`."""

    account: str
    instrument: str
    at_most: Decimal
    currency: str | None


@frozen_from(WrittenNetExposure, by_hand=["instruments"])
class NetExposureRule(Struct, frozen=True):
    """What is shown of an exposure by beta, and the hedges that are judged; times in microseconds."""

    hub: str
    window: int
    sample: int
    least: int
    if_unknown: Literal["notional", "nothing"]
    place: Place
    group: str | None = None
    members: tuple[tuple[str | None, str], ...] | None = None
    """As of `Neutralise`."""
    instruments: tuple[OpenedHedge, ...] = ()

    @property
    def by(self) -> Literal["beta"]:
        """The measure."""
        return "beta"

    def counts(self, account: str, symbol: str) -> bool:
        """Whether a position is counted."""
        return is_member(self.members, account, symbol)


def is_member(members: tuple[tuple[str | None, str], ...] | None, account: str, symbol: str) -> bool:
    """Whether a position is one of the members, each an account (None: any) and a symbol; None: all are."""
    return members is None or (None, symbol) in members or (account, symbol) in members


@frozen_from(schema.PolicySpec, schema.BreakerSpec, by_hand=["triggers", "stages", "variant", "variants", "breaker"])
class Graph(Struct, frozen=True):
    """One policy, compiled."""

    policy: str
    digest: str
    """Content digest of the policy set, `sha256:…`."""
    mode: PolicyMode
    scope: ScopeRule
    equity: EquityRule
    signals: tuple[SignalRef, ...]
    position_signals: tuple[SignalRef, ...]
    triggers: tuple[Trigger, ...]
    conditions: tuple[ConditionNode, ...]
    """Conditions of the triggers in their order, then of automatic resets, then of health before the way back."""
    stages: tuple[Stage, ...]
    """By level, highest first; within a level in the order written."""
    rankings: tuple[RankingRule, ...]
    groups: tuple[CorrelationGroupRule, ...]
    place: Place
    variant: str | None = None
    """Selected variant of the policy; None: the triggers as written."""
    labels: tuple[tuple[str, str], ...] = ()
    """The policy's labels, sorted by key."""
    disabled: Disabled | None = None
    """Why and until when it does not fire; None: it is on."""
    expect: ExpectationRule | None = None
    """What it is expected to touch; None: anything."""
    is_breaker: bool = False
    """Whether it is a circuit breaker: a policy with a single stage."""
    formerly: str | None = None
    """Its name in the set before; None: the same, or it is new."""
    hedges: tuple[HedgeLegs, ...] = ()
    """Declared hedges, by name: their legs are closed as one position."""
    recovery: RecoveryRule | None = None
    net_exposure: NetExposureRule | None = None
    """The way back of its scopes after a reset; None: none is declared."""

    @property
    def has_correlations(self) -> bool:
        """Whether a group has declared or estimated correlations."""
        return any(not rule.group.is_whole for rule in self.groups)


class PolicySet(Struct, frozen=True):
    """All policies compiled together."""

    digest: str
    commit: str | None
    graphs: tuple[Graph, ...]
    routes: tuple[Route, ...] = ()
    """Notification routes, by name."""
    unwindings: tuple[UnwindingRule, ...] = ()
    """Unwindings, by name."""
    timers: tuple[TimerRule, ...] = ()
    """Dead-man switches, by name; an account has at most one."""
    strategies: tuple[StrategyRule, ...] = ()
    """Strategies, by name: what belongs to each."""
    silences: tuple[SilenceRule, ...] = ()
    """Dead-man switches that a watcher listens for, by name."""
    limits: tuple[LimitsRule, ...] = ()
    """Limits, by name: what an order must pass at the gate. An account has at most one."""
    stops: tuple[CatastropheStopRule, ...] = ()
    """Catastrophe stops, by name; at most one covers a symbol of an account."""
    notification: NotificationRoot | None = None
    """The root of the notification routes; None: all routes are next to each other."""
    message_silences: tuple[MessageSilence, ...] = ()
    """Silences of messages, by name."""

    @property
    def has_routes(self) -> bool:
        """Whether anybody can be notified."""
        return bool(self.routes) or self.notification is not None


_MIRRORED: dict[ComparisonOp, ComparisonOp] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


class ThresholdStep(Struct, frozen=True):
    """A comparison of column `index` with `value`: at or beyond it, upwards if `rising`, exclusive if `strict`."""

    index: int
    rising: bool
    value: float
    strict: bool

    @property
    def severity(self) -> tuple[float, bool]:
        """Sort key, greater for thresholds that are harder to reach; comparable within one column and direction."""
        return (self.value if self.rising else -self.value, self.strict)


def step_of(node: ConditionNode) -> ThresholdStep | None:
    """`node` as a threshold step; None for any other condition, including equality."""
    if isinstance(node, AllOf | AnyOf) and len(node.parts) == 1:
        return step_of(node.parts[0])
    if not isinstance(node, Compare):
        return None
    left, op, right = node.left, node.op, node.right
    if isinstance(left, Number):
        left, op, right = right, _MIRRORED[op], left
    if not (isinstance(left, SignalRead) and isinstance(right, Number) and isfinite(right.value)):
        return None
    if op in ("==", "!="):
        return None
    return ThresholdStep(left.index, op in (">", ">="), right.value, op in ("<", ">"))


@frozen_from(DeadManSpec, by_hand=["accounts", "at_venue"])
class TimerRule(Struct, frozen=True):
    """A dead-man timer at the venue for each of `accounts`. Times are whole microseconds."""

    name: str
    accounts: tuple[str, ...]
    timeout: int
    """Time without a refresh after which the venue cancels the account's resting orders."""
    refresh: int
    """Refresh interval."""
    accept_unprotected: bool
    """Whether it may run although it would cancel protective stops of open positions."""
    place: Place


class HeartbeatWay(Struct, frozen=True):
    """How heartbeats arrive: a folder with a file for each (`file`), or an address that has each by name (`url`)."""

    form: Literal["file", "url"]
    at: str
    token: str | None = None
    """A reference to the token of an address."""


@frozen_from(PendingLimit)
class PendingRule(Struct, frozen=True):
    """What happens `limit` microseconds after the start of the watcher, where no heartbeat was ever heard."""

    limit: int
    then: Literal["page", "fire"]


@frozen_from(SilenceSpec, by_hand=["accounts", "at_venue", "ways"])
class SilenceRule(Struct, frozen=True):
    """A switch that a watcher listens for. Times are whole microseconds."""

    name: str
    accounts: tuple[str, ...]
    watches: Watched
    beats: str
    ways: tuple[HeartbeatWay, ...]
    every: int
    timeout: int
    check: int
    checks: int
    pending: PendingRule
    on_one_way: OnOneWay
    progress_timeout: int | None
    on_silence: OnSilence
    force: bool
    place: Place


class StopTwin(Struct, frozen=True):
    """One leg of a hedge, and another one."""

    account: str
    symbol: str
    other_account: str
    other_symbol: str


@frozen_from(CatastropheStopSpec, by_hand=["accounts", "from", "pairs"])
class CatastropheStopRule(Struct, frozen=True):
    """Stops at the venue for the positions of `accounts` in `symbols`; None: in all."""

    name: str
    accounts: tuple[str, ...]
    symbols: tuple[str, ...] | None
    distance: Decimal
    """Fraction of the anchor price."""
    trigger: TriggerPrice
    inside_liquidation: Decimal | None
    """Fraction of the liquidation price; None: no stop beyond it."""
    band: Decimal
    if_refused: Literal["exit", "none"]
    place: Place
    twins: tuple[StopTwin, ...] = ()
    """Legs of hedges whose orders are placed at the same two prices."""
    apart: tuple[StopTwin, ...] = ()
    """Legs of hedges that have stops of their own, each with a leg that its stop leaves naked."""

    def covers(self, account: str, symbol: str) -> bool:
        """Whether a position of the account in the symbol has a stop by this rule."""
        return account in self.accounts and (self.symbols is None or symbol in self.symbols)

    def twin_of(self, account: str, symbol: str) -> StopTwin | None:
        """The pair of which this position is the first leg; None if it is of none."""
        return next((it for it in self.twins if (it.account, it.symbol) == (account, symbol)), None)
