"""References between documents: accounts, rankings, correlation groups, sessions, and the names of the set before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from killswitch.graph.expressions.arguments import Declarations
from killswitch.graph.freezing import freeze, frozen_from
from killswitch.graph.nodes import CorrelationGroupRule, RankingRule, RankingTerm
from killswitch.graph.problems import FaultyDocuments, Findings, suggestion
from killswitch.graph.wording import span
from killswitch.model.instant import HOUR, MINUTE
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import Document, FaultyDocument
from killswitch.policy.schema.account import AccountDocument, venue_of
from killswitch.policy.schema.policy import AnyPolicy, Match, PolicyDocument
from killswitch.policy.schema.ranking import (
    CorrelationGroupDocument,
    CorrelationGroupSpec,
    GroupEstimate,
    RankingDocument,
    RankingSpec,
)
from killswitch.policy.schema.session import SessionDocument, SessionSpec
from killswitch.policy.schema.validation import NO_GAPS
from killswitch.policy.yaml.source_map import Path
from killswitch.risk.correlation import cliques, is_correlation_matrix, pair
from killswitch.signals.arguments import HedgeLegs, SymbolGroup
from killswitch.signals.sessions import TradingSession

D = TypeVar("D")

Documents = Sequence[Document | FaultyDocument]
"""Documents, also faulty ones."""


def findings(document: Document | FaultyDocument) -> Findings:
    """Create the findings of a document."""
    return Findings(document.source, document.gaps if isinstance(document, FaultyDocument) else NO_GAPS)


def of_kind(everything: Iterable[Document | FaultyDocument], kind: type[D]) -> list[tuple[D, Findings]]:
    """The readable documents of a kind, each with its findings."""
    return [(each.model, findings(each)) for each in everything if isinstance(each.model, kind)]


def diagnostics_of(checked: Iterable[tuple[object, Findings]]) -> list[Diagnostic]:
    """All diagnostics of the documents, each with its findings."""
    return [each for _, found in checked for each in found.diagnostics]


def correlation_groups(documents: Documents) -> tuple[tuple[CorrelationGroupRule, ...], list[Diagnostic]]:
    """All correlation groups by order, then name. A symbol belongs to at most one group."""
    groups: list[CorrelationGroupRule] = []
    diagnostics: list[Diagnostic] = []
    for document in sorted(documents, key=lambda each: each.name or ""):
        name, found = document.name, findings(document)
        if not isinstance(document.model, CorrelationGroupDocument) or found.gaps.has_flaw(("spec", "symbols")):
            continue
        if name is None:
            continue
        spec = document.model.spec
        _check_owners(spec, groups, found)
        if not found.gaps.has_flaw(("spec", "correlations")):
            _check_correlations(spec, found)
        if not found.gaps.has_flaw(("spec", "estimate")):
            _check_estimate(spec.estimate, found)
        groups.append(freeze(spec, CorrelationGroupRule, name=name, correlations=_correlations(spec)))
        diagnostics += found.diagnostics
    return tuple(sorted(groups, key=lambda group: (group.order, group.name))), diagnostics


def _check_owners(spec: CorrelationGroupSpec, before: Iterable[CorrelationGroupRule], found: Findings) -> None:
    """Report symbols that an earlier group has, by name or by a pattern, and patterns that match one of its symbols."""
    for number, symbol in enumerate(spec.symbols):
        own = SymbolGroup("", (symbol,))
        owner = next((it for it in before if it.group.has(symbol) or any(map(own.has, it.symbols))), None)
        if owner is not None:
            message = f"`{symbol}` is already in the group `{owner.name}`"
            found.error("KS3013", ("spec", "symbols", number), message, "keep it in one of the two")


def _correlations(spec: CorrelationGroupSpec) -> tuple[tuple[str, str, float], ...]:
    return tuple(sorted((*pair(*each.between), float(each.value)) for each in spec.correlations or ()))


def _check_correlations(spec: CorrelationGroupSpec, found: Findings) -> None:
    """Report declared pairs of other symbols, and numbers that no returns can have together.

    A pair without a number may have any: only where all pairs of some symbols have one can the numbers contradict each
    other, so that each such set of symbols is checked that cannot be extended.
    """
    group = SymbolGroup("", spec.symbols)
    for number, each in enumerate(spec.correlations or ()):
        for place, symbol in enumerate(each.between):
            if not group.has(symbol):
                message = f"`{symbol}` is no symbol of the group"
                path: Path = ("spec", "correlations", number, "between", place)
                found.error("KS3062", path, message, "add it to `symbols`, or take the pair out")
    declared = {(one, other): value for one, other, value in _correlations(spec)}
    for names in cliques(declared):
        matrix = [[1.0 if a == b else declared[pair(a, b)] for b in names] for a in names]
        if not is_correlation_matrix(matrix):
            message = f"no returns have these correlations together: {', '.join(names)}"
            fix = "correct a number: what moves with both of two others cannot see these move apart"
            found.error("KS3061", ("spec", "correlations"), message, fix, key=True)
            return


def _check_estimate(estimate: GroupEstimate | None, found: Findings) -> None:
    """Report an estimate whose groups would change by chance, or can never be known."""
    if estimate is None:
        return
    if estimate.window < 24 * HOUR or estimate.least < LEAST_RETURNS:
        short = "window" if estimate.window < 24 * HOUR else "least"
        message = "of so short a sample 10 to 36% of the pairs change their group each hour by chance"
        fix = f"write `window: 24h` or more, and `least: {LEAST_RETURNS}` or more"
        found.error("KS3063", ("spec", "estimate", short), message, fix)
    elif estimate.window // estimate.every < estimate.least:
        message = f"{estimate.least} returns of {span(estimate.every)} do not fit into {span(estimate.window)}"
        fix = "lengthen the window, sample more often, or ask for fewer"
        found.error("KS3017", ("spec", "estimate", "least"), message, fix)


LEAST_RETURNS = 250
"""The least number of returns from which the groups of an estimate are more than chance."""


frozen_from(SessionSpec)(TradingSession)


def declarations(
    documents: Documents,
    groups: Iterable[CorrelationGroupRule],
    hedges: Mapping[str, HedgeLegs],
    others: FaultyDocuments,
) -> Declarations:
    """The declarations of sound documents. `groups`: the correlation groups; `others`: the faulty documents."""
    by_name = {each.name: each.group for each in groups}
    found = {"CorrelationGroup": by_name, "HedgeGroup": hedges, "Session": sessions(documents)}
    return Declarations(found, others)


def sessions(documents: Documents) -> Mapping[str, TradingSession]:
    """The sessions by name, without those of faulty documents."""
    found = of_kind(documents, SessionDocument)
    return {
        document.metadata.name: freeze(document.spec, TradingSession, name=document.metadata.name)
        for document, findings in found
        if not findings.gaps.has_flaw(())
    }


def declared_rankings(documents: Documents) -> tuple[dict[str, RankingRule], list[Diagnostic]]:
    """The built-in rankings and those of the documents, by name."""
    rankings = dict(BUILT_IN)
    diagnostics: list[Diagnostic] = []
    for document in documents:
        found = findings(document)
        if not isinstance(document.model, RankingDocument) or found.gaps.has_flaw(("spec", "weights")):
            continue
        spec = document.model.spec
        rule = freeze(spec, RankingRule, name=document.model.metadata.name, weights=_weights(spec))
        if rule.weights and not any(weight for _, weight in rule.weights):
            fix = "give at least one term a weight, or leave `weights` out"
            found.error("KS3014", ("spec", "weights"), "every weight is zero: this ranks nothing", fix)
        if rule.sample is not None and not found.gaps.has_flaw(("spec",)) and rule.window // rule.sample < rule.least:
            message = f"{rule.least} returns of {span(rule.sample)} do not fit into {span(rule.window)}"
            fix = "lengthen the window, sample more often, or ask for fewer"
            found.error("KS3017", ("spec", "least"), message, fix)
        diagnostics += found.diagnostics
        if isinstance(document, Document):
            rankings[document.name] = rule
    return rankings, diagnostics


def accounts_watched(everything: Documents, others: FaultyDocuments) -> list[Diagnostic]:
    """Warn of accounts in no policy's scope; nothing is reported if a scope is unreadable.

    One that margin is moved from needs no policy of its own.
    """
    policies = of_kind(everything, PolicyDocument)
    if others.has_unknown_kinds or any(found.gaps.has_flaw(("spec", "scope")) for _, found in policies):
        return []
    actions = [action for policy, _ in policies for stage in policy.spec.stages for action in stage.actions]
    sources = {action.top_up_margin.source for action in actions if action.top_up_margin is not None}
    accounts = of_kind(everything, AccountDocument)
    for account, found in accounts:
        if found.gaps.has_flaw(()) or any(matches(policy.spec.scope.match, account) for policy, _ in policies):
            continue
        if account.metadata.name in sources:
            continue
        message = f"no policy watches the account `{account.metadata.name}`"
        about = f"market {account.spec.market}, venue {venue_of(account.spec)}, currency {account.spec.currency}"
        fix = f"add a Policy whose scope takes it in ({about}); policies/ has some to start from"
        if policies:
            fix = f"widen a policy's `scope.match` to take it in ({about}), add a policy, or take the account out"
        found.warning("KS5010", ("metadata", "name"), message, fix)
    return diagnostics_of(accounts)


def matches(match: Match, account: AccountDocument) -> bool:
    """Whether the account matches, as the runner selects the accounts of a scope."""
    held = (
        (match.account, account.metadata.name),
        (match.venue, venue_of(account.spec)),
        (match.market, account.spec.market),
        (match.currency, account.spec.currency),
    )
    return all(wanted is None or value in wanted for wanted, value in held)


def accounts_exist(policy: AnyPolicy, documents: Sequence[Document], others: FaultyDocuments, found: Findings) -> None:
    """Warn of unknown accounts; without Account documents the names are those of a recording."""
    known = [document.name for document in documents if document.kind == "Account"]
    named = policy.scope.match.account
    if named is None or not (known or others.can_have("Account")):
        return
    for number, account in enumerate(named):
        path = ("spec", "scope", "match", "account", number)
        if account not in known and not others.can_have("Account", account) and not found.gaps.is_hole(path):
            fix = suggestion(account, known) or "add the Account, or correct the name"
            found.warning("KS5006", path, f"there is no Account `{account}`", fix)


def named_accounts_exist(
    wanted: tuple[str, ...] | Match, known: set[str], others: FaultyDocuments, found: Findings
) -> None:
    """Report accounts that are named under `accounts` and do not exist."""
    for number, name in enumerate(wanted if isinstance(wanted, tuple) else ()):
        path = ("spec", "accounts", number)
        if name not in known and not others.can_have("Account", name) and not found.gaps.is_hole(path):
            fix = suggestion(name, sorted(known)) or "correct the name, or add the Account"
            found.error("KS3040", path, f"there is no Account `{name}`", fix)


def covered_accounts(wanted: tuple[str, ...] | Match, everything: Documents) -> list[AccountDocument]:
    """The accounts under `accounts`: the named ones, or those that match."""
    accounts = [account for account, _ in of_kind(everything, AccountDocument)]
    if isinstance(wanted, tuple):
        return [each for each in accounts if each.metadata.name in wanted]
    return [each for each in accounts if matches(wanted, each)]


SEED_TERMS: tuple[RankingTerm, ...] = ("pnl_delta", "loss", "liquidation_proximity", "notional_share", "margin_loss")
TERMS: tuple[RankingTerm, ...] = (*SEED_TERMS, "bleed_rate")

SEED_WEIGHTS: tuple[tuple[RankingTerm, float], ...] = tuple(
    zip(SEED_TERMS, (0.40, 0.25, 0.20, 0.10, 0.05), strict=True)
)
"""0.40 × P&L delta + 0.25 × loss + 0.20 × liquidation proximity + 0.10 × notional share + 0.05 × margin loss."""

BUILT_IN: dict[str, RankingRule] = {
    "default": RankingRule("default", "normalised", SEED_WEIGHTS, 15 * MINUTE),
    "killswitch-v6": RankingRule("killswitch-v6", "killswitch-v6", SEED_WEIGHTS, 15 * MINUTE),
    # Four hours of minutes reflect current conditions. Thirty returns suffice to start, because the covariance is
    # shrunk; the 48 five-minute bars of four hours suffice too.
    "component-risk": RankingRule(
        "component-risk", "component-risk", SEED_WEIGHTS, 4 * HOUR, sample=MINUTE, least=30, if_unknown="normalised"
    ),
    "genesis": RankingRule("genesis", "genesis", (), 4 * HOUR, sample=MINUTE, least=30),
}


def _weights(spec: RankingSpec) -> tuple[tuple[RankingTerm, float], ...]:
    if spec.formula == "genesis":
        return ()
    if spec.weights is None:
        return SEED_WEIGHTS
    weights = {term: float(getattr(spec.weights, term)) for term in TERMS}
    # a term outside the seed that has no weight leaves the graph, and so its digest, as it was
    return tuple((term, weight) for term, weight in weights.items() if weight or term in SEED_TERMS)


_Claim = tuple[str, str | None, Findings, Path]
"""A name, the former name that it claims, and where that is written. What is in force moves with a declared rename when
a runner reloads, so that a former name must not leave open which of two continues it."""


def check_former_policies(everything: Documents, _others: FaultyDocuments) -> list[Diagnostic]:
    """Report former names of policies that are still in use, or claimed twice."""
    written = sorted(of_kind(everything, PolicyDocument), key=lambda each: each[0].metadata.name)
    claims = [
        (document.metadata.name, document.spec.formerly, found, ("spec", "formerly"))
        for document, found in written
        if not found.gaps.is_hole(("spec", "formerly"))
    ]
    _check("policy", claims)
    return diagnostics_of(written)


def check_former_parts(policy: AnyPolicy, found: Findings) -> None:
    """Report former names of stages and triggers that are still in use, or claimed twice, in one policy."""
    stages: Sequence[_Claim] = [
        (stage.name, stage.formerly, found, ("spec", "stages", number, "formerly"))
        for number, stage in enumerate(policy.stages)
    ]
    triggers: Sequence[_Claim] = [
        (name, trigger.formerly, found, ("spec", "triggers", name, "formerly"))
        for name, trigger in policy.triggers.items()
    ]
    _check("stage", [each for each in stages if not found.gaps.is_hole(each[3])])
    _check("trigger", [each for each in triggers if not found.gaps.is_hole(each[3])])


def _check(what: str, claims: Iterable[_Claim]) -> None:
    claims = tuple(claims)
    kept = {name for name, former, _, _ in claims if former is None}
    claimed: dict[str, str] = {}
    for name, former, found, path in claims:
        if former is None:
            continue
        first = claimed.setdefault(former, name)
        if former == name:
            fix = "name the one that it had before, or remove `formerly`"
            found.error("KS8401", path, f"the {what} `{name}` has this name still", fix)
        elif former in kept:
            fix = "correct the name, or give the other one its own `formerly` if the two have changed places"
            found.error("KS8401", path, f"there is still a {what} `{former}`", fix)
        elif first != name:
            message = f"the {what} `{first}` was formerly `{former}`, too"
            found.error("KS8402", path, message, "one of the two continues it: remove the other `formerly`")
