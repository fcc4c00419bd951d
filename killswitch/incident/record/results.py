"""The result of a decision, read from its journal: orders, positions, money, time, and how it ended on each account."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Literal

from msgspec import UNSET, DecodeError, Struct, UnsetType
from msgspec.structs import replace

from killswitch.incident.record.closed_positions import (
    ClosedPosition,
    closed_by_request,
    closed_positions,
    credit_own_decisions,
)
from killswitch.incident.record.decision_basis import closes_all, only_passed_through
from killswitch.incident.record.order_outcomes import OrderOutcome as OrderOutcome
from killswitch.incident.record.order_outcomes import order_outcomes
from killswitch.incident.record.totals import Missing, Totals, add_up, count_orders
from killswitch.incident.record.unprotected import Exposure, exposures
from killswitch.journal.codec import decode_all
from killswitch.journal.entries import (
    Cancelled,
    Entry,
    Finished,
    Locked,
    Place,
    Undecodable,
    Verified,
    WholeBookClose,
    is_end,
    is_plan,
    known,
)
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Snapshot, decode_snapshot
from killswitch.model.store import Store

DecisionStatus = Literal[
    "recorded only", "nothing to close", "closing", "flat", "at target", "residual", "blocked", "abandoned",
    "partly recorded only", "locked on suspicion", "suspicion over",
]  # fmt: skip
"""The status of a decision. `partly recorded only`: done on armed accounts, nothing sent on the others."""


class Verification(Struct, frozen=True):
    """The position that the venue reported last."""

    account: str
    symbol: str
    position_side: str | None
    at: datetime
    position: Decimal
    target: Decimal


class AccountClose(Struct, frozen=True):
    """How the work of one decision on one account ended; `status` is `closing` while it is under way."""

    decision: str
    account: str
    status: str
    at: datetime | None
    reason: str | None
    cost: Decimal | UnsetType | None = UNSET
    """Fees and slippage, never below 0. No field of an incident, which has their sums."""
    delay: Decimal | UnsetType | None = UNSET


class Result(Struct, frozen=True):
    """The results of a decision.

    `fees`, `slippage` (each fill against the mark when its order was sent), `delay` (the market's move from the
    decision's mark until then; below 0 is a gain) and `realised` (before fees) are null where any part is unknown,
    including an order of unknown status; `missing` names that part and the sum of the others.
    """

    standing: DecisionStatus
    orders: tuple[OrderOutcome, ...]
    verified: tuple[Verification, ...]
    endings: tuple[AccountClose, ...]
    locked_at: datetime | None
    cancelled: tuple[str, ...]
    closed: int
    """The number of positions that were reduced."""
    fees: Decimal | None
    realised: Decimal | None
    slippage: Decimal | None = None
    missing: tuple[Missing, ...] = ()
    positions: tuple[ClosedPosition, ...] = ()
    exposures: tuple[Exposure, ...] = ()
    swept: tuple[str, ...] = ()
    """Accounts whose venue was requested to close the whole book at once."""
    totals: Totals = Totals()
    delay: Decimal | None = None
    unsent: tuple[str, ...] = ()
    """Accounts on which nothing was sent, although something was decided and the decision was carried out elsewhere."""
    currencies: tuple[str, ...] = ()
    """The currencies of the accounts that the sums are of; empty where no snapshot was kept."""


class RecordedDecision(Struct, frozen=True, dict=True):
    """A decision with everything that a store keeps of it; `snapshot` is None where no readable one was kept."""

    decision: Decision
    journal: Sequence[Entry]
    snapshot: Snapshot | None

    @cached_property
    def result(self) -> Result:
        """The results by its own journal."""
        return fold_result(self.decision, self.journal, self.snapshot)


def read_decision(store: Store, decision: Decision) -> RecordedDecision:
    """Read what `store` keeps of `decision`."""
    stored = store.decision(decision.id)
    snapshot = None if stored is None else decode_kept_snapshot(stored.snapshot)
    return RecordedDecision(decision, decode_all(store.journal(decision.id)), snapshot)


def fold_result(decision: Decision, journal: Sequence[Entry], snapshot: Snapshot | None) -> Result:
    """Fold `journal`, the decision's entries in sequence. `snapshot` is what it was decided on, where it was kept."""
    orders = order_outcomes(decision, journal, snapshot)
    verified = {entry.place: entry for entry in journal if isinstance(entry, Verified)}
    endings = tuple(
        _ending(decision.id, entry, entry.account) for entry in journal if is_end(entry) and entry.account is not None
    )
    unsent = _unsent(decision, journal)
    if decision.is_suspicion:  # no close, whatever it has cancelled
        status = _suspicion_status(decision, journal)
    else:
        status = _status(decision, journal, endings, partly=bool(unsent))
    positions = closed_positions([(decision, journal, orders, snapshot)])
    whole_book_accounts = tuple(
        dict.fromkeys(e.account for e in journal if isinstance(e, WholeBookClose) and e.account is not None)
    )
    by_request = closed_by_request(positions, whole_book_accounts)
    return Result(
        standing=status,
        orders=orders,
        verified=tuple(_verification(entry) for entry in verified.values()),
        endings=endings,
        locked_at=next((entry.at for entry in journal if isinstance(entry, Locked)), None),
        cancelled=tuple(entry.order or "" for entry in journal if isinstance(entry, Cancelled)),
        closed=len(_filled(orders) - only_passed_through(decision) | {each.place for each in by_request}),
        positions=positions,
        exposures=exposures(journal),
        swept=whole_book_accounts,
        totals=count_orders(orders, [each.at for each in verified.values()], ended=status != "closing"),
        unsent=unsent,
        currencies=_currencies({order.account for order in orders} or {*decision.accounts}, snapshot),
        **add_up(orders, has_whole_book=bool(by_request)),
    )


def _ending(decision: str, entry: Entry, account: str) -> AccountClose:
    """Return how the work on an account ended; `abandoned` where the entry cannot be decoded."""
    if not isinstance(entry, Finished):
        why = entry.why if isinstance(entry, Undecodable) else None
        return AccountClose(decision, account, "abandoned", entry.at, why, None, None)
    status = entry.status or "abandoned"
    return AccountClose(decision, account, status, entry.at, entry.reason, known(entry.cost), known(entry.delay))


def _currencies(traded: Collection[str | None], snapshot: Snapshot | None) -> tuple[str, ...]:
    accounts = () if snapshot is None else snapshot.accounts
    return tuple(sorted({each.currency for each in accounts if each.account in traded}))


def _filled(orders: Sequence[OrderOutcome]) -> set[Place]:
    """Return the positions that our orders have reduced."""
    return {each.place for each in orders if each.filled and each.purpose != "hedge"}


def _unsent(decision: Decision, journal: Sequence[Entry]) -> tuple[str, ...]:
    """Return the accounts without a plan, for a decision that was carried out elsewhere."""
    planned = {entry.account for entry in journal if is_plan(entry)}
    return tuple(account for account in decision.accounts_at_work if account not in planned) if planned else ()


def _suspicion_status(decision: Decision, journal: Sequence[Entry]) -> DecisionStatus:
    if decision.is_withdrawal:
        return "suspicion over"
    return "locked on suspicion" if any(is_plan(entry) for entry in journal) else "recorded only"


def _status(
    decision: Decision, journal: Sequence[Entry], endings: Sequence[AccountClose], *, partly: bool
) -> DecisionStatus:
    ordered = [entry.account for entry in journal if is_plan(entry)]
    planned = {account for account in ordered if account is not None}
    if not planned:
        observed = not ordered and decision.effects
        return "recorded only" if observed else "nothing to close"
    if planned - {ending.account for ending in endings}:
        return "closing"
    statuses = {ending.status for ending in endings}
    if statuses == {"flat"}:
        if partly:
            return "partly recorded only"
        return "flat" if decision.kind != "hedge" and closes_all(decision) else "at target"
    # An order of unknown status is worse than a position that is known to be left.
    if statuses <= {"flat", "blocked", "residual"}:
        return "blocked" if "blocked" in statuses else "residual"
    return "abandoned"


def _verification(entry: Verified) -> Verification:
    return Verification(
        entry.account or "", entry.symbol or "", entry.position_side, entry.at,
        known(entry.position) or Decimal(0), known(entry.target) or Decimal(0),
    )  # fmt: skip


def decode_kept_snapshot(stored: bytes | None) -> Snapshot | None:
    """Decode the snapshot kept with a decision; None where none was kept or this version cannot read it."""
    try:
        return None if stored is None else decode_snapshot(stored)
    except (DecodeError, UnicodeDecodeError):
        return None


def newest_results(store: Store, limit: int) -> tuple[tuple[Decision, Result], ...]:
    """Return the newest `limit` decisions with their results, newest first."""
    return tuple((each.decision, read_result(store, each.decision)) for each in store.decisions(limit))


def read_result(store: Store, decision: Decision) -> Result:
    """Return the results of `decision` by its journal and its snapshot in `store`.

    Without the snapshot the entry price is unknown, and with it the realised P&L.
    """
    result = read_decision(store, decision).result
    positions = credit_own_decisions(store, result.positions, decision.as_of, {decision.id})
    return result if positions is result.positions else replace(result, positions=positions)
