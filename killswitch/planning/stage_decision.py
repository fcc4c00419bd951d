"""From a stage that may fire to a decision: attribution, selection, intents, cancels, and the book after it.

Only `reduce_only` as a real boolean is believed (the model refuses strings). An order that could add risk is
an entry; one that can only reduce an open position is protection, whatever its flag says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal

from killswitch.graph.nodes import Action, CancelOrders, Close, Graph, LockTrading, PolicySet, Stage
from killswitch.graph.unwinding import PLAIN, UnwindingRule, unwinding_named
from killswitch.graph.wording import signals_of
from killswitch.model.decision import (
    Attribution,
    Book,
    BookChange,
    Cancel,
    Decision,
    LockMode,
    LockOrder,
    Source,
    decision_id,
)
from killswitch.model.instant import HOUR, MINUTE, SECOND, from_micros
from killswitch.model.snapshot import AccountSnapshot, Order
from killswitch.planning.orders.unwind import Blocked as Blocked
from killswitch.planning.orders.unwind import manner, most_urgent, unwind
from killswitch.planning.scopes.evaluator import Watch
from killswitch.planning.scopes.trigger_status import number, trigger_reading
from killswitch.planning.spot_routes import never_sold
from killswitch.planning.targets.ranking import Candidate, candidates
from killswitch.planning.targets.selection import Target, select
from killswitch.signals.attribution_signals import TWO_THIRDS, Shares, shares
from killswitch.signals.history.windows import pnl_change
from killswitch.signals.position import ZERO
from killswitch.signals.view import PnlKey, ScopeView


@dataclass(frozen=True, slots=True)
class Proposal:
    """A stage carried through planning. `empty_handed`: it should have selected something, and did not.

    `partial`: part of the book is not known, so that the decision is only about the rest of it. A stage that closes and
    cancels nothing needs to know none of it: its lock is all that it does.
    """

    stage: Stage
    decision: Decision
    empty_handed: bool
    partial: bool
    blocked: tuple[Blocked, ...]


def propose(watch: Watch, stage: Stage, view: ScopeView, policies: PolicySet) -> Proposal:
    """What firing `stage` now would mean. Positions and orders of accounts that are not trusted are left alone."""
    graph = watch.prepared.graph
    known = view.trusted()
    partial = needs_the_book(stage) and (not view.accounts or len(known.accounts) < len(view.accounts))
    view = known
    window, named = attribution_window(watch, stage)
    found = (
        Shares(None, None, "no trigger of the stage has a window") if window is None else shares(watch.history, window)
    )
    at_least = stage.attribution.source_at_least if stage.attribution else TWO_THIRDS
    source = found.source(at_least)
    change = pnl_change(watch.history, window or _ranking_window(graph, stage))
    book = candidates(view, None if isinstance(change, str) else change)
    asked = _asked(watch, stage, book, source, policies)
    unwound = unwind(view, asked.targets, asked.rule, keeps=False)
    now = view.as_of
    closes = any(isinstance(action, Close) for action in stage.actions)
    as_of = from_micros(now)
    decision = Decision(
        id=decision_id(graph.policy, watch.scope, stage.name, as_of),
        as_of=as_of,
        policy=graph.policy,
        policy_set=policies.digest,
        commit=policies.commit,
        scope=watch.scope,
        mode=graph.mode,
        stage=stage.name,
        level=stage.level,
        previous_level=watch.state.level,
        triggers=tuple(trigger_reading(watch, i) for i in fired_triggers(watch, stage)),
        attribution=Attribution(
            source=source,
            long_share=None if found.long is None else number(found.long),
            short_share=None if found.short is None else number(found.short),
            window=named,
            reason=found.reason,
        ),
        book=book_change(view, unwound.left),
        intents=unwound.intents,
        cancels=cancels(view, stage.actions),
        lock=lock_order(watch.scope, stage, now),
        cooldown_until=from_micros(now + stage.cooldown),
        reason="; ".join((*asked.remarks, *unwound.remarks)) or None,
        unwinding=manner(asked.rule),
    )
    empty_handed = closes and not asked.targets and asked.sellable
    return Proposal(stage, decision, empty_handed, partial, unwound.blocked)


def needs_the_book(stage: Stage) -> bool:
    """Whether what the stage does depends on what accounts hold; a lock does not."""
    return any(isinstance(action, Close | CancelOrders) for action in stage.actions)


def _ranking_window(graph: Graph, stage: Stage) -> int:
    """The window of the stage's ranking, for triggers that have none."""
    names = [action.ranking for action in stage.actions if isinstance(action, Close)]
    return next((rule.window for rule in graph.rankings if rule.name in names), 0)


def fired_triggers(watch: Watch, stage: Stage) -> list[int]:
    """The stage's triggers that are confirmed, or were when it fired, in the order written."""
    confirmed = watch.fired_on(stage)
    return [i for i in (*stage.any_of, *stage.all_of) if confirmed >> i & 1]


def attribution_window(watch: Watch, stage: Stage) -> tuple[int | None, str]:
    """The window of the trigger that fired: of several the one with the greatest value ÷ threshold, of equals
    the shortest. A value is taken at the end of its interval that is surely reached."""
    graph = watch.prepared.graph
    best: tuple[float, int] | None = None
    for i in fired_triggers(watch, stage):
        threshold = graph.triggers[i].threshold
        if threshold is None or watch.columns is None:
            continue
        window = graph.signals[threshold.index].window
        if window is None or threshold.value == 0:
            continue
        severity = watch.columns.lo[threshold.index] / threshold.value
        if best is None or (severity, -window) > (best[0], -best[1]):
            best = (severity, window)
    window = best[1] if best is not None else _shortest_window(watch, stage)
    return (None, "") if window is None else (window, duration(window))


def _shortest_window(watch: Watch, stage: Stage) -> int | None:
    """The shortest window that an expression of a fired trigger reads, where none compares one signal."""
    graph = watch.prepared.graph
    read = [graph.signals[i] for t in fired_triggers(watch, stage) for i in signals_of(graph.triggers[t].condition)]
    return min((signal.window for signal in read if signal.window is not None), default=None)


def duration(micros: int) -> str:
    """`15m`, `1h`, `90s`: the largest unit that divides it."""
    for unit, name in ((HOUR, "h"), (MINUTE, "m"), (SECOND, "s")):
        if micros % unit == 0:
            return f"{micros // unit}{name}"
    return f"{micros // 1000}ms"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a stage's close actions ask for together. `sellable`: the book holds something that is not kept."""

    targets: list[Target]
    rule: UnwindingRule
    remarks: tuple[str, ...]
    sellable: bool


def _asked(watch: Watch, stage: Stage, book: list[Candidate], source: Source, policies: PolicySet) -> _Asked:
    """The targets of all close actions of the stage (of several for a position, the smallest), and how to reach them.

    Each action keeps what its own unwinding keeps; carried out they are by the most urgent of them.
    """
    graph: Graph = watch.prepared.graph
    smallest: dict[PnlKey, Target] = {}
    remarks: dict[str, None] = {}
    rules: list[UnwindingRule] = []
    sellable = False
    for index, action in enumerate(stage.actions):
        if not isinstance(action, Close):
            continue
        rules.append(unwinding_named(action.unwinding, policies.unwindings))
        kept = _kept(action, rules[-1], book)
        sellable = sellable or len(kept) < len(book)
        all_if = watch.prepared.all_if.get((stage.name, index))
        selection = select(graph, action, book, source, stage.attribution, all_if, watch.history, kept)
        remarks.update(dict.fromkeys(selection.remarks))
        for target in selection.targets:
            key = target.ranked.candidate.key
            if key not in smallest or target.contracts < smallest[key].contracts:
                smallest[key] = target
    return _Asked(list(smallest.values()), most_urgent(rules), tuple(remarks), sellable)


def _kept(action: Close, rule: UnwindingRule, book: Sequence[Candidate]) -> frozenset[PnlKey]:
    """What the action may not sell. What it names itself it sells where no document forbids that."""
    if rule is PLAIN and action.symbols is not None:
        return frozenset()
    return frozenset(c.key for c in book if never_sold(c.account.market, c.position.symbol, rule.spot))


def lock_order(scope: str, stage: Stage, now: int) -> LockOrder | None:
    """The lock that the stage writes: of several the strictest mode and the longest."""
    orders = [action for action in stage.actions if isinstance(action, LockTrading)]
    if not orders:
        return None
    mode: LockMode = "all" if any(order.mode == "all" for order in orders) else "reduce_only"
    ends = [order.duration for order in orders]
    longest = None if None in ends else max(end for end in ends if end is not None)
    return LockOrder(scope, mode, None if longest is None else from_micros(now + longest))


_WIDE = Context(prec=200)
"""Digits for whatever sound numbers multiply to: a venue that reads one out wrongly must not end the tick."""


def book_change(view: ScopeView, left: Mapping[PnlKey, Decimal]) -> BookChange:
    """The scope's book as it is, and with the positions in `left` brought to those contracts at the mark.

    Maintenance margin afterwards is taken in proportion to gross: the venue's tiers are not in a snapshot.
    """
    rows = None if view.unknown is not None else view.notionals()
    if rows is None:
        nothing = Book(None, None, None)
        return BookChange(nothing, nothing)
    gross = net = gross_after = net_after = ZERO
    for account, position, value in rows:
        signed = value if position.side == "long" else -value
        kept = left.get((account.account, position.symbol, position.side), position.contracts)
        share = kept / position.contracts
        gross += value
        net += signed
        gross_after += value * share
        net_after += signed * share
    ratio = _margin_ratio(view)
    after = ratio * gross_after / gross if ratio is not None and gross else ratio
    return BookChange(_book(gross, net, ratio), _book(gross_after, net_after, after))


def _margin_ratio(view: ScopeView) -> Decimal | None:
    """Maintenance margin ÷ equity; unknown where either is, or equity is not above zero."""
    total = view.maintenance()
    return total / view.equity if total is not None and view.equity is not None and view.equity > ZERO else None


def _book(gross: Decimal, net: Decimal, ratio: Decimal | None) -> Book:
    cents, basis = Decimal("0.01"), Decimal("0.0001")
    return Book(
        gross.quantize(cents, context=_WIDE),
        net.quantize(cents, context=_WIDE),
        None if ratio is None else ratio.quantize(basis, context=_WIDE),
    )


def is_entry(order: Order, account: AccountSnapshot) -> bool:
    """Whether the order can open or add to a position."""
    if order.reduce_only is True:
        return False
    if account.positions is None and order.trigger_price is not None:
        return False  # a stop of a position that nobody can see now
    if account.position_mode == "hedge" and order.position_side is not None:
        return (order.side == "buy") == (order.position_side == "long")
    reduces = "long" if order.side == "sell" else "short"
    held = sum((p.contracts for p in account.positions or () if p.symbol == order.symbol and p.side == reduces), ZERO)
    left: Decimal = order.amount - (order.filled or ZERO)
    return left > held


def cancels(view: ScopeView, actions: Sequence[Action]) -> tuple[Cancel, ...]:
    """The orders to cancel: entries before closing; the rest, where a stage says so, after it."""
    kinds = {action.kind for action in actions if isinstance(action, CancelOrders)}
    found = []
    for account in view.sound:
        for order in account.orders or ():
            entry = is_entry(order, account)
            if entry and kinds:
                found.append(Cancel(account.account, order.symbol, order.id, "entry"))
            elif not entry and "all" in kinds:
                found.append(Cancel(account.account, order.symbol, order.id, "all"))
    return tuple(found)
