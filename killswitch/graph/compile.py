"""Documents → the executable graph of every policy, or every reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from killswitch.graph.checks import check
from killswitch.graph.columns import Columns
from killswitch.graph.digest import digest
from killswitch.graph.findings import Findings
from killswitch.graph.nodes import (
    CorrelationGroupRule,
    EquityRule,
    Graph,
    PolicySet,
    RankingRule,
    ScopeRule,
)
from killswitch.graph.references import accounts_exist, correlation_groups, declared_rankings
from killswitch.graph.stages import Surroundings, stage
from killswitch.graph.triggers import trigger
from killswitch.policy.diagnostics import Diagnostic, has_errors, in_order
from killswitch.policy.documents import PolicyDocument, PolicySpec
from killswitch.policy.loader import Document

OPERATOR = "operator"
"""Whose decisions are closes by hand: no policy may go by that name."""


def compile_policies(
    documents: Sequence[Document], commit: str | None = None
) -> tuple[PolicySet | None, tuple[Diagnostic, ...]]:
    """All policies compiled together, and what there is to say about them; None if any of that is an error.

    `commit` is the git commit that the documents come from, where there is one.
    """
    content = digest(documents)
    rankings, diagnostics = declared_rankings(documents)
    groups, of_groups = correlation_groups(documents)
    diagnostics += of_groups
    graphs: list[Graph] = []
    for document in sorted(documents, key=lambda each: each.name):
        if isinstance(document.model, PolicyDocument):
            found = Findings(document.source)
            accounts_exist(document.model.spec, documents, found)
            graph = _graph(document.name, document.model.spec, content, rankings, groups, found)
            diagnostics += found.diagnostics
            graphs += () if graph is None else (graph,)
    told = in_order(diagnostics)
    return (None if has_errors(told) else PolicySet(content, commit, tuple(graphs))), told


def _graph(
    name: str,
    policy: PolicySpec,
    content: str,
    rankings: Mapping[str, RankingRule],
    groups: tuple[CorrelationGroupRule, ...],
    found: Findings,
) -> Graph | None:
    """The graph of one policy; None when a trigger, a stage or a name in it is wrong."""
    if name == OPERATOR:
        message, fix = f"`{OPERATOR}` stands for people in the record of decisions", "give the policy another name"
        found.error("KS3012", ("metadata", "name"), message, fix)
    columns, position_columns = Columns(), Columns()
    compiled = {each: trigger(each, policy, columns, found) for each in policy.triggers}
    numbers = {each: number for number, each in enumerate(policy.triggers)}
    around = Surroundings(numbers, rankings, columns, position_columns, found, len(numbers))
    stages = [stage(number, written, around) for number, written in enumerate(policy.stages)]
    check(policy, list(compiled.values()), stages, around)
    triggers = [each for each in compiled.values() if each is not None]
    if len(triggers) < len(compiled) or has_errors(found.diagnostics):
        return None
    return Graph(
        policy=name,
        digest=content,
        mode=policy.mode,
        scope=_scope(policy),
        equity=_equity(policy),
        signals=columns.signals,
        position_signals=position_columns.signals,
        triggers=tuple(triggers),
        conditions=(*(each.condition for each in triggers), *(condition for _, condition in around.resets)),
        stages=tuple(sorted(stages, key=lambda each: -each.level)),
        rankings=tuple(rankings[each] for each in sorted(around.used_rankings)),
        groups=groups,
        place=found.place(("metadata", "name")),
    )


def _scope(policy: PolicySpec) -> ScopeRule:
    match = policy.scope.match
    return ScopeRule(policy.scope.each, match.account, match.venue, match.market, match.currency)


def _equity(policy: PolicySpec) -> EquityRule:
    return EquityRule(
        max_gap=policy.max_gap,
        tolerance=float(policy.unexplained.tolerance),
        flow_grace=policy.unexplained.flow_grace,
        stale_after=policy.stale_after,
    )
