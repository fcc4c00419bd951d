"""The accounts of a scope, for messages: a snapshot alone does not say which accounts a strategy or a label is in."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import Struct

from killswitch.incident.record.firing import equity_of, scope_accounts
from killswitch.incident.record.loss import why_equity_is_unknown
from killswitch.model.snapshot import AccountSnapshot, Snapshot

if TYPE_CHECKING:
    from killswitch.graph.nodes import Graph
    from killswitch.model.decision import Decision
    from killswitch.valuation.ownership import StrategyRule


class ScopeMembers(Struct, frozen=True):
    """The accounts that a strategy, a symbol or a label is in, by name.

    `has_equity`: whether these accounts are wholly its own, so that their equity is its equity.
    """

    accounts: frozenset[str]
    has_equity: bool


class SeenScope(Struct, frozen=True):
    """The accounts of a scope in a snapshot; `is_part`: it owns only a part of them, and has no equity."""

    scope: str
    accounts: tuple[AccountSnapshot, ...] | None
    """None: there is no snapshot."""
    is_part: bool = False

    @property
    def equity(self) -> tuple[Decimal | None, str | None]:
        """The equity and its currency; None where it is unknown, or the scope has none."""
        found, currency = equity_of(self.accounts or ())
        return None if self.is_part else found, currency

    @property
    def no_equity(self) -> str:
        """Why there is no equity."""
        if self.is_part:
            return f"{self.scope} has none of its own"
        return "no snapshot was read" if self.accounts is None else why_equity_is_unknown(self.accounts)

    @property
    def places(self) -> tuple[str, ...]:
        """The venues; of a scope that owns a part of accounts, each account with its venue."""
        found = (f"{it.account} at {it.venue}" if self.is_part else it.venue for it in self.accounts or ())
        return tuple(dict.fromkeys(found))


def seen_scope(scope: str, members: ScopeMembers | None, snapshot: Snapshot | None) -> SeenScope:
    """Return the scope as it is in the snapshot; `members` is None of an account, a venue and the portfolio."""
    if snapshot is None:
        return SeenScope(scope, None, members is not None and not members.has_equity)
    if members is None:
        return SeenScope(scope, scope_accounts(scope, snapshot))
    found = tuple(each for each in snapshot.accounts if each.account in members.accounts)
    return SeenScope(scope, found, not members.has_equity)


def members_of(
    decision: Decision, snapshot: Snapshot | None, graphs: Iterable[Graph], strategies: Iterable[StrategyRule]
) -> ScopeMembers | None:
    """Return the accounts of the decision's scope; None where the scope itself names them."""
    kind, _, name = decision.scope.partition("/")
    accounts = () if snapshot is None else snapshot.accounts
    if kind == "label":
        labelled = (each for graph in graphs for each, label in graph.scope.labels if label == name)
        return ScopeMembers(frozenset(labelled), True)
    if kind == "strategy":
        rules = [each for each in strategies if each.name == name]
        covered = {
            it.account for it in accounts for rule in rules if rule.covers(it.account, it.venue, it.market, it.currency)
        }
        is_whole = bool(rules) and all(rule.whole for rule in rules)
        return ScopeMembers(frozenset({*covered, *decision.accounts_at_work}), is_whole)
    if kind == "symbol":
        holders = {it.account for it in accounts if any(row.symbol == name for row in it.positions or ())}
        return ScopeMembers(frozenset({*holders, *decision.accounts_at_work}), False)
    return None
