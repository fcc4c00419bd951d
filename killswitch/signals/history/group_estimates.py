"""Correlation groups of a scope: which of its symbols are in one group now, by declared or estimated correlations.

Correlations are estimated at most once an hour, of what the scope holds, from the samples of its prices; groups change
only with an estimate, or when another symbol is held. What is in doubt is decided by use, so that there are two
partitions: `together`, for limits of exposures and the order of closing, in which symbols that may be correlated are
one group, and `apart`, for netting and hedges, in which only those are that surely are.

A symbol is unknown until it was held or watched for as long as the estimate asks for returns. The hub of
`residual_to` is its own group: what is left of the others does not move with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct, field
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.model.instant import HOUR
from killswitch.risk.correlation import (
    Correlated,
    Groups,
    Pair,
    by_interval,
    complete_linkage,
    correlated,
    interval,
    pair,
    residual,
    robust,
)
from killswitch.signals.arguments import EstimatedCorrelations, SymbolGroup
from killswitch.signals.history.collector import Collector, Needs

if TYPE_CHECKING:
    from killswitch.signals.history.prices import PriceSamples
    from killswitch.signals.history.samples import PriceKey
    from killswitch.valuation.scope_view import ScopeView

EVERY = HOUR
"""The least time between two estimates."""


class PairEstimate(Struct, frozen=True, array_like=True):
    """A known correlation of two symbols, and the number of returns; 0 where it is exact, as that with a hub."""

    one: str
    other: str
    value: float
    returns: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval."""
        return interval(self.value, self.returns) if self.returns else (self.value, self.value)


class EstimatedGroups(Struct, frozen=True):
    """The last estimate of one group: when (microseconds), the known pairs, and the groups of its symbols by use."""

    at: int
    pairs: tuple[PairEstimate, ...] = ()
    together: Groups = ()
    apart: Groups = ()

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that were held at the estimate, or since."""
        return frozenset(symbol for each in self.together for symbol in each)

    @property
    def correlations(self) -> dict[Pair, Correlated]:
        """The known pairs."""
        return {(each.one, each.other): Correlated(each.value, *each.interval) for each in self.pairs}


class StoredGroups(Struct, omit_defaults=True):
    """The serialised state: the last estimate of each group, by its name."""

    groups: dict[str, EstimatedGroups] = field(default_factory=dict)


class GroupEstimates(Collector):
    """The estimated groups of a scope."""

    name: ClassVar[str] = "groups"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        """Each need is a `group` with an estimate; others are ignored."""
        groups = (need.get("group") for need in needs)
        self._declared = {it.name: it for it in groups if isinstance(it, SymbolGroup) and it.estimate is not None}
        self._kept: dict[str, EstimatedGroups] = {}

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Nothing: `estimate` reads the samples of prices once these have observed the snapshot."""

    def estimate(self, view: ScopeView, prices: PriceSamples | None) -> None:
        """Estimate what is due, and place symbols that are new."""
        held = dict.fromkeys(row.symbol for _, row in view.positions())
        is_whole = all(view.reason_unknown(facts) is None for facts in view.facts)
        for name, group in self._declared.items():
            before = self._kept.get(name, EstimatedGroups(view.as_of - EVERY))
            symbols = {symbol for symbol in held if group.has(symbol)}
            if not is_whole:  # what cannot be read now may still be there
                symbols |= before.symbols
            is_due = view.as_of - before.at >= EVERY
            if is_due and prices is not None and group.estimate is not None:
                pairs = _estimates(sorted(symbols), group.estimate, view, prices)
                before = replace(before, at=view.as_of, pairs=tuple(pairs))
            if is_due or symbols - before.symbols:
                self._kept[name] = _linked(symbols | (frozenset() if is_due else before.symbols), group, before)

    def estimated(self, group: SymbolGroup) -> EstimatedGroups | None:
        """The last estimate of the group; None before the first."""
        return self._kept.get(group.name)

    def restart(self, now: int, *, accept: bool) -> None:
        """Nothing: how markets move remains what it was."""

    def state(self) -> object:
        return StoredGroups(self._kept)

    def restore(self, stored: bytes) -> None:
        kept = _STATE.decode(stored).groups
        self._kept = {name: each for name, each in kept.items() if name in self._declared}


_STATE = msgjson.Decoder(StoredGroups)
_DIGITS = 4
"""Decimal digits of a stored correlation."""


def _estimates(
    symbols: Sequence[str], rule: EstimatedCorrelations, view: ScopeView, prices: PriceSamples
) -> Iterable[PairEstimate]:
    """The known correlations of the pairs of these symbols."""
    keys = {symbol: _key(symbol, rule, view, prices) for symbol in {*symbols, rule.residual_to} if symbol is not None}
    known = {symbol: key for symbol, key in keys.items() if key is not None}
    hub = rule.residual_to
    if hub is not None and hub not in known:
        return
    others = [symbol for symbol in symbols if symbol in known and symbol != hub]
    if hub is not None:
        yield from (PairEstimate(*pair(hub, each), 0.0, 0) for each in symbols if hub in symbols != each)
    series = _series([*others, *([] if hub is None else [hub])], known, rule, view, prices)
    for number, one in enumerate(others):
        for other in others[number + 1 :]:
            rows = series
            if rows is None:  # all of them together have too few: each pair may have enough
                rows = _series([one, other, *([] if hub is None else [hub])], known, rule, view, prices)
            if rows is None:
                continue
            found = correlated(rows.get(one), rows.get(other), rule.method, rule.least)
            if found.value is not None:
                yield PairEstimate(one, other, round(found.value, _DIGITS), len(rows[one] or ()))


def _series(
    symbols: Sequence[str],
    keys: Mapping[str, PriceKey],
    rule: EstimatedCorrelations,
    view: ScopeView,
    prices: PriceSamples,
) -> dict[str, list[float] | None] | None:
    """The robust common returns of these symbols, of the hub only what the others need; None for too few returns."""
    found = prices.returns([keys[symbol] for symbol in symbols], view.as_of, rule.window, rule.every)
    if not found or len(found[0]) < rule.least:
        return None
    rows = dict(zip(symbols, found, strict=True))
    hub = None if rule.residual_to is None else rows.get(rule.residual_to)
    if hub is None:
        return {symbol: robust(row, rule.method) for symbol, row in rows.items()}
    left = {symbol: residual(row, hub) for symbol, row in rows.items() if symbol != rule.residual_to}
    return {symbol: robust(row, rule.method) for symbol, row in left.items() if row is not None} or None


def _key(symbol: str, rule: EstimatedCorrelations, view: ScopeView, prices: PriceSamples) -> PriceKey | None:
    """The account of the scope whose prices of the symbol have the most returns; None if none has enough."""
    accounts = [name for name in prices.accounts_of(symbol) if any(facts.name == name for facts in view.facts)]
    counts = {
        (name, symbol): len(prices.returns([(name, symbol)], view.as_of, rule.window, rule.every)[0])
        for name in accounts
    }
    best = max(counts, key=lambda key: (counts[key], key), default=None)
    return best if best is not None and counts[best] >= rule.least else None


def _linked(symbols: Iterable[str], group: SymbolGroup, before: EstimatedGroups) -> EstimatedGroups:
    """The groups of the symbols by the estimate, which keep what was together before as long as it may stay."""
    pairs = before.correlations
    together, apart = (
        complete_linkage(symbols, by_interval(pairs, together=use), group.join, group.leave, was)
        for use, was in ((True, before.together), (False, before.apart))
    )
    return replace(before, together=together, apart=apart)


def parts_of(group: SymbolGroup, symbols: Iterable[str], estimates: GroupEstimates | None, *, together: bool) -> Groups:
    """The symbols of the group among these, as the groups that they form; `together` decides what is in doubt."""
    present = _present(group, tuple(symbols))
    if group.estimate is None:
        return _declared_parts(group, present, together)
    found = None if estimates is None else estimates.estimated(group)
    if found is None or not found.symbols.issuperset(present):
        found = _linked(present, group, found or EstimatedGroups(0))
    kept = found.together if together else found.apart
    parts = (tuple(symbol for symbol in part if symbol in present) for part in kept)
    return tuple(part for part in parts if part)


@lru_cache(maxsize=1_024)
def _present(group: SymbolGroup, symbols: tuple[str, ...]) -> tuple[str, ...]:
    """The symbols of the group among these, sorted; a book of thousands has the same ones for many ticks."""
    return tuple(sorted({symbol for symbol in symbols if group.has(symbol)}))


@lru_cache(maxsize=4_096)
def _declared_parts(group: SymbolGroup, present: tuple[str, ...], together: bool) -> Groups:
    if group.is_whole:
        return (present,) if present else ()
    pairs = {(one, other): Correlated(value, value, value) for one, other, value in group.correlations}
    return complete_linkage(present, by_interval(pairs, together=together), group.join, group.leave)
