"""Exposure and P&L of the book of the last tick: of the portfolio, and by account, strategy and asset.

Amounts are in one currency: that which a policy of the portfolio declares as its reference, else that which any policy
declares, else the accounts' own if it is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import Graph
from killswitch.model.instant import SECOND, from_micros
from killswitch.model.snapshot import Instant, Position, Side
from killswitch.model.words import ReferenceCurrency
from killswitch.planning.realised_gains import AccountGains, RealisedGains
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.valuation.account_facts import AccountFacts
from killswitch.valuation.ownership import NOBODY, StrategyRule
from killswitch.valuation.position_measures import ZERO, base_of, liquidation_distance, notional, unrealized
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
    asset. `realised`: what its fills have made since `realised_since`, net of fees and without funding; None is
    unknown, and `realised_unknown` says why. What an older version has stored has it of strategies only.
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


def has_realised_pnl(part: OpenExposure) -> bool:
    """Whether the part states what it has realised, or why that is unknown."""
    return part.realised is not None or part.realised_unknown is not None


class Exposures(Struct, frozen=True, omit_defaults=True):
    """The exposure of the whole book and of its parts in the snapshot of `as_of`, in `currency`.

    `profit`: of the portfolio, as a fraction of its start or of the last reset by an operator, by its unit value, which
    deposits and withdrawals do not change; None while it is unknown, or no policy watches the portfolio.
    """

    as_of: Instant
    currency: str | None
    parts: tuple[OpenExposure, ...]
    profit: Decimal | None = None


class PositionExposure(Struct, frozen=True, omit_defaults=True):
    """An open position: its size in contracts, and what it is in money and away from its liquidation.

    `notional` (absolute) and `unrealised` are in the account's `currency`; `liquidation_distance` is a fraction of the
    mark, 0 at or beyond it. None is unknown, and `unknown` names it; a venue states no liquidation price of a position
    that it would not liquidate. `last_known`: the account cannot be read, so that it is the position seen last.
    """

    account: str
    symbol: str
    side: Side
    contracts: Decimal
    currency: str
    entry: Decimal | None = None
    mark: Decimal | None = None
    notional: Decimal | None = None
    unrealised: Decimal | None = None
    liquidation_distance: Decimal | None = None
    unknown: tuple[Literal["notional", "unrealised", "liquidation_distance"], ...] = ()
    last_known: bool = False


def position_exposures(facts: SnapshotFacts) -> tuple[PositionExposure, ...]:
    """Every open position of the snapshot: the largest loss first, then what is unknown, then by account and symbol."""
    found = [_position(each, row, facts) for each in map(facts.of, facts.accounts) for row in each.held.merged]
    return tuple(sorted(found, key=_by_loss))


def _by_loss(each: PositionExposure) -> tuple[bool, Decimal, str, str, str]:
    made = each.unrealised
    is_behind = made is not None and made >= ZERO
    return is_behind, ZERO if made is None else made if made < ZERO else -made, each.account, each.symbol, each.side


def _position(account: AccountFacts, row: Position, facts: SnapshotFacts) -> PositionExposure:
    sound, rules = account.sound, facts.rules.get((account.name, row.symbol))
    value, made, distance = notional(row, sound, rules), unrealized(row, sound, rules), liquidation_distance(row)
    names: tuple[Literal["notional", "unrealised", "liquidation_distance"], ...] = (
        "notional", "unrealised", "liquidation_distance",
    )  # fmt: skip
    known = (value, made, distance)
    return PositionExposure(
        account.name, row.symbol, row.side, row.contracts, sound.currency, row.entry_price, row.mark_price,
        value, made, distance, tuple(name for name, each in zip(names, known, strict=True) if each is None),
        last_known=account.untrusted(facts.as_of, None) is not None,
    )  # fmt: skip


class BookExposures:
    """The exposures of the newest snapshot; of a large book those of at most `KEPT` ago, because they cost time."""

    def __init__(self, graphs: Sequence[Graph], strategies: Sequence[StrategyRule]) -> None:
        self._graphs = graphs
        self._strategies = strategies
        self._last: tuple[SnapshotFacts, Exposures] | None = None

    def of(self, facts: SnapshotFacts, evaluators: Iterable[ScopeEvaluator], realised: RealisedGains) -> Exposures:
        """The exposures after the tick with these facts."""
        if self._last is not None:
            before, found = self._last
            is_large = sum(len(each.held.reported) for each in facts.by_name.values()) > LARGE
            if before is facts or (is_large and 0 <= facts.as_of - before.as_of < KEPT):
                return found
        self._last = facts, exposures(facts, self._graphs, self._strategies, evaluators, realised)
        return self._last[1]


def exposures(
    facts: SnapshotFacts,
    graphs: Iterable[Graph],
    strategies: Sequence[StrategyRule],
    evaluators: Iterable[ScopeEvaluator],
    realised: RealisedGains,
) -> Exposures:
    """The exposures of the snapshot, and the profit of the portfolio."""
    whole = _view(facts, _reference(graphs))
    gains = {each.name: _converted(each, realised.of(each.name), whole) for each in whole.facts}
    accounts = [_gained(_of_account(each, whole), gains[each.name]) for each in whole.facts]
    parts = [_together(accounts, whole), *accounts]
    for name in [*(rule.name for rule in strategies), *([NOBODY] if strategies else ())]:
        part = _of_strategy(name, _view(facts, whole.reference, BookPart("strategy", name)))
        parts.append(_with_realised(part, name, whole, next((it for it in strategies if it.name == name), None)))
    is_known = all(each.unknown is None for each in accounts)
    assets = _by_asset(whole, gains) if is_known else ()
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


def _together(accounts: Sequence[OpenExposure], whole: ScopeView) -> OpenExposure:
    """The portfolio: the sums over its accounts; None where one of them is unknown."""
    first = next((each.unknown for each in accounts if each.unknown is not None), whole.unknown)
    return OpenExposure(
        "portfolio", "portfolio", _sum(each.gross for each in accounts), _sum(each.net for each in accounts),
        _sum(each.unrealised for each in accounts), first,
        _sum(each.realised for each in accounts),
        next((each.realised_unknown for each in accounts if each.realised_unknown is not None), whole.unknown),
        min((each.realised_since for each in accounts if each.realised_since is not None), default=None),
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


class _Gains(Struct, frozen=True):
    """What the fills of an account or of an asset made, in the reference currency; `amount` is what is known of it.

    `unknown`: why none of it is known; of an account also each of its `assets` may be unknown.
    """

    amount: Decimal = ZERO
    unknown: str | None = None
    since: int | None = None
    assets: Mapping[str, _Gains] = {}

    @property
    def reason(self) -> str | None:
        """Why the amount is not all, or None."""
        return self.unknown or next((each.unknown for each in self.assets.values() if each.unknown is not None), None)


def _converted(facts: AccountFacts, found: AccountGains | None, whole: ScopeView) -> _Gains:
    """What the account realised, in the reference currency. A price is needed only where there is an amount."""
    if found is None:
        return _Gains(unknown=f"{facts.name} was not read yet")
    rate = whole.conversion(facts.account.currency)
    assets = {
        name: _Gains(each.amount * (rate.rate or ZERO), each.unknown or (rate.unknown if each.amount else None))
        for name, each in found.assets.items()
    }
    return _Gains(sum((each.amount for each in assets.values()), ZERO), found.unknown, found.since, assets)


def _gained(part: OpenExposure, found: _Gains) -> OpenExposure:
    """The part with what it has realised."""
    return replace(
        part,
        realised=None if found.reason is not None else found.amount,
        realised_unknown=found.reason,
        realised_since=None if found.since is None else from_micros(found.since),
    )


def _by_asset(whole: ScopeView, gains: Mapping[str, _Gains]) -> Iterator[OpenExposure]:
    """By base asset, by its name, of accounts whose notionals and P&L are known; also what is not held any more."""
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
    realised = _assets_of(gains.values())
    everywhere = next((each.unknown for each in gains.values() if each.unknown is not None), None)
    since = min((each.since for each in gains.values() if each.since is not None), default=None)
    for asset in sorted({*found, *realised}):
        gained = realised.get(asset, _Gains())
        part = OpenExposure("asset", asset, *found.get(asset, _NOTHING))
        yield _gained(part, replace(gained, unknown=everywhere or gained.unknown, since=since))


def _assets_of(gains: Iterable[_Gains]) -> dict[str, _Gains]:
    """What each asset made in all accounts; unknown where it is in one of them."""
    found: dict[str, _Gains] = {}
    for account in gains:
        for name, each in account.assets.items():
            before = found.get(name, _Gains())
            found[name] = _Gains(before.amount + each.amount, before.unknown or each.unknown)
    return found


_NOTHING = (ZERO, ZERO, ZERO)


def _profit(evaluators: Iterable[ScopeEvaluator]) -> Decimal | None:
    """The profit of the portfolio since its start, as a fraction; None if unknown."""
    for evaluator in evaluators:
        history = evaluator.history
        if evaluator.scope == "portfolio" and history.unknown is None and history.track.start > 0.0:
            return Decimal(f"{history.track.value / history.track.start - 1:.6f}")
    return None
