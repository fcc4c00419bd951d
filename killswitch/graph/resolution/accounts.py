"""Checks of the accounts of a policy set: duplicates, encryption, currencies and their prices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from killswitch.graph.nodes import ConditionNode, ScopeRule
from killswitch.graph.problems import FaultyDocuments, Findings
from killswitch.graph.resolution.references import Documents, diagnostics_of, matches, of_kind
from killswitch.graph.resolution.strategies import scopes_of_account
from killswitch.graph.resolution.triggers import SignalIndex
from killswitch.graph.wording import signals_of
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import Document
from killswitch.policy.schema.account import AccountDocument, AccountSpec, venue_of
from killswitch.policy.schema.policy import AnyPolicy
from killswitch.policy.yaml.source_map import Path
from killswitch.signals.catalogue import BY_NAME


def check_accounts(everything: Documents) -> list[Diagnostic]:
    """Report accounts that are armed twice, by equal references to credentials, and unencrypted addresses.

    `run --live` compares the credentials themselves, so that it also refuses equal secrets with different references.
    It refuses unencrypted addresses, which are warnings here.
    """
    armed: dict[tuple[object, ...], AccountDocument] = {}
    accounts = of_kind(sorted(everything, key=lambda each: each.name or ""), AccountDocument)
    for account, found in accounts:
        if found.gaps.has_flaw(("spec",)):
            continue
        for key in unencrypted(account.spec):
            message = f"{key} has no TLS: credentials and orders can be read, and answers changed, on the way"
            fix = "write https:// (wss://), or `allow_unencrypted: true` where the network itself is trusted"
            found.warning("KS5095", ("spec", key), message, fix)
        is_armed = account.spec.execution == "live" and account.spec.credentials
        duplicate = armed.setdefault(venue_account_of(account.spec), account) if is_armed else account
        if duplicate is not account:
            names = f"`{account.metadata.name}` and `{duplicate.metadata.name}`"
            message = f"{names} are one account of one venue, and both are armed"
            fix = "take one of the two documents out, write `execution: observe` in one, or correct its credentials"
            found.error("KS3050", ("spec", "credentials"), message, fix)
    return diagnostics_of(accounts)


def unencrypted(spec: AccountSpec) -> tuple[str, ...]:
    """Keys with addresses that send credentials unencrypted over a network; none if the document allows that."""
    if spec.allow_unencrypted or not spec.credentials:
        return ()
    addresses = {"endpoint": spec.endpoint, "endpoint_ws": spec.endpoint_ws}
    return tuple(name for name, address in addresses.items() if address is not None and _readable_by_others(address))


def _readable_by_others(address: str) -> bool:
    """Whether requests leave the machine without TLS. Any host name except `localhost` may be remote."""
    try:
        parts = urlsplit(address)
        if parts.scheme.lower() not in ("http", "ws"):
            return False
        host = parts.hostname or ""
        return host != "localhost" and not ip_address(host).is_loopback
    except ValueError:
        return True


def venue_account_of(
    spec: AccountSpec, credentials: Mapping[str, str] | None = None, *, is_split_by_currency: bool = True
) -> tuple[object, ...]:
    """Identity of the venue account that the document refers to: equal for two documents of one account.

    A venue's name or a share of its limits do not make another account. The currency does for derivatives at venues
    with a wallet and positions for each currency, but not for spot, margin or stocks.

    `credentials`: the secrets themselves, if known; otherwise the references to them. `is_split_by_currency`:
    whether the venue separates derivatives by currency, which the document does not say; by default it is assumed.
    """
    keys = spec.credentials if credentials is None else credentials
    currency = spec.currency if is_split_by_currency and spec.market in _SETTLED else None
    return (
        spec.adapter, spec.exchange, spec.market, currency, spec.endpoint, spec.sandbox, spec.demo,
        repr(sorted(spec.options.items())), frozenset(keys.items()),
    )  # fmt: skip


_SETTLED: Final = ("swap", "future")
"""Markets whose positions settle in one currency."""


def check_reference(policy: AnyPolicy, documents: Sequence[Document], others: FaultyDocuments, found: Findings) -> None:
    """Warn of a reference currency without possible rates, or with parts that have no effect."""
    written, each = policy.reference, policy.scope.each
    if written is None or found.gaps.has_flaw(("spec", "scope")) or found.gaps.has_flaw(("spec", "reference")):
        return
    path, accounts = ("spec", "reference"), [account for account, _ in of_kind(documents, AccountDocument)]
    if each == "account":
        message = "each account is measured by itself, in its own currency, so that nothing is converted"
        found.warning("KS5015", path, message, "take it out, or write `each: portfolio`", key=True)
        return
    if not accounts or others.can_have("Account"):
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
        near = " (currencies are case-sensitive)" if currency.lower() == written.currency.lower() else ""
        declared = f"declare it with `otherwise: {{{currency}: 1}}`"
        fix = f"write `currency: {currency}`{near}" if near else f"{declared}, or ask for fewer with `rates_from`"
        found.warning("KS5014", path, message, fix, key=True)
    for currency in written.otherwise:
        if currency == written.currency:
            message = f"{currency} is the reference currency itself, and one of it is worth one of it"
        elif held and currency not in held:
            message = f"no account of the scope is in {currency}, so that its rate is never used"
        else:
            continue
        found.warning("KS5015", (*path, "otherwise", currency), message, "correct it, or take it out", key=True)


def check_priced(
    policy: AnyPolicy,
    conditions: Iterable[tuple[Path, ConditionNode]],
    columns: SignalIndex,
    documents: Sequence[Document],
    others: FaultyDocuments,
    found: Findings,
) -> None:
    """Report conditions on the price of a currency in the reference currency where no venues can agree on one.

    A venue prices the currencies of its accounts. Without Account documents the accounts are those of a recording.
    """
    accounts = [account for account, _ in of_kind(documents, AccountDocument)]
    is_known = bool(accounts) and not others.can_have("Account")
    flawed = found.gaps.has_flaw(("spec", "reference"))
    for path, name, key, currency in () if flawed else _priced(conditions, columns):
        pair = {currency} if policy.reference is None else {currency, policy.reference.currency}
        venues = {venue_of(it.spec) for it in accounts if it.spec.currency in pair} if is_known else None
        problem = _unpriced(policy, currency, venues)
        if problem is not None:
            message = f"the price that `{name}` compares can never be known: {problem[0]}"
            found.error("KS3073", (*path[:-1], key) if path[-1] == "signal" else path, message, problem[1])


def _priced(
    conditions: Iterable[tuple[Path, ConditionNode]], columns: SignalIndex
) -> Iterator[tuple[Path, str, str, str]]:
    """Place and name of each signal that reads the price of a currency, with the key of the argument and its value."""
    for path, condition in conditions:
        for signal in (columns.signals[index] for index in sorted(signals_of(condition))):
            for argument, value in zip(BY_NAME[signal.name].arguments, signal.arguments, strict=True):
                if argument.is_priced and isinstance(value, str):
                    yield path, signal.name, argument.key, value


def _unpriced(policy: AnyPolicy, currency: str, venues: set[str] | None) -> tuple[str, str] | None:
    """Why no venues can agree on the price of `currency`, and the fix; None if they can.

    `venues`: with an account in the currency or the reference currency; None if they are not known.
    """
    reference = policy.reference
    if reference is None:
        return "the policy has no reference currency", "add a `reference` in the currency of the peg, such as USD"
    if currency == reference.currency:
        return f"{currency} is the reference currency itself", "write the currency that is pegged to it"
    least = max(2, reference.rates_from)
    if venues is None or len(venues) >= least:
        return None
    seen = f"at {len(venues)} ({', '.join(sorted(venues))})" if venues else "at none"
    why = f"{least} venues must agree on {currency} in {reference.currency}, and there are accounts in either {seen}"
    return why, f"add accounts in {currency} at other venues, or take the trigger out"


def check_currencies(policy: AnyPolicy, rule: ScopeRule, documents: Sequence[Document], found: Findings) -> None:
    """Report scopes with several currencies and no reference currency: none of their limits could fire."""
    each = policy.scope.each
    flawed = any(found.gaps.has_flaw(("spec", key)) for key in ("scope", "reference"))
    if policy.reference is not None or each == "account" or flawed:
        return
    scopes: dict[str, dict[str, str]] = {}
    for account, _ in of_kind(sorted(documents, key=lambda one: one.name or ""), AccountDocument):
        if matches(policy.scope.match, account):
            for scope in scopes_of_account(policy, account, venue_of(account.spec), rule):
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
