"""Properties of a policy set that need no solver: routes of notices, and hedges against closes."""

from __future__ import annotations

from collections.abc import Iterator

from killswitch.graph.actions.close import Close, closes_among
from killswitch.graph.actions.kind import of_node
from killswitch.graph.actions.neutralise import Neutralise
from killswitch.graph.nodes import Graph, PolicySet, ScopeRule, Stage
from killswitch.graph.routing import MessageAttributes
from killswitch.graph.unwinding import unwinding_named
from killswitch.model.words import Severity
from killswitch.proof.verdicts import ProofVerdict

DELIVERED = "a notice of unknown signals is delivered"
NOT_OPENED = "no hedge and no spot hop opens what another policy closes"


def routes_deliver(policy_set: PolicySet) -> Iterator[ProofVerdict]:
    """In a set with routes, the notice of each trigger that stays unknown matches one of them."""
    for graph in policy_set.graphs if policy_set.routes else ():
        named = tuple(dict.fromkeys(name for stage in graph.stages for name in stage.notify))
        lost, limited = [], []
        for trigger in graph.triggers:
            severity: Severity = "warning" if trigger.on_unknown == "warn" else "page"
            found = [
                route
                for route in policy_set.routes
                if route.rule.matches(
                    MessageAttributes(
                        "notice", severity, graph.policy, route.rule.scopes[0] if route.rule.scopes else "", None,
                        named, graph.labels,
                    )
                )
            ]  # fmt: skip
            if not found:
                lost.append(trigger.name)
            elif all(route.rule.scopes for route in found):
                limited.append(trigger.name)
        if lost:
            text = f"no route accepts the notice that {', '.join(lost)} stay unknown"
            yield ProofVerdict(DELIVERED, graph.policy, "", "refuted", text)
        elif limited:
            text = f"only routes of named scopes accept the notices of {', '.join(limited)}: name no scope in one"
            yield ProofVerdict(DELIVERED, graph.policy, "", "undecided", text)
        else:
            yield ProofVerdict(DELIVERED, graph.policy, "", "proved", "a route accepts the notice of each trigger")


def nothing_reopened(policy_set: PolicySet) -> Iterator[ProofVerdict]:
    """A hedge that acts, and a hop of a spot route, opens nothing that another policy of an equal scope closes."""
    if len(policy_set.graphs) < 2:
        return
    clashes: dict[tuple[str, str, str, str], list[str]] = {}
    for graph in policy_set.graphs:
        for stage, account, symbol in _opened(policy_set, graph):
            for other in policy_set.graphs:
                if other is graph or not _may_share(graph.scope, other.scope, account):
                    continue
                for its, theirs in _closes(other):
                    if _covers(theirs, symbol):
                        key = (graph.policy, stage.name, other.policy, its.name)
                        clashes.setdefault(key, []).append(symbol)
    if clashes:
        for (policy, name, other_policy, its_name), symbols in clashes.items():
            opened = ", ".join(dict.fromkeys(symbols))
            text = f"{policy}/{name} may open {opened}, which {other_policy}/{its_name} closes"
            yield ProofVerdict(NOT_OPENED, policy, name, "refuted", text)
    else:
        yield ProofVerdict(NOT_OPENED, "", "", "proved", "no close of one policy opens what another one selects")


def _closes(graph: Graph) -> Iterator[tuple[Stage, Close]]:
    for stage in graph.stages:
        for close in closes_among(stage.actions):
            yield stage, close


def _opened(policy_set: PolicySet, graph: Graph) -> Iterator[tuple[Stage, str | None, str]]:
    """What a stage of the policy may open: the account (None: its own) and the symbol or asset."""
    for stage, close in _closes(graph):
        for account, symbol in _opens(policy_set, graph, close):
            yield stage, account, symbol
    for stage in graph.stages:
        for action in of_node(stage.actions, Neutralise):
            if action.open is not None:
                yield stage, action.open.account, action.open.instrument


def _opens(policy_set: PolicySet, graph: Graph, close: Close) -> Iterator[tuple[str | None, str]]:
    """What carrying out the close may open: the account (None: its own) and the symbol or asset."""
    rule = unwinding_named(close.unwinding, policy_set.unwindings)
    if rule.hedge.mode == "act":
        yield from ((each.account, each.symbol) for each in rule.hedge.instruments)
    markets = graph.scope.markets
    if markets is None or "spot" in markets:
        yield from ((None, asset) for asset in rule.spot.via if asset not in rule.spot.stables)


def _may_share(one: ScopeRule, other: ScopeRule, account: str | None) -> bool:
    """Whether an account may belong to both scopes; `account` names the one that is traded, None a spot account."""
    if account is not None:
        return other.accounts is None or account in other.accounts
    if other.markets is not None and "spot" not in other.markets:
        return False  # only holdings of spot accounts are sold by a hop
    pairs = (
        (one.accounts, other.accounts), (one.venues, other.venues), (one.markets, other.markets),
        (one.currencies, other.currencies),
    )  # fmt: skip
    return all(a is None or b is None or bool(set(a) & set(b)) for a, b in pairs)


def _covers(close: Close, symbol: str) -> bool:
    base = symbol.partition("/")[0]
    chosen = close.symbols is None or symbol in close.symbols or base in close.symbols
    return chosen and base not in close.except_assets
