"""Follows the stages that fired: what was closed, when the venue showed it, and whether the hedge remained."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from killswitch.lab.backtesting.effects import fired_transfer
from killswitch.lab.outcome import BacktestFiring, ClosedAmount, Hedge
from killswitch.market.paper import PaperMarket
from killswitch.model.decision import Decision
from killswitch.model.effects import Orders, kind_of, of_kind, sizes_of, tag_of
from killswitch.model.snapshot import IN_PROGRESS, Closing, ClosingStatus, Side, Snapshot
from killswitch.model.store import Journal

PositionName = tuple[str, str, Side]
"""(account, symbol, side)."""

HEDGING_SIDE: dict[str, Side] = {"LONG": "short", "SHORT": "long"}
"""The side that hedges the one that lost."""
ZERO = Decimal(0)


class _Followed(Struct):
    """A followed decision. `initial` has each position's contracts and notional when the stage fired."""

    decision: Decision
    initial: dict[PositionName, tuple[Decimal, Decimal]]
    ended: tuple[ClosingStatus, ...] = ()
    verified_at: datetime | None = None
    hedge_kept: Decimal | None = None
    cost: Decimal | None = None


class FiringFollower:
    """Follows the decisions of one run. `journal` is where closing writes."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._followed: dict[str, _Followed] = {}

    def add(self, decision: Decision, snapshot: Snapshot) -> None:
        """Add a decision that is carried out, with the snapshot that it was made on."""
        initial = {
            (account.account, position.symbol, position.side): (position.contracts, position.notional or ZERO)
            for account in snapshot.accounts
            for position in account.positions or ()
        }
        self._followed[decision.id] = _Followed(decision, initial)

    def follow(self, closings: Iterable[Closing], now: datetime, market: PaperMarket) -> None:
        """Record which of the closes have ended; `market` is the current market."""
        by_decision: dict[str, list[Closing]] = {}
        for closing in closings:
            by_decision.setdefault(closing.decision, []).append(closing)
        for id_, found in by_decision.items():
            followed = self._followed.get(id_)
            over = all(closing.status not in IN_PROGRESS for closing in found)
            if followed is None or not over or followed.ended:
                continue
            followed.ended = tuple(closing.status for closing in found)
            costs = [closing.cost for closing in found]
            followed.cost = None if None in costs else sum((cost for cost in costs if cost is not None), ZERO)
            if all(closing.status == "flat" for closing in found):
                followed.verified_at = now
                followed.hedge_kept = _hedge_kept(followed, market)

    def outcomes(self, market: PaperMarket) -> list[BacktestFiring]:
        """Return every firing in order; `market` is the market at the end of the run."""
        return [self._firing(followed, market) for followed in self._followed.values()]

    def _firing(self, followed: _Followed, market: PaperMarket) -> BacktestFiring:
        decision = followed.decision
        closed, opened = self._traded(decision, market)
        orders = sizes_of(decision.effects)[tag_of(Orders)]
        otherwise: ClosingStatus = "flat" if followed.ended else "closing"
        ended = next((each for each in followed.ended if each != "flat"), otherwise) if orders else None
        book = decision.book
        return BacktestFiring(
            decision=decision.id, at=decision.as_of, policy=decision.policy, scope=decision.scope,
            stage=decision.stage, level=decision.level,
            source=decision.attribution.source if decision.attribution else None, triggers=decision.triggers,
            gross_before=book.before.gross if book else None, gross_after=book.after.gross if book else None,
            ended=ended, verified_at=followed.verified_at, hedge=_hedge_status(followed.hedge_kept),
            hedge_kept=followed.hedge_kept, orders=orders, closed=closed, cost=followed.cost, opened=opened,
            transfer=fired_transfer(decision, self._journal),
            effects=tuple(kind_of(each).text(each) for each in decision.effects), reason=decision.reason,
        )  # fmt: skip

    def _traded(
        self, decision: Decision, market: PaperMarket
    ) -> tuple[tuple[ClosedAmount, ...], tuple[ClosedAmount, ...]]:
        """What was closed, and what was opened as a hedge.

        The venue's fills are summed up, also of a working order: closing journals those only when the order is final.
        """
        sent: dict[tuple[str, str, str], Side] = {}
        for entry in self._journal.journal(decision.id):
            if entry.kind == "sending" and entry.account and entry.symbol and entry.client_order_id:
                side: Side = "long" if entry.position_side == "long" else "short"
                sent[entry.account, entry.symbol, entry.client_order_id] = side
        sums: dict[PositionName, tuple[Decimal, Decimal]] = {}
        for (account, symbol, order), side in sent.items():
            for fill in market.fills(account, symbol, order):
                contracts, value = sums.get((account, symbol, side), (ZERO, ZERO))
                sums[account, symbol, side] = (contracts + fill.amount, value + fill.amount * fill.price)
        orders = of_kind(decision.effects, Orders) or Orders(())
        hedges = {(it.account, it.symbol, it.position_side) for it in orders.intents if it.purpose == "hedge"}
        found = {key: ClosedAmount(*key, contracts, value) for key, (contracts, value) in sums.items()}
        closed = tuple(each for key, each in found.items() if key not in hedges)
        return closed, tuple(each for key, each in found.items() if key in hedges)


def _hedge_kept(followed: _Followed, market: PaperMarket) -> Decimal | None:
    """Return what is left of the side that did not lose, as a fraction of its notional when the stage fired."""
    blamed = followed.decision.attribution.source if followed.decision.attribution else None
    side = HEDGING_SIDE.get(blamed or "")
    before = {key: held for key, held in followed.initial.items() if key[2] == side and held[0] > 0}
    total = sum((notional for _, notional in before.values()), ZERO)
    if side is None or not total:
        return None
    left = ZERO
    for account in market.accounts:
        for position in market.snapshot(account, instruments=False).positions or ():
            contracts, notional = before.get((account, position.symbol, position.side), (ZERO, ZERO))
            if contracts:
                left += notional * min(position.contracts, contracts) / contracts
    return (left / total).quantize(Decimal("0.0001"))


def _hedge_status(kept: Decimal | None) -> Hedge | None:
    if kept is None:
        return None
    if kept == 1:
        return "open"
    return "reduced" if kept > 0 else "closed"
