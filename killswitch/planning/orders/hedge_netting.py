"""Declared hedges in a close: their legs are selected as one position, and cut in one ratio.

The net of a `HedgeGroup` is the sum of the base units of its legs × their declared ratios. While every leg is known, a
close sees one position of that net: its P&L is that of the legs together, its side the one on which the net is, and a
hedge without a net is on neither side. Selecting it cuts every leg by the same fraction, rounded so that |net| does not
grow, also legs on accounts outside of the scope.

While a leg is unknown, or its venue accepts no orders, its hedge is not cut in part: what was a hedge would become a
bet. A complete close goes on without that leg, and what it leaves naked is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import islice, product

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Instrument, Side
from killswitch.planning.orders.slices import DERIVATIVES, Blocked
from killswitch.planning.rounding import CLOSED_STATES, reduction, whole_steps
from killswitch.planning.targets.ranking import RankingCandidate, candidates
from killswitch.planning.targets.selection import SelectedTarget
from killswitch.signals.arguments import HedgeLegs
from killswitch.signals.history.hedge_positions import hedge_position, net_of
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import PnlKey, ScopeView


class HeldLeg(Struct, frozen=True):
    """An open position that is a leg of a hedge: `units` in base units of the hedge, negative for a short."""

    candidate: RankingCandidate
    units: Decimal
    rules: Instrument | None

    @property
    def is_cuttable(self) -> bool:
        """Whether its venue accepts orders that reduce it."""
        return self.rules is None or self.rules.state not in CLOSED_STATES

    def left_of(self, wanted: Decimal) -> Decimal:
        """The contracts that are left if at most `wanted` are to be left, by the venue's steps and minimums."""
        position, market = self.candidate.position, self.candidate.account.market
        return reduction(position, wanted, self.rules, reduce_only=market in DERIVATIVES).target


class HeldHedge(Struct, frozen=True):
    """A hedge with its open positions, of which `in_scope` are. `unknown`: why it is not netted, or None."""

    name: str
    legs: tuple[HeldLeg, ...]
    in_scope: tuple[HeldLeg, ...]
    unknown: str | None = None

    @property
    def net(self) -> Decimal:
        """Base units of the hedge, negative for a short; 0 where the legs cancel each other."""
        return net_of(leg.units for leg in self.legs)

    @property
    def is_netted(self) -> bool:
        """Whether a close sees it as one position."""
        return self.unknown is None and len(self.legs) > 1


class NettedBook(Struct, frozen=True):
    """A book in which each known hedge is one position, at the place of its first leg.

    `hedges`: of each position that is, or belongs to, a hedge.
    """

    candidates: Sequence[RankingCandidate]
    hedges: Mapping[PnlKey, HeldHedge] = {}


class CutHedges(Struct, frozen=True):
    """The targets of single positions, remarks on hedges that are not cut, and legs that are left naked."""

    targets: Sequence[SelectedTarget]
    remarks: tuple[str, ...] = ()
    naked: tuple[Blocked, ...] = ()


# The book


def netted(
    book: Sequence[RankingCandidate], view: ScopeView, hedges: Iterable[HedgeLegs], unseen: Collection[str] = ()
) -> NettedBook:
    """The book with each known hedge as one position; `view` is its scope, `unseen` accounts of last known positions.

    A position that two hedges name belongs to the first. The books of strategies and symbols are parts, of which the
    other legs may not be: they are not netted.
    """
    hedges = tuple(hedges)
    if not hedges or view.part is not None:
        return NettedBook(book)
    own = {each.key: each for each in book}
    found: dict[PnlKey, HeldHedge] = {}
    for hedge in hedges:
        held = held_hedge(hedge, own, view, unseen)
        keys = [leg.candidate.key for leg in held.legs]
        if held.in_scope and not any(key in found for key in keys):
            found |= dict.fromkeys(keys, held)
    items: list[RankingCandidate] = []
    for each in book:
        its_hedge = found.get(each.key)
        if its_hedge is None or not its_hedge.is_netted:
            items.append(each)
        elif each.key == its_hedge.in_scope[0].candidate.key:
            items.append(_item(its_hedge))
            found[items[-1].key] = its_hedge
    return NettedBook(items, found)


def held_hedge(
    hedge: HedgeLegs, own: Mapping[PnlKey, RankingCandidate], view: ScopeView, unseen: Collection[str]
) -> HeldHedge:
    """The open positions of the hedge, and why it is not known, or None. `own`: the positions of the scope by key."""
    found = hedge_position(hedge, view, unseen)
    outside = {leg.account.account: leg.account for leg in found.legs if leg.key not in own}
    known = {**{each.key: each for each in candidates(view.with_accounts(list(outside.values())), None)}, **own}
    legs = tuple(
        HeldLeg(known[leg.key], leg.units, view.instrument(leg.account.account, leg.position.symbol))
        for leg in found.legs
    )
    return HeldHedge(hedge.name, legs, tuple(leg for leg in legs if leg.candidate.key in own), found.unknown)


def _item(hedge: HeldHedge) -> RankingCandidate:
    """The hedge as one position: a leg with the side and the value of the net, and the P&L of all legs."""
    net = hedge.net
    main = max(hedge.in_scope, key=lambda leg: (leg.units * net > ZERO, abs(leg.units), leg.candidate.key))
    share = abs(net / main.units) if main.units else ZERO
    candidate, rows = main.candidate, [leg.candidate for leg in hedge.legs]
    side: Side = candidate.position.side if not net else "long" if net > ZERO else "short"
    return replace(
        candidate,
        position=replace(candidate.position, side=side),
        value=None if candidate.value is None else candidate.value * share,
        measured=None if candidate.measured is None else candidate.measured * share,
        notional_share=None if candidate.notional_share is None else candidate.notional_share * float(share),
        pnl_delta=_of_legs(hedge, lambda each: each.pnl_delta),
        pnl=_total(each.pnl for each in rows),
        bleed_rate=_of_legs(hedge, lambda each: each.bleed_rate),
        changes={window: _of_legs(hedge, _change_over(window)) for window in candidate.changes},
        liquidation_distance=min((x for each in rows if (x := each.liquidation_distance) is not None), default=None),
        margin_loss=max((x for each in rows if (x := each.margin_loss) is not None), default=None),
        is_flat=not net,
        symbols=tuple(dict.fromkeys(each.position.symbol for each in rows)),
    )


def _change_over(window: int) -> Callable[[RankingCandidate], float | None]:
    return lambda each: each.changes.get(window)


def _of_legs(hedge: HeldHedge, read: Callable[[RankingCandidate], float | None]) -> float | None:
    """The sum of a change over the legs; None if one is unknown.

    Of a leg outside of the scope there is no history: then it is what a leg in the scope made for each unit, × the net.
    """
    if len(hedge.in_scope) == len(hedge.legs):
        return _total(read(leg.candidate) for leg in hedge.legs)
    leg = hedge.in_scope[0]
    made = read(leg.candidate)
    return None if made is None or not leg.units else made * float(hedge.net / leg.units)


def _total(values: Iterable[float | None]) -> float | None:
    found = list(values)
    return None if None in found else sum(each for each in found if each is not None)


# The cut


def cut_hedges(targets: Iterable[SelectedTarget], book: NettedBook) -> CutHedges:
    """The targets of a close with those of hedges as targets of their legs, all in one ratio."""
    found: list[SelectedTarget] = []
    remarks: list[str] = []
    naked: list[Blocked] = []
    for target in targets:
        hedge = book.hedges.get(target.ranked.candidate.key)
        if hedge is None:
            found.append(target)
        elif not target.contracts:
            found += _closed(target, hedge)
            naked += _naked(hedge)
        else:
            cut = _trimmed(target, hedge)
            if isinstance(cut, str):
                remarks.append(f"the hedge {hedge.name} is not cut: {cut}")
            else:
                found += cut
    return CutHedges(found, tuple(remarks), tuple(dict.fromkeys(naked)))


def _closed(target: SelectedTarget, hedge: HeldHedge) -> Iterator[SelectedTarget]:
    """A complete close of every leg that is known."""
    if not hedge.is_netted:
        yield target
        return
    for leg in hedge.legs:
        yield SelectedTarget(replace(target.ranked, candidate=leg.candidate), ZERO)


def _naked(hedge: HeldHedge) -> Iterator[Blocked]:
    """What a complete close leaves of the hedge without its other legs."""
    if hedge.unknown is not None:
        key = hedge.in_scope[0].candidate.key
        why = f"the hedge {hedge.name} is left naked, because {hedge.unknown}"
        yield Blocked(key[0], key[1], why, dust=False)
    for leg in hedge.legs:
        if not leg.is_cuttable:
            account, symbol, side = leg.candidate.key
            why = f"the {side} leg {symbol} of the hedge {hedge.name} is left naked: its market accepts no orders"
            yield Blocked(account, symbol, why, dust=False)


def _trimmed(target: SelectedTarget, hedge: HeldHedge) -> list[SelectedTarget] | str:
    """Targets that cut every leg by the fraction of the target; or why none can be."""
    if hedge.unknown is not None:
        return hedge.unknown
    halted = next((leg for leg in hedge.legs if not leg.is_cuttable), None)
    if halted is not None:
        return f"{halted.candidate.position.symbol} on {halted.candidate.account.account} accepts no orders"
    if not hedge.is_netted:
        return [target]
    kept = target.contracts / target.ranked.candidate.position.contracts
    left = common_cut(hedge.legs, kept)
    if left is None:
        return "the venues' steps allow no cut of its legs after which its net is not larger"
    return [
        SelectedTarget(replace(target.ranked, candidate=leg.candidate), contracts)
        for leg, contracts in zip(hedge.legs, left, strict=True)
    ]


def common_cut(legs: Sequence[HeldLeg], kept: Decimal) -> list[Decimal] | None:
    """The contracts to leave of each leg, by the venues' steps: all by one fraction near `kept`, and |net| not larger.

    Each leg in turn is rounded first, and the others follow the fraction that it has then, each rounded either way. Of
    what leaves |net| as small as it was the one nearest to `kept` is taken; of equals the first. None without any.
    """
    before = abs(sum((leg.units for leg in legs), ZERO))
    gross = sum((abs(leg.units) for leg in legs), ZERO)
    best: tuple[Decimal, list[Decimal]] | None = None
    for first in legs:
        for rounded in _rounded(first, kept):
            fraction = rounded / first.candidate.position.contracts
            choices = [(rounded,) if leg is first else _rounded(leg, fraction) for leg in legs]
            for left in islice(product(*choices), _MOST_CHOICES):
                units = [_units_of(leg, each) for leg, each in zip(legs, left, strict=True)]
                is_cut = all(each < leg.candidate.position.contracts for leg, each in zip(legs, left, strict=True))
                if not is_cut or abs(sum(units, ZERO)) > before:
                    continue
                off = abs(sum(map(abs, units), ZERO) - kept * gross)
                if best is None or off < best[0]:
                    best = off, list(left)
    return None if best is None else best[1]


_MOST_CHOICES = 256
"""Roundings of the other legs that are tried: all of up to eight."""


def _units_of(leg: HeldLeg, left: Decimal) -> Decimal:
    return leg.units * left / leg.candidate.position.contracts


def _rounded(leg: HeldLeg, kept: Decimal) -> tuple[Decimal, ...]:
    """The contracts left of the leg, near a fraction of it: rounded down, and up, to what the venue's rules leave."""
    held, rules = leg.candidate.position.contracts, leg.rules
    wanted = held * kept
    found = [leg.left_of(wanted)]
    if rules is not None and rules.amount_step:
        cut = whole_steps(held - wanted, rules.amount_step)
        found.append(leg.left_of(held - cut))
    return tuple(dict.fromkeys(found))


def accounts_outside(targets: Iterable[SelectedTarget], view: ScopeView) -> list[AccountSnapshot]:
    """The accounts of targets that are not in the scope, in their order."""
    inside = {account.account for account in view.accounts}
    accounts = (target.ranked.candidate.account for target in targets)
    return list({each.account: each for each in accounts if each.account not in inside}.values())


def left_naked(
    hedges: Iterable[HedgeLegs], closed: Collection[tuple[str, str]], accounts: Iterable[AccountSnapshot]
) -> Iterator[str]:
    """The legs that a close of other legs leaves open, as texts; `closed`: account and symbol of each order.

    A leg on an account whose positions are unknown counts as open.
    """
    by_name = {account.account: account for account in accounts}
    for hedge in hedges:
        legs = [(leg.account, leg.symbol) for leg in hedge.legs]
        gone = [leg for leg in legs if leg in closed]
        for name, symbol in [leg for leg in legs if leg not in closed] if gone else ():
            account = by_name.get(name)
            rows = None if account is None else account.positions
            if rows is None or any(row.symbol == symbol and row.contracts for row in rows):
                what = "which cannot be read" if rows is None else "which this close does not reach"
                yield f"the hedge {hedge.name} is left naked: {symbol} on {name}, {what}"


ONE_RATIO = Decimal("0.01")
"""Difference of the cut fractions of two legs up to which they are cut in one ratio: lots round them apart."""


def cut_apart(targets: Sequence[SelectedTarget], book: NettedBook) -> tuple[str, ...]:
    """A remark on each hedge whose legs the targets cut in different ratios, so that its net changes."""
    left = {each.ranked.candidate.key: each.contracts for each in targets}
    found: dict[str, str] = {}
    for hedge in book.hedges.values():
        cut = [1 - left.get(leg.candidate.key, leg.candidate.position.contracts) / leg.candidate.position.contracts
               for leg in hedge.legs]  # fmt: skip
        if cut and max(cut) - min(cut) > ONE_RATIO:
            parts = (
                f"{leg.candidate.position.symbol} on {leg.candidate.account.account} by {part:.0%}"
                for leg, part in zip(hedge.legs, cut, strict=True)
            )
            found[hedge.name] = f"the legs of the hedge {hedge.name} are cut apart: {', '.join(parts)}"
    return tuple(found.values())
