"""The page of `ksctl explain DECISION`: the report of one decision, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from killswitch.incident.record.close_causes import cause_text
from killswitch.incident.record.decision_basis import first_hops
from killswitch.incident.record.filters import percent
from killswitch.incident.record.firing import exposure_lines, schedule_lines
from killswitch.incident.record.incident_books import kept_books
from killswitch.incident.record.order_outcomes import Bound
from killswitch.incident.record.remarks import bound_outcome, remarks
from killswitch.incident.record.results import OrderOutcome, Result, decode_kept_snapshot, read_result
from killswitch.incident.record.source_places import PolicyText, TriggerFact, WrittenAt, read_places, trigger_fact
from killswitch.incident.record.totals import Missing
from killswitch.lab.reevaluation import Reevaluation
from killswitch.model.decision import Decision, Notice, decision_record
from killswitch.model.effects import in_record_order
from killswitch.model.snapshot import AccountSnapshot, Position, Snapshot
from killswitch.model.store import Store
from killswitch.operations.pages.status_sections import exposure_table
from killswitch.operations.pages.wording import amount_in, dated_notice, effect_parts, headline
from killswitch.planning.exposures import Exposures
from killswitch.planning.recovery.recoveries import OF_WAY_BACK
from killswitch.render.document import Facts, Items, Page, Part, Section, Table, section
from killswitch.render.formats import count_of, exact, instant, money, order_numbers

MOST_NOTICES = 10_000
"""Number of the newest notices that are searched for those of a way back."""


def decision_page(history: DecisionHistory) -> Page:
    """The whole history of the decision."""
    decision = history.decision
    texts = {} if history.policy is None else history.policy.triggers
    triggers = (trigger_fact(each, texts.get(each.name)) for each in decision.triggers)
    return Page(
        "Decision",
        facts=Facts((("Decision", decision.id), ("At", f"{instant(decision.as_of)}  {headline(decision)}"))),
        sections=(
            *_policy(history),
            *section("Triggers and values", Facts(tuple(map(_trigger, triggers)))),
            *_attribution(history),
            *_snapshot(history),
            *exposure_table(history.book),
            decided(decision, history.snapshot),
            *left_exposed(decision),
            *_orders(history),
            *section("To be noted", Items(_remarks(history))),
            Section("End", (Items(tuple(_end(history))),)),
            *section("The way back since", Items(tuple(map(dated_notice, history.way_back)))),
        ),
    )


def _policy(history: DecisionHistory) -> Iterator[Section]:
    decision = history.decision
    if decision.kind == "manual":
        command = f"{decision.author or 'unknown'}: {decision.reason or 'no reason given'}"
        cause_entry = cause_text(decision.cause)
        declared = () if cause_entry is None else (f"{decision.cause}: {cause_entry.tone}",)
        yield Section("Operator command", (Items((command, *declared)),))
    elif history.policy is None:
        why = f"unknown: no runner used the policy set {decision.policy_set} on this store"
        yield Section("Policy line", (why,))
    else:
        stage = history.policy.stages.get(decision.stage or "")
        lines = [_line(stage or history.policy.at), decision.policy_set]
        if decision.commit:
            lines.append(f"commit {decision.commit}")
        if decision.kind in (None, "suspicion") and decision.reason:
            lines.append(f"note: {decision.reason}")
        if decision.kind == "reset":
            lines.append(f"reset by {decision.author or 'itself'}: {decision.reason or 'no reason given'}")
        yield Section("Policy line", (Items(tuple(lines)),))


def _line(at: WrittenAt) -> str:
    return f"{at.file}:{at.line}  {at.text}"


def _trigger(fact: TriggerFact) -> tuple[str, ...]:
    """Its name, and its value against the threshold, where the policy declares it, and why it is unknown."""
    since = f", true since {instant(fact.true_since)}" if fact.true_since else ""
    value = f"{fact.signal} {fact.value}" if fact.signal else fact.value
    lines = (f"{value} against {fact.threshold}{since}", fact.line and _line(fact.line), fact.reason)
    return fact.name, *(line for line in lines if line)


def _attribution(history: DecisionHistory) -> Iterator[Section]:
    found = history.decision.attribution
    if found is not None and found.window:
        shares = f"long {percent(found.long_share)}, short {percent(found.short_share)} over {found.window}"
        why = f" ({found.reason})" if found.reason else ""
        yield Section("Who lost", (f"{found.source}: {shares}{why}",))


def _snapshot(history: DecisionHistory) -> Iterator[Section]:
    if history.snapshot is None:
        yield Section("Snapshot", ("not kept",))
    else:
        title = f"Snapshot of {instant(history.snapshot.as_of)}"
        yield Section(title, tuple(map(_account, history.snapshot.accounts)))


def _account(account: AccountSnapshot) -> Part:
    """The account in a line, above its positions."""
    quality = account.quality if account.reason is None else f"{account.quality}: {account.reason}"
    held = "positions unknown" if account.positions is None else count_of(len(account.positions), "position")
    line = (
        f"{account.account} at {account.venue}, {quality}: equity {money(account.equity, account.currency)}, "
        f"margin used {money(account.margin_used, account.currency)}, {held}"
    )
    if not account.positions:
        return line
    head = ("symbol", "side", "contracts", "entry", "mark", "liquidation", "P&L")
    rows = tuple(_position(each, account.currency) for each in account.positions)
    return Table(head, rows, caption=line, expendable=(3, 5))


def _position(position: Position, currency: str) -> tuple[str, ...]:
    return (
        position.symbol, position.side, f"{position.contracts:f}", exact(position.entry_price),
        exact(position.mark_price), exact(position.liquidation_price), money(position.unrealized_pnl, currency),
    )  # fmt: skip


def decided(decision: Decision, snapshot: Snapshot | None) -> Section:
    """The effects of a decision. `snapshot`: the snapshot that it is based on."""
    parts = tuple(effect_parts(in_record_order(decision.effects), snapshot))
    schedule = tuple(schedule_lines(decision))
    return Section("Decided", (*parts, Items(schedule)) if schedule else parts or ("nothing to do",))


def left_exposed(decision: Decision) -> Iterator[Section]:
    """What its orders leave of the exposure to the market, and what would take it out."""
    lines = tuple(exposure_lines(decision.net_exposure))
    yield from section("Left exposed to the market; nothing is sent for it", Items(lines))


def _orders(history: DecisionHistory) -> Iterator[Section]:
    orders, currencies = history.result.orders, _currencies(history)
    head = ("symbol", "position", "sent", "order", "client order id", "outcome", "filled", "price", "fee")
    rows = tuple(_order(each, currencies.get(each.account, "")) for each in orders)
    yield from section("Orders and fills", Table(head, rows, expendable=(4, 8, 1, 2)))
    bounded = tuple(_bounded(each, each.bound) for each in orders if each.bound is not None)
    columns = ("order", "step", "sent as", "limit", "bound", "slipped", "")
    yield from section("Bounds of slippage", Table(columns, bounded, expendable=(1, 2)))


def _currencies(history: DecisionHistory) -> dict[str, str]:
    """Account → its currency, where the snapshot was kept."""
    return {} if history.snapshot is None else {each.account: each.currency for each in history.snapshot.accounts}


def _bounded(order: OrderOutcome, bound: Bound) -> tuple[str, ...]:
    return (
        str(order.number), "-" if order.rung is None else str(order.rung + 1), order.kind or "-",
        exact(order.limit, "-"), f"{bound.declared:.2%}", "-" if bound.slipped is None else f"{bound.slipped:.2%}",
        bound_outcome(order) or "-",
    )  # fmt: skip


def _order(order: OrderOutcome, currency: str) -> tuple[str, ...]:
    return (
        order.symbol, order.position_side or "-", instant(order.sent_at), f"{order.side} {exact(order.amount)}",
        order.client_order_id or "-", f"{order.outcome}{f' ({order.text})' if order.text else ''}",
        exact(order.filled, "-"), exact(order.price, "-"),
        "-" if order.fee is None else f"{order.fee:.6g} {currency}".rstrip(),
    )  # fmt: skip


def _remarks(history: DecisionHistory) -> tuple[str, ...]:
    """The irregularities, in the sentences of the incident's report."""
    result = history.result
    return remarks(result, first_hops(history.decision), result.unsent, _currencies(history))


def _end(history: DecisionHistory) -> list[str]:
    result = history.result
    lines = [f"locked at {instant(result.locked_at)}"] if result.locked_at else []
    lines += [f"cancelled {order}" for order in result.cancelled]
    lines += [
        f"{each.symbol} {each.position_side} on {each.account}: {each.position:f} left at the venue "
        f"(target {each.target:f}, {instant(each.at)})"
        for each in result.verified
    ]
    for ending in result.endings:
        why = f": {ending.reason}" if ending.reason else ""
        ended = "every target is reached" if ending.status == "flat" else f"ended {ending.status}"
        lines.append(f"{ending.account}: {ended}, {instant(ending.at)}{why}")
    lines.append(_status(history))
    if result.closed:
        realised, fees, slippage, delay = (
            amount_in(result.currencies, each) for each in (result.realised, result.fees, result.slippage, result.delay)
        )
        lines.append(f"realised {realised} before fees, fees {fees}")
        lines.append(f"slippage {slippage} against the marks when the orders were sent, delay cost {delay} until then")
    lines += [f"{each.what} {_partial_sum(each, result.currencies)}" for each in result.missing]
    if result.totals.took is not None:
        lines.append(f"{result.totals.took:.1f} s from the first order to the last verification")
    return lines


def _partial_sum(missing: Missing, currencies: Sequence[str]) -> str:
    if missing.known is None:
        return f"unknown: no data on {_missing_parts(missing)}"
    return f"{amount_in(currencies, missing.known)} known, without {_missing_parts(missing)}"


def _missing_parts(missing: Missing) -> str:
    parts = [order_numbers(missing.orders)] if missing.orders else []
    text = " and ".join((*parts, "the whole-book close") if missing.swept else parts)
    return text if missing.why is None else f"{text} ({missing.why})"


def _status(history: DecisionHistory) -> str:
    decision = history.decision
    if decision.kind == "reset":
        return "no lock by hand is left" if decision.is_unlock else "the scope is back to normal"
    if decision.is_hold and history.result.locked_at is not None:
        return "the lock is written"
    return {
        "recorded only": "recorded only: no order was sent, because the account or the policy observes",
        "locked on suspicion": "on suspicion: no stage has fired, and no position is closed",
        "suspicion over": "the suspicion is over: no stage has fired, and its lock is lifted",
        "nothing to close": "there was nothing to close",
        "closing": "closing: in progress",
        "flat": "flat: the venue itself shows every target of 0 reached",
        "at target": "at target: the venue itself shows every target reached",
        "residual": "residual: positions remain open, see above",
        "blocked": "blocked: the venue does not accept the remaining orders, see above",
        "abandoned": "abandoned: the status of an order was never confirmed, see above"
        if history.result.totals.abandoned
        else "abandoned",
        "partly recorded only": f"partly recorded only: no order was sent on {', '.join(history.result.unsent)}, "
        "because it was not armed; all other positions reached their targets",
    }[history.result.standing]


HISTORY_FORMAT = "killswitch.explanation/v1"


class DecisionHistory(Struct, frozen=True):
    """A decision with its causes and results. Data that was not kept is null."""

    decision: Decision
    policy: PolicyText | None
    snapshot: Snapshot | None
    result: Result
    book: Exposures | None = None
    """Exposure and P&L by account, strategy and asset at the decision; kept of the one that opened an incident."""
    way_back: tuple[Notice, ...] = ()
    """What was notified of the way back of its scope since, oldest first; empty without a recovery plan."""


def decision_history_of(store: Store, id_prefix: str) -> DecisionHistory:
    """The history of the decision whose id starts with `id_prefix`. LookupError if none or several match."""
    stored = store.decision(id_prefix)
    if stored is None:
        raise LookupError(f"no decision id starts with {id_prefix}; `ksctl history` lists them")
    decision, snapshot = stored.decision, decode_kept_snapshot(stored.snapshot)
    policy = read_places(store, decision.policy_set).get(decision.policy)
    opened = kept_books(store, decision.id).opened
    book = opened if opened is not None and opened.as_of == decision.as_of else None
    way_back = _way_back_since(store, decision)
    return DecisionHistory(decision, policy, snapshot, read_result(store, decision), book, way_back)


def _way_back_since(store: Store, decision: Decision) -> tuple[Notice, ...]:
    place = (decision.policy, decision.scope, OF_WAY_BACK)
    found = (it for it in store.notices(MOST_NOTICES) if (it.policy, it.scope, it.subject) == place)
    return tuple(sorted((it for it in found if it.as_of >= decision.as_of), key=lambda it: it.as_of))


def decision_history_record(history: DecisionHistory) -> dict[str, object]:
    """The history as one JSON object, format `killswitch.explanation/v1`."""
    parts = {"policy": history.policy, "snapshot": history.snapshot, "result": history.result, "book": history.book}
    further = {"way_back": history.way_back} if history.way_back else {}
    return {"format": HISTORY_FORMAT, "decision": decision_record(history.decision), **parts, **further}


def reevaluation_page(found: Reevaluation, decision: Decision, recording: str) -> Page:
    """Whether a decision is the same when it is evaluated again, or every field that differs."""
    missing = f"; {count_of(found.missing, 'snapshot')} missing before it" if found.missing else ""
    facts = (
        ("Decision", f"{decision.id}: {headline(decision)}, {instant(decision.as_of)}"),
        ("Policy set", f"{found.policy_set[:19]}, commit {found.commit or 'unknown'}"),
        ("Recording", f"{recording}, {count_of(found.snapshots, 'snapshot')}{missing}"),
    )
    rows = tuple((each.field, each.stored, each.evaluated) for each in found.differences)
    verdict = "bit-identical: evaluated again, the decision has the same bytes"
    if not found.is_identical:
        verdict = found.problem or f"NOT IDENTICAL in {count_of(len(rows), 'field')}"
    return Page(
        "Decision evaluated again",
        facts=Facts(facts),
        sections=(
            *section("Differences", Table(("field", "in the store", "evaluated again"), rows)),
            Section("", (verdict,)),
        ),
    )
