"""Builds the firing of a decision: the policy's line, the trigger values, and the effects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Literal

from killswitch.incident.record.decision_basis import stage_text
from killswitch.incident.record.document import Firing
from killswitch.incident.record.first_minute import resting_text, worst_text
from killswitch.incident.record.incident_decisions import IncidentNote
from killswitch.incident.record.loss import loss_of, why_equity_is_unknown
from killswitch.incident.record.results import RecordedDecision, Result
from killswitch.incident.record.source_places import trigger_fact
from killswitch.journal.entries import is_plan
from killswitch.model.decision import BaseExposure, Decision, HedgeOption, NetExposure
from killswitch.model.effects import Cancels, Lock, Orders, of_kind, sizes_of, tag_of
from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.planning.orders.closing_order import schedule_of
from killswitch.render.formats import count_of, money

_KINDS: dict[str, Literal["hand", "hedge", "breach"]] = {"manual": "hand", "hedge": "hedge", "breach": "breach"}
_OUTCOMES = {
    "recorded only": "recorded only, nothing was sent",
    "nothing to close": "nothing was to be closed",
    "closing": "the close is under way",
    "flat": "done, the venue shows each of its positions at 0",
    "at target": "done, the venue shows each of its positions at target",
    "residual": "ended, and something is left",
    "blocked": "ended, because the venue blocks the close of the rest",
    "abandoned": "given up",
    "partly recorded only": "done on armed accounts; nothing was sent on the others",
}


def build_firing(recorded: RecordedDecision, note: IncidentNote) -> Firing:
    """Return the decision with the policy's text next to its numbers."""
    decision, result = recorded.decision, recorded.result
    equity, currency = scope_equity(decision.scope, recorded.snapshot)
    if currency is None and recorded.snapshot is not None and is_part_of_accounts(decision.scope):
        at_work = decision.accounts_at_work
        currency = common_currency(each for each in recorded.snapshot.accounts if each.account in at_work)
    stage = stage_text(decision)
    texts = {} if note.policy is None else note.policy.triggers
    runbook = note.runbooks.get(stage)
    sizes, lock = sizes_of(decision.effects), of_kind(decision.effects, Lock)
    return Firing(
        decision=decision.id,
        at=decision.as_of,
        stage=stage,
        level=decision.level,
        previous_level=decision.previous_level,
        acted=any(is_plan(entry) for entry in recorded.journal),
        standing=result.standing,
        outcome=_outcome(decision, result),
        line=None if note.policy is None else note.policy.stages.get(stage),
        policy_set=decision.policy_set,
        commit=decision.commit,
        triggers=tuple(trigger_fact(trigger, texts.get(trigger.name)) for trigger in decision.triggers),
        attribution=decision.attribution,
        book=decision.book,
        lock=None if lock is None else lock.order,
        locked_at=result.locked_at,
        cooldown_until=decision.cooldown_until,
        no_reset_before=decision.no_reset_before,
        orders=sizes[tag_of(Orders)],
        cancels=sizes[tag_of(Cancels)],
        equity=equity,
        currency=currency,
        runbook=None if runbook is None else runbook.name,
        author=decision.author,
        reason=decision.reason,
        unsent=result.standing == "recorded only" and bool(sizes[tag_of(Orders)]),
        kind=_KINDS.get(decision.kind or "", "stage"),
        cause=decision.cause,
        unwinding=None if decision.unwinding is None else decision.unwinding.name,
        schedule=" ".join(f"{line}." for line in schedule_lines(decision)) or None,
        exposed=tuple(exposure_lines(decision.net_exposure)),
        took=result.totals.took,
        worst=worst_text(decision.scope, _accounts_seen(recorded)),
        resting=resting_text(decision, _accounts_seen(recorded)),
        loss=loss_of(decision, texts, equity, None if equity is not None else _why_no_equity(recorded)),
    )


def _accounts_seen(recorded: RecordedDecision) -> tuple[AccountSnapshot, ...] | None:
    """The accounts of the scope as the decision saw them; of a part of accounts, those that it works on."""
    if recorded.snapshot is None:
        return None
    at_work = recorded.decision.accounts_at_work
    found = scope_accounts(recorded.decision.scope, recorded.snapshot)
    return found or tuple(each for each in recorded.snapshot.accounts if each.account in at_work)


def _why_no_equity(recorded: RecordedDecision) -> str:
    if recorded.snapshot is None:
        return "no readable snapshot was kept"
    return why_equity_is_unknown(scope_accounts(recorded.decision.scope, recorded.snapshot))


def _outcome(decision: Decision, result: Result) -> str:
    if decision.kind == "hedge" and result.standing == "at target":
        return "done; temporary until it is closed"
    if result.standing == "abandoned" and result.totals.abandoned:
        return "ended, and the final status of one of our orders is unknown"
    if result.standing == "partly recorded only":
        return f"done on armed accounts; nothing was sent on {', '.join(result.unsent)}"
    return _OUTCOMES[result.standing]


_TIMES_SHOWN = 6
"""Orders whose times are listed."""


def schedule_lines(decision: Decision) -> Iterator[str]:
    """When the orders go, the variance of the scope on the way, and the symbols that close together, as sentences."""
    found = decision.schedule
    if found is None:
        orders = of_kind(decision.effects, Orders)
        found = schedule_of(() if orders is None else orders.intents, decision.unwinding, (), None)
    if found.takes is not None and len(found.at) > 1:
        times = ", ".join(f"{each:g}" for each in found.at[:_TIMES_SHOWN])
        more = ", …" if len(found.at) > _TIMES_SHOWN else ""
        yield f"{len(found.at)} orders in {found.takes:g} s, at {times}{more} s after the first"
    if decision.schedule is None:
        return
    if found.peak_variance is None:
        yield "The variance on the way is unknown, because no returns of the whole book are recorded"
    else:
        yield f"On the way the variance is at most {found.peak_variance:.2f} × that at the start"
    if found.groups:
        parts = (", ".join(each) if len(each) > 1 else f"{each[0]} by itself" for each in found.groups)
        yield f"Correlated groups: {'; '.join(parts)}"


def exposure_lines(found: NetExposure | None, *, with_bases: bool = True) -> Iterator[str]:
    """The exposure to the market, where it comes from, and what would take it out, as sentences without a full stop."""
    if found is None:
        return
    what, unit = f"Net exposure to {found.hub} by beta", found.currency or ""
    if found.net is None:
        yield f"{what}: unknown, because {found.unknown}"
        return
    before = "" if found.before is None else f", {money(found.before, unit)} before"
    yield f"{what}: {money(found.net, unit)}{before}"
    yield from (_base_text(each, unit) for each in (found.bases if with_bases else ()))
    yield from (_option_text(each, unit) for each in found.options)


def _base_text(each: BaseExposure, unit: str) -> str:
    """What is held of a base asset, with its beta and the source of it."""
    beta = "beta unknown" if each.beta is None else f"beta {each.beta.normalize():f}, {money(each.exposure, unit)}"
    age = "" if each.age is None else f", {each.age:g} s old"
    source = f" ({count_of(each.returns, 'return')} of {each.series}{age})" if each.series else ""
    note = f"; {each.note}" if each.note else ""
    return f"{each.base} {each.units.normalize():f} at {each.price.normalize():f}: {beta}{source}{note}"


_OPTIONS = {"reduce": "To reduce it", "open": "To open against it"}


def _option_text(each: HedgeOption, unit: str) -> str:
    """The orders of an option and what they leave, or why it is none."""
    if each.feasible != "yes":
        answer = "not feasible" if each.feasible == "no" else "unknown"
        return f"{_OPTIONS[each.kind]}: {answer}: {'; '.join(each.why)}"
    orders = ", ".join(
        f"{it.side} {it.contracts.normalize():f} {it.symbol} on {it.account} "
        f"({money(it.value, unit)} at {'an unknown mark' if it.mark is None else f'{it.mark.normalize():f}'})"
        for it in each.orders
    )  # fmt: skip
    variance = "" if each.variance is None else f", variance {each.variance:.2f} × the present one"
    lacks = f" without {' and '.join(each.lacks)}" if each.cost is not None and each.lacks else ""
    cost = "cost unknown" if each.cost is None else f"cost {money(each.cost, unit)}{lacks}"
    more = f"; {'; '.join(each.why)}" if each.why else ""
    return f"{_OPTIONS[each.kind]}: {orders}: leaves {money(each.leaves, unit)}{variance}, {cost}{more}"


def scope_accounts(scope: str, snapshot: Snapshot) -> tuple[AccountSnapshot, ...]:
    """Return the accounts of the snapshot in the scope."""
    kind, _, name = scope.partition("/")
    if kind == "portfolio":
        return snapshot.accounts
    return tuple(each for each in snapshot.accounts if name == (each.account if kind == "account" else each.venue))


def is_part_of_accounts(scope: str) -> bool:
    """Whether the scope is a strategy or a symbol, which own a part of their accounts and of no equity."""
    return scope.startswith(("strategy/", "symbol/"))


def common_currency(accounts: Iterable[AccountSnapshot]) -> str | None:
    """Return the currency of the accounts; None where they differ, or there is no account."""
    currencies = {account.currency for account in accounts}
    return currencies.pop() if len(currencies) == 1 else None


def scope_equity(scope: str, snapshot: Snapshot | None) -> tuple[Decimal | None, str | None]:
    """Return the scope's equity and currency; None where an account's is unknown, or the currencies differ."""
    return equity_of(() if snapshot is None else scope_accounts(scope, snapshot))


def equity_of(accounts: Sequence[AccountSnapshot]) -> tuple[Decimal | None, str | None]:
    """Return the equity of the accounts together, and its currency; as `scope_equity`."""
    currency = common_currency(accounts)
    amounts = [account.equity for account in accounts if account.equity is not None]
    if currency is None or len(amounts) != len(accounts):
        return None, currency
    return sum(amounts, Decimal(0)), currency
