"""Exports of an incident for other people: for compliance (who, what, when, by which authority), and of the close.

`killswitch.compliance/v1` and `killswitch.closing/v1`, as JSON or CSV. They are computed from the incident and the
recorded decisions alone: nothing is guessed, and what the record does not have is null with a reason.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from killswitch.incident.record.close_causes import DRILL
from killswitch.incident.record.decision_basis import NO_OWNER, DecisionBasis
from killswitch.incident.record.document import ChecklistItem, Firing, Incident
from killswitch.incident.record.order_outcomes import OrderOutcome
from killswitch.incident.record.results import RecordedDecision
from killswitch.incident.record.verdict import verdict
from killswitch.incident.report.charts import TARGET
from killswitch.journal.entries import Cancelled
from killswitch.model.instant import rfc3339
from killswitch.model.legible import harmless_cell
from killswitch.risk.trading_cost import slippage

COMPLIANCE_FORMAT: Final = "killswitch.compliance/v1"
FRACTION_PLACES: Final = 8
"""Of a fraction that is a quotient, which has no last digit: a millionth of a per cent."""
CLOSING_FORMAT: Final = "killswitch.closing/v1"


class Act(Struct, frozen=True):
    """One act of the kill functionality: who, what, when, and by which authority."""

    at: datetime
    who: str
    """The operator by name, or the policy that decided without a person."""
    what: str
    authority: str
    """The policy's line and set, or the operator's stated reason."""
    policy_set: str
    commit: str | None
    decision: str
    outcome: str


class OwnedOrder(Struct, frozen=True):
    """An order that was sent or cancelled, with its owner. `owner` is null where `owner_unknown` says why."""

    at: datetime
    act: str
    """`sent` or `cancelled`."""
    account: str
    symbol: str
    side: str | None
    amount: Decimal | None
    order: str
    """The client order id of an order that was sent; the venue's id of one that was cancelled."""
    decision: str
    outcome: str
    owner: str | None
    owner_unknown: str | None


class ComplianceReport(Struct, frozen=True, tag_field="format", tag=COMPLIANCE_FORMAT):
    """Who did what, when and by which authority, and every order with its owner."""

    incident: str
    title: str
    scope: str
    state: str
    opened_at: datetime
    closed_at: datetime | None
    as_of: datetime
    acts: tuple[Act, ...]
    orders: tuple[OwnedOrder, ...]
    informed: tuple[str, ...]
    """Who was sent a message, and when, as the timeline has it."""
    checklist: tuple[ChecklistItem, ...]
    doubts: tuple[str, ...]


class ClosingRow(Struct, frozen=True):
    """One order of a close, with what it cost. Unknown numbers are null."""

    number: int
    decision: str
    stage: str
    account: str
    symbol: str
    position_side: str | None
    side: str | None
    purpose: str
    amount: Decimal | None
    filled: Decimal | None
    price: Decimal | None
    arrival_mark: Decimal | None
    slipped: Decimal | None
    """As a fraction of the mark when it was sent; below zero for a better price."""
    slippage: Decimal | None
    delay: Decimal | None
    fee: Decimal | None
    realised: Decimal | None
    sent_at: datetime
    answered_at: datetime | None
    final: bool
    outcome: str
    client_order_id: str | None


class ClosingReport(Struct, frozen=True, tag_field="format", tag=CLOSING_FORMAT):
    """A close in numbers: every order, its cost, the time against the target, and what is left."""

    incident: str
    title: str
    verdict: str
    opened_at: datetime
    closed_at: datetime | None
    as_of: datetime
    currency: str | None
    realised: Decimal | None
    fees: Decimal | None
    slippage: Decimal | None
    delay: Decimal | None
    seconds_to_flat: float | None
    """From the first firing until every account's close had ended at its target; null while one has not."""
    target_seconds: float
    left: int
    """Positions that are not at their target, or not known to be."""
    orders: tuple[ClosingRow, ...]


def compliance_report(incident: Incident, recorded: Sequence[RecordedDecision]) -> ComplianceReport:
    """Return the report for compliance; `recorded` are the incident's decisions with their journals."""
    acts = [_act(incident, each) for each in incident.firings]
    if incident.reset is not None:
        reset = incident.reset
        who = reset.author or f"policy {incident.policy}"
        why = reset.reason or ("its condition held" if reset.author is None else "no reason is recorded")
        acts.append(
            Act(reset.at, who, "returned the scope to normal", why, acts[-1].policy_set, None, reset.decision, "done")
        )
    informed = tuple(f"{rfc3339(each.at)} {each.text}" for each in incident.timeline if each.kind == "told")
    return ComplianceReport(
        incident.id, incident.title, incident.scope, incident.state, incident.opened_at, incident.closed_at,
        incident.as_of, tuple(acts), tuple(_owned_orders(incident, recorded)), informed, incident.checklist,
        incident.doubts,
    )  # fmt: skip


def _act(incident: Incident, firing: Firing) -> Act:
    lock = "" if firing.lock is None else f", locked trading ({firing.lock.mode})"
    what = f"decided {firing.stage}: {firing.orders} orders, {firing.cancels} cancels{lock}"
    if firing.kind == "hand":
        who, authority = firing.author or "unknown", f"stated reason: {firing.reason or 'none is recorded'}"
    else:
        place = "unknown line" if firing.line is None else f"{firing.line.file}:{firing.line.line}"
        triggers = ", ".join(f"{each.name} {each.value} against {each.threshold}" for each in firing.triggers)
        who = f"policy {incident.policy}"
        authority = f"{place}, {triggers or firing.reason or 'no trigger is recorded'}"
    outcome = firing.outcome if firing.acted else "recorded only: nothing was sent"
    return Act(firing.at, who, what, authority, firing.policy_set, firing.commit, firing.decision, outcome)


def _owned_orders(incident: Incident, recorded: Sequence[RecordedDecision]) -> Iterator[OwnedOrder]:
    """Yield every order that was sent or cancelled, the oldest first."""
    found: list[OwnedOrder] = []
    bases = {each.decision.id: DecisionBasis(each.decision, each.snapshot) for each in recorded}
    for order in incident.orders:
        basis = bases.get(order.decision)
        owner, unknown = ("", NO_OWNER) if basis is None else basis.owner(order.place)
        found.append(
            OwnedOrder(
                order.sent_at, "sent", order.account, order.symbol, order.side, order.amount,
                order.client_order_id or "unknown", order.decision, order.outcome, owner or None, unknown,
            )
        )  # fmt: skip
    for each in recorded:
        resting = {} if each.snapshot is None else {
            (account.account, order.id): order for account in each.snapshot.accounts for order in account.orders or ()
        }  # fmt: skip
        for entry in each.journal:
            if isinstance(entry, Cancelled):
                known = resting.get((entry.account or "", entry.order or ""))
                strategy = None if known is None else known.strategy
                found.append(
                    OwnedOrder(
                        entry.at, "cancelled", entry.account or "unknown", entry.symbol or "unknown",
                        None if known is None else known.side, None if known is None else known.amount,
                        entry.order or "unknown", each.decision.id, entry.why or "cancelled", strategy,
                        None if strategy else NO_OWNER,
                    )
                )  # fmt: skip
    yield from sorted(found, key=lambda one: one.at)


def closing_report(incident: Incident) -> ClosingReport:
    """Return the numbers of the close."""
    ended = [each.at for each in incident.endings if each.at is not None and each.status == "flat"]
    is_flat = bool(ended) and len(ended) == len(incident.endings) and not incident.left
    money = incident.money
    return ClosingReport(
        incident.id, incident.title, verdict(incident), incident.opened_at, incident.closed_at, incident.as_of,
        money.currency, money.realised, money.fees, money.slippage, money.delay,
        (max(ended) - incident.opened_at).total_seconds() if is_flat else None, TARGET, len(incident.left),
        tuple(_closing_row(each) for each in incident.orders),
    )  # fmt: skip


def _closing_row(order: OrderOutcome) -> ClosingRow:
    slipped = None
    if order.side is not None and order.price is not None and order.arrival_mark:
        slipped = round(slippage(order.side, order.arrival_mark, order.price), FRACTION_PLACES)
    same = {name: getattr(order, name) for name in ClosingRow.__struct_fields__ if name != "slipped"}
    return ClosingRow(slipped=slipped, **same)


_OF_ACT: Final = ("who", "authority", "policy_set", "commit")
"""What a row of an order repeats of the act that it is a part of."""
_JSON = msgspec.json.Encoder(decimal_format="string")


def as_json(report: ComplianceReport | ClosingReport) -> str:
    """Return the report as indented JSON; decimals are text."""
    return msgspec.json.format(_JSON.encode(report), indent=2).decode()


def as_csv(report: ComplianceReport | ClosingReport) -> str:
    """Return the rows as CSV (RFC 4180): the orders of a close, or for compliance acts and orders, by the column `row`.

    A cell that a spreadsheet would compute (it begins with `=`, `+`, `-` or `@` and is no number) begins with `'`.
    """
    if isinstance(report, ClosingReport):
        rows = [asdict(each) for each in report.orders]
        head: Sequence[str] = ClosingRow.__struct_fields__
    else:
        head = ("row", *dict.fromkeys((*Act.__struct_fields__, *OwnedOrder.__struct_fields__)))
        rows = [{"row": "act", **asdict(each)} for each in report.acts]
        # A spreadsheet filters rows: each order has whose decision it was, and by which authority.
        by = {each.decision: {name: getattr(each, name) for name in _OF_ACT} for each in report.acts}
        rows += [{"row": "order", **by.get(each.decision, {}), **asdict(each)} for each in report.orders]
    if report.title.startswith(DRILL):  # a spreadsheet shows rows alone
        rows = [{**row, "outcome": f"{DRILL}{row['outcome']}"} for row in rows]
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(head)
    writer.writerows([_cell(row.get(name)) for name in head] for row in rows)
    return written.getvalue()


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case datetime():
            return rfc3339(value)
        case Decimal():
            return _digits(value)
        case str():
            return harmless_cell(value)
        case _:
            return str(value)


def _digits(value: Decimal) -> str:
    """Return the number without the zeros that a product of venue numbers ends in."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
