"""Limits of a policy set, resolved to their accounts and sessions, and checks beyond their own keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from killswitch.graph.freezing import freeze
from killswitch.graph.limits import LimitsRule
from killswitch.graph.problems import FaultyDocuments, Findings, suggestion, unknown_name
from killswitch.graph.resolution.references import Documents, diagnostics_of, matches, of_kind, sessions
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import Document
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.limits import LimitsDocument, LimitsSpec
from killswitch.policy.schema.scalars import Quantity
from killswitch.policy.yaml.source_map import Path
from killswitch.signals.sessions import TradingSession
from killswitch.valuation.position_measures import base_of

_OF_THE_ACCOUNT = ("gross", "concentration", "free_margin")
"""Keys whose money is in the account's currency, and never an amount of one asset."""


def limits(documents: Sequence[Document]) -> tuple[LimitsRule, ...]:
    """All limits, by name, with the names of their accounts."""
    known = sessions(documents)
    found = (
        freeze(
            document.spec,
            LimitsRule,
            name=document.metadata.name,
            accounts=tuple(sorted(account.metadata.name for account in _covered(document.spec, documents))),
            sessions=_resolved(document.spec.session, known),
            maintenance_in=_resolved(document.spec.maintenance_in, known),
        )
        for document, _ in of_kind(documents, LimitsDocument)
    )
    return tuple(sorted(found, key=lambda rule: rule.name))


def check_limits(everything: Documents, others: FaultyDocuments) -> list[Diagnostic]:
    """Report accounts with two limits or none, unknown names, and money in another currency than the accounts'."""
    written = sorted(of_kind(everything, LimitsDocument), key=lambda each: each[0].metadata.name)
    known = {each.name for each in everything if each.kind == "Account" and each.name is not None}
    known_sessions = sorted(each.name for each in everything if each.kind == "Session" and each.name is not None)
    owners: dict[str, str] = {}
    for document, found in written:
        _check_names(document.spec, known, known_sessions, others, found)
        if found.gaps.has_flaw(("spec", "match")):
            continue
        covered = _covered(document.spec, everything)
        named = [name for name in document.spec.match.account or () if name not in known]
        if not covered and not named and known and not others.can_have("Account"):
            message, fix = "no account of this policy set matches", "loosen `match`, or remove the limits"
            found.error("KS3077", ("spec", "match"), message, fix, key=True)
        for account in covered:
            owner = owners.setdefault(account.metadata.name, document.metadata.name)
            if owner != document.metadata.name:
                message = f"`{account.metadata.name}` has limits by `{owner}` already"
                found.error("KS3074", ("spec", "match"), message, "narrow `match` of one of the two", key=True)
        _check_currencies(document.spec, sorted({account.spec.currency for account in covered}), found)
    return diagnostics_of(written)


def _covered(spec: LimitsSpec, everything: Documents) -> list[AccountDocument]:
    return [account for account, _ in of_kind(everything, AccountDocument) if matches(spec.match, account)]


def _resolved(names: Iterable[str] | None, known: Mapping[str, TradingSession]) -> tuple[TradingSession, ...]:
    return tuple(known[name] for name in names or () if name in known)


def _check_names(
    spec: LimitsSpec, known: set[str], known_sessions: Sequence[str], others: FaultyDocuments, found: Findings
) -> None:
    for number, name in enumerate(spec.match.account or ()):
        path: Path = ("spec", "match", "account", number)
        if known and name not in known and not others.can_have("Account", name) and not found.gaps.is_hole(path):
            fix = suggestion(name, sorted(known)) or "correct the name, or add the Account"
            found.error("KS3077", path, f"there is no Account `{name}`", fix)
    for key, names in (("session", spec.session), ("maintenance_in", spec.maintenance_in)):
        for number, name in enumerate(names or ()):
            path = ("spec", key, number)
            if name not in known_sessions and not others.can_have("Session", name) and not found.gaps.is_hole(path):
                message, fix = unknown_name("Session", name, known_sessions)
                found.error("KS3076", path, message, fix)


def _check_currencies(spec: LimitsSpec, currencies: Sequence[str], found: Findings) -> None:
    """Report money that is neither in the currency of every account nor an amount of a base asset of its symbols."""
    for path, size, symbols in _sizes(spec):
        if found.gaps.has_flaw(path) or size.unit != "money" or not currencies or currencies == [size.currency]:
            continue
        if len(path) == 4 and size.currency not in currencies:  # an amount of a base asset
            if symbols is None or any(base_of(symbol) == size.currency for symbol in symbols):
                continue
            message = f"`{size.currency}` is neither the currency of the accounts nor the base asset of a symbol here"
            found.error("KS3075", path, message, f"write it in {currencies[0]}, or in units of the base asset")
            continue
        message = f"the accounts are in {', '.join(currencies)}, and this is in {size.currency}"
        found.error("KS3075", path, message, "write it in the currency of the accounts, or a document for each")


def _sizes(spec: LimitsSpec) -> Iterator[tuple[Path, Quantity, Sequence[str] | None]]:
    """Every size with its place, and the symbols that it is for."""
    for key, limits_ in (("order_size", spec.order_size), ("position_size", spec.position_size)):
        for number, each in enumerate(limits_):
            yield ("spec", key, number, "at_most"), each.at_most, each.symbols
    for key in _OF_THE_ACCOUNT:
        size: Quantity | None = getattr(spec, key)
        if size is not None:
            yield ("spec", key), size, None
    if spec.day is not None:
        for key, size in (("loss", spec.day.loss), ("fees", spec.day.fees)):
            if size is not None:
                yield ("spec", "day", key), size, None
