"""Whether the accounts of a scope can be added up: they are of one currency, or the policy has a reference currency."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.graph.findings import Findings
from killswitch.graph.others import Others
from killswitch.graph.references import matches
from killswitch.policy.account_document import AccountDocument, venue_of
from killswitch.policy.documents import PolicySpec
from killswitch.policy.loader import Document


def check_reference(policy: PolicySpec, documents: Sequence[Document], others: Others, found: Findings) -> None:
    """Warn of a reference currency that can never be reached, or of which a part changes nothing."""
    written, each = policy.reference, policy.scope.each
    if written is None or found.gaps.flawed(("spec", "scope")) or found.gaps.flawed(("spec", "reference")):
        return
    path, accounts = ("spec", "reference"), [it.model for it in documents if isinstance(it.model, AccountDocument)]
    if each == "account":
        message = "each account is measured by itself, in its own currency, so that nothing is converted"
        found.warning("KS5015", path, message, "take it out, or write `each: portfolio`", key=True)
        return
    if not accounts or others.may_have("Account"):
        return
    held = sorted({it.spec.currency for it in accounts if matches(policy.scope.match, it)})
    venues = len({venue_of(it.spec) for it in accounts})
    for currency in held:
        if currency == written.currency or currency in written.otherwise or written.rates_from <= venues:
            continue
        message = (
            f"the rate of {currency} in {written.currency} can never be known: {written.rates_from} venues must agree "
            f"on it, and the accounts are at {venues}; then every limit of the policy is unknown, and none fires"
        )
        near = " (currencies are told apart by case)" if currency.lower() == written.currency.lower() else ""
        declared = f"declare it with `otherwise: {{{currency}: 1}}`"
        fix = f"write `currency: {currency}`{near}" if near else f"{declared}, or ask for fewer with `rates_from`"
        found.warning("KS5014", path, message, fix, key=True)
    for currency in written.otherwise:
        if currency == written.currency:
            message = f"{currency} is the reference currency itself, and one of it is worth one of it"
        elif held and currency not in held:
            message = f"no account of the scope is in {currency}, so that its rate is never asked for"
        else:
            continue
        found.warning("KS5015", (*path, "otherwise", currency), message, "correct it, or take it out", key=True)


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
            fix = (
                "add `reference: {currency: USD}`, with `otherwise: "
                f"{{{', '.join(f'{it}: 1' for it in sorted(currencies))}}}` where venues give no rates, or narrow the "
                f"scope with `match: {{currency: {first}}}`"
            )
            message = f"{scope} has accounts in {held}, and nothing converts between them"
            found.error("KS3018", ("spec", "scope", "each"), message, fix, key=True)
