"""Catastrophe stops: the accounts and symbols that each covers, and the legs of hedges whose stops belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import permutations
from typing import Final

from killswitch.graph.freezing import freeze
from killswitch.graph.nodes import CatastropheStopRule, StopTwin
from killswitch.graph.problems import FaultyDocuments, Findings
from killswitch.graph.resolution.references import (
    Documents,
    covered_accounts,
    diagnostics_of,
    named_accounts_exist,
    of_kind,
)
from killswitch.graph.resolution.strategies import hedge_groups
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import Document
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.catastrophe_stop import CatastropheStopDocument, CatastropheStopSpec
from killswitch.signals.arguments import HedgeLegs, LegOfHedge

CONTRACTS: Final = ("swap", "future")
"""Markets whose positions have an entry, a mark, and orders that can only reduce."""
ORDINARY: Final = Decimal("0.1")
"""Shortest distance that ordinary days do not reach: of positions held for a day in a calm month, 12% were hit at 5%,
2.3% at 10% and 0.6% at 20%."""


def catastrophe_stops(documents: Sequence[Document]) -> tuple[CatastropheStopRule, ...]:
    """All catastrophe stops, by name, with the names of their accounts and the hedges whose legs they pair."""
    groups = hedge_groups(documents)
    found = (
        freeze(
            document.spec,
            CatastropheStopRule,
            name=document.metadata.name,
            accounts=_names(document.spec, documents),
            twins=tuple(_twins(document.spec, documents, groups)),
            apart=tuple(_apart(document.spec, documents, groups)),
            place=found.place(("metadata", "name")),
        )
        for document, found in of_kind(documents, CatastropheStopDocument)
    )
    return tuple(sorted(found, key=lambda rule: rule.name))


def check_catastrophe_stops(everything: Documents, others: FaultyDocuments) -> list[Diagnostic]:
    """Report what no stop can be placed for, what two documents cover, and legs of hedges that would be left naked."""
    written = sorted(of_kind(everything, CatastropheStopDocument), key=lambda each: each[0].metadata.name)
    known = {each.name for each in everything if each.kind == "Account" and each.name is not None}
    groups = hedge_groups(everything)
    for number, (document, found) in enumerate(written):
        named_accounts_exist(document.spec.accounts, known, others, found)
        if found.gaps.has_flaw(("spec",)):
            continue
        covered = covered_accounts(document.spec.accounts, everything)
        _check_accounts(document.spec, covered, found, is_known=bool(known) and not others.has_unknown_kinds)
        for before, its_findings in written[:number]:
            if not its_findings.gaps.has_flaw(("spec",)):
                _check_apart(document, before, everything, found)
        _check_hedges(document.spec, everything, groups, found)
        if document.spec.distance < ORDINARY:
            message = f"a stop at {document.spec.distance:.0%} is reached on ordinary days, and closes positions then"
            fix = "write 10% or more; a stage with `close` limits losses that are not catastrophes"
            found.warning("KS5047", ("spec", "distance"), message, fix)
    return diagnostics_of(written)


def base_of(symbol: str) -> str:
    """The base asset in the name of a symbol: BTC of BTC/USDT:USDT, BTC_USDT, BTC-USDT-SWAP."""
    return symbol.replace("_", "/").replace("-", "/").partition("/")[0]


def _names(spec: CatastropheStopSpec, everything: Documents) -> tuple[str, ...]:
    return tuple(sorted(account.metadata.name for account in covered_accounts(spec.accounts, everything)))


def _check_accounts(
    spec: CatastropheStopSpec, covered: Sequence[AccountDocument], found: Findings, *, is_known: bool
) -> None:
    path = ("spec", "accounts")
    for account in covered:
        if account.spec.market not in CONTRACTS:
            what = f"`{account.metadata.name}` is a {account.spec.market} account, whose holdings have no entry"
            fix = (
                "take it out, or match `market: [swap, future]`; a stage with `close` watches it while the runner lives"
            )
            found.error("KS3056", path, f"{what} and no order that can only reduce", fix, key=True)
    observed = [account.metadata.name for account in covered if account.spec.execution == "observe"]
    if not covered and is_known and not isinstance(spec.accounts, tuple):
        message, fix = "no account of this policy set matches `accounts`", "loosen `accounts`, or remove the document"
        found.warning("KS5048", path, message, fix, key=True)
    elif observed and len(observed) == len(covered):
        message = f"{', '.join(f'`{name}`' for name in observed)}: only observed, so no stop is placed there"
        found.warning("KS5048", path, message, "write `execution: live` once it is to be acted on", key=True)


def _check_apart(
    one: CatastropheStopDocument, other: CatastropheStopDocument, everything: Documents, found: Findings
) -> None:
    """Report a position that two documents would place a stop for."""
    accounts = sorted({*_names(one.spec, everything)} & {*_names(other.spec, everything)})
    mine, theirs = one.spec.symbols, other.spec.symbols
    symbols = ["its positions"] if mine is None or theirs is None else sorted(set(mine) & set(theirs))
    if accounts and symbols:
        what = f"{symbols[0]} of `{accounts[0]}`" if mine and theirs else f"positions of `{accounts[0]}`"
        message = f"{what} are covered by `{other.metadata.name}` already, and two stops would close more than there is"
        found.error(
            "KS3053", ("spec", "accounts"), message, "narrow `accounts` or `symbols` of one of the two", key=True
        )


def _check_hedges(
    spec: CatastropheStopSpec, everything: Documents, groups: Mapping[str, HedgeLegs], found: Findings
) -> None:
    for group in groups.values():
        covered = _covered_legs(spec, everything, group)
        if not covered or spec.pairs == "accept":
            continue
        legs = " and ".join(f"{leg.symbol} of `{leg.account}`" for leg in group.legs)
        bases = {base_of(leg.symbol) for leg in group.legs}
        if len(bases) > 1:
            message = (
                f"the hedge `{group.name}` has legs of {' and '.join(sorted(bases))}: a stop on one leaves the other"
            )
            fix = "leave its legs out of `symbols`, or write `pairs: accept` if naked legs are accepted"
            found.error("KS3054", ("spec",), f"{message} naked", fix, key=True)
        elif spec.pairs is None:
            message = f"the hedge `{group.name}` ({legs}) would be left with one leg by the first stop"
            fix = "write `pairs: both` for orders at the same two prices, or leave its legs out of `symbols`"
            found.error("KS3054", ("spec",), message, fix, key=True)
        elif len(covered) < len(group.legs) or len(group.legs) != 2:
            message = f"not both legs of the hedge `{group.name}` ({legs}) are covered, so that none has an order"
            fix = "cover both legs of a hedge of two, or leave the hedge out of `symbols`"
            found.error("KS3055", ("spec", "pairs"), message, fix, key=True)


def _covered_legs(spec: CatastropheStopSpec, everything: Documents, group: HedgeLegs) -> list[LegOfHedge]:
    accounts = _names(spec, everything)
    return [leg for leg in group.legs if leg.account in accounts and (not spec.symbols or leg.symbol in spec.symbols)]


def _twins(spec: CatastropheStopSpec, everything: Documents, groups: Mapping[str, HedgeLegs]) -> Iterator[StopTwin]:
    for group in groups.values() if spec.pairs == "both" else ():
        legs = _covered_legs(spec, everything, group)
        if len(legs) == len(group.legs) == 2:
            for one, other in permutations(legs):
                yield StopTwin(one.account, one.symbol, other.account, other.symbol)


def _apart(spec: CatastropheStopSpec, everything: Documents, groups: Mapping[str, HedgeLegs]) -> Iterator[StopTwin]:
    """Each covered leg with every other one of its hedge, where naked legs are accepted."""
    for group in groups.values() if spec.pairs == "accept" else ():
        for leg in _covered_legs(spec, everything, group):
            for other in group.legs:
                if other is not leg:
                    yield StopTwin(leg.account, leg.symbol, other.account, other.symbol)
