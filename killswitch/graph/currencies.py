"""Whether the accounts of a scope can be added up: they are of one currency, or the policy has a reference currency."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.graph.findings import Findings
from killswitch.graph.references import matches
from killswitch.policy.account_document import AccountDocument, venue_of
from killswitch.policy.documents import PolicySpec
from killswitch.policy.loader import Document


def check_currencies(policy: PolicySpec, documents: Sequence[Document], found: Findings) -> None:
    """Refuse a venue or a portfolio of several currencies without a reference currency: no limit on it could fire."""
    each = policy.scope.each
    if policy.reference is not None or each == "account" or found.gaps.flawed(("spec", "scope")):
        return
    if found.gaps.flawed(("spec", "reference")):
        return
    scopes: dict[str, dict[str, str]] = {}
    for document in sorted(documents, key=lambda one: one.name):
        account = document.model
        if isinstance(account, AccountDocument) and matches(policy.scope.match, account):
            scope = "the portfolio" if each == "portfolio" else f"the venue {venue_of(account.spec)}"
            scopes.setdefault(scope, {}).setdefault(account.spec.currency, account.metadata.name)
    for scope, currencies in scopes.items():
        if len(currencies) > 1:
            held = " and ".join(f"{currency} (`{account}`)" for currency, account in sorted(currencies.items()))
            first = min(currencies)
            fix = f"add `reference: {{currency: USD}}`, or narrow the scope with `match: {{currency: {first}}}`"
            message = f"{scope} has accounts in {held}, and nothing converts between them"
            found.error("KS3018", ("spec", "scope", "each"), message, fix, key=True)
