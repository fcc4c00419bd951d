"""Strategies, hedge groups, and the scopes that are drawn by a strategy, a symbol or a label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from killswitch.graph.freezing import freeze
from killswitch.graph.nodes import ConditionNode, ScopeRule, StrategyRule
from killswitch.graph.problems import FaultyDocuments, Findings, unknown_name
from killswitch.graph.resolution.references import Documents, diagnostics_of, matches, of_kind
from killswitch.graph.resolution.triggers import SignalIndex
from killswitch.graph.wording import signals_of
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.policy import AnyPolicy
from killswitch.policy.schema.strategy import HedgeGroupDocument, StrategyDocument
from killswitch.policy.yaml.source_map import Path
from killswitch.signals.arguments import HedgeLegs, LegOfHedge
from killswitch.signals.catalogue import BY_NAME


def strategies(documents: Documents) -> tuple[StrategyRule, ...]:
    """All readable strategies, by name."""
    found = (
        freeze(each.spec, StrategyRule, name=each.metadata.name)
        for each, findings in of_kind(documents, StrategyDocument)
        if not findings.gaps.has_flaw(("spec",))
    )
    return tuple(sorted(found, key=lambda rule: rule.name))


def hedge_groups(documents: Documents) -> dict[str, HedgeLegs]:
    """All readable hedge groups, by name."""
    return {
        each.metadata.name: HedgeLegs(
            each.metadata.name, tuple(LegOfHedge(leg.account, leg.symbol, leg.ratio) for leg in each.spec.legs)
        )
        for each, findings in of_kind(documents, HedgeGroupDocument)
        if not findings.gaps.has_flaw(("spec",))
    }


def check_strategies(everything: Documents, others: FaultyDocuments) -> list[Diagnostic]:
    """Report strategies that cannot be distinguished on an account, and legs of hedges without an Account."""
    written = sorted(of_kind(everything, StrategyDocument), key=lambda each: each[0].metadata.name)
    rules = {rule.name: rule for rule in strategies(everything)}
    for number, (document, found) in enumerate(written):
        own = rules.get(document.metadata.name)
        for before, _ in written[:number] if own is not None else ():
            other = rules.get(before.metadata.name)
            if own is not None and other is not None and own.may_meet(other):
                _check_apart(own, other, found)
    hedges = of_kind(everything, HedgeGroupDocument)
    known = {each.name for each in everything if each.kind == "Account" and each.name is not None}
    for hedge, found in hedges:
        for number, leg in enumerate(hedge.spec.legs if not found.gaps.has_flaw(("spec", "legs")) else ()):
            if known and leg.account not in known and not others.can_have("Account", leg.account):
                path: Path = ("spec", "legs", number, "account")
                message, fix = unknown_name("Account", leg.account, sorted(known))
                found.warning("KS5061", path, f"{message}: the hedge stays unknown", fix)
    return diagnostics_of([*written, *hedges])


def _check_apart(own: StrategyRule, other: StrategyRule, found: Findings) -> None:
    """Report what both of two strategies that may share an account claim."""
    if own.whole or other.whole:
        message = f"`{own.name}` and `{other.name}` share accounts, and one of them owns all that is there"
        found.error("KS3080", ("spec", "match"), message, "narrow `match` of one, or take `whole` out", key=True)
        return
    for key, mine, theirs in (
        ("symbols", own.symbols, other.symbols),
        ("named", own.named, other.named),
    ):
        if common := sorted(set(mine) & set(theirs)):
            message = f"`{common[0]}` is declared by `{other.name}` as well, on the same accounts"
            found.error("KS3080", ("spec", key), message, "keep it in one of the two, or narrow `match`", key=True)
    for prefix in own.order_prefixes:
        same = next((it for it in other.order_prefixes if it.startswith(prefix) or prefix.startswith(it)), None)
        if same is not None:
            message = f"ids that begin with `{max(prefix, same, key=len)}` belong to `{other.name}` as well"
            fix = "give the strategies ids of which none begins with another's"
            found.error("KS3080", ("spec", "order_ids"), message, fix, key=True)


def scope_rule(policy: AnyPolicy, everything: Documents, others: FaultyDocuments, found: Findings) -> ScopeRule:
    """The scopes of a policy; unknown names, and scopes that watch nothing, are reported."""
    scope, path = policy.scope, ("spec", "scope")
    chosen: tuple[StrategyRule, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    if scope.each == "strategy" and not found.gaps.has_flaw(path):
        known = {rule.name: rule for rule in strategies(everything)}
        for number, name in enumerate(scope.strategy or ()):
            if name not in known and not others.can_have("Strategy", name):
                message, fix = unknown_name("Strategy", name, sorted(known))
                found.error("KS3082", (*path, "strategy", number), message, fix)
        if not known and not others.can_have("Strategy"):
            message = "there is no `Strategy`, so that this policy watches nothing"
            found.error("KS3082", (*path, "each"), message, "add a Strategy for each, or write `each: account`")
        chosen = tuple(rule for name, rule in known.items() if scope.strategy is None or name in scope.strategy)
    if scope.each == "label" and scope.label is not None and not found.gaps.has_flaw(path):
        accounts = [each for each, _ in of_kind(everything, AccountDocument) if matches(scope.match, each)]
        labels = tuple(
            (each.metadata.name, f"{scope.label}={each.metadata.labels[scope.label]}")
            for each in sorted(accounts, key=lambda one: one.metadata.name)
            if scope.label in each.metadata.labels
        )
        if not labels and not others.can_have("Account"):
            message = f"no Account of the scope has the label `{scope.label}`, so that this policy watches nothing"
            found.warning("KS5060", (*path, "label"), message, f"add `labels: {{{scope.label}: …}}` to the accounts")
    return freeze(scope, ScopeRule, strategies=chosen, labels=labels)


def check_equity(
    rule: ScopeRule, conditions: Iterable[tuple[Path, ConditionNode]], columns: SignalIndex, found: Findings
) -> None:
    """Report conditions that need an equity where a scope has none."""
    without = without_equity(rule)
    if without is None:
        return
    for path, condition in conditions:
        names = [columns.signals[index].name for index in sorted(signals_of(condition))]
        needing = next((name for name in names if BY_NAME[name].needs_equity), None)
        if needing is not None:
            message = f"`{needing}` needs an equity, and {without}"
            fix = (
                "use a signal of positions, such as `exposure.gross`, or `each: account`; a Strategy with "
                "`whole: true` has the equity of its accounts"
            )
            found.error("KS3081", path, message, fix)


def without_equity(rule: ScopeRule) -> str | None:
    """Which scopes of the rule have no equity of their own, or None."""
    if rule.each == "symbol":
        return "a symbol has none of its own"
    shared = next((it.name for it in rule.strategies if not it.whole), None)
    return None if shared is None else f"the strategy `{shared}` shares its accounts, and has none of its own"


def scopes_of_account(policy: AnyPolicy, account: AccountDocument, venue: str, rule: ScopeRule) -> Iterator[str]:
    """In words, the scopes of several accounts that the account is in."""
    name, spec = account.metadata.name, account.spec
    match policy.scope.each:
        case "portfolio":
            yield "the portfolio"
        case "venue":
            yield f"the venue {venue}"
        case "strategy":
            for each in rule.strategies:
                if each.covers(name, venue, spec.market, spec.currency):
                    yield f"the strategy {each.name}"
        case "symbol":
            yield "each symbol"
        case "label":
            yield from (f"the label {label}" for member, label in rule.labels if member == name)
