"""The executable decision graph: what a policy means, with every reference resolved.

Times are whole microseconds. Conditions read *columns*: position `i` of the column lists is signal `i` of
`Graph.signals`. Everything here is plain frozen data; `lowering` turns the conditions into code.
"""

from __future__ import annotations

from math import isfinite
from typing import Literal

from killswitch.graph.routing import Route
from killswitch.graph.unwinding import UnwindingRule
from killswitch.model.record import Node
from killswitch.model.words import Place as Place
from killswitch.model.words import PolicyMode, ReferenceCurrency

ComparisonOp = Literal["<", "<=", ">", ">=", "==", "!="]
ArithmeticOp = Literal["+", "-", "*", "/"]
OnUnknown = Literal["hold", "trip", "warn"]
Fallback = Literal["worst_ranked", "both", "none"]
"""What MIXED and UNKNOWN select: the worst ranked of all positions, both sides, or nothing."""


class SignalRef(Node):
    """A signal as used: its catalogue name, and its window where it takes one (microseconds)."""

    name: str
    window: int | None = None


class SignalRead(Node):
    """The interval of column `index`."""

    index: int


class Number(Node):
    value: float


class Arithmetic(Node):
    op: ArithmeticOp
    left: NumberNode
    right: NumberNode


NumberNode = SignalRead | Number | Arithmetic


class Compare(Node):
    op: ComparisonOp
    left: NumberNode
    right: NumberNode


class TextIs(Node):
    """Whether the text of column `index` is one of `values`; unknown text is unknown."""

    index: int
    values: tuple[str, ...]


class AllOf(Node):
    parts: tuple[ConditionNode, ...]


class AnyOf(Node):
    parts: tuple[ConditionNode, ...]


class Not(Node):
    part: ConditionNode


class Constant(Node):
    value: bool


ConditionNode = Compare | TextIs | AllOf | AnyOf | Not | Constant


class Threshold(Node):
    """The threshold form of a trigger, kept for headroom and attribution: signal `index` `op` `value`."""

    index: int
    op: ComparisonOp
    value: float
    written: str
    """As the policy has it: `4.5%`."""


class Trigger(Node):
    """Condition number `i` of the graph belongs to trigger number `i`."""

    name: str
    condition: ConditionNode
    threshold: Threshold | None
    confirm: int
    """Microseconds for which it must have been true at every evaluation; 0 is at once."""
    confirm_ticks: int
    """Scheduled ticks at which it must have been true in a row; 0 where `confirm` is in time."""
    on_unknown: OnUnknown
    grace: int | None
    """Microseconds of unknown after which that is itself reported; None: the policy reports at once."""
    place: Place
    rearms: bool = False
    """Reads a signal that is no loss: the same level may fire again when this has been false and is true again."""


class AutoReset(Node):
    """`condition` is the index in `Graph.conditions` of what must hold for `hold` microseconds."""

    condition: int
    hold: int


class AttributionRule(Node):
    source_at_least: float
    if_mixed: Fallback
    if_unknown: Fallback


class Action(Node):
    """What a stage does. Each kind has a node of its own, in `killswitch.graph.actions`."""


class Stage(Node):
    name: str
    level: int
    any_of: tuple[int, ...]
    all_of: tuple[int, ...]
    """Trigger indexes: fires when one of `any_of` and every one of `all_of` is confirmed (empty: no demand)."""
    cooldown: int
    reset: AutoReset | None
    """None is by hand."""
    corroborate: bool
    attribution: AttributionRule | None
    actions: tuple[Action, ...]
    notify: tuple[str, ...]
    runbook: str | None
    place: Place
    close_within: int = 0
    """Microseconds for which the close of an account that cannot be read is kept; 0: it is not."""


RankingFormula = Literal["normalised", "killswitch-v6", "component-risk", "genesis"]
RankingTerm = Literal["pnl_delta", "loss", "liquidation_proximity", "notional_share", "margin_loss"]


class RankingRule(Node):
    """How positions are ordered: the formula, and the weight of each term; none by `genesis`, which has no terms."""

    name: str
    formula: RankingFormula
    weights: tuple[tuple[RankingTerm, float], ...]
    window: int
    """Microseconds over which P&L delta is taken when no trigger's window is at hand; by component risk and genesis
    the returns."""
    sample: int | None = None
    """Microseconds between two marks; None but by component risk and genesis."""
    least: int = 0
    """With fewer returns the component risk, or a position's volatility, is unknown."""
    if_unknown: Literal["normalised", "killswitch-v6"] | None = None
    """The formula that ranks then; None but by component risk."""


class CorrelationGroupRule(Node):
    """Declared members; positions of a group are closed in the group's place in the order."""

    name: str
    symbols: tuple[str, ...]
    order: int


class ScopeRule(Node):
    """Which scopes get a stage machine: each account, each venue, or the whole portfolio, of matching accounts."""

    each: Literal["account", "venue", "portfolio"]
    accounts: tuple[str, ...] | None
    venues: tuple[str, ...] | None
    markets: tuple[str, ...] | None
    currencies: tuple[str, ...] | None


class EquityRule(Node):
    """How equity history is judged."""

    max_gap: int
    """A gap between evaluations longer than this makes a window partly known (microseconds)."""
    tolerance: float
    """Unexplained change smaller than this fraction of equity is noise; half of it where the wallet is given."""
    flow_grace: int
    """How long a pending change waits for a ledger that does not answer (microseconds)."""
    stale_after: int | None
    """Data observed longer ago than this is unknown (microseconds); None: the adapter's word on quality holds."""
    closes_unexplained: bool = False
    """Whether a fall that neither prices nor trades explain counts as loss, once the ledger was read past it."""
    locks_on_suspicion: bool = True
    """Whether the lock of a stage is written while it is not known whether it should fire."""
    reference: ReferenceCurrency | None = None
    """The currency that a scope is measured in; None: the accounts' own, which must be one."""


class Graph(Node):
    """One policy, compiled."""

    policy: str
    digest: str
    """Content digest of the policy set, `sha256:…`: comments, key order and file layout do not change it."""
    mode: PolicyMode
    scope: ScopeRule
    equity: EquityRule
    signals: tuple[SignalRef, ...]
    position_signals: tuple[SignalRef, ...]
    triggers: tuple[Trigger, ...]
    conditions: tuple[ConditionNode, ...]
    """The triggers' conditions in their order, then those of automatic resets."""
    stages: tuple[Stage, ...]
    """By level, highest first; within a level in the order written."""
    rankings: tuple[RankingRule, ...]
    groups: tuple[CorrelationGroupRule, ...]
    place: Place
    variant: str | None = None
    """Which of the policy's declared variants this is; None: the triggers as they are written."""
    labels: tuple[tuple[str, str], ...] = ()
    """The policy's labels, sorted by key."""


class PolicySet(Node):
    """All policies compiled together."""

    digest: str
    commit: str | None
    graphs: tuple[Graph, ...]
    routes: tuple[Route, ...] = ()
    """Where notifications go, by name."""
    unwindings: tuple[UnwindingRule, ...] = ()
    """How closes are carried out, by name."""
    timers: tuple[TimerRule, ...] = ()
    """Dead man's switches, by name; no account is in two of them."""


_MIRRORED: dict[ComparisonOp, ComparisonOp] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


class Step(Node):
    """Column `index` at or beyond `value`: upwards when `rising`, and past it when `strict`."""

    index: int
    rising: bool
    value: float
    strict: bool

    @property
    def severity(self) -> tuple[float, bool]:
        """Greater for what is harder to reach; only steps of one column and direction may be compared."""
        return (self.value if self.rising else -self.value, self.strict)


def step_of(node: ConditionNode) -> Step | None:
    """The step that `node` is; None for anything else, equality with a number included."""
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
    return Step(left.index, op in (">", ">="), right.value, op in ("<", ">"))


class TimerRule(Node):
    """A timer at the venue, for each of `accounts`. Times are whole microseconds."""

    name: str
    accounts: tuple[str, ...]
    timeout: int
    """Without a refresh for so long the venue cancels the account's resting orders."""
    refresh: int
    """How often it is started anew."""
    accept_unprotected: bool
    """Whether it may run while it would cancel protective stops of open positions."""
    place: Place
