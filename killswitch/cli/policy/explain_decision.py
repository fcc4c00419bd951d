"""`ksctl explain DECISION`: the history of a decision, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import click
from msgspec import Struct

from killswitch.cli.terminal import table
from killswitch.cli.wording import amount_in, effect_lines, headline
from killswitch.incident.record.close_causes import cause_text
from killswitch.incident.record.closed_positions import ClosedPosition
from killswitch.incident.record.filters import percent
from killswitch.incident.record.order_lines import Bound
from killswitch.incident.record.results import OrderLine, Result, decode_kept_snapshot, read_result
from killswitch.incident.record.source_places import PolicyText, WrittenAt, read_places
from killswitch.incident.record.totals import Missing
from killswitch.incident.record.unprotected import Exposure
from killswitch.model.decision import Decision, TriggerReading, decision_record
from killswitch.model.effects import in_record_order
from killswitch.model.legible import one_line
from killswitch.model.snapshot import AccountSnapshot, Position, Snapshot
from killswitch.model.store import Store
from killswitch.render.formats import count_of, exact, instant, interval, money, order_numbers


def decision_history_text(history: DecisionHistory) -> str:
    """Render the whole history of the decision."""
    decision = history.decision
    blocks = (
        f"Decision {decision.id}\n  {instant(decision.as_of)}  {headline(decision)}",
        _policy(history),
        _triggers(history),
        _attribution(history),
        _snapshot(history),
        effects_text(decision, history.snapshot),
        _orders(history),
        _end(history),
    )
    return "\n\n".join(block for block in blocks if block)


def _policy(history: DecisionHistory) -> str:
    decision = history.decision
    if decision.kind == "manual":
        cause_entry = cause_text(decision.cause)
        declared = "" if cause_entry is None else f"\n  {decision.cause}: {cause_entry.tone}"
        command = one_line(f"{decision.author or 'unknown'}: {decision.reason or 'no reason given'}")
        return f"Operator command\n  {command}{declared}"
    if history.policy is None:
        return f"Policy line\n  unknown: no runner used the policy set {decision.policy_set} on this store"
    stage = history.policy.stages.get(decision.stage or "")
    lines = [_line(stage) if stage else _line(history.policy.at), f"  {decision.policy_set}"]
    if decision.commit:
        lines.append(f"  commit {decision.commit}")
    if decision.kind in (None, "suspicion") and decision.reason:
        lines.append(f"  note: {decision.reason}")
    if decision.kind == "reset":
        lines.append(one_line(f"  reset by {decision.author or 'itself'}: {decision.reason or 'no reason given'}"))
    return "\n".join(("Policy line", *lines))


def _line(at: WrittenAt) -> str:
    return f"  {at.file}:{at.line}  {at.text}"


def _triggers(history: DecisionHistory) -> str:
    lines: list[str] = []
    for trigger in history.decision.triggers:
        text = None if history.policy is None else history.policy.triggers.get(trigger.name)
        if text is not None:
            lines.append(_line(text.at))
        since = f", true since {instant(trigger.true_since)}" if trigger.true_since else ""
        threshold = (text.threshold if text else None) or trigger.threshold or "its expression"
        value = f"{text.signal} {_value(trigger, text.unit)}" if text and text.signal else _value(trigger, None)
        lines.append(f"    {trigger.name}: {value} against {threshold}{since}")
        if trigger.reason:
            lines.append(f"    {trigger.reason}")
    return "\n".join(("Triggers and values", *lines)) if lines else ""


def _value(trigger: TriggerReading, unit: str | None) -> str:
    if trigger.value is None:
        return "unknown" if trigger.threshold else "true"
    low, high = (None if each is None else float(each) for each in trigger.value)
    return interval((low, high), unit)


def _attribution(history: DecisionHistory) -> str:
    found = history.decision.attribution
    if found is None or not found.window:
        return ""
    shares = f"long {percent(found.long_share)}, short {percent(found.short_share)} over {found.window}"
    why = f" ({found.reason})" if found.reason else ""
    return f"Who lost\n  {found.source}: {shares}{why}"


def _snapshot(history: DecisionHistory) -> str:
    if history.snapshot is None:
        return "Snapshot\n  not kept"
    blocks = [f"Snapshot of {instant(history.snapshot.as_of)}"]
    for account in history.snapshot.accounts:
        blocks.append(_account(account))
        if account.positions:
            rows = [_position(position) for position in account.positions]
            blocks.append(table(("symbol", "side", "contracts", "entry", "mark", "liquidation", "P&L"), rows, "    "))
    return "\n".join(blocks)


def _account(account: AccountSnapshot) -> str:
    quality = account.quality if account.reason is None else f"{account.quality}: {account.reason}"
    held = "positions unknown" if account.positions is None else count_of(len(account.positions), "position")
    return (
        f"  {account.account} at {account.venue}, {quality}: equity {money(account.equity, account.currency)}, "
        f"margin used {money(account.margin_used, account.currency)}, {held}"
    )


def _position(position: Position) -> tuple[str, ...]:
    return (
        position.symbol, position.side, f"{position.contracts:f}", exact(position.entry_price),
        exact(position.mark_price), exact(position.liquidation_price), money(position.unrealized_pnl),
    )  # fmt: skip


def effects_text(decision: Decision, snapshot: Snapshot | None) -> str:
    """Text of the effects of a decision. `snapshot`: the snapshot that it is based on."""
    lines = [line for effect in in_record_order(decision.effects) for line in effect_lines(effect, snapshot)]
    return "\n".join(("Decided", *lines)) if lines else "Decided\n  nothing to do"


def _orders(history: DecisionHistory) -> str:
    orders = history.result.orders
    if not orders:
        return ""
    head = ("symbol", "position", "sent", "order", "client order id", "outcome", "filled", "price", "fee")
    lines = ["Orders and fills", table(head, [_order(order) for order in orders])]
    bounded = [_bounded(number, it, it.bound) for number, it in enumerate(orders, start=1) if it.bound is not None]
    if bounded:
        columns = ("order", "step", "sent as", "limit", "bound", "slipped", "")
        lines += ["", "Bounds of slippage", table(columns, bounded)]
    return "\n".join(lines)


def _bounded(number: int, order: OrderLine, bound: Bound) -> tuple[str, ...]:
    outcome = {True: "kept", False: "exceeded", None: "unknown"}[bound.kept]
    if order.fate == "final" and not order.filled:
        outcome = "nothing filled"
    return (
        str(number), "-" if order.rung is None else str(order.rung + 1), order.kind or "-", exact(order.limit, "-"),
        f"{bound.declared:.2%}", "-" if bound.slipped is None else f"{bound.slipped:.2%}",
        outcome if bound.sent else f"{outcome}, sent without a bound",
    )  # fmt: skip


def _order(order: OrderLine) -> tuple[str, ...]:
    return (
        order.symbol, order.position_side or "-", instant(order.sent_at), f"{order.side} {exact(order.amount)}",
        order.client_order_id or "-", f"{order.outcome}{f' ({order.text})' if order.text else ''}",
        exact(order.filled, "-"), exact(order.price, "-"), exact(order.fee, "-"),
    )  # fmt: skip


def _end(history: DecisionHistory) -> str:
    result = history.result
    lines = [f"  locked at {instant(result.locked_at)}"] if result.locked_at else []
    lines += [f"  cancelled {order}" for order in result.cancelled]
    lines += [
        f"  {each.symbol} {each.position_side} on {each.account}: {each.position:f} left at the venue "
        f"(target {each.target:f}, {instant(each.at)})"
        for each in result.verified
    ]
    for ending in result.endings:
        why = f": {ending.reason}" if ending.reason else ""
        ended = "every target is reached" if ending.status == "flat" else f"ended {ending.status}"
        lines.append(f"  {ending.account}: {ended}, {instant(ending.at)}{why}")
    lines += [f"  {account}: no order was sent: the account was not armed" for account in result.unsent]
    lines += [f"  the venue was requested to close the whole book of {account} at once" for account in result.swept]
    lines += [line for each in result.positions if (line := _other_changes(each, result.currencies))]
    lines += [f"  {_unprotected(each)}" for each in result.exposures]
    lines.append(f"  {_status(history)}")
    if result.closed:
        realised, fees, slippage, delay = (
            amount_in(result.currencies, each) for each in (result.realised, result.fees, result.slippage, result.delay)
        )
        lines.append(f"  realised {realised} before fees, fees {fees}")
        lines.append(
            f"  slippage {slippage} against the marks when the orders were sent, delay cost {delay} until then"
        )
    lines += [f"  {each.what} {_partial_sum(each, result.currencies)}" for each in result.missing]
    if result.totals.took is not None:
        lines.append(f"  {result.totals.took:.1f} s from the first order to the last verification")
    return "\n".join(("End", *lines))


def _partial_sum(missing: Missing, currencies: Sequence[str]) -> str:
    if missing.known is None:
        return f"unknown: no data on {_missing_parts(missing)}"
    return f"{amount_in(currencies, missing.known)} known, without {_missing_parts(missing)}"


def _missing_parts(missing: Missing) -> str:
    parts = [order_numbers(missing.orders)] if missing.orders else []
    text = " and ".join((*parts, "the whole-book close") if missing.swept else parts)
    return text if missing.why is None else f"{text} ({missing.why})"


def _other_changes(position: ClosedPosition, currencies: Sequence[str]) -> str:
    """Changes by other parties, and dust; empty without any."""
    name = f"{position.symbol} {position.side} on {position.account}"
    changes = []
    if position.others:
        by = "closed without an order of Killswitch" if position.others > 0 else "added meanwhile"
        changes.append(f"{abs(position.others):f} {by}")
    if position.other_decisions:
        changes.append(f"{position.other_decisions:f} closed by orders of other decisions")
    if position.dust:
        changes.append(
            f"the rest is dust, {amount_in(currencies, position.worth)}" if position.worth else "the rest is dust"
        )
    return f"  {name}: {', '.join(changes)}" if changes else ""


def _unprotected(exposure: Exposure) -> str:
    name = f"{exposure.symbol} {exposure.position_side} on {exposure.account} without protective order {exposure.order}"
    if exposure.seconds is None:
        return f"{name} since {instant(exposure.since)}: {exposure.text or exposure.end}"
    return f"{name} for {exposure.seconds:.1f} s: {exposure.end}"


def _status(history: DecisionHistory) -> str:
    if history.decision.kind == "reset":
        return "the scope is back to normal"
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


def decision_history_of(store: Store, id_prefix: str) -> DecisionHistory:
    """The history of the decision whose id starts with `id_prefix`. ClickException if none or several match."""
    stored = store.decision(id_prefix)
    if stored is None:
        raise click.ClickException(f"no decision id starts with {id_prefix}; `ksctl history` lists them")
    decision, snapshot = stored.decision, decode_kept_snapshot(stored.snapshot)
    policy = read_places(store, decision.policy_set).get(decision.policy)
    return DecisionHistory(decision, policy, snapshot, read_result(store, decision))


def decision_history_record(history: DecisionHistory) -> dict[str, object]:
    """The history as one JSON object, format `killswitch.explanation/v1`."""
    parts = {"policy": history.policy, "snapshot": history.snapshot, "result": history.result}
    return {"format": HISTORY_FORMAT, "decision": decision_record(history.decision), **parts}
