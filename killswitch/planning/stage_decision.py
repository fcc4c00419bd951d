"""Builds the decision of a stage that may fire: attribution, combined targets and effects, and the book after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Context as DecimalContext
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.actions.close import sides_closed
from killswitch.graph.actions.registry import action_kind, needs_the_book
from killswitch.graph.nodes import Fallback, Graph, PolicySet, Stage
from killswitch.graph.unwinding import PLAIN, UnwindingRule
from killswitch.graph.wording import signals_of
from killswitch.model.decision import (
    Attribution,
    Book,
    BookChange,
    Decision,
    NetExposure,
    Schedule,
    Source,
    decision_id,
    with_effects,
)
from killswitch.model.effects import Effect, Lock, LockOrder, Orders, merge_effects, tag_of
from killswitch.model.instant import HOUR, MINUTE, SECOND, from_micros
from killswitch.model.snapshot import Side
from killswitch.planning.actions.close import NOWHERE_TRUE
from killswitch.planning.actions.kind import Context, KnownBook, Planned
from killswitch.planning.actions.lock_trading import selected_parts
from killswitch.planning.actions.net_exposure import net_exposure
from killswitch.planning.actions.registry import plan
from killswitch.planning.orders.closing_order import ClosingOrder, schedule_of
from killswitch.planning.orders.hedge_netting import accounts_outside
from killswitch.planning.orders.net_hedge import NetHedge
from killswitch.planning.orders.unwind import Blocked as Blocked
from killswitch.planning.orders.unwind import Unwound, declared_unwinding, most_urgent, unwind
from killswitch.planning.owners import Owners, with_owners
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.planning.scopes.trigger_status import number, trigger_reading
from killswitch.planning.targets.ranking import candidates, group_places
from killswitch.planning.targets.selection import SelectedTarget, fallback
from killswitch.signals.attribution_signals import TWO_THIRDS, Shares, shares
from killswitch.signals.history.bleed_rates import bleed_rates
from killswitch.signals.history.group_estimates import parts_of
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import pnl_change
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import PnlKey, ScopeView


class Proposal(Struct, frozen=True):
    """The planned decision of a stage. `is_without_selection`: it should have selected positions and selected none;
    `held_back`: why, where everything but the close is carried out, and the close is planned again at each tick.

    `is_partial`: a part of the book is unknown, so that the decision covers only the rest. It is false for a stage that
    neither closes nor cancels, because a lock does not depend on the book.
    """

    stage: Stage
    decision: Decision
    is_without_selection: bool
    held_back: str | None
    is_partial: bool
    blocked: tuple[Blocked, ...]
    counted: int = 0
    """The number of positions that count for a daily cap."""
    reduces: bool = False
    """Whether it sells for a `reduce`, which counts for the bound of a day."""
    opens: tuple[Decision, ...] = ()
    """The decisions that open declared hedges with it."""

    @property
    def is_held_back(self) -> bool:
        """Whether everything but the close is carried out."""
        return self.held_back is not None

    @property
    def awaits_positions(self) -> bool:
        """Whether it is held back until a condition on positions is true, and nothing is wrong."""
        return self.held_back == NOWHERE_TRUE


def _no_reset_before(stage: Stage, now: int) -> datetime | None:
    end = stage.no_reset_until(now)
    return None if end is None else from_micros(end)


_NO_WINDOW = Shares(None, None, "no trigger of the stage has a window")


def propose(
    evaluator: ScopeEvaluator,
    stage: Stage,
    view: ScopeView,
    policies: PolicySet,
    owners: Owners,
    unseen: frozenset[str] = frozenset(),
) -> Proposal:
    """Plan the firing of `stage`. Positions and orders of untrusted accounts are not touched.

    `unseen`: accounts whose positions in `view` are the last known ones. `owners`: of positions that several strategies
    share, of which a close for one of them takes only its own part.
    """
    book = replace(known_book(evaluator, stage, view, policies, "UNKNOWN"), unseen=unseen)
    attribution = attribution_of(evaluator, stage)
    book = replace(book, source=attribution.source)
    whole, view, now = view, book.view, view.as_of
    plans = action_plans(stage, now, book)
    combined = _combined_plan(plans)
    limited = owners.limited(view, combined.targets)
    if any(each.locks_selected for each in plans):
        combined = replace(combined, effects=_with_locks(plans, evaluator.scope, limited.targets))
    rule = combined.rule or PLAIN
    order = _with_groups(combined.order, evaluator, limited.targets)
    traded = view.with_accounts([*view.accounts, *accounts_outside(limited.targets, view)])
    unwound = unwind(traded, limited.targets, rule, keeps=False, order=order)
    record = replace(
        record_of(evaluator, policies, now, stage.name, stage.name),
        level=stage.level,
        triggers=tuple(trigger_reading(evaluator, i) for i in fired_triggers(evaluator, stage)),
        attribution=attribution,
        book=book_change(view, unwound.left),
        cooldown_until=from_micros(now + stage.cooldown),
        no_reset_before=_no_reset_before(stage, now),
        reason=joined(*combined.remarks, *limited.remarks, *unwound.remarks),
        unwinding=declared_unwinding(rule),
        schedule=_schedule(evaluator, unwound, rule, order),
        net_exposure=_left_exposed(book, whole, unwound, combined.opens),
    )
    orders = Orders(with_owners(unwound.intents, limited.closable))
    decision = with_effects(record, (orders, *combined.effects))
    selects_none = combined.should_select and not limited.targets
    return Proposal(
        stage,
        decision,
        selects_none,
        combined.held_back if selects_none else None,
        book.is_partial,
        (*unwound.blocked, *combined.naked),
        len(combined.counted),
        combined.reduces,
        tuple(_opening(record, each) for each in combined.opens),
    )


def _left_exposed(book: KnownBook, whole: ScopeView, unwound: Unwound, opens: Iterable[NetHedge]) -> NetExposure | None:
    """What the orders of a stage leave of the exposure to the market; None if the policy declares none."""
    rule = book.graph.net_exposure
    return None if rule is None else net_exposure(rule, book, whole, unwound.intents, opens)


def _opening(fired: Decision, hedge: NetHedge) -> Decision:
    """The decision that opens a hedge with the stage that fired. An operator ends it; no reset does."""
    first = hedge.orders[0]
    what = f"{fired.stage}/hedge/{first.account}/{first.symbol}"
    return replace(
        fired, id=decision_id(fired.policy, fired.scope, what, fired.as_of), kind="hedge", book=None, attribution=None,
        net_exposure=None, triggers=(), cooldown_until=None, no_reset_before=None, intents=hedge.orders,
        previous_level=fired.level, reason=f"opened against what the reductions leave: {hedge.text}",
    )  # fmt: skip


def attribution_of(evaluator: ScopeEvaluator, stage: Stage) -> Attribution:
    """Attribution of the loss over the window of the trigger that fired the stage; unknown if none has a window."""
    window, named = attribution_window(evaluator, stage)
    found = _NO_WINDOW if window is None else shares(evaluator.history, window)
    source = found.source(stage.attribution.source_at_least if stage.attribution else TWO_THIRDS)
    return Attribution(
        source=source,
        long_share=None if found.long is None else number(found.long),
        short_share=None if found.short is None else number(found.short),
        window=named,
        reason=joined(found.reason, _without_a_losing_side(stage, source)),
    )


_FALLBACKS: dict[Fallback, str] = {
    "both": "therefore positions of both sides are selected",
    "larger_side": "therefore positions of the side with the larger notional are selected",
    "worst_ranked": "therefore the worst ranked positions of both sides are selected",
    "none": "therefore no position is selected",
}


def _without_a_losing_side(stage: Stage, source: Source) -> str | None:
    """What the stage does because no single side has lost; None where one has, or it closes nothing."""
    sides = sides_closed(stage.actions)
    if source in ("LONG", "SHORT"):
        return None
    if "losing" in sides:
        return _FALLBACKS[fallback(stage.attribution, source)]
    return "what the stage closes does not depend on it" if sides else None


def known_book(
    evaluator: ScopeEvaluator, stage: Stage, view: ScopeView, policies: PolicySet, source: Source
) -> KnownBook:
    """The trusted part of the scope's book, for the actions of `stage`."""
    every, trusted = view.accounts, view.trusted()
    partial = needs_the_book(stage) and (not every or len(trusted.accounts) < len(every))
    window, _ = attribution_window(evaluator, stage)
    graph, history = evaluator.compiled.graph, evaluator.history
    delta = _pnl_change(history, window or _ranking_window(graph, stage))
    read = {each.window for each in graph.position_signals if each.window is not None}
    changes = {each: _pnl_change(history, each) for each in read}
    book = candidates(trusted, delta, bleed_rates(history), changes)
    return KnownBook(evaluator, trusted, book, source, policies, partial)


def _pnl_change(history: History, window: int) -> dict[PnlKey, Decimal] | None:
    change = pnl_change(history, window)
    return None if isinstance(change, str) else change


def action_plans(stage: Stage, now: int, book: KnownBook, effect: type[Struct] | None = None) -> list[Planned]:
    """The plan of each action of the stage, or of those that may have this effect."""
    conditions = book.evaluator.compiled.position_conditions
    return [
        plan(action, Context(book.evaluator.scope, stage, now, book, conditions[stage.name, index]))
        for index, action in enumerate(stage.actions)
        if effect is None or tag_of(effect) in action_kind(action).effects
    ]


def new_decision(policies: PolicySet, policy: str, scope: str, what: str, now: int) -> Decision:
    """Create an enforced decision without stage and effects; `what` makes its id unique."""
    as_of = from_micros(now)
    return Decision(
        id=decision_id(policy, scope, what, as_of),
        as_of=as_of,
        policy=policy,
        policy_set=policies.digest,
        commit=policies.commit,
        scope=scope,
        mode="enforce",
        stage=None,
        level=0,
        previous_level=0,
    )


def record_of(evaluator: ScopeEvaluator, policies: PolicySet, now: int, what: str, stage: str | None) -> Decision:
    """Create a decision of the scope evaluator's policy on its scope, without effects; `what` makes its id unique."""
    graph, level = evaluator.compiled.graph, evaluator.state.level
    record = new_decision(policies, graph.policy, evaluator.scope, what, now)
    return replace(record, mode=graph.mode, stage=stage, level=level, previous_level=level)


def joined(*reasons: str | None) -> str | None:
    """Join the given reasons into one text; None if there are none."""
    return "; ".join(reason for reason in reasons if reason) or None


def _ranking_window(graph: Graph, stage: Stage) -> int:
    """Window of the stage's ranking, for triggers without a window."""
    names = [name for action in stage.actions for name in action_kind(action).rankings(action)]
    return next((rule.window for rule in graph.rankings if rule.name in names), 0)


def fired_triggers(evaluator: ScopeEvaluator, stage: Stage) -> list[int]:
    """Indexes of the stage's triggers that are confirmed, or were when it fired, in the order written."""
    confirmed = evaluator.fired_on(stage)
    return [i for i in (*stage.any_of, *stage.all_of) if confirmed >> i & 1]


def attribution_window(evaluator: ScopeEvaluator, stage: Stage) -> tuple[int | None, str]:
    """Window of the fired trigger, and its text; of several that of the greatest value ÷ threshold, then the shortest.

    The value is the pessimistic bound that is surely reached.
    """
    graph = evaluator.compiled.graph
    weighed: list[tuple[float, int]] = []
    for i in fired_triggers(evaluator, stage):
        threshold = graph.triggers[i].threshold
        if threshold is None or evaluator.columns is None:
            continue
        window = graph.signals[threshold.index].window
        if window is None or threshold.value == 0:
            continue
        weighed.append((evaluator.columns.lo[threshold.index] / threshold.value, -window))
    window = -max(weighed)[1] if weighed else _shortest_window(evaluator, stage)
    return (None, "") if window is None else (window, duration(window))


def _shortest_window(evaluator: ScopeEvaluator, stage: Stage) -> int | None:
    """Shortest window read by the expressions of the fired triggers, if none compares a single signal."""
    graph = evaluator.compiled.graph
    read = [graph.signals[i] for t in fired_triggers(evaluator, stage) for i in signals_of(graph.triggers[t].condition)]
    return min((signal.window for signal in read if signal.window is not None), default=None)


def duration(micros: int) -> str:
    """Format a duration in the largest unit that divides it: `15m`, `1h`, `90s`."""
    for unit, name in ((HOUR, "h"), (MINUTE, "m"), (SECOND, "s")):
        if micros % unit == 0:
            return f"{micros // unit}{name}"
    return f"{micros // 1000}ms"


def _combined_plan(planned: Sequence[Planned]) -> Planned:
    """Combine the plans of the stage's actions: of several targets for a position, the smallest.

    The most urgent of their unwindings carries them out.
    """
    smallest: dict[PnlKey, SelectedTarget] = {}
    for target in (target for each in planned for target in each.targets):
        key = target.ranked.candidate.key
        if key not in smallest or target.contracts < smallest[key].contracts:
            smallest[key] = target
    return Planned(
        list(smallest.values()),
        most_urgent(each.rule for each in planned if each.rule is not None),
        merge_effects(effect for each in planned for effect in each.effects),
        tuple(dict.fromkeys(remark for each in planned for remark in each.remarks)),
        any(each.should_select for each in planned),
        next((each.held_back for each in planned if each.held_back is not None), None),
        frozenset[PnlKey]().union(*(each.counted for each in planned)),
        reduces=any(each.reduces for each in planned),
        order=ClosingOrder(
            any(each.order.is_risk_first for each in planned),
            next((each.order.risk for each in planned if each.order.risk is not None), None),
        ),
        opens=tuple(hedge for each in planned for hedge in each.opens),
        naked=tuple(dict.fromkeys(each for one in planned for each in one.naked)),
    )


def _with_groups(order: ClosingOrder, evaluator: ScopeEvaluator, targets: Sequence[SelectedTarget]) -> ClosingOrder:
    """The order with the places of the correlation groups, by which the targets are sorted."""
    symbols = [each.ranked.candidate.position.symbol for each in targets]
    return replace(order, places=group_places(symbols, evaluator.compiled.graph.groups, evaluator.history))


def _schedule(evaluator: ScopeEvaluator, unwound: Unwound, rule: UnwindingRule, order: ClosingOrder) -> Schedule | None:
    """When the orders go; None where they go by rank, as fast as the venue allows."""
    graph, history = evaluator.compiled.graph, evaluator.history
    if not unwound.intents or not (rule.slices or order.is_risk_first or graph.has_correlations):
        return None
    correlated = [each.group for each in graph.groups if not each.group.is_whole]
    symbols = [intent.symbol for intent in unwound.intents]
    parts = (part for group in correlated for part in parts_of(group, symbols, history.groups, together=True))
    return schedule_of(unwound.intents, declared_unwinding(rule), parts, unwound.peak)


def _with_locks(planned: Sequence[Planned], scope: str, targets: Iterable[SelectedTarget]) -> tuple[Effect, ...]:
    """The effects of the plans, with locks that reach only the selected positions where these are declared."""
    keys = (target.ranked.candidate.key for target in targets)
    closed: list[tuple[str, Side]] = [(symbol, "long" if side == "long" else "short") for _, symbol, side in keys]
    effects: list[Effect] = []
    for each in planned:
        parts = [part for whole in each.locks_selected for part in selected_parts(whole, closed)]
        effects += (Lock(LockOrder.of(scope, parts)),) if parts else each.effects
    return merge_effects(effects)


_WIDE = DecimalContext(prec=200)
"""Precision for products of sound numbers: corrupt venue data must not abort the tick."""


def book_change(view: ScopeView, left: Mapping[PnlKey, Decimal]) -> BookChange:
    """The scope's book before, and after reducing the positions in `left` to those contracts at the mark.

    Maintenance margin afterwards is estimated in proportion to gross: a snapshot does not contain the venue's tiers.
    """
    rows = None if view.unknown is not None else view.notionals()
    if rows is None:
        nothing = Book(None, None, None)
        return BookChange(nothing, nothing)
    gross = net = gross_after = net_after = ZERO
    for account, position, value in rows:
        signed = value if position.side == "long" else -value
        share = left.get((account.account, position.symbol, position.side), position.contracts) / position.contracts
        gross += value
        net += signed
        gross_after += value * share
        net_after += signed * share
    ratio = _margin_ratio(view)
    after = ratio * gross_after / gross if ratio is not None and gross else ratio
    return BookChange(_book(gross, net, ratio), _book(gross_after, net_after, after))


def _margin_ratio(view: ScopeView) -> Decimal | None:
    """Maintenance margin ÷ equity; None if either is unknown or equity is not positive."""
    total = view.maintenance()
    return total / view.equity if total is not None and view.equity is not None and view.equity > ZERO else None


def _book(gross: Decimal, net: Decimal, ratio: Decimal | None) -> Book:
    cents, basis = Decimal("0.01"), Decimal("0.0001")
    return Book(
        gross.quantize(cents, context=_WIDE),
        net.quantize(cents, context=_WIDE),
        None if ratio is None else ratio.quantize(basis, context=_WIDE),
    )
