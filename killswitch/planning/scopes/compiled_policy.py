"""Compiled policy: everything that is derived from a policy once, and its scopes in a snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from killswitch.engine.step import StageMachine, triggers_of
from killswitch.graph.actions.registry import action_kind
from killswitch.graph.lowering import lower, lower_one
from killswitch.graph.nodes import Graph, ScopeRule, Stage
from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.model.words import ReferenceCurrency
from killswitch.planning.targets.selection import PositionConditions
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.signals.history.collector import Collector, Needs, reach
from killswitch.signals.signal_values import ColumnReader, collector_needs, kept_highest, longest_window
from killswitch.valuation.scope_view import ScopeView
from killswitch.valuation.snapshot_facts import SnapshotFacts


class CompiledPolicy(Struct, frozen=True):
    """A compiled policy; it does not change between ticks."""

    graph: Graph
    machine: StageMachine
    reader: ColumnReader
    windows: tuple[int, ...]
    """Windows whose highest unit value is tracked (microseconds)."""
    keep: int
    """Length of the history: the longest window in use (microseconds)."""
    collectors: Mapping[type[Collector], Needs]
    """What signals need of past snapshots beyond unit values, with their arguments."""
    terms: EquityTerms
    position_conditions: dict[tuple[str, int], PositionConditions]
    """(stage, index of the action) → its compiled conditions on positions."""
    sample: int | None
    """Sampling interval of marks: the shortest of all rankings (microseconds); None without one."""
    corroborates: bool
    """Whether any stage corroborates prices before it acts."""
    corroborated: int
    """Mask of the triggers that only stages which corroborate use."""

    @property
    def warns(self) -> bool:
        """Whether a trigger warns at shares of its threshold."""
        return any(trigger.warn_at for trigger in self.graph.triggers)

    def is_disabled(self, now: int) -> bool:
        """Whether the policy is switched off at `now` (microseconds)."""
        return self.graph.disabled is not None and now < self.graph.disabled.until

    @property
    def trigger_names(self) -> tuple[str, ...]:
        return tuple(trigger.name for trigger in self.graph.triggers)


def compile_policy(graph: Graph) -> CompiledPolicy:
    """Compile the graph for the ticks."""
    equity = graph.equity
    collectors = collector_needs((*graph.signals, *graph.position_signals))
    windows = (rule.window for rule in graph.rankings)
    keep = max(longest_window(graph.signals), *windows, reach(collectors, equity.max_gap))
    return CompiledPolicy(
        graph=graph,
        machine=StageMachine.of(graph, lower(graph.conditions)),
        reader=ColumnReader(graph.signals),
        windows=kept_highest(graph.signals),
        keep=keep,
        collectors=collectors,
        terms=EquityTerms(equity.max_gap, equity.tolerance, equity.flow_grace, equity.closes_unexplained),
        position_conditions=_position_conditions(graph.stages),
        sample=min((rule.sample for rule in graph.rankings if rule.sample is not None), default=None),
        corroborates=any(stage.corroborate for stage in graph.stages),
        corroborated=_corroborated(graph.stages),
    )


def _corroborated(stages: tuple[Stage, ...]) -> int:
    used = others = 0
    for stage in stages:
        if stage.corroborate:
            used |= triggers_of(stage)
        else:
            others |= triggers_of(stage)
    return used & ~others


def _position_conditions(stages: tuple[Stage, ...]) -> dict[tuple[str, int], PositionConditions]:
    return {
        (stage.name, index): {
            key: lower_one(condition)
            for key, condition in action_kind(action).position_conditions(action).items()
            if condition is not None
        }
        for stage in stages
        for index, action in enumerate(stage.actions)
    }


Identity = tuple[str, str, str, str]
"""(account, venue, market, currency)."""


def identity(account: AccountSnapshot) -> Identity:
    return (account.account, account.venue, account.market, account.currency)


def scopes_of(rule: ScopeRule, accounts: Sequence[Identity]) -> dict[str, tuple[str, ...]]:
    """Scope name → the names of its accounts, in the order of the snapshot."""
    found: dict[str, tuple[str, ...]] = {}
    for each in accounts:
        if _matches(rule, each):
            scope = _scope_of(rule, each)
            found[scope] = (*found.get(scope, ()), each[0])
    return found


def indexes_of(rule: ScopeRule, scope: str, names: list[str], accounts: Sequence[Identity]) -> tuple[int, ...] | None:
    """Indexes of the scope's accounts in the snapshot; None if one of `names` is missing."""
    places = tuple(i for i, each in enumerate(accounts) if _matches(rule, each) and _scope_of(rule, each) == scope)
    return places if {accounts[i][0] for i in places} >= set(names) else None


def view_of(
    snapshot: Snapshot,
    facts: SnapshotFacts,
    places: tuple[int, ...] | None,
    stale_after: int | None,
    reference: ReferenceCurrency | None = None,
) -> ScopeView:
    """View of the accounts at these indexes of the snapshot, in the reference currency if there is one."""
    accounts = () if places is None else tuple([snapshot.accounts[place] for place in places])
    return ScopeView(
        facts.as_of, snapshot.scheduled, accounts, facts.rules, stale_after, None, reference, around=facts
    )  # fmt: skip


def _scope_of(rule: ScopeRule, account: Identity) -> str:
    if rule.each == "portfolio":
        return "portfolio"
    return f"account/{account[0]}" if rule.each == "account" else f"venue/{account[1]}"


def _matches(rule: ScopeRule, account: Identity) -> bool:
    allowed = (rule.accounts, rule.venues, rule.markets, rule.currencies)
    return all(names is None or value in names for names, value in zip(allowed, account, strict=True))
