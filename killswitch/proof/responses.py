"""Comparison of what two stages do to a book, and of what two policies watch: field by field, on every book.

Each difference states whether head is at least as hard as base, and whether base is at least as hard as head; where
neither holds for every book, both are false.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import TypeVar

from msgspec.structs import replace

from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.graph.actions.close import Close
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.actions.neutralise import Neutralise
from killswitch.graph.actions.reduce import Reduce
from killswitch.graph.actions.registry import action_kind
from killswitch.graph.actions.top_up_margin import TopUpMargin
from killswitch.graph.nodes import Action, ConditionNode, Graph, Place, RankingRule, ScopeRule, Stage, Trigger
from killswitch.graph.wording import signals_of
from killswitch.proof.alignment import firing_key, resolved, triggers_of

Difference = tuple[str, bool | None, bool | None]
"""Text, whether head is at least as hard, whether base is."""

NOWHERE = Place("", 0, 0, "")
"""The place of what is compared wherever it is written."""
BREACHES = ("page", "cancel", "close")
SEPARATE = {
    "account": ("accounts", "venues", "markets", "currencies"),
    "venue": ("venues",),
    "symbol": ("symbols",),
}
"""By `each`: what only chooses among scopes. Anything else changes the book, and so the signals, of a scope."""


def acts(stage: Stage) -> bool:
    """Whether a stage does anything but notify."""
    return bool(stage.actions) or stage.on_breach != "page"


def picks(stage: Stage) -> bool:
    """Whether a close of the stage takes the worst ranked positions only, or first."""
    return any(_picks(each) for each in _of(stage, Close)) or _by_rank(stage)


def _by_rank(stage: Stage) -> bool:
    """Whether a cut of the stage chooses what is left of the book by a ranking."""
    return any(each.order == "rank" for each in _of(stage, Reduce))


def selects_losing(stage: Stage) -> bool:
    """Whether a close of the stage takes the side that has lost."""
    return any(each.side == "losing" for each in _of(stage, Close))


def selects_part(stage: Stage) -> bool:
    """Whether the stage declines where its closes select nothing of a non-empty book."""
    found = {action_kind(each).selection(each) for each in stage.actions}
    return "part" in found and "whole" not in found


def declines_no_more(base: Graph, one: Stage, head: Graph, other: Stage) -> bool:
    """Whether `other` declines on no book on which `one` fires."""
    if other.corroborate and not one.corroborate:
        return False
    if not selects_part(other):
        return True
    ours, theirs = _of(one, Close), _of(other, Close)
    return (
        selects_part(one)
        and _anywhere(_of(one, Reduce)) == _anywhere(_of(other, Reduce))
        and _anywhere(_of(one, Neutralise)) == _anywhere(_of(other, Neutralise))
        and _anywhere(_of(one, TopUpMargin)) == _anywhere(_of(other, TopUpMargin))
        and len(ours) == len(theirs)
        and all(_selects(base, a) == _selects(head, b) for a, b in zip(ours, theirs, strict=True))
        and (not selects_losing(one) or (one.attribution == other.attribution and _windows(base, one, head, other)))
    )


def declines_alike(base: Graph, one: Stage, head: Graph, other: Stage) -> bool:
    """Whether each declines on no book on which the other fires."""
    return declines_no_more(base, one, head, other) and declines_no_more(head, other, base, one)


def _selects(graph: Graph, close: Close) -> object:
    """What decides whether a close selects anything."""
    where = None if close.where is None else resolved(close.where, graph.position_signals)
    return (
        close.side, close.symbols, close.except_assets, where, close.where_unknown, close.daily_cap, close.unwinding,
    )  # fmt: skip


def compare_scopes(base: Graph, head: Graph) -> Iterator[Difference]:
    """What the policies watch: by inclusion of scopes; another `each`, or another book of a scope, is neither."""
    one, other = base.scope, head.scope
    if one == other:
        return
    names = SEPARATE.get(one.each, ())
    if _without(one, names) != _without(other, names):
        yield "the scope has another `each`, or the book of a scope is another one", False, False
        return
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    keeps = all(_includes(theirs, ours) for ours, theirs in pairs)
    mirror = all(_includes(ours, theirs) for ours, theirs in pairs)
    yield f"the scope is {'wider' if keeps else 'narrower' if mirror else 'another one'}", keeps, mirror


def _without(scope: ScopeRule, names: Sequence[str]) -> ScopeRule:
    return replace(scope, **dict.fromkeys(names))


def _includes(more: tuple[str, ...] | None, less: tuple[str, ...] | None) -> bool:
    return more is None or (less is not None and set(less) <= set(more))


def compare_stages(base: Graph, one: Stage, head: Graph, other: Stage) -> Iterator[Difference]:
    """What the stages do when they fire."""
    name = other.name
    if one.corroborate != other.corroborate:
        text = f"{name} {'now waits for' if other.corroborate else 'no longer waits for'} corroborated prices"
        yield text, one.corroborate, other.corroborate
    if one.on_breach != other.on_breach:
        ours, theirs = BREACHES.index(one.on_breach), BREACHES.index(other.on_breach)
        yield f"`on_breach` of {name} is {other.on_breach}", theirs >= ours, ours >= theirs
    if (one.breach, one.close_within) != (other.breach, other.close_within):
        yield f"the limits of breaches, or the time of a pending close, of {name} differ", False, False
    parts = [selects_part(each) for each in (one, other)]
    if parts[0] != parts[1]:
        text = f"{name} {'may decline' if parts[1] else 'no longer declines'} where its closes select nothing"
        yield text, parts[0], parts[1]
    yield from _locks(name, _of(one, LockTrading), _of(other, LockTrading))
    cancels = [{each.kind for each in _of(stage, CancelOrders)} for stage in (one, other)]
    covered = [kinds | ({"entry"} if "all" in kinds else set()) for kinds in cancels]
    if covered[0] != covered[1]:
        yield f"{name} cancels other orders", covered[0] <= covered[1], covered[1] <= covered[0]
    yield from _closes(base, one, head, other)
    yield from _choices(base, one, head, other)
    yield from _reductions(name, _of(one, Reduce), _of(other, Reduce))
    yield from _neutral(name, _of(one, Neutralise), _of(other, Neutralise))
    yield from _top_ups(name, _of(one, TopUpMargin), _of(other, TopUpMargin))
    known = (LockTrading, CancelOrders, Close, Reduce, Neutralise, TopUpMargin)
    rest = [[each for each in stage.actions if not isinstance(each, known)] for stage in (one, other)]
    if rest[0] != rest[1]:
        yield f"other actions of {name} differ", False, False


A = TypeVar("A", bound=Action)
P = TypeVar("P", Reduce, Neutralise, TopUpMargin)


def _of(stage: Stage, kind: type[A]) -> list[A]:
    return [each for each in stage.actions if isinstance(each, kind)]


def _locks(name: str, ours: list[LockTrading], theirs: list[LockTrading]) -> Iterator[Difference]:
    if ours == theirs:
        return
    if not ours or not theirs:
        yield f"{name} {'no longer locks' if ours else 'locks'} trading", not ours, not theirs
    elif len(ours) != 1 or len(theirs) != 1:
        yield f"the locks of {name} differ", False, False
    else:
        one, other = ours[0], theirs[0]
        rest = [replace(each, mode="all", duration=None, symbols=None) for each in (one, other)]
        if rest[0] != rest[1]:
            yield f"the lock of {name} ends or covers otherwise", False, False
            return
        ends = [inf if each.duration is None else each.duration for each in (one, other)]
        ranks = [each.mode == "all" for each in (one, other)]
        yield (
            f"the lock of {name} differs",
            ends[1] >= ends[0] and ranks[1] >= ranks[0] and _includes(other.symbols, one.symbols),
            ends[0] >= ends[1] and ranks[0] >= ranks[1] and _includes(one.symbols, other.symbols),
        )


def _closes(base: Graph, one: Stage, head: Graph, other: Stage) -> Iterator[Difference]:
    ours, theirs = _of(one, Close), _of(other, Close)
    if not ours and not theirs:
        return
    if not ours or not theirs:
        yield f"{other.name} {'no longer closes' if ours else 'closes'} positions", not ours, not theirs
        return
    if [each.order for each in ours] != [each.order for each in theirs] and len(ours) == len(theirs):
        yield f"{other.name} sends its orders in another order", False, False
    if base.hedges != head.hedges:
        yield f"{other.name} closes other hedges as one position", False, False
    keeps, mirror = _closes_all_of(theirs, ours), _closes_all_of(ours, theirs)
    if (keeps or mirror) and {each.unwinding for each in ours} == {each.unwinding for each in theirs}:
        if not (keeps and mirror):
            yield f"{other.name} closes {'everything' if keeps else 'less than everything'}", keeps, mirror
        return
    if len(ours) != len(theirs):
        yield f"{other.name} has another number of closes", False, False
        return
    for mine, its in zip(ours, theirs, strict=True):
        yield from _close(other.name, base, mine, head, its)


def _anywhere(actions: Sequence[P]) -> list[P]:
    """The actions without the places that they are written at."""
    return [replace(each, place=NOWHERE) for each in actions]


def _neutral(name: str, ours: list[Neutralise], theirs: list[Neutralise]) -> Iterator[Difference]:
    """What brings a book to an exposure of zero: another measure, or answer to an unknown, is neither harder."""
    if not ours or not theirs:
        if ours or theirs:
            yield f"{name} {'no longer neutralises' if ours else 'neutralises'} the book", not ours, not theirs
    elif _anywhere(ours) != _anywhere(theirs):
        opens = [any(each.open is not None for each in actions) for actions in (ours, theirs)]
        what = "may open a hedge" if opens[1] and not opens[0] else "neutralises the book otherwise"
        yield f"{name} {what}", False, False


def _top_ups(name: str, ours: list[TopUpMargin], theirs: list[TopUpMargin]) -> Iterator[Difference]:
    """Margin that is moved ends an alarm, and what is moved can be lost: neither more nor less of it is harder."""
    if not ours or not theirs:
        if ours or theirs:
            yield f"{name} {'no longer tops up' if ours else 'tops up'} margin", False, False
    elif _anywhere(ours) != _anywhere(theirs):
        yield f"{name} tops up margin otherwise", False, False


def _reductions(name: str, ours: list[Reduce], theirs: list[Reduce]) -> Iterator[Difference]:
    """Cuts to a leverage: a lower target sells at least as much, and another number of times is bounded by itself."""
    if not ours or not theirs:
        if ours or theirs:
            yield f"{name} {'no longer reduces' if ours else 'reduces'} leverage", not ours, not theirs
        return
    if len(ours) != len(theirs):
        yield f"{name} has another number of reductions", False, False
        return
    for one, other in zip(ours, theirs, strict=True):
        plain = [replace(each, to=one.to, at_most_per_day=None, adverse_move=None) for each in _anywhere((one, other))]
        if plain[0] != plain[1]:
            yield f"the reduction of {name} is of another account, or measures or sells otherwise", False, False
            continue
        if one.to != other.to:
            text = f"{name} reduces leverage to {other.to.normalize():f} instead of {one.to.normalize():f}"
            yield text, other.to < one.to, one.to < other.to
        counts = [inf if each.at_most_per_day is None else each.at_most_per_day for each in (one, other)]
        if counts[0] != counts[1]:
            text = f"{name} reduces leverage {'more' if counts[1] > counts[0] else 'less'} often in a day"
            yield text, counts[1] > counts[0], counts[0] > counts[1]


def _closes_all_of(closes: Sequence[Close], others: Sequence[Close]) -> bool:
    """Whether one of these closes leaves nothing of whatever the others may select."""
    return any(
        each.side == "both" and each.fraction == 1 and each.where is None and not _picks(replace(each, spread="each"))
        and all(
            _includes(each.symbols, it.symbols) and set(each.except_assets) <= set(it.except_assets) for it in others
        )
        for each in closes
    )  # fmt: skip


def _choices(base: Graph, one: Stage, head: Graph, other: Stage) -> Iterator[Difference]:
    """What chooses the side and the positions of a close: attribution, its window, ranking and groups."""
    losing = selects_losing(one) or selects_losing(other)
    if not losing and not picks(one) and not picks(other):
        return
    ours, theirs = _of(one, Close), _of(other, Close)
    keeps, mirror = not ours or _closes_all_of(theirs, ours), not theirs or _closes_all_of(ours, theirs)
    if any(_by_rank(stage) for stage in (one, other)):
        keeps = mirror = False  # which positions are left of a book is chosen by the ranking
    if losing and one.attribution != other.attribution and not (keeps and mirror):
        yield f"{other.name} closes the losing side, by another share of the loss", keeps, mirror
    same = _windows(base, one, head, other)
    rules = [_rankings(graph, stage) for graph, stage in ((base, one), (head, other))]
    if not same and (losing or any(_reads_the_window(each) for each in (*rules[0], *rules[1]))):
        what = "attributes the loss" if losing else "ranks positions by their loss"
        yield f"{other.name} {what} over the window of other triggers, and may select other positions", keeps, mirror
    if (picks(one) or picks(other)) and (rules[0] != rules[1] or base.groups != head.groups):
        yield f"the ranking of {other.name} differs, which chooses its positions", keeps, mirror


def _windows(base: Graph, one: Stage, head: Graph, other: Stage) -> bool:
    """Whether both choose one window at every firing: that of a trigger, by its value ÷ threshold.

    Triggers of one window can choose no other one. Otherwise all that is compared must be equal: at a lower threshold
    another trigger may be the first, or further beyond.
    """
    possible = [
        {each for trigger in triggers_of(graph, stage) for each in _possible(graph, trigger)}
        for graph, stage in ((base, one), (head, other))
    ]
    if possible[0] == possible[1] and len(possible[0]) <= 1:
        return True
    return firing_key(base, one) == firing_key(head, other) and _compared(base, one) == _compared(head, other)


def _possible(graph: Graph, trigger: Trigger) -> set[int | None]:
    """The windows that the trigger may give to the attribution; None: that of no trigger."""
    limit = trigger.threshold
    if limit is not None and graph.signals[limit.index].window is not None and limit.value:
        return {graph.signals[limit.index].window}
    return {graph.signals[i].window for i in signals_of(trigger.condition)} or {None}


def _compared(graph: Graph, stage: Stage) -> list[object]:
    limits = (each.threshold for each in triggers_of(graph, stage))
    return [None if each is None else (graph.signals[each.index], each.value) for each in limits]


def _rankings(graph: Graph, stage: Stage) -> list[RankingRule]:
    names = {name for each in stage.actions for name in action_kind(each).rankings(each)}
    return [rule for rule in graph.rankings if rule.name in names]


def _reads_the_window(rule: RankingRule) -> bool:
    """Whether the ranking depends on the window of the decision: all but one by weights without `pnl_delta`."""
    is_weighted = rule.formula in ("normalised", "killswitch-v6")
    return not is_weighted or any(name == "pnl_delta" and weight for name, weight in rule.weights)


def _picks(close: Close) -> bool:
    return (
        close.top is not None or close.daily_cap is not None or close.worst_share is not None
        or close.spread == "by_rank"
    )  # fmt: skip


def _close(name: str, base: Graph, one: Close, head: Graph, other: Close) -> Iterator[Difference]:
    texts = [
        [_resolved(node, graph) for node in (each.all_if, each.where)] for graph, each in ((base, one), (head, other))
    ]
    plain = [
        replace(each, fraction=one.fraction, top=None, symbols=None, except_assets=(), side="both", all_if=None,
                where=None, place=one.place)
        for each in (one, other)
    ]  # fmt: skip
    if plain[0] != plain[1] or texts[0] != texts[1]:
        yield f"the close of {name} selects or spreads otherwise", False, False
        return
    selects_few = _picks(one) or _picks(other)
    worst_only = replace(one, worst_share=None), replace(other, worst_share=None)
    few_sides = any(_picks(each) for each in worst_only)  # `worst` bounds nothing where the side is given
    if one.side != other.side:
        keeps, mirror = other.side == "both" and not few_sides, one.side == "both" and not few_sides
        yield f"{name} closes {other.side} instead of {one.side}", keeps, mirror
    if one.fraction != other.fraction:
        keeps, mirror = other.fraction > one.fraction, one.fraction > other.fraction
        if one.spread == "by_rank":
            yield f"{name} closes another fraction of the gross, and may keep more of a position", False, False
        else:
            yield f"{name} closes {'more' if keeps else 'less'} of each position", keeps, mirror
    tops = [inf if each.top is None else each.top for each in (one, other)]
    if tops[0] != tops[1]:
        yield (
            f"{name} closes {'more' if tops[1] > tops[0] else 'fewer'} positions",
            tops[1] > tops[0],
            tops[0] > tops[1],
        )
    if (one.symbols, one.except_assets) != (other.symbols, other.except_assets):
        more = _includes(other.symbols, one.symbols) and set(other.except_assets) <= set(one.except_assets)
        less = _includes(one.symbols, other.symbols) and set(one.except_assets) <= set(other.except_assets)
        yield f"{name} closes other symbols", more and not selects_few, less and not selects_few


def _resolved(node: ConditionNode | None, graph: Graph) -> object:
    return None if node is None else resolved(node, graph.position_signals)
