"""Compiler: turns documents into the executable graph of every policy and a digest, or into diagnostics.

Comments, key order, file layout, quoting, and the spelling of a value (`4.5%` or `0.045`, `90s` or `1m30s`, a default
written or omitted) do not change the digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from hashlib import sha256

from killswitch.graph.actions.kind import Surroundings
from killswitch.graph.actions.neutralise import net_exposure
from killswitch.graph.actions.registry import kind_named
from killswitch.graph.analysis.checks import check, check_idle
from killswitch.graph.analysis.cuts import check_cuts, check_top_ups
from killswitch.graph.freezing import freeze
from killswitch.graph.nodes import (
    Action,
    AutoReset,
    CorrelationGroupRule,
    EquityRule,
    Graph,
    PolicySet,
    ScopeRule,
    Stage,
)
from killswitch.graph.problems import NO_FAULTY_DOCUMENTS, FaultyDocuments, unknown_name
from killswitch.graph.resolution.accounts import check_accounts, check_currencies, check_priced, check_reference
from killswitch.graph.resolution.catastrophe_stops import catastrophe_stops, check_catastrophe_stops
from killswitch.graph.resolution.dead_man import check_switches, silences, timers
from killswitch.graph.resolution.limits import check_limits, limits
from killswitch.graph.resolution.notification import (
    check_notification,
    check_services,
    message_silences,
    notification_root,
)
from killswitch.graph.resolution.recovery import (
    PlanOfPolicy,
    check_recovery,
    health_condition,
    plans,
    recovery_rule,
)
from killswitch.graph.resolution.references import (
    accounts_exist,
    accounts_watched,
    check_former_parts,
    check_former_policies,
    correlation_groups,
    declarations,
    declared_rankings,
    findings,
)
from killswitch.graph.resolution.routes import check_routes, routes
from killswitch.graph.resolution.strategies import (
    check_equity,
    check_strategies,
    hedge_groups,
    scope_rule,
    strategies,
)
from killswitch.graph.resolution.triggers import SignalIndex, condition_places, expression, trigger
from killswitch.graph.resolution.unwindings import check_unwindings, unwindings
from killswitch.graph.variants import selecting, variants
from killswitch.model.instant import LocalTime, rfc3339
from killswitch.policy.diagnostics.diagnostic import Diagnostic, has_errors, in_order
from killswitch.policy.kinds import TESTS
from killswitch.policy.loader import Document, FaultyDocument, LoadedDocuments
from killswitch.policy.schema.expectation import AtMost
from killswitch.policy.schema.part import Part, keys_of
from killswitch.policy.schema.policy import AutoReset as WrittenReset
from killswitch.policy.schema.policy import BreakerSpec, PolicyDocument
from killswitch.policy.schema.policy import Stage as WrittenStage
from killswitch.policy.schema.scalars import Confirm, Quantity
from killswitch.policy.yaml.source_map import Path
from killswitch.signals.arguments import HedgeLegs

OPERATOR = "operator"
"""Policy name of manual closes; no policy may have it."""


def compile_policies(
    documents: Sequence[Document], commit: str | None = None, *, variant: str | None = None
) -> tuple[PolicySet | None, tuple[Diagnostic, ...]]:
    """Compile all policies together; the policy set is None if any diagnostic is an error.

    `commit`: the git commit of the documents, if any. `variant` overrides the selected variant of every policy that
    declares it; NoSuchVariantError if none does.
    """
    if variant is not None:
        documents = selecting(variant, documents)
    content = digest(documents)
    graphs, diagnostics = _compiled(documents, (), NO_FAULTY_DOCUMENTS, content)
    if has_errors(diagnostics):
        return None, diagnostics
    of_sets = silences(documents), limits(documents), catastrophe_stops(documents)
    found = routes(documents), unwindings(documents), timers(documents), strategies(documents), *of_sets
    notified = notification_root(documents), message_silences(documents)
    return PolicySet(content, commit, graphs, *found, *notified), diagnostics


def compile_loaded(
    loaded: LoadedDocuments, commit: str | None = None, *, variant: str | None = None
) -> tuple[PolicySet | None, tuple[Diagnostic, ...]]:
    """Compile loaded documents; the diagnostics include those of loading and of faulty documents.

    The readable parts of faulty documents are checked too, so that one pass finds every mistake; there is no policy set
    if anything is wrong. Faults that only follow from unreadable parts are not reported.
    """
    if not has_errors(loaded.diagnostics):
        policy_set, diagnostics = compile_policies(loaded.documents, commit, variant=variant)
        return policy_set, in_order((*loaded.diagnostics, *diagnostics))
    names: dict[str, frozenset[str] | None] = {}
    for each in loaded.faulty:
        before = names.get(each.kind, frozenset())
        names[each.kind] = None if before is None or each.name is None else before | {each.name}
    _, diagnostics = _compiled(loaded.documents, loaded.faulty, FaultyDocuments(names, loaded.has_unidentified), "")
    return None, in_order((*loaded.diagnostics, *diagnostics))


def _compiled(
    documents: Sequence[Document], faulty: Sequence[FaultyDocument], others: FaultyDocuments, content: str
) -> tuple[tuple[Graph, ...], tuple[Diagnostic, ...]]:
    """Graphs of the sound policies, and all diagnostics; there are no graphs if documents are faulty."""
    rankings, diagnostics = declared_rankings((*documents, *faulty))
    groups, of_groups = correlation_groups((*documents, *faulty))
    diagnostics += of_groups
    hedges = hedge_groups((*documents, *faulty))
    ways_back = plans((*documents, *faulty))
    declared = declarations((*documents, *faulty), groups, hedges, others)
    graphs: list[Graph] = []
    unwinding_names = frozenset(each.name for each in documents if each.kind == "Unwinding")
    account_names = frozenset(each.name for each in documents if each.kind == "Account")
    everything: tuple[Document | FaultyDocument, ...] = (*documents, *faulty)
    for document in sorted(everything, key=lambda each: each.name or ""):
        if isinstance(document.model, PolicyDocument):
            found = findings(document)
            accounts_exist(document.model.spec, documents, others, found)
            scopes = scope_rule(document.model.spec, everything, others, found)
            check_currencies(document.model.spec, scopes, documents, found)
            check_reference(document.model.spec, documents, others, found)
            check_idle(document.model.spec, found)
            numbers = {each: number for number, each in enumerate(document.model.spec.triggers)}
            columns, of_positions = SignalIndex(declared), SignalIndex(declared)
            around = Surroundings(
                numbers, rankings, unwinding_names, others, found, columns, of_positions, accounts=account_names
            )
            plan = ways_back.get(document.model.metadata.name)
            graph = _graph(document.model, around, (groups, hedges), content, scopes, documents, plan)
            diagnostics += found.diagnostics
            graphs += () if graph is None else (graph,)
    checks = (
        accounts_watched, check_former_policies, check_routes, check_unwindings, check_switches, check_strategies,
        check_limits, check_catastrophe_stops, check_recovery, check_notification, check_services,
    )  # fmt: skip
    for check_documents in checks:
        diagnostics += check_documents(everything, others)
    diagnostics += check_accounts(everything)
    diagnostics += dict.fromkeys(each for plan in ways_back.values() for each in plan.found.diagnostics)
    return tuple(graphs), in_order(diagnostics)


def _graph(
    document: PolicyDocument,
    around: Surroundings,
    together: tuple[tuple[CorrelationGroupRule, ...], Mapping[str, HedgeLegs]],
    content: str,
    scopes: ScopeRule,
    documents: Sequence[Document],
    plan: PlanOfPolicy | None,
) -> Graph | None:
    """Compile one policy; None if a trigger, a stage or a name in it is wrong.

    `together`: the correlation groups, and the hedges by name. `content` is the digest of the policy set, empty without
    one. `documents`: the sound ones of the set. `plan`: its way back.
    """
    name, policy, found = document.metadata.name, document.spec, around.found
    if name == OPERATOR:
        message, fix = f"`{OPERATOR}` is reserved for decisions of people", "give the policy another name"
        found.error("KS3012", ("metadata", "name"), message, fix)
    compiled = {each: trigger(each, policy, around.columns, found) for each in policy.triggers}
    stages = [_stage(number, written, around) for number, written in enumerate(policy.stages)]
    check(policy, list(compiled.values()), stages, around)
    check_former_parts(policy, found)
    conditions = [*condition_places(policy, compiled.values()), *around.resets]
    check_equity(scopes, conditions, around.columns, found)
    check_priced(policy, conditions, around.columns, documents, around.others, found)
    varied = variants(policy, compiled, stages, around)
    shown = net_exposure(policy.net_exposure, around)
    check_cuts(scopes, stages, [compiled, *varied.values()], around)
    check_top_ups(policy, stages, documents, around)
    chosen = compiled if policy.variant is None else varied.get(policy.variant, compiled)
    triggers = [each for each in chosen.values() if each is not None]
    healthy = None if plan is None else health_condition(plan, around.columns)
    if not content or len(triggers) < len(compiled) or has_errors(found.diagnostics):
        return None
    of_resets = tuple(condition for _, condition in around.resets)
    number = len(triggers) + len(of_resets)
    return freeze(
        policy,
        Graph,
        policy=name,
        digest=content,
        scope=scopes,
        equity=freeze(policy, EquityRule),
        signals=around.columns.signals,
        position_signals=around.position_columns.signals,
        triggers=tuple(triggers),
        conditions=(*(it.condition for it in triggers), *of_resets, *(() if healthy is None else (healthy,))),
        stages=tuple(sorted(stages, key=lambda each: -each.level)),
        rankings=tuple(around.rankings[each] for each in sorted(around.used_rankings)),
        groups=together[0],
        hedges=tuple(hedge for _, hedge in sorted(together[1].items())),
        place=found.place(("metadata", "name")),
        labels=tuple(sorted(document.metadata.labels.items())),
        variant=policy.variant,
        is_breaker=isinstance(policy, BreakerSpec),
        net_exposure=shown,
        recovery=None
        if plan is None or healthy is None
        else recovery_rule(plan, number, policy, documents, together[1].values()),
    )


def _stage(number: int, written: WrittenStage, around: Surroundings) -> Stage:
    """Compile stage `number`; unresolved names are omitted and reported in `found`."""
    path: Path = ("spec", "stages", number)
    return freeze(
        written,
        Stage,
        any_of=_triggers(written.any_of, (*path, "any"), around),
        all_of=_triggers(written.all_of, (*path, "all"), around),
        reset=_reset(written, path, around),
        actions=tuple(_actions(written, (*path, "actions"), around)),
        place=around.found.place(path),
    )


def _triggers(names: Sequence[str], path: Path, around: Surroundings) -> tuple[int, ...]:
    gaps = around.found.gaps
    certain = gaps.is_sound and not gaps.is_hole(("spec", "triggers"))
    for place, name in enumerate(names):
        if name not in around.triggers and certain and not gaps.is_hole((*path, place)):
            message, fix = unknown_name("trigger", name, around.triggers)
            around.found.error("KS3010", (*path, place), message, fix)
    return tuple(dict.fromkeys(around.triggers[name] for name in names if name in around.triggers))


def _reset(written: WrittenStage, path: Path, around: Surroundings) -> AutoReset | None:
    if not isinstance(written.reset, WrittenReset):
        return None
    auto = written.reset.auto
    where: Path = (*path, "reset", "auto", "when")
    condition = expression(auto.when, "scope", where, around.columns, around.found)
    if condition is None:
        return None
    around.resets.append((where, condition))
    return freeze(auto, AutoReset, condition=len(around.triggers) + len(around.resets) - 1)


def _actions(stage: WrittenStage, path: Path, around: Surroundings) -> Iterator[Action]:
    for place, action in enumerate(stage.actions):
        for key, part in action.written.items():
            if not around.found.gaps.is_hole((*path, place)):
                yield kind_named(key).resolve(part, stage, (*path, place, key), around)


EXPRESSIONS = frozenset({"when", "all_if", "where"})

_LAYOUT = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|//[^\n]*|\s+""")


def digest(documents: Iterable[Document]) -> str:
    """Digest of all documents but tests, sorted by kind and name: `sha256:` and 64 hexadecimal digits."""
    deployed = (document for document in documents if document.kind not in TESTS)
    ordered = sorted(deployed, key=lambda document: (document.kind, document.name))
    return f"sha256:{sha256(canonical([document.model for document in ordered]).encode()).hexdigest()}"


_PLAIN = frozenset((str, int, bool, Decimal, type(None)))
"""Types without parts: most values, and asked for first, because a digest visits every one."""


def canonical(value: object) -> str:
    """Canonical text of a value: texts carry their length, numbers have one spelling, keys are sorted."""
    if type(value) in _PLAIN:
        return _scalar(value)
    if isinstance(value, Quantity):
        value = {"value": value.value, "currency": value.currency}
    elif isinstance(value, AtMost):
        value = (value.count, value.share)
    elif isinstance(value, Confirm):
        value = (value.micros, value.ticks)
    elif isinstance(value, LocalTime):
        value = str(value)
    elif isinstance(value, Part):
        value = {key: _without_layout(each) if key in EXPRESSIONS else each for key, each in _declared(value)}
    if isinstance(value, Mapping):
        inside = sorted((canonical(key), canonical(each)) for key, each in value.items())
        return "{" + "".join(key + each for key, each in inside) + "}"
    if isinstance(value, list | tuple):
        return "[" + "".join(canonical(each) for each in value) + "]"
    return _scalar(value)


_DIGESTED_AS = {"apiVersion": "api_version", "any": "any_of", "all": "all_of", "for": "duration", "with": "stand_ins"}
"""Keys that are digested under another name, so that renaming an attribute does not change digests."""


def _declared(part: Part) -> Iterator[tuple[str, object]]:
    """Values that differ from their defaults, so that a new key does not change existing digests."""
    for name, attribute, required, default in _digested(type(part)):
        value = getattr(part, attribute)
        if required or default != value:
            yield name, value


@cache
def _digested(part: type[Part]) -> tuple[tuple[str, str, bool, object], ...]:
    """(name in the digest, attribute, whether it is required, default) of each key of a part."""
    return tuple(
        (_DIGESTED_AS.get(name, name), key.attribute, key.required, part.model_fields[key.attribute].default)
        for name, key in keys_of(part).items()
    )


def _scalar(value: object) -> str:
    if isinstance(value, datetime):  # of a scenario only, which is no part of the digest and is compared
        value = rfc3339(value)
    if isinstance(value, str):
        return f"t{len(value)}:{value}"
    if value is None or isinstance(value, bool):
        return f"{value};"
    if isinstance(value, int | Decimal):
        return "n0;" if value == 0 else f"n{Decimal(value).normalize():f};"
    raise TypeError(f"a policy holds no {type(value).__name__}")


def _without_layout(expression: object) -> object:
    """An expression without layout and comments; texts inside it stay unchanged."""
    if not isinstance(expression, str):
        return expression
    return _LAYOUT.sub(lambda found: found[1] or " ", expression).strip()
