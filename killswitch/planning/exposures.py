"""Exposure and P&L of the book of the last tick: of the portfolio, and by account, strategy and asset.

Amounts are in one currency: that which a policy of the portfolio declares as its reference, else that which any policy
declares, else the accounts' own if it is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import Graph
from killswitch.model.instant import SECOND, from_micros
from killswitch.model.snapshot import Instant
from killswitch.model.words import ReferenceCurrency
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.valuation.account_facts import AccountFacts
from killswitch.valuation.ownership import NOBODY, StrategyRule
from killswitch.valuation.position_measures import ZERO, base_of
from killswitch.valuation.scope_view import ScopeView
from killswitch.valuation.snapshot_facts import BookPart, SnapshotFacts

UNOWNED = "owned by nobody"
LARGE = 2_000
"""Number of positions above which exposures are not computed at each tick."""
KEPT = 5 * SECOND
"""How long the exposures of a large book are kept (microseconds)."""


class OpenExposure(Struct, frozen=True, omit_defaults=True):
    """The open positions of a part of the book: gross and net notional, and unrealised P&L; None is unknown.

    `unknown`: why at least one of them is. `of` is the portfolio, an account, a strategy (or what none owns) or an
    asset. Only of a strategy: `realised`, what its fills have made since `realised_since`, net of fees and without
    funding; None is unknown, and `realised_unknown` says why.
    """

    of: Literal["portfolio", "account", "strategy", "asset"]
    name: str
    gross: Decimal | None = None
    net: Decimal | None = None
    unrealised: Decimal | None = None
    unknown: str | None = None
    realised: Decimal | None = None
    realised_unknown: str | None = None
    realised_since: Instant | None = None


class Exposures(Struct, frozen=True, omit_defaults=True):
    """The exposure of the whole book and of its parts in the snapshot of `as_of`, in `currency`.

    `profit`: of the portfolio, as a fraction of its start or of the last reset by an operator, by its unit value, which
    deposits and withdrawals do not change; None while it is unknown, or no policy watches the portfolio.
    """

    as_of: Instant
    currency: str | None
    parts: tuple[OpenExposure, ...]
    profit: Decimal | None = None


class BookExposures:
    """The exposures of the newest snapshot; of a large book those of at most `KEPT` ago, because they cost time."""

    def __init__(self, graphs: Sequence[Graph], strategies: Sequence[StrategyRule]) -> None:
        self._graphs = graphs
        self._strategies = strategies
        self._last: tuple[SnapshotFacts, Exposures] | None = None

    def of(self, facts: SnapshotFacts, evaluators: Iterable[ScopeEvaluator]) -> Exposures:
        """The exposures after the tick with these facts."""
        if self._last is not None:
            before, found = self._last
            is_large = sum(len(each.held.reported) for each in facts.by_name.values()) > LARGE
            if before is facts or (is_large and 0 <= facts.as_of - before.as_of < KEPT):
                return found
        self._last = facts, exposures(facts, self._graphs, self._strategies, evaluators)
        return self._last[1]


def exposures(
    facts: SnapshotFacts,
    graphs: Iterable[Graph],
    strategies: Sequence[StrategyRule],
    evaluators: Iterable[ScopeEvaluator],
) -> Exposures:
    """The exposures of the snapshot, and the profit of the portfolio."""
    whole = _view(facts, _reference(graphs))
    accounts = [_of_account(each, whole) for each in whole.facts]
    parts = [_together(accounts, whole.unknown), *accounts]
    for name in [*(rule.name for rule in strategies), *([NOBODY] if strategies else ())]:
        part = _of_strategy(name, _view(facts, whole.reference, BookPart("strategy", name)))
        parts.append(_with_realised(part, name, whole, next((it for it in strategies if it.name == name), None)))
    is_known = all(each.unknown is None for each in accounts)
    assets = _by_asset(whole) if is_known else ()
    return Exposures(from_micros(facts.as_of), whole.currency, (*parts, *assets), _profit(evaluators))


def _reference(graphs: Iterable[Graph]) -> ReferenceCurrency | None:
    declared = [(graph.scope.each != "portfolio", graph.equity.reference) for graph in graphs]
    return next((rule for _, rule in sorted(declared, key=lambda each: each[0]) if rule is not None), None)


def _view(facts: SnapshotFacts, reference: ReferenceCurrency | None, part: BookPart | None = None) -> ScopeView:
    return ScopeView(facts.as_of, True, facts.accounts, facts.rules, None, None, reference, around=facts, part=part)


def _of_account(facts: AccountFacts, whole: ScopeView) -> OpenExposure:
    """The exposure of one account; its measures are shared with the signals of the tick."""
    found = whole.conversion(facts.account.currency)
    unknown = whole.reason_unknown(facts) or found.unknown
    if unknown is not None or found.rate is None:
        return OpenExposure("account", facts.name, unknown=unknown)
    book, pnl = facts.held.exposure, facts.unrealised
    if book is None:
        unknown = f"the notional of a position of {facts.name} is unknown"
    return OpenExposure(
        "account", facts.name,
        None if book is None else book.gross * found.rate,
        None if book is None else book.net * found.rate,
        None if pnl is None else pnl * found.rate,
        unknown or facts.unrealised_unknown,
    )  # fmt: skip


def _together(accounts: Sequence[OpenExposure], unknown: str | None) -> OpenExposure:
    """The portfolio: the sums over its accounts; None where one of them is unknown."""
    first = next((each.unknown for each in accounts if each.unknown is not None), unknown)
    return OpenExposure(
        "portfolio", "portfolio", _sum(each.gross for each in accounts), _sum(each.net for each in accounts),
        _sum(each.unrealised for each in accounts), first,
    )  # fmt: skip


def _sum(amounts: Iterable[Decimal | None]) -> Decimal | None:
    total = ZERO
    for amount in amounts:
        if amount is None:
            return None
        total += amount
    return total


def _of_strategy(name: str, view: ScopeView) -> OpenExposure:
    unknown = view.unknown or view.positions_unknown
    columns = view.columns
    book, pnl = (None, None) if columns is None else (columns.exposure, view.pnl())
    if columns is not None and (book is None or pnl is None):
        unknown = columns.reason("notional" if book is None else "unrealised")
    return OpenExposure(
        "strategy", name or UNOWNED,
        None if book is None else book.gross,
        None if book is None else book.net,
        None if pnl is None else sum(pnl.values(), ZERO),
        unknown,
    )  # fmt: skip


def _with_realised(part: OpenExposure, name: str, whole: ScopeView, rule: StrategyRule | None) -> OpenExposure:
    """The part of a strategy (None: of nobody) with what it has realised, summed over the accounts it may trade in."""
    total, since, unknown = ZERO, None, whole.unknown
    for facts in whole.facts:
        account = facts.account
        if rule is not None and not rule.covers(account.account, account.venue, account.market, account.currency):
            continue
        profits, rate = whole.owned(account.account).profits, whole.conversion(account.currency)
        if profits is None:
            unknown = unknown or f"{account.account} was not read yet"
            continue
        found = profits.of(name)
        unknown = unknown or found.unknown
        since = profits.since if since is None else min(since, profits.since)
        if found.amount:
            unknown = unknown or rate.unknown
            total += found.amount * (rate.rate or ZERO)
    if unknown is None and since is None:
        unknown = "no account of it is in the snapshot"
    return replace(
        part,
        realised=None if unknown is not None else total,
        realised_unknown=unknown,
        realised_since=None if since is None else from_micros(since),
    )


def _by_asset(whole: ScopeView) -> Iterator[OpenExposure]:
    """The exposure by base asset, by its name, of accounts whose notionals and P&L are known."""
    bases: dict[str, str] = {}
    found: dict[str, tuple[Decimal, Decimal, Decimal]] = {}
    for facts in whole.facts:
        held, rate = facts.held, whole.conversion(facts.account.currency).rate or ZERO
        made = held.pnl or {}
        for position, value in zip(held.merged, held.notionals, strict=True):
            symbol, side = position.symbol, position.side
            asset = bases.get(symbol) or bases.setdefault(symbol, base_of(symbol))
            gross, net, pnl = found.get(asset, _NOTHING)
            size = (value or ZERO) * rate
            own = made[facts.name, symbol, side] * rate
            found[asset] = (gross + size, net + size if side == "long" else net - size, pnl + own)
    for asset, (gross, net, pnl) in sorted(found.items()):
        yield OpenExposure("asset", asset, gross, net, pnl)


_NOTHING = (ZERO, ZERO, ZERO)


def _profit(evaluators: Iterable[ScopeEvaluator]) -> Decimal | None:
    """The profit of the portfolio since its start, as a fraction; None if unknown."""
    for evaluator in evaluators:
        history = evaluator.history
        if evaluator.scope == "portfolio" and history.unknown is None and history.track.start > 0.0:
            return Decimal(f"{history.track.value / history.track.start - 1:.6f}")
    return None
