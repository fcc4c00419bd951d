"""Documents → the executable graph of every policy, or every reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from killswitch.graph.accounts import check_accounts
from killswitch.graph.checks import check
from killswitch.graph.columns import Columns
from killswitch.graph.currencies import check_currencies, check_reference
from killswitch.graph.deadman import check_timers, timers
from killswitch.graph.digest import digest
from killswitch.graph.findings import Findings
from killswitch.graph.idle import check_idle
from killswitch.graph.nodes import (
    CorrelationGroupRule,
    EquityRule,
    Graph,
    PolicySet,
    RankingRule,
    ScopeRule,
)
from killswitch.graph.others import NO_OTHERS, Others
from killswitch.graph.references import (
    accounts_exist,
    accounts_watched,
    correlation_groups,
    declared_rankings,
    findings,
)
from killswitch.graph.routes import check_routes, routes
from killswitch.graph.stages import Surroundings, stage
from killswitch.graph.triggers import trigger
from killswitch.graph.unwindings import check_unwindings, unwindings
from killswitch.graph.variants import selecting, variants
from killswitch.model.record import Record, record
from killswitch.model.reference_currency import ReferenceCurrency
from killswitch.policy.diagnostics import Diagnostic, has_errors, in_order
from killswitch.policy.documents import PolicyDocument, PolicySpec
from killswitch.policy.loader import Document, Faulty, Loaded

OPERATOR = "operator"
"""Whose decisions are closes by hand: no policy may go by that name."""


def compile_policies(
    documents: Sequence[Document], commit: str | None = None, *, variant: str | None = None
) -> tuple[PolicySet | None, tuple[Diagnostic, ...]]:
    """All policies compiled together, and what there is to say about them; None if any of that is an error.

    `commit` is the git commit that the documents come from, where there is one. `variant` is selected in every policy
    that declares it, as if its text said so; NoSuchVariantError if none does. Without it the text selects.
    """
    if variant is not None:
        documents = selecting(variant, documents)
    content = digest(documents)
    graphs, told = _compiled(documents, (), NO_OTHERS, content)
    if has_errors(told):
        return None, told
    return PolicySet(content, commit, graphs, routes(documents), unwindings(documents), timers(documents)), told


def compile_loaded(
    loaded: Loaded, commit: str | None = None, *, variant: str | None = None
) -> tuple[PolicySet | None, tuple[Diagnostic, ...]]:
    """As `compile_policies`, with everything that loading had to say, and that can be said of faulty documents.

    What of these could be read is checked like the rest, so that one pass finds every mistake; no policy set is
    made where anything is wrong. Nothing is said that only follows from what could not be read.
    """
    if not has_errors(loaded.diagnostics):
        policy_set, told = compile_policies(loaded.documents, commit, variant=variant)
        return policy_set, in_order((*loaded.diagnostics, *told))
    names: dict[str, frozenset[str] | None] = {}
    for kind, name, *_ in loaded.faulty:
        before = names.get(kind, frozenset())
        names[kind] = None if before is None or name is None else before | {name}
    _, told = _compiled(loaded.documents, loaded.faulty, Others(names, loaded.lost), "")
    return None, in_order((*loaded.diagnostics, *told))


def _compiled(
    documents: Sequence[Document], faulty: Sequence[Faulty], others: Others, content: str
) -> tuple[tuple[Graph, ...], tuple[Diagnostic, ...]]:
    """The graphs of the sound policies, and what there is to say about all of them; none where others are faulty."""
    rankings, diagnostics = declared_rankings((*documents, *faulty))
    groups, of_groups = correlation_groups((*documents, *faulty))
    diagnostics += of_groups
    graphs: list[Graph] = []
    unwinding_names = frozenset(each.name for each in documents if each.kind == "Unwinding")
    everything: tuple[Document | Faulty, ...] = (*documents, *faulty)
    for document in sorted(everything, key=lambda each: each.name or ""):
        if isinstance(document.model, PolicyDocument):
            found = findings(document)
            accounts_exist(document.model.spec, documents, others, found)
            check_currencies(document.model.spec, documents, found)
            check_reference(document.model.spec, documents, others, found)
            check_idle(document.model.spec, found)
            around = Around(content, rankings, groups, others, unwinding_names)
            graph = _graph(document.model, around, found)
            diagnostics += found.diagnostics
            graphs += () if graph is None else (graph,)
    diagnostics += accounts_watched(everything, others)
    diagnostics += check_routes(everything, others)
    diagnostics += check_unwindings(everything, others)
    diagnostics += check_timers(everything, others)
    diagnostics += check_accounts(everything)
    return tuple(graphs), in_order(diagnostics)


@record
class Around(Record):
    """What one policy takes from the others' documents. An empty `content` is that of no policy set."""

    content: str
    rankings: Mapping[str, RankingRule]
    groups: tuple[CorrelationGroupRule, ...]
    others: Others
    unwindings: frozenset[str]


def _graph(document: PolicyDocument, others: Around, found: Findings) -> Graph | None:
    """The graph of one policy; None when a trigger, a stage or a name in it is wrong."""
    name, policy, rankings = document.metadata.name, document.spec, others.rankings
    if name == OPERATOR:
        message, fix = f"`{OPERATOR}` stands for people in the record of decisions", "give the policy another name"
        found.error("KS3012", ("metadata", "name"), message, fix)
    columns, position_columns = Columns(), Columns()
    compiled = {each: trigger(each, policy, columns, found) for each in policy.triggers}
    numbers = {each: number for number, each in enumerate(policy.triggers)}
    around = Surroundings(
        numbers, rankings, others.unwindings, others.others, columns, position_columns, found, len(numbers)
    )
    stages = [stage(number, written, around) for number, written in enumerate(policy.stages)]
    check(policy, list(compiled.values()), stages, around)
    varied = variants(policy, compiled, stages, around)
    chosen = compiled if policy.variant is None else varied.get(policy.variant, compiled)
    triggers = [each for each in chosen.values() if each is not None]
    if not others.content or len(triggers) < len(compiled) or has_errors(found.diagnostics):
        return None
    return Graph(
        policy=name,
        digest=others.content,
        mode=policy.mode,
        scope=_scope(policy),
        equity=_equity(policy),
        signals=columns.signals,
        position_signals=position_columns.signals,
        triggers=tuple(triggers),
        conditions=(*(each.condition for each in triggers), *(condition for _, condition in around.resets)),
        stages=tuple(sorted(stages, key=lambda each: -each.level)),
        rankings=tuple(rankings[each] for each in sorted(around.used_rankings)),
        groups=others.groups,
        place=found.place(("metadata", "name")),
        variant=policy.variant,
        labels=tuple(sorted(document.metadata.labels.items())),
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
        closes_unexplained=policy.on_unexplained == "close",
        locks_on_suspicion=policy.on_suspicion == "lock",
        reference=_reference(policy),
    )


def _reference(policy: PolicySpec) -> ReferenceCurrency | None:
    written = policy.reference
    if written is None:
        return None
    declared = tuple(sorted(written.otherwise.items()))
    return ReferenceCurrency(written.currency, written.rates_from, written.within, declared)
