"""Which scopes a policy watches in a snapshot, and what each of them shows."""

from __future__ import annotations

from killswitch.graph.nodes import ScopeRule
from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.signals.view import Instruments, ScopeView

Identity = tuple[str, str, str, str]
"""(account, venue, market, currency)."""


def identity(account: AccountSnapshot) -> Identity:
    return (account.account, account.venue, account.market, account.currency)


def scopes_of(rule: ScopeRule, accounts: list[Identity]) -> dict[str, tuple[str, ...]]:
    """Scope name → the names of its accounts, in the order of the snapshot."""
    found: dict[str, tuple[str, ...]] = {}
    for name, venue, market, currency in accounts:
        if not _matches(rule, name, venue, market, currency):
            continue
        scope = {"account": f"account/{name}", "venue": f"venue/{venue}", "portfolio": "portfolio"}[rule.each]
        found[scope] = (*found.get(scope, ()), name)
    return found


def _matches(rule: ScopeRule, account: str, venue: str, market: str, currency: str) -> bool:
    return all(
        allowed is None or value in allowed
        for allowed, value in (
            (rule.accounts, account),
            (rule.venues, venue),
            (rule.markets, market),
            (rule.currencies, currency),
        )
    )


def view_of(
    snapshot: Snapshot, now: int, names: tuple[str, ...], instruments: Instruments, stale_after: int | None
) -> ScopeView:
    """What the scope of these accounts shows. If one of them is missing the whole is unknown: a part is no sum."""
    accounts = snapshot.accounts
    if len(accounts) != 1 or len(names) != 1 or accounts[0].account != names[0]:
        accounts = tuple(account for account in accounts if account.account in names)
        if len(accounts) < len(names):
            accounts = ()
    return ScopeView(now, snapshot.scheduled, accounts, instruments, stale_after)
