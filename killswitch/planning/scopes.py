"""Which scopes a policy watches in a snapshot, and what each of them shows."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.graph.nodes import ScopeRule
from killswitch.model.reference_currency import ReferenceCurrency
from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.signals.view import Instruments, ScopeView

Identity = tuple[str, str, str, str]
"""(account, venue, market, currency)."""


def identity(account: AccountSnapshot) -> Identity:
    return (account.account, account.venue, account.market, account.currency)


def scopes_of(rule: ScopeRule, accounts: Sequence[Identity]) -> dict[str, tuple[str, ...]]:
    """Scope name → the names of its accounts, in the order of the snapshot."""
    found: dict[str, tuple[str, ...]] = {}
    for each in accounts:
        if _matches(rule, each):
            scope = _scope_of(rule, each)
            found[scope] = (*found.get(scope, ()), each[0])
    return found


def places_of(
    rule: ScopeRule, scope: str, names: Sequence[str], accounts: Sequence[Identity]
) -> tuple[int, ...] | None:
    """Where in the snapshot the scope's accounts stand; None if one of `names` is missing: a part is no sum."""
    places = tuple(i for i, each in enumerate(accounts) if _matches(rule, each) and _scope_of(rule, each) == scope)
    return places if {accounts[i][0] for i in places} >= set(names) else None


def view_of(
    snapshot: Snapshot,
    now: int,
    places: tuple[int, ...] | None,
    instruments: Instruments,
    stale_after: int | None,
    reference: ReferenceCurrency | None = None,
) -> ScopeView:
    """What the accounts at these places of the snapshot show together, in the reference currency where there is one."""
    accounts = () if places is None else tuple(snapshot.accounts[place] for place in places)
    return ScopeView(now, snapshot.scheduled, accounts, instruments, stale_after, snapshot.accounts, reference)


def _scope_of(rule: ScopeRule, account: Identity) -> str:
    if rule.each == "portfolio":
        return "portfolio"
    return f"account/{account[0]}" if rule.each == "account" else f"venue/{account[1]}"


def _matches(rule: ScopeRule, account: Identity) -> bool:
    allowed = (rule.accounts, rule.venues, rule.markets, rule.currencies)
    return all(names is None or value in names for names, value in zip(allowed, account, strict=True))
