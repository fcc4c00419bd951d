"""Compiled policy: everything that is derived from a policy once, and its scopes in a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from killswitch.engine.step import StageMachine, triggers_of
from killswitch.graph.actions.close import closes_among
from killswitch.graph.actions.kind import of_node
from killswitch.graph.actions.neutralise import Neutralise
from killswitch.graph.actions.reduce import Reduce
from killswitch.graph.actions.registry import action_kind
from killswitch.graph.actions.top_up_margin import TopUpMargin
from killswitch.graph.lowering import lower, lower_one
from killswitch.graph.nodes import Graph, NetExposureRule, ScopeRule, Stage
from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.model.words import ReferenceCurrency
from killswitch.planning.targets.selection import PositionConditions
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.history.bleed_rates import BleedRates
from killswitch.signals.history.collector import Collector, Needs, reach
from killswitch.signals.history.group_estimates import GroupEstimates
from killswitch.signals.history.prices import PriceSamples
from killswitch.signals.history.transfers_of_day import TransfersOfDay
from killswitch.signals.signal_values import ColumnReader, collector_needs, kept_highest, longest_window
from killswitch.valuation.scope_view import ScopeView
from killswitch.valuation.snapshot_facts import BookPart, SnapshotFacts


class CompiledPolicy(Struct, frozen=True):
    """A compiled policy; it does not change between ticks."""

    graph: Graph
    machine: StageMachine
    reader: ColumnReader
    windows: tuple[int, ...]
    """Windows whose highest unit value is tracked (microseconds)."""
    keep: int
    """Length of the history: the longest window in use (microseconds)."""
    keep_samples: int
    """How far back samples of prices are read (microseconds); 0 if nothing reads them."""
    collectors: Mapping[type[Collector], Needs]
    """What signals need of past snapshots beyond unit values, with their arguments."""
    terms: EquityTerms
    position_conditions: dict[tuple[str, int], PositionConditions]
    """(stage, index of the action) → its compiled conditions on positions."""
    sample: int | None
    """Sampling interval of prices: the shortest of all rankings and actions (microseconds); None without one."""
    corroborates: bool
    """Whether any stage corroborates prices before it acts."""
    corroborated: int
    """Mask of the triggers that only stages which corroborate use."""
    warns: bool
    """Whether a trigger warns at shares of its threshold."""
    cap_groups: frozenset[str] = frozenset()
    """The groups in which its closes count for a daily cap."""
    losses: tuple[int, ...] = ()
    """The columns with sizes of losses, whose thresholds shrink on the way back; empty without a recovery plan."""
    moves_margin: bool = False
    """Whether a stage may move margin between accounts."""

    def is_disabled(self, now: int) -> bool:
        """Whether the policy is switched off at `now` (microseconds)."""
        return self.graph.disabled is not None and now < self.graph.disabled.until

    @property
    def trigger_names(self) -> tuple[str, ...]:
        return tuple(trigger.name for trigger in self.graph.triggers)


ReaderOf = Callable[[Graph], ColumnReader]
"""What reads the signals of a graph."""


def reader_of(graph: Graph) -> ColumnReader:
    """Reads the signals of the graph from history and view."""
    return ColumnReader(graph.signals)


def compile_policy(graph: Graph, reader: ReaderOf = reader_of) -> CompiledPolicy:
    """Compile the graph for the ticks."""
    equity = graph.equity
    collectors = _collectors(graph)
    neutral = _by_returns(graph)
    windows = (*(rule.window for rule in graph.rankings), *(it.window for it in neutral))
    keep = max(longest_window((*graph.signals, *graph.position_signals)), *windows, reach(collectors, equity.max_gap))
    return CompiledPolicy(
        graph=graph,
        machine=StageMachine.of(graph, lower(graph.conditions)),
        reader=reader(graph),
        windows=kept_highest(graph.signals),
        keep=keep,
        keep_samples=PriceSamples(collectors.get(PriceSamples, ()), equity.max_gap).keep,
        collectors=collectors,
        terms=EquityTerms(equity.max_gap, equity.tolerance, equity.flow_grace, equity.closes_unexplained),
        position_conditions=_position_conditions(graph.stages),
        sample=min(
            (*(rule.sample for rule in graph.rankings if rule.sample is not None), *(it.sample for it in neutral)),
            default=None,
        ),
        corroborates=any(stage.corroborate for stage in graph.stages),
        corroborated=_corroborated(graph.stages),
        warns=any(trigger.warn_at for trigger in graph.triggers),
        cap_groups=frozenset(
            close.cap_group
            for stage in graph.stages
            for close in closes_among(stage.actions)
            if close.cap_group is not None
        ),
        losses=()
        if graph.recovery is None
        else tuple(i for i, each in enumerate(graph.signals) if BY_NAME[each.name].is_loss_size),
        moves_margin=any(of_node(stage.actions, TopUpMargin) for stage in graph.stages),
    )


def _collectors(graph: Graph) -> Mapping[type[Collector], Needs]:
    """What signals, rankings, correlation groups and actions collect.

    A ranking may read returns and bleed rates of everything that is held; a group estimates correlations.
    """
    sampled = [{"window": rule.window, "every": rule.sample} for rule in graph.rankings if rule.sample is not None]
    estimated = [rule for rule in graph.groups if rule.estimate is not None]
    sampled += [{"window": it.window, "every": it.every} for rule in estimated if (it := rule.estimate) is not None]
    actions = [action for stage in graph.stages for action in stage.actions]
    sampled += [{"window": it.window, "every": it.sample} for it in _by_returns(graph)]
    needs = collector_needs((*graph.signals, *graph.position_signals))
    if sampled:
        needs[PriceSamples] = [*needs.get(PriceSamples, ()), *sampled]
    if any(each.flows == "page" for each in of_node(actions, Reduce)):
        needs.setdefault(TransfersOfDay, [{}])
    if estimated:
        needs[GroupEstimates] = [{"group": rule.group} for rule in estimated]
    if any(term == "bleed_rate" and weight for rule in graph.rankings for term, weight in rule.weights):
        needs.setdefault(BleedRates, [{}])
    return needs


def _by_returns(graph: Graph) -> Sequence[Neutralise | NetExposureRule]:
    """What of the policy measures exposures by the returns of everything that is held or watched."""
    actions = [it for stage in graph.stages for it in of_node(stage.actions, Neutralise)]
    return actions if graph.net_exposure is None else [*actions, graph.net_exposure]


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


def scopes_of(rule: ScopeRule, accounts: Sequence[Identity], symbols: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """Scope name → the names of its accounts, in the order of the snapshot.

    `symbols`: those that are held or have an order, which a rule of symbols without names watches.
    """
    found: dict[str, tuple[str, ...]] = {}
    traded = tuple(symbols) if rule.each == "symbol" and rule.symbols is None else rule.symbols or ()
    for each in accounts:
        if _matches(rule, each):
            for scope in _scopes_of(rule, each, traded):
                found[scope] = (*found.get(scope, ()), each[0])
    return found


def members_of(rule: ScopeRule, scope: str, accounts: Iterable[Identity]) -> tuple[str, ...]:
    """The names of the accounts in a scope of the rule."""
    symbols = (scope.partition("/")[2],) if rule.each == "symbol" else ()
    return tuple(each[0] for each in accounts if _matches(rule, each) and scope in _scopes_of(rule, each, symbols))


def part_of(rule: ScopeRule, scope: str) -> BookPart | None:
    """The part of its accounts' books that the scope is; None if it is the whole."""
    if rule.has_equity(scope):
        return None
    return BookPart("symbol" if rule.each == "symbol" else "strategy", scope.partition("/")[2])


def symbols_in(snapshot: Snapshot) -> tuple[str, ...]:
    """The symbols that any account holds or has an order in, in their order."""
    found = {row.symbol for account in snapshot.accounts for row in account.positions or () if row.contracts}
    return tuple(sorted(found | {order.symbol for account in snapshot.accounts for order in account.orders or ()}))


def indexes_of(rule: ScopeRule, scope: str, names: list[str], accounts: Sequence[Identity]) -> tuple[int, ...] | None:
    """Indexes of the scope's accounts in the snapshot; None if one of `names` is missing."""
    members = frozenset(members_of(rule, scope, accounts))
    places = tuple(i for i, each in enumerate(accounts) if each[0] in members)
    return places if {accounts[i][0] for i in places} >= set(names) else None


def view_of(
    snapshot: Snapshot,
    facts: SnapshotFacts,
    places: tuple[int, ...] | None,
    stale_after: int | None,
    reference: ReferenceCurrency | None = None,
    part: BookPart | None = None,
) -> ScopeView:
    """View of the accounts at these indexes of the snapshot, or of a part of them, in the reference currency if any."""
    accounts = () if places is None else tuple([snapshot.accounts[place] for place in places])
    return ScopeView(
        facts.as_of, snapshot.scheduled, accounts, facts.rules, stale_after, None, reference, around=facts, part=part
    )  # fmt: skip


def _scopes_of(rule: ScopeRule, account: Identity, symbols: Iterable[str]) -> Iterator[str]:
    """The scopes that the account is in."""
    match rule.each:
        case "portfolio":
            yield "portfolio"
        case "account":
            yield f"account/{account[0]}"
        case "venue":
            yield f"venue/{account[1]}"
        case "strategy":
            yield from (f"strategy/{each.name}" for each in rule.strategies if each.covers(*account))
        case "symbol":
            yield from (f"symbol/{symbol}" for symbol in symbols)
        case "label":
            yield from (f"label/{label}" for name, label in rule.labels if name == account[0])


def _matches(rule: ScopeRule, account: Identity) -> bool:
    allowed = (rule.accounts, rule.venues, rule.markets, rule.currencies)
    return all(names is None or value in names for names, value in zip(allowed, account, strict=True))
