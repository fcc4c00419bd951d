"""Recovery plans, resolved for each policy: the health condition, and the steps of each account to its `Limits`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from msgspec import Struct

from killswitch.graph.freezing import freeze
from killswitch.graph.nodes import ConditionNode
from killswitch.graph.problems import FaultyDocuments, Findings, unknown_name
from killswitch.graph.recovery import HealthRule, RampRule, RecoveryRule, factor_of, step_shares
from killswitch.graph.resolution.references import Documents, diagnostics_of, matches, of_kind
from killswitch.graph.resolution.triggers import SignalIndex, expression
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.limits import LimitsDocument, LimitsSpec
from killswitch.policy.schema.policy import AnyPolicy, PolicyDocument
from killswitch.policy.schema.recovery import RecoveryPlanDocument, RecoverySpec, steps_needed, too_few_steps
from killswitch.policy.schema.scalars import Quantity
from killswitch.policy.yaml.source_map import Path
from killswitch.signals.arguments import HedgeLegs

_BOUNDS_SIZE: Final = ("gross", "leverage")
"""The keys of `Limits` that bound the whole book, one of which a share of full size needs."""


class PlanOfPolicy(Struct, frozen=True):
    """The plan of one policy, and the findings of its document, in which its mistakes are reported."""

    name: str
    spec: RecoverySpec
    found: Findings


def plans(everything: Documents) -> Mapping[str, PlanOfPolicy]:
    """Policy → its plan; of several the first by name, because the others are reported."""
    written = sorted(of_kind(everything, RecoveryPlanDocument), key=lambda each: each[0].metadata.name)
    result: dict[str, PlanOfPolicy] = {}
    for document, found in written:
        if not found.gaps.has_flaw(("spec",)):
            for policy in document.spec.policies:
                result.setdefault(policy, PlanOfPolicy(document.metadata.name, document.spec, found))
    return result


def health_condition(plan: PlanOfPolicy, columns: SignalIndex) -> ConditionNode | None:
    """The health condition of a plan on the columns of a policy; None if it is wrong, which is reported."""
    return expression(plan.spec.health.when, "scope", ("spec", "health", "when"), columns, plan.found)


def recovery_rule(
    plan: PlanOfPolicy, condition: int, policy: AnyPolicy, documents: Documents, hedges: Iterable[HedgeLegs]
) -> RecoveryRule:
    """The way back of a policy. `condition`: the index of the health condition in its graph."""
    ramp, starts = plan.spec.ramp, sorted(_starts(plan.spec, policy, documents).items())
    shares = tuple((account, step_shares(start, ramp.factor, ramp.steps)) for account, start in starts)
    factors = tuple((account, factor_of(start, ramp.factor, ramp.steps)) for account, start in starts)
    return freeze(
        plan.spec, RecoveryRule, name=plan.name, place=plan.found.place(("spec",), key=True),
        health=freeze(plan.spec.health, HealthRule, condition=condition),
        ramp=freeze(ramp, RampRule, shares=shares, factors=factors if plan.spec.start.positions is not None else ()),
        positions=plan.spec.start.positions, hedges=tuple(hedges),
    )  # fmt: skip


def check_recovery(everything: Documents, others: FaultyDocuments) -> list[Diagnostic]:
    """Report unknown policies, two plans for one, levels that no stage has, and limits that cannot be reduced."""
    written = sorted(of_kind(everything, RecoveryPlanDocument), key=lambda each: each[0].metadata.name)
    policies = {each.metadata.name: each.spec for each, _ in of_kind(everything, PolicyDocument)}
    known = {each.name for each in everything if each.kind == "Policy" and each.name is not None}
    owners: dict[str, str] = {}
    for document, found in written:
        if found.gaps.has_flaw(("spec",)):
            continue
        for number, name in enumerate(document.spec.policies):
            path: Path = ("spec", "policies", number)
            owner = owners.setdefault(name, document.metadata.name)
            if owner != document.metadata.name:
                message = f"`{name}` has the recovery plan `{owner}` already"
                found.error("KS3084", path, message, "name it in one of the two")
            elif name in policies:
                _check_policy(document.spec, name, policies[name], everything, others, found)
            elif name not in known and not others.can_have("Policy", name):
                found.error("KS3083", path, *unknown_name("Policy", name, sorted(known)))
    return diagnostics_of(written)


def _check_policy(
    spec: RecoverySpec, name: str, policy: AnyPolicy, everything: Documents, others: FaultyDocuments, found: Findings
) -> None:
    highest = max((stage.level for stage in policy.stages), default=0)
    if highest < spec.level:
        message = f"the highest level of `{name}` is {highest}, so that its way back never begins"
        found.error("KS3088", ("spec", "level"), message, f"write {highest or 1} or less")
    if policy.scope.each in ("strategy", "symbol"):
        message = f"`{name}` watches each {policy.scope.each}, and limits are those of whole accounts"
        fix = "write it for a policy with `each: account`, `venue`, `label` or `portfolio`"
        found.error("KS3089", ("spec", "policies"), message, fix, key=True)
    if others.can_have("Limits") or others.can_have("Account"):
        return
    of_accounts = _limits_of_accounts(policy, everything)
    for account, limits in sorted(of_accounts.items()):
        if limits is None or not any(getattr(limits, key) is not None for key in _BOUNDS_SIZE):
            what = "no `Limits`" if limits is None else "`Limits` with neither `gross` nor `leverage`"
            message = f"`{account}` has {what}, so that there is no full size to come back to"
            add = f"write a Limits document that matches `{account}`, with" if limits is None else "add"
            to = "" if limits is None else " to its Limits"
            found.error("KS3085", ("spec", "start"), message, f"{add} `gross` or `leverage`{to}", key=True)
        elif not _has_start(spec, account, limits, found):
            return


def _has_start(spec: RecoverySpec, account: str, limits: LimitsSpec, found: Findings) -> bool:
    """Whether the start is a share of the account's limits; reports why it is not, or which step is too large."""
    amount, path = spec.start.gross, ("spec", "start", "gross")
    share = _start_share(spec, limits)
    if amount is None:
        return True
    if share is None:
        message = f"the Limits of `{account}` have no `gross` in the same unit"
        found.error("KS3086", path, message, "write it in the unit of their `gross`, or `share`")
        return False
    if share >= 1:
        message = f"the start is no less than the `gross` of the Limits of `{account}`"
        found.error("KS3086", path, message, "write less, or remove the plan")
        return False
    steps, factor = spec.ramp.steps, spec.ramp.factor
    if steps is not None and factor is not None and steps < (needed := steps_needed(share, factor)):
        found.error("KS3087", ("spec", "ramp", "steps"), *too_few_steps(steps, share, factor, needed))
        return False
    return True


def _starts(spec: RecoverySpec, policy: AnyPolicy, documents: Documents) -> dict[str, Decimal]:
    """Account → the share of its limits at which it starts, where start and ramp are sound."""
    result: dict[str, Decimal] = {}
    for account, limits in _limits_of_accounts(policy, documents).items():
        share = None if limits is None else _start_share(spec, limits)
        if share is not None and share < 1 and (spec.ramp.factor is not None or spec.ramp.steps is not None):
            result[account] = share
    return result


def _start_share(spec: RecoverySpec, limits: LimitsSpec) -> Decimal | None:
    """The start as a share of the full size; None if it is an amount in another unit."""
    if spec.start.share is not None:
        return spec.start.share
    amount: Quantity | None = spec.start.gross
    full: Quantity | None = limits.gross
    if amount is None or full is None or (amount.unit, amount.currency) != (full.unit, full.currency):
        return None
    return amount.value / full.value


def _limits_of_accounts(policy: AnyPolicy, everything: Documents) -> dict[str, LimitsSpec | None]:
    """Account of the policy → its limits."""
    limits = [
        (each.spec, found) for each, found in of_kind(everything, LimitsDocument) if not found.gaps.has_flaw(("spec",))
    ]
    accounts = [it for it, _ in of_kind(everything, AccountDocument) if matches(policy.scope.match, it)]
    return {
        account.metadata.name: next((spec for spec, _ in limits if matches(spec.match, account)), None)
        for account in accounts
    }
