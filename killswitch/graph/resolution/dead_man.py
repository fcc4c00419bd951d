"""Dead man's switches of a policy set: which account has which, and what can be told of them beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from killswitch.graph.nodes import TimerRule
from killswitch.graph.problems import Findings, Others, suggestion
from killswitch.graph.resolution.references import findings, matches
from killswitch.policy.diagnostics.problem import Diagnostic
from killswitch.policy.loader import Document, Faulty
from killswitch.policy.schema.account import AccountDocument, DeadManDocument, DeadManSpec

Written = tuple[DeadManDocument, Findings]


def timers(documents: Sequence[Document]) -> tuple[TimerRule, ...]:
    """Every switch, by name, with the names of its accounts."""
    accounts = _accounts(documents)
    found = (
        TimerRule(
            document.metadata.name,
            tuple(sorted(account.metadata.name for account in accounts if _covers(document.spec, account))),
            document.spec.timeout,
            document.spec.refresh,
            document.spec.accept_unprotected,
            told.place(("metadata", "name")),
        )
        for document, told in _written(documents)
    )
    return tuple(sorted(found, key=lambda rule: rule.name))


def check_timers(everything: Sequence[Document | Faulty], others: Others) -> list[Diagnostic]:
    """Names that lead nowhere, accounts with two switches, and switches that watch over nothing."""
    written = sorted(_written(everything), key=lambda each: each[0].metadata.name)
    accounts = _accounts(everything)
    known = {each.name for each in everything if each.kind == "Account" and each.name is not None}
    owners: dict[str, str] = {}
    for document, found in written:
        _accounts_exist(document.spec, known, others, found)
        if found.gaps.flawed(("spec",)):
            continue
        covered = [account for account in accounts if _covers(document.spec, account)]
        for account in covered:
            name = account.metadata.name
            owner = owners.setdefault(name, document.metadata.name)
            if owner != document.metadata.name:
                message = f"`{name}` has a timer by the switch `{owner}` already"
                found.error("KS3041", ("spec", "accounts"), message, "narrow one of the two")
        observed = [account.metadata.name for account in covered if account.spec.execution == "observe"]
        named = isinstance(document.spec.accounts, tuple)
        if not (named or covered or others.any_at_all) and known:
            message = "no account of this policy set is what `accounts` asks for"
            found.warning("KS5040", ("spec", "accounts"), message, "ask for less, or take the switch out", key=True)
        elif observed and len(observed) == len(covered):
            message = f"{', '.join(f'`{name}`' for name in observed)}: only observed, so no timer is started there"
            fix = "write `execution: live` once it is to be acted on"
            found.warning("KS5041", ("spec", "accounts"), message, fix, key=True)
    return [told for _, found in written for told in found.diagnostics]


def _accounts_exist(spec: DeadManSpec, known: set[str], others: Others, found: Findings) -> None:
    for number, name in enumerate(spec.accounts if isinstance(spec.accounts, tuple) else ()):
        path = ("spec", "accounts", number)
        if name not in known and not others.may_have("Account", name) and not found.gaps.unread(path):
            fix = suggestion(name, sorted(known)) or "correct the name, or add the Account"
            found.error("KS3040", path, f"there is no Account `{name}`", fix)


def _written(everything: Sequence[Document | Faulty]) -> Iterator[Written]:
    for each in everything:
        if isinstance(each.model, DeadManDocument):
            yield each.model, findings(each)


def _accounts(everything: Sequence[Document | Faulty]) -> list[AccountDocument]:
    return [each.model for each in everything if isinstance(each.model, AccountDocument)]


def _covers(spec: DeadManSpec, account: AccountDocument) -> bool:
    if isinstance(spec.accounts, tuple):
        return account.metadata.name in spec.accounts
    return matches(spec.accounts, account)
