"""Account checks: evaluate inspections as `run --live` would. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.accounts.credentials import CredentialError, resolve
from killswitch.accounts.validation import armed_duplicates, duplicate_accounts, duplicate_message, environment_of
from killswitch.graph.nodes import PolicySet
from killswitch.model.inspection import Capability, KeyRights
from killswitch.model.instant import SECOND
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning.closability import Closability, closability_of
from killswitch.planning.orders.slices import DERIVATIVES
from killswitch.planning.scopes.compiled_policy import scopes_of
from killswitch.policy.schema.account import AccountDocument, venue_of
from killswitch.preflight.findings import CheckRequirements, DocumentFacts, Finding, account_findings, mode_of, skew_of
from killswitch.preflight.inspection import InspectedAccount
from killswitch.preflight.worst_cases import WorstCase, identities, worst_cases
from killswitch.ratelimit.poll_cost import PollCost, PolledAccount, TimerRefresh, poll_costs
from killswitch.render.formats import count_of
from killswitch.runner.dead_man.catastrophe_stops import StopsError, require_stops
from killswitch.runner.dead_man.timer_rules import (
    TimerError,
    cancellable,
    does_not_run,
    require_timers,
    unprotected_reason,
    unprotected_symbols,
)

RUN_READ_TIMEOUT = 5.0
"""Default read timeout of `run` in seconds."""
CHECK_FORMAT = "killswitch.account_check/v1"
Verdict = Literal["ok", "warnings", "failed"]


class AccountCheck(Struct, frozen=True):
    """Result of the check of one account. None is unknown, or not estimated because another value is unknown.

    `told_by`: whether the capabilities come from an inspection of the account, or from what the adapter supports.
    """

    account: str
    venue: str
    adapter: str
    exchange: str | None
    market: str
    currency: str
    environment: str
    execution: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    quality: str | None
    status: str | None
    equity: Decimal | None
    positions: int | None
    orders: int | None
    reading_ms: float | None
    clock_skew_ms: float | None
    position_mode: str | None
    margin_mode: str | None
    rights: KeyRights | None
    told_by: Literal["inspection", "offers"] | None
    capabilities: tuple[Capability, ...]
    outlooks: tuple[Closability, ...] | None
    reading: tuple[PollCost, ...]
    closing: WorstCase | None
    used: dict[str, int] | None


class Check(Struct, frozen=True):
    """Checks of all accounts. `interval` and `within` in seconds."""

    format: str
    as_of: datetime
    interval: float
    within: float
    verdict: Verdict
    accounts: tuple[AccountCheck, ...]


_ENCODER = msgjson.Encoder(decimal_format="string")


def encode_check(check: Check) -> str:
    """Encode a check as JSON."""
    return msgjson.format(_ENCODER.encode(check), indent=2).decode()


def check_account(
    inspected: InspectedAccount,
    reading: Sequence[PollCost],
    closing: WorstCase | None,
    requirements: CheckRequirements,
    facts: DocumentFacts,
    of_run: tuple[Finding, ...] = (),
) -> AccountCheck:
    """Findings and verdict of one account. If the venue rejects the key, nothing that needs the key is reported.

    `of_run`: findings of `run --live`.
    """
    spec, seen, inspection, known = inspected.document.spec, inspected.snapshot, inspected.inspection, inspected.known
    outlooks = None
    if known is not None:
        outlooks = closability_of(known, reduce_only=reduces_only(inspected), outside_hours=spec.outside_hours)
    capabilities = inspection.capabilities if inspection is not None else supported_capabilities(inspected)
    if inspected.rejection is not None:
        capabilities, reading, closing = (), (), None
    findings = of_run + account_findings(inspected, outlooks, reading, closing, requirements, facts)
    return AccountCheck(
        account=inspected.name,
        venue=inspected.venue,
        adapter=spec.adapter,
        exchange=spec.exchange,
        market=spec.market,
        currency=spec.currency,
        environment=environment_of(spec),
        execution=spec.execution,
        verdict=verdict_of(findings),
        findings=findings,
        quality=None if seen is None else seen.quality,
        status=None if inspection is None else inspection.status,
        equity=None if known is None else known.equity,
        positions=None if known is None or known.positions is None else len(known.positions),
        orders=None if known is None or known.orders is None else len(known.orders),
        reading_ms=None if inspected.request_seconds is None else round(inspected.request_seconds * 1000, 1),
        clock_skew_ms=skew_of(inspected),
        position_mode=mode_of(inspected, "position_mode"),
        margin_mode=mode_of(inspected, "margin_mode"),
        rights=None if inspection is None or inspected.rejection is not None else inspection.rights,
        told_by=None if not capabilities else "inspection" if inspection is not None else "offers",
        capabilities=tuple(capabilities),
        outlooks=outlooks,
        reading=tuple(reading),
        closing=closing,
        used=None if inspected.used is None else dict(inspected.used),
    )


def verdict_of(findings: Iterable[Finding]) -> Verdict:
    """The worst severity as a verdict."""
    severities = {each.severity for each in findings}
    return "failed" if "failed" in severities else "warnings" if "warning" in severities else "ok"


def reduces_only(inspected: InspectedAccount) -> bool:
    """Whether closing orders are reduce-only, as far as the market and the adapter show."""
    capabilities = inspected.inspection.capabilities if inspected.inspection is not None else ()
    never = any(each.name == "reduce only" and each.can == "no" for each in capabilities)
    return inspected.document.spec.market in DERIVATIVES and not never


def check_all(
    inspected: Sequence[InspectedAccount],
    documents: Sequence[AccountDocument],
    policies: PolicySet,
    requirements: CheckRequirements,
) -> Check:
    """Check all inspected accounts. `documents`: every account of the runner, because all of them are polled.

    An account that was not inspected counts with the polling cost of an inspected one of the same venue and adapter.
    """
    polled = _polled_accounts(inspected, documents, policies)
    costs = poll_costs(polled, requirements.interval)
    reduce_only = {each.name: reduces_only(each) for each in inspected}
    closing = worst_cases(inspected, policies, requirements.interval, reduce_only, polled)
    accounts = identities(inspected)
    scopes = [scopes_of(graph.scope, accounts) for graph in policies.graphs]
    watched = {name for each in scopes for names in each.values() for name in names}
    refused = duplicate_findings(inspected, documents)
    facts = {
        each.name: DocumentFacts(
            watched=each.name in watched,
            duplicates=tuple(name for name in duplicate_accounts(each.document, documents) if each.name not in refused),
            timers=tuple(_timers(each, inspected, policies, requirements.interval)),
        )
        for each in inspected
    }
    checked = [
        check_account(
            each, costs.get(each.name, ()), closing.get(each.name), requirements, facts[each.name],
            (
                *refused.get(each.name, ()),
                *unarmed_timer_findings(each, policies),
                *catastrophe_stop_findings(each, policies),
            ),
        )
        for each in inspected
    ]  # fmt: skip
    worst = verdict_of(finding for each in checked for finding in each.findings)
    return Check(CHECK_FORMAT, requirements.now, requirements.interval, requirements.within, worst, tuple(checked))


def _timers(
    one: InspectedAccount, inspected: Sequence[InspectedAccount], policies: PolicySet, interval: float
) -> Iterator[str]:
    """Why `run --live` would refuse the dead-man timer of the account.

    The other inspected accounts are included because they share limits with it.
    """
    if one.account is None or one.document.spec.execution != "live":
        return
    accounts = {each.name: replace(each.account, armed=each is one) for each in inspected if each.account is not None}
    try:
        require_timers(policies, accounts, interval, RUN_READ_TIMEOUT)
    except TimerError as error:
        yield str(error)


def _polled_accounts(
    inspected: Sequence[InspectedAccount], documents: Sequence[AccountDocument], policies: PolicySet
) -> list[PolledAccount]:
    """Every account with its polling and timer refresh, as `run --live` would do."""
    reachable = {each.name: each for each in inspected if each.refused is None}
    alike = {(each.venue, each.document.spec.adapter): each for each in reachable.values()}
    rules = {name: rule for rule in policies.timers for name in rule.accounts}
    polled = []
    for document in documents:
        name, venue, spec = document.metadata.name, venue_of(document.spec), document.spec
        like = reachable.get(name) or alike.get((venue, spec.adapter))
        if like is None:
            continue
        refresh, timer = None, like.adapter.dead_man
        if name in rules and spec.execution == "live" and timer is not None:
            refresh = TimerRefresh(timer.rule, rules[name].refresh / SECOND, _resting_in(reachable.get(name)))
        polled.append(PolledAccount(name, venue, like.adapter.traits, spec.closing_share, refresh))
    return polled


def _resting_in(one: InspectedAccount | None) -> int:
    """Number of symbols with resting orders; 1 if unknown or none."""
    return max(1, len((cancellable(one.snapshot) if one and one.snapshot else None) or ()))


def duplicate_findings(
    inspected: Sequence[InspectedAccount], documents: Sequence[AccountDocument]
) -> Mapping[str, tuple[Finding, ...]]:
    """Findings by account: `run --live` would refuse two documents that arm the same account."""
    readable = [each for each in documents if _has_secrets(each)]
    names = {each.name for each in inspected}
    findings: dict[str, tuple[Finding, ...]] = {}
    for pair in armed_duplicates(readable):
        finding = Finding("failed", "account", f"`run --live` would not start: {duplicate_message(*pair)}")
        findings |= {name: (*findings.get(name, ()), finding) for name in pair if name in names}
    return findings


def unarmed_timer_findings(one: InspectedAccount, policies: PolicySet) -> Iterator[Finding]:
    """Finding that a dead-man timer would not be armed, because it would cancel protective orders."""
    rule = next((each for each in policies.timers if one.name in each.accounts), None)
    seen = one.snapshot
    if rule is None or seen is None or rule.accept_unprotected or (timer := one.adapter.dead_man) is None:
        return
    venue = timer.rule
    if one.document.spec.execution == "live" and (symbols := unprotected_symbols(seen, venue)):
        yield Finding("warning", "dead man", does_not_run(one.name, unprotected_reason(symbols, venue)))


def catastrophe_stop_findings(one: InspectedAccount, policies: PolicySet) -> Iterator[Finding]:
    """Findings that `run --live` would refuse the catastrophe stops of the account."""
    if one.account is None or one.document.spec.execution != "live":
        return
    try:
        require_stops(policies, {one.name: replace(one.account, armed=True)})
    except StopsError as error:
        yield Finding("failed", "catastrophe stop", f"`run --live` would not start: {error}")


def _has_secrets(document: AccountDocument) -> bool:
    """Whether the credentials exist; missing ones are a finding of their own."""
    try:
        resolve(document.spec.credentials, account=document.metadata.name)
    except CredentialError:
        return False
    return True


CAPABILITIES: Final = (
    "equity", "positions", "orders", "trigger orders", "fills", "flows", "prices", "market orders", "limit orders",
    "reduce only", "put back stops", "batch orders", "close book", "position mode", "find by client id", "dead man",
    "push", "key rights", "clock", "bars", "sandbox", "demo",
)  # fmt: skip
"""Names of capabilities, in display order."""

_READ = ("equity", "positions", "orders", "fills", "flows")


def supported_capabilities(inspected: InspectedAccount) -> tuple[Capability, ...]:
    """Capabilities that the adapter or the snapshot shows; empty without an adapter."""
    if inspected.refused is not None:
        return ()
    found = {each.name: each for each in (*_from_adapter(inspected), *_from_snapshot(inspected.known))}
    return tuple(found[name] for name in CAPABILITIES if name in found)


_NOT_SUPPORTED = "the adapter does not support it"


def _from_adapter(inspected: InspectedAccount) -> Iterator[Capability]:
    adapter = inspected.adapter
    batches, timer = adapter.batches, adapter.dead_man
    for name, is_supported, note in (
        ("batch orders", batches is not None, "" if batches is None else f"up to {batches.most} in one request"),
        ("close book", adapter.close_book is not None, ""),
        ("dead man", timer is not None, "" if timer is None else f"for each {timer.rule.reach}"),
        ("push", adapter.listen is not None, ""),
        ("find by client id", True, ""),
    ):
        yield Capability(name, "yes" if is_supported else "no", note if is_supported else _NOT_SUPPORTED)
    is_inspected = adapter.inspect is not None
    note = "the venue was not reachable" if is_inspected else _NOT_SUPPORTED
    yield Capability("key rights", "unknown" if is_inspected else "no", note)


def _from_snapshot(seen: AccountSnapshot | None) -> Iterator[Capability]:
    if seen is None:
        return
    for name in _READ:
        is_there = getattr(seen, name) is not None
        yield Capability(name, "yes" if is_there else "no", "" if is_there else "this snapshot lacks them")
    if seen.positions:
        marks = sum(bool(position.mark_price) for position in seen.positions)
        can = "yes" if marks == len(seen.positions) else "partly" if marks else "no"
        yield Capability("prices", can, f"a mark for {marks} of {count_of(len(seen.positions), 'position')}")  # type: ignore[arg-type] # one of the three
    mode = seen.position_mode
    yield Capability("position mode", "yes" if mode else "no", mode or "this snapshot lacks it")
    skew = None if seen.health is None else seen.health.clock_skew_ms
    yield Capability("clock", "no" if skew is None else "yes", _NOT_SUPPORTED if skew is None else "")
