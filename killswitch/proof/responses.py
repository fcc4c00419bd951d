"""Comparison of what two stages do to a book, and of what two policies watch: field by field, on every book.

Each difference states whether head is at least as hard as base, and whether base is at least as hard as head; where
neither holds for every book, both are false.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TypeVar

from msgspec.structs import replace

from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.graph.actions.close import Close
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import Action, Graph, ScopeRule, Stage
from killswitch.graph.wording import condition_text

Difference = tuple[str, bool | None, bool | None]

BREACHES = ("page", "cancel", "close")


def compare_scopes(base: Graph, head: Graph) -> Iterator[Difference]:
    """What the policies watch: by inclusion; another `each` is neither."""
    one, other = base.scope, head.scope
    if one == other:
        return
    names = ("accounts", "venues", "markets", "currencies", "symbols")
    if _without(one) != _without(other):
        yield "the scope has another `each`, other strategies or labels", False, False
        return
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    keeps = all(_includes(theirs, ours) for ours, theirs in pairs)
    mirror = all(_includes(ours, theirs) for ours, theirs in pairs)
    yield f"the scope is {'wider' if keeps else 'narrower' if mirror else 'another one'}", keeps, mirror


def _without(scope: ScopeRule) -> ScopeRule:
    return replace(scope, accounts=None, venues=None, markets=None, currencies=None, symbols=None)


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
    yield from _locks(name, _of(one, LockTrading), _of(other, LockTrading))
    cancels = [{each.kind for each in _of(stage, CancelOrders)} for stage in (one, other)]
    covered = [kinds | ({"entry"} if "all" in kinds else set()) for kinds in cancels]
    if covered[0] != covered[1]:
        yield f"{name} cancels other orders", covered[0] <= covered[1], covered[1] <= covered[0]
    yield from _closes(base, one, head, other)
    known = (LockTrading, CancelOrders, Close)
    rest = [[each for each in stage.actions if not isinstance(each, known)] for stage in (one, other)]
    if rest[0] != rest[1]:
        yield f"other actions of {name} differ", False, False


A = TypeVar("A", bound=Action)


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
    if len(ours) != len(theirs):
        yield f"{other.name} has another number of closes", False, False
        return
    if any(each.side == "losing" for each in (*ours, *theirs)) and (
        one.attribution != other.attribution or _windows(base, one) != _windows(head, other)
    ):
        text = f"{other.name} closes the losing side, by the loss over another window or another share"
        yield text, False, False
    for mine, its in zip(ours, theirs, strict=True):
        yield from _close(other.name, base, mine, head, its)


def _windows(graph: Graph, stage: Stage) -> list[str]:
    """What chooses the window of the attribution: the thresholds of the stage."""
    thresholds = (graph.triggers[i].threshold for i in dict.fromkeys((*stage.any_of, *stage.all_of)))
    return sorted(str(None if each is None else graph.signals[each.index]) for each in thresholds)


def _close(name: str, base: Graph, one: Close, head: Graph, other: Close) -> Iterator[Difference]:
    texts = [
        [None if node is None else condition_text(node, graph.position_signals) for node in (each.all_if, each.where)]
        for graph, each in ((base, one), (head, other))
    ]
    plain = [
        replace(each, fraction=one.fraction, top=None, symbols=None, except_assets=(), side="both", all_if=None,
                where=None, place=one.place)
        for each in (one, other)
    ]  # fmt: skip
    if plain[0] != plain[1] or texts[0] != texts[1]:
        yield f"the close of {name} selects or spreads otherwise", False, False
        return
    picks = one.top is not None or other.top is not None or one.daily_cap is not None
    if one.side != other.side:
        keeps, mirror = other.side == "both" and not picks, one.side == "both" and not picks
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
        yield f"{name} closes other symbols", more and not picks, less and not picks
