"""Dead-man switches of a policy set: their accounts, and checks."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.graph.nodes import TimerRule
from killswitch.graph.problems import FaultyDocuments, Findings, suggestion
from killswitch.graph.resolution.references import Documents, diagnostics_of, matches, of_kind
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import Document
from killswitch.policy.schema.account import AccountDocument, DeadManDocument, DeadManSpec


def timers(documents: Sequence[Document]) -> tuple[TimerRule, ...]:
    """All dead-man switches, by name, with the names of their accounts."""
    found = (
        TimerRule(
            document.metadata.name,
            tuple(sorted(account.metadata.name for account in _covered(document.spec, documents))),
            document.spec.timeout,
            document.spec.refresh,
            document.spec.accept_unprotected,
            found.place(("metadata", "name")),
        )
        for document, found in of_kind(documents, DeadManDocument)
    )
    return tuple(sorted(found, key=lambda rule: rule.name))


def check_timers(everything: Documents, others: FaultyDocuments) -> list[Diagnostic]:
    """Report unknown accounts, accounts with two switches, and switches without effect."""
    written = sorted(of_kind(everything, DeadManDocument), key=lambda each: each[0].metadata.name)
    known = {each.name for each in everything if each.kind == "Account" and each.name is not None}
    owners: dict[str, str] = {}
    for document, found in written:
        _accounts_exist(document.spec, known, others, found)
        if found.gaps.has_flaw(("spec",)):
            continue
        covered = _covered(document.spec, everything)
        for account in covered:
            name = account.metadata.name
            owner = owners.setdefault(name, document.metadata.name)
            if owner != document.metadata.name:
                message = f"`{name}` has a timer by the switch `{owner}` already"
                found.error("KS3041", ("spec", "accounts"), message, "narrow one of the two")
        observed = [account.metadata.name for account in covered if account.spec.execution == "observe"]
        named = isinstance(document.spec.accounts, tuple)
        if not (named or covered or others.has_unknown_kinds) and known:
            message = "no account of this policy set matches `accounts`"
            found.warning("KS5040", ("spec", "accounts"), message, "ask for less, or take the switch out", key=True)
        elif observed and len(observed) == len(covered):
            message = f"{', '.join(f'`{name}`' for name in observed)}: only observed, so no timer is started there"
            fix = "write `execution: live` once it is to be acted on"
            found.warning("KS5041", ("spec", "accounts"), message, fix, key=True)
    return diagnostics_of(written)


def _accounts_exist(spec: DeadManSpec, known: set[str], others: FaultyDocuments, found: Findings) -> None:
    for number, name in enumerate(spec.accounts if isinstance(spec.accounts, tuple) else ()):
        path = ("spec", "accounts", number)
        if name not in known and not others.can_have("Account", name) and not found.gaps.is_hole(path):
            fix = suggestion(name, sorted(known)) or "correct the name, or add the Account"
            found.error("KS3040", path, f"there is no Account `{name}`", fix)


def _covered(spec: DeadManSpec, everything: Documents) -> list[AccountDocument]:
    """Accounts of the switch: the named ones, or those that match."""
    asked = spec.accounts
    accounts = [account for account, _ in of_kind(everything, AccountDocument)]
    if isinstance(asked, tuple):
        return [each for each in accounts if each.metadata.name in asked]
    return [each for each in accounts if matches(asked, each)]
