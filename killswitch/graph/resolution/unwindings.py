"""Unwindings of a policy set with resolved names, and checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from killswitch.graph.freezing import freeze
from killswitch.graph.problems import FaultyDocuments, Findings, suggestion, unknown_name
from killswitch.graph.resolution.references import Documents, diagnostics_of, findings, of_kind
from killswitch.graph.unwinding import SlippageRule, UnwindingRule
from killswitch.graph.wording import percent
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import Document
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.policy import PolicyDocument
from killswitch.policy.schema.ranking import CorrelationGroupDocument
from killswitch.policy.schema.unwinding import UnwindingDocument, UnwindingSpec
from killswitch.policy.yaml.source_map import Path

DEFAULT = "default"
"""Unwinding of a close that names none, if there is a document of this name."""

Written = tuple[UnwindingDocument, Findings]

Groups = dict[str, tuple[str, ...]]
"""Name of a correlation group → its symbols."""


def unwindings(documents: Sequence[Document]) -> tuple[UnwindingRule, ...]:
    """All unwindings, by name."""
    groups = _groups(documents)
    rules = (_rule(document, groups) for document, _ in of_kind(documents, UnwindingDocument))
    return tuple(sorted(rules, key=lambda rule: rule.name))


def unwinding_name(written: str | None, known: Iterable[str]) -> str | None:
    """Name of the unwinding of a close with `written`; `default` if it names none and `default` is known."""
    return DEFAULT if written is None and DEFAULT in known else written


def check_unwindings(everything: Documents, others: FaultyDocuments) -> list[Diagnostic]:
    """Report faults of unwindings beyond their own keys, and settings that are probably not intended."""
    written = sorted(of_kind(everything, UnwindingDocument), key=lambda each: each[0].metadata.name)
    accounts = {each.name for each in everything if each.kind == "Account" and each.name is not None}
    policies = any(each.kind == "Policy" for each in everything)
    groups = _groups(everything)
    _check_reasons(written)
    for document, found in written:
        _check_groups(document.spec, groups, others, found)
        _accounts_exist(document.spec, accounts, others, found, warn=policies)
        _check_hedge_currency(document.spec, everything, found)
        if not found.gaps.has_flaw(("spec", "slippage")):
            _check_slippage_classes(document.spec, groups, found)
            if not found.gaps.has_flaw(("spec", "ladder")):
                _check_limits(document.spec, found)
        if not found.gaps.has_flaw(("spec", "ladder")):
            _check_exit(document.spec, found)
    _all_used(written, everything, others)
    return diagnostics_of(written)


def _groups(everything: Documents) -> Groups:
    """Group name → symbols, for readable groups."""
    return {
        each.name: each.model.spec.symbols
        for each in everything
        if isinstance(each.model, CorrelationGroupDocument)
        and each.name is not None
        and not findings(each).gaps.has_flaw(("spec", "symbols"))
    }


def _check_reasons(written: Sequence[Written]) -> None:
    owners: dict[str, str] = {}
    for document, found in written:
        for number, reason in enumerate(document.spec.reasons):
            path: Path = ("spec", "reasons", number)
            if found.gaps.is_hole(path) or found.gaps.is_hole(("metadata", "name")):
                continue
            owner = owners.setdefault(reason, document.metadata.name)
            if owner != document.metadata.name:
                message = f"closes for the reason `{reason}` are already carried out by `{owner}`"
                found.error("KS3031", path, message, "keep the reason in one of the two")


def _check_groups(spec: UnwindingSpec, groups: Groups, others: FaultyDocuments, found: Findings) -> None:
    for number, each in enumerate(spec.slippage):
        path: Path = ("spec", "slippage", number, "group")
        if each.group is None or each.group in groups or found.gaps.has_flaw(path):
            continue
        if not others.can_have("CorrelationGroup", each.group):
            message, fix = unknown_name("correlation group", each.group, groups)
            found.error("KS3032", path, message, fix)


def _accounts_exist(
    spec: UnwindingSpec, accounts: set[str], others: FaultyDocuments, found: Findings, *, warn: bool
) -> None:
    """Report hedges on unknown accounts; a warning in a policy set without Account documents."""
    is_reported = not warn
    for number, each in enumerate(() if spec.hedge is None else spec.hedge.stand_ins):
        path: Path = ("spec", "hedge", "with", number, "account")
        if each.account in accounts or others.can_have("Account", each.account) or found.gaps.is_hole(path):
            continue
        if accounts or others.can_have("Account"):
            fix = suggestion(each.account, accounts) or "add the Account, or correct the name"
            found.error("KS3033", path, f"there is no Account `{each.account}`", fix)
        elif not is_reported:
            message = f"`{each.account}` is not described: this set has no Account"
            found.warning("KS5030", path, message, "add the Account documents; without them nothing can be hedged")
            is_reported = True


def _check_hedge_currency(spec: UnwindingSpec, everything: Documents, found: Findings) -> None:
    """Report a hedge bound that is not in the currency of its accounts."""
    hedge, path = spec.hedge, ("spec", "hedge", "max_notional")
    if hedge is None or hedge.max_notional is None or found.gaps.is_hole(path):
        return
    named = {each.account for each in hedge.stand_ins}
    for account, of_account in of_kind(everything, AccountDocument):
        name, currency = account.metadata.name, account.spec.currency
        right = currency == hedge.max_notional.currency or of_account.gaps.is_hole(("spec", "currency"))
        if name in named and not right:
            message = f"the account `{name}` is in {currency}, not in {hedge.max_notional.currency}"
            found.error("KS3035", path, message, f"write the bound in {currency}, or take the account out of `with`")
            return


def _check_slippage_classes(spec: UnwindingSpec, groups: Groups, found: Findings) -> None:
    """Warn of slippage classes that are covered by earlier classes."""
    covered: set[str] = set()
    everything = False
    for number, each in enumerate(spec.slippage):
        symbols = groups.get(each.group) if each.group is not None else each.symbols
        if each.group is not None and symbols is None:
            continue
        if everything or (symbols is not None and covered >= set(symbols)):
            message = "this bound never applies: earlier classes cover all that it covers"
            path: Path = ("spec", "slippage", number, "at_most")
            found.warning("KS5032", path, message, "write the narrower classes first, or take it out", key=True)
        covered |= set(symbols or ())
        everything |= symbols is None


def _check_limits(spec: UnwindingSpec, found: Findings) -> None:
    limited = [(number, step) for number, step in enumerate(spec.ladder) if step.order != "market"]
    if limited and not spec.slippage and not found.gaps.is_hole(("spec", "slippage")):
        message = "the limits of these rungs are multiples of a `slippage` bound, and there is none"
        found.warning("KS5033", ("spec", "ladder"), message, "add `slippage: [{at_most: 2%}]`", key=True)
    widest = max((step.widen for _, step in limited), default=None)
    for place, each in enumerate(spec.slippage):
        if widest is not None and each.at_most * widest >= 1:
            message = f"{widest:f} × {percent(each.at_most)} is no limit: a sale at zero or below"
            fix = "lower the bound, or widen less; what is to go at any price is a `market` rung"
            found.error("KS3034", ("spec", "slippage", place, "at_most"), message, fix)


def _check_exit(spec: UnwindingSpec, found: Findings) -> None:
    if spec.ladder and spec.ladder[-1].order == "limit" and all(step.order != "market" for step in spec.ladder):
        message = "no rung leaves at any price: beyond the last limit the position stays open"
        found.warning("KS5034", ("spec", "ladder"), message, "add `{order: market}` before the last rung", key=True)


def _all_used(written: Sequence[Written], everything: Documents, others: FaultyDocuments) -> None:
    """Warn of unused unwindings; nothing is reported if a policy's closes are unreadable."""
    policies = of_kind(everything, PolicyDocument)
    is_unreadable = any(found.gaps.has_flaw(("spec", "stages")) for _, found in policies)
    if not policies or is_unreadable or others.has_unknown_kinds:
        return
    actions = [action for policy, _ in policies for stage in policy.spec.stages for action in stage.actions]
    used = {getattr(part, "unwinding", None) for action in actions for part in action.written.values()} | {DEFAULT}
    for document, found in written:
        name, path = document.metadata.name, ("metadata", "name")
        claims = document.spec.reasons or found.gaps.is_hole(("spec", "reasons"))
        if name not in used and not claims and not found.gaps.has_flaw(path):
            message = f"no close names the unwinding `{name}`, and it claims no reason"
            fix = f"write `unwinding: {name}` in a close, claim a reason, or take it out"
            found.warning("KS5031", path, message, fix)


def _rule(document: UnwindingDocument, groups: Groups) -> UnwindingRule:
    slippage = tuple(
        freeze(each, SlippageRule, symbols=each.symbols if each.group is None else groups.get(each.group, ()))
        for each in document.spec.slippage
    )
    return freeze(document.spec, UnwindingRule, name=document.metadata.name, slippage=slippage)
