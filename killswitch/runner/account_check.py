"""Whether accounts can be trusted: what asking them came to, judged. Pure; `inspecting` has asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec import Struct
from msgspec import json as msgjson

from killswitch.closing.reading_cost import Reader, ReadingCost, Refresh, reading_costs
from killswitch.graph.nodes import PolicySet
from killswitch.model.inspection import Capability, KeyRights
from killswitch.model.instant import SECOND
from killswitch.planning.closability import Outlook, outlooks
from killswitch.planning.cuts import DERIVATIVES
from killswitch.planning.scopes import scopes_of
from killswitch.policy.account_document import AccountDocument, venue_of
from killswitch.runner.account_findings import Around, Finding, found, mode_of, skew_of
from killswitch.runner.deadman_rules import TimerError, cancellable, require_timers
from killswitch.runner.inspecting import Looked
from killswitch.runner.offered import offered
from killswitch.runner.run_words import kept_off, refused_twins
from killswitch.runner.twins import twins
from killswitch.runner.worst_cases import Reckoned, identities, worst_cases

RUNNERS_PATIENCE = 5.0
"""Seconds that `run` gives a reading unless it is told otherwise."""
CHECK_FORMAT = "killswitch.account_check/v1"
Verdict = Literal["ok", "warnings", "failed"]


class AccountCheck(Struct, frozen=True):
    """One account, judged. What is None was not told, or not reckoned because something else is unknown.

    `told_by`: whether the capabilities are the adapter's own word on this account, or what it offers at all.
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
    outlooks: tuple[Outlook, ...] | None
    reading: tuple[ReadingCost, ...]
    closing: Reckoned | None
    used: dict[str, int] | None


class Check(Struct, frozen=True):
    """All accounts. `interval` and `within` in seconds."""

    format: str
    as_of: datetime
    interval: float
    within: float
    verdict: Verdict
    accounts: tuple[AccountCheck, ...]


_ENCODER = msgjson.Encoder(decimal_format="string")


def encode_check(check: Check) -> str:
    """As JSON, for programs."""
    return msgjson.format(_ENCODER.encode(check), indent=2).decode()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user holds the accounts against: the interval of readings, and seconds that a full close may take."""

    interval: float
    within: float
    now: datetime


def judged(
    looked: Looked,
    reading: Sequence[ReadingCost],
    closing: Reckoned | None,
    asked: Asked,
    around: Around,
    of_run: tuple[Finding, ...] = (),
) -> AccountCheck:
    """The account's findings and verdict. Where the venue refuses the key, nothing that it would have to tell.

    `of_run`: what `run --live` would say of it, in its words.
    """
    spec, seen, inspection = looked.document.spec, looked.snapshot, looked.inspection
    known = seen if seen is not None and seen.quality == "ok" else None
    views = outlooks_of(looked)
    told = inspection.capabilities if inspection is not None else offered(looked)
    if looked.denied is not None:
        told, reading, closing = (), (), None
    findings = of_run + found(
        looked, known, views, reading, closing,
        interval=asked.interval, within=asked.within, now=asked.now, around=around,
    )  # fmt: skip
    return AccountCheck(
        account=looked.name,
        venue=looked.venue,
        adapter=spec.adapter,
        exchange=spec.exchange,
        market=spec.market,
        currency=spec.currency,
        environment="sandbox" if spec.sandbox else "demo" if spec.demo else "production",
        execution=spec.execution,
        verdict=verdict_of(findings),
        findings=findings,
        quality=None if seen is None else seen.quality,
        status=None if inspection is None else inspection.status,
        equity=None if known is None else known.equity,
        positions=None if known is None or known.positions is None else len(known.positions),
        orders=None if known is None or known.orders is None else len(known.orders),
        reading_ms=None if looked.trip is None else round(looked.trip * 1000, 1),
        clock_skew_ms=skew_of(looked),
        position_mode=mode_of(looked, known, "position_mode"),
        margin_mode=mode_of(looked, known, "margin_mode"),
        rights=None if inspection is None or looked.denied is not None else inspection.rights,
        told_by=None if not told else "inspection" if inspection is not None else "offers",
        capabilities=tuple(told),
        outlooks=views,
        reading=tuple(reading),
        closing=closing,
        used=None if looked.used is None else dict(looked.used),
    )


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """The worst of them."""
    severities = {each.severity for each in findings}
    return "failed" if "failed" in severities else "warnings" if "warning" in severities else "ok"


def whole(accounts: Sequence[AccountCheck], asked: Asked) -> Check:
    """All of them, under the worst verdict."""
    verdicts = {each.verdict for each in accounts}
    worst: Verdict = "failed" if "failed" in verdicts else "warnings" if "warnings" in verdicts else "ok"
    return Check(CHECK_FORMAT, asked.now, asked.interval, asked.within, worst, tuple(accounts))


def outlooks_of(looked: Looked) -> tuple[Outlook, ...] | None:
    """How each position could be closed; None where positions are unknown."""
    seen = looked.snapshot
    if seen is None or seen.quality != "ok":
        return None
    return outlooks(seen, reduce_only=reduces_only(looked), outside_hours=looked.document.spec.outside_hours)


def reduces_only(looked: Looked) -> bool:
    """Whether closes are reduce-only orders there, as far as the market and the adapter say."""
    said = looked.inspection.capabilities if looked.inspection is not None else ()
    never = any(each.name == "reduce only" and each.can == "no" for each in said)
    return looked.document.spec.market in DERIVATIVES and not never


def check_all(
    looked: Sequence[Looked], documents: Sequence[AccountDocument], policies: PolicySet, asked: Asked
) -> Check:
    """Judge all that were asked. `documents`: every account of the runner, asked or not: readings of all of them count.

    An account that was not asked counts as reading what an asked one of its venue and adapter takes.
    """
    readers = _readers(looked, documents, policies)
    costs = reading_costs(readers, asked.interval)
    guarded = {each.name: reduces_only(each) for each in looked}
    closing = worst_cases(looked, policies, asked.interval, guarded, readers)
    accounts = identities(looked)
    scopes = [scopes_of(graph.scope, accounts) for graph in policies.graphs]
    watched = {name for each in scopes for names in each.values() for name in names}
    refused = refused_twins(looked, documents)
    around = {
        each.name: Around(
            watched=each.name in watched,
            twins=tuple(name for name in twins(each.document, documents) if each.name not in refused),
            timers=tuple(_timers(each, looked, policies, asked.interval)),
        )
        for each in looked
    }
    checked = [
        judged(
            each, costs.get(each.name, ()), closing.get(each.name), asked, around[each.name],
            (*refused.get(each.name, ()), *kept_off(each, policies)),
        )
        for each in looked
    ]  # fmt: skip
    return whole(checked, asked)


def _timers(one: Looked, looked: Sequence[Looked], policies: PolicySet, interval: float) -> Iterator[str]:
    """Why `run --live` would refuse the account's dead man's switch, at its own patience.

    The others that were asked are there as those with which it shares limits.
    """
    if one.account is None or one.document.spec.execution != "live":
        return
    there = {
        each.name: replace(each.account, armed=each.name == one.name) for each in looked if each.account is not None
    }
    try:
        require_timers(policies, there, interval, RUNNERS_PATIENCE)
    except TimerError as error:
        yield str(error)


def _readers(looked: Sequence[Looked], documents: Sequence[AccountDocument], policies: PolicySet) -> list[Reader]:
    """Every account, as `run --live` would read it and keep its dead-man timer."""
    asked = {each.name: each for each in looked if each.refused is None}
    alike = {(each.venue, each.document.spec.adapter): each for each in asked.values()}
    rules = {name: rule for rule in policies.timers for name in rule.accounts}
    readers = []
    for document in documents:
        name, venue, spec = document.metadata.name, venue_of(document.spec), document.spec
        like = asked.get(name) or alike.get((venue, spec.adapter))
        if like is None:
            continue
        kept = name in rules and spec.execution == "live" and like.traits.dead_man is not None
        refresh = Refresh(rules[name].refresh / SECOND, _resting_in(asked.get(name))) if kept else None
        readers.append(Reader(name, venue, like.traits, spec.closing_share, refresh))
    return readers


def _resting_in(one: Looked | None) -> int:
    """In how many symbols orders rest; 1 where nobody knows, and where there are none yet."""
    seen = None if one is None else one.snapshot
    return max(1, len((None if seen is None else cancellable(seen)) or ()))
