"""Exposure and P&L of the book of the last tick: of the portfolio, and by account, strategy and asset.

Amounts are in one currency: that which a policy of the portfolio declares as its reference, else that which any policy
declares, else the accounts' own if it is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from killswitch.graph.nodes import Graph
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.words import ReferenceCurrency
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.valuation.ownership import NOBODY, StrategyRule
from killswitch.valuation.position_measures import ZERO, base_of
from killswitch.valuation.scope_view import ScopeView
from killswitch.valuation.snapshot_facts import BookPart, SnapshotFacts

UNOWNED = "owned by nobody"


class Exposure(Struct, frozen=True, omit_defaults=True):
    """The open positions of a part of the book: gross and net notional, and unrealised P&L; None is unknown.

    `unknown`: why at least one of them is. `of` is the portfolio, an account, a strategy (or what none owns) or an
    asset.
    """

    of: Literal["portfolio", "account", "strategy", "asset"]
    name: str
    gross: Decimal | None = None
    net: Decimal | None = None
    unrealised: Decimal | None = None
    unknown: str | None = None


class Exposures(Struct, frozen=True, omit_defaults=True):
    """The exposure of the whole book and of its parts, in `currency`.

    `profit`: of the portfolio, as a fraction of its start or of the last reset by an operator, by its unit value, which
    deposits and withdrawals do not change; None while it is unknown, or no policy watches the portfolio.
    """

    currency: str | None
    parts: tuple[Exposure, ...]
    profit: Decimal | None = None


def exposures(
    facts: SnapshotFacts,
    graphs: Iterable[Graph],
    strategies: Sequence[StrategyRule],
    evaluators: Iterable[ScopeEvaluator],
) -> Exposures:
    """The exposures of the snapshot, and the profit of the portfolio."""
    reference = _reference(graphs)
    whole = _view(facts, facts.accounts, reference)
    currency = whole.currency
    parts = [_exposure("portfolio", "portfolio", whole)]
    parts += [_exposure("account", each.account, _view(facts, (each,), reference)) for each in facts.accounts]
    for name in [*(rule.name for rule in strategies), *([NOBODY] if strategies else ())]:
        part = BookPart("strategy", name)
        parts.append(_exposure("strategy", name or UNOWNED, _view(facts, facts.accounts, reference, part)))
    return Exposures(currency, (*parts, *_by_asset(whole)), _profit(evaluators))


def _reference(graphs: Iterable[Graph]) -> ReferenceCurrency | None:
    declared = [(graph.scope.each != "portfolio", graph.equity.reference) for graph in graphs]
    return next((rule for _, rule in sorted(declared, key=lambda each: each[0]) if rule is not None), None)


def _view(
    facts: SnapshotFacts,
    accounts: Sequence[AccountSnapshot],
    reference: ReferenceCurrency | None,
    part: BookPart | None = None,
) -> ScopeView:
    return ScopeView(facts.as_of, True, accounts, facts.rules, None, None, reference, around=facts, part=part)


def _exposure(of: Literal["portfolio", "account", "strategy"], name: str, view: ScopeView) -> Exposure:
    unknown = view.unknown or view.positions_unknown
    book = None if view.columns is None else view.columns.exposure
    pnl = None if view.unknown is not None or view.positions_unknown is not None else view.pnl()
    if unknown is None and view.columns is not None and (book is None or pnl is None):
        unknown = view.columns.reason("notional" if book is None else "unrealised")
    return Exposure(
        of, name,
        None if book is None else book.gross,
        None if book is None else book.net,
        None if pnl is None else sum(pnl.values(), ZERO),
        unknown,
    )  # fmt: skip


def _by_asset(view: ScopeView) -> Iterator[Exposure]:
    """The exposure by base asset, by its name; none while the positions of an account are unknown."""
    rows, pnl = (None, None) if view.unknown is not None else (view.notionals(), view.pnl())
    found: dict[str, tuple[Decimal, Decimal, Decimal | None]] = {}
    for account, position, value in rows or ():
        asset = base_of(position.symbol)
        gross, net, made = found.get(asset, (ZERO, ZERO, ZERO))
        own = None if pnl is None else pnl.get((account.account, position.symbol, position.side))
        signed = value if position.side == "long" else -value
        made = None if made is None or own is None else made + own
        found[asset] = (gross + value, net + signed, made)
    for asset, (gross, net, made) in sorted(found.items()):
        yield Exposure("asset", asset, gross, net, made, None if made is not None else f"the P&L of {asset} is unknown")


def _profit(evaluators: Iterable[ScopeEvaluator]) -> Decimal | None:
    """The profit of the portfolio since its start, as a fraction; None if unknown."""
    for evaluator in evaluators:
        history = evaluator.history
        if evaluator.scope == "portfolio" and history.unknown is None and history.track.start > 0.0:
            return Decimal(f"{history.track.value / history.track.start - 1:.6f}")
    return None
