"""What the gate would answer now to an order that opens against a net exposure, judged by the function of its verdicts.

A suggestion is made of a snapshot. The gate also knows lock files, the sentinel, pauses, what was traded in the day and
how old its reads are, so that its answer is a part of a preview, and of no decision. What it has allowed to bots and no
read shows yet is known to its server alone, and not counted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from msgspec import MsgspecError, Struct

from killswitch.gate.lock_reader import LockVerdict, lock_path, read_lock
from killswitch.gate.sentinel import sentinel_at, sentinel_of
from killswitch.graph.limits import LimitsRule
from killswitch.limits.moment import GateMoment, LockState
from killswitch.limits.question import OrderAsked, Question
from killswitch.limits.reservations import Reservations
from killswitch.limits.verdict import verdict
from killswitch.limits.view import GateView, decode_gate_view
from killswitch.model.decision import HedgeOrder
from killswitch.model.lock_parts import merged_parts, strictest_mode
from killswitch.model.snapshot import LockPart, WrittenLock
from killswitch.planning.actions.net_exposure import ScopeExposure
from killswitch.runner.locks.gate_view import gate_view_file


class GateAnswer(Struct, frozen=True):
    """The answer to one suggested order. `is_allowed` None: it is unknown, and `text` says why.

    `reason` is that of the verdict: `allowed`, or the first check that denies; None where the answer is unknown.
    """

    order: HedgeOrder
    is_allowed: bool | None
    reason: str | None
    text: str

    @property
    def line(self) -> str:
        """The answer as a sentence without a full stop."""
        what = f"{self.order.side} {self.order.contracts.normalize():f} {self.order.symbol} on {self.order.account}"
        if self.is_allowed is None:
            return f"Whether the gate lets {what} pass is unknown: {self.text}"
        return f"The gate would {'allow' if self.is_allowed else 'deny'} {what} now ({self.reason}): {self.text}"


def gate_answers(
    exposures: Iterable[ScopeExposure], limits: Sequence[LimitsRule], store_at: str | None, now: datetime
) -> tuple[GateAnswer, ...]:
    """The answers to all orders that open against these exposures, on accounts that have `Limits`.

    `store_at`: the store of the run, next to which its view is; None: there is no run to ask. `now` by its clock.
    """
    limited = {name for rule in limits for name in rule.accounts}
    options = (option for each in exposures for option in each.exposure.options if option.kind == "open")
    orders = dict.fromkeys(order for option in options for order in option.orders if order.account in limited)
    if not orders:
        return ()
    view = _view(store_at)
    if isinstance(view, str) or store_at is None:
        return tuple(GateAnswer(order, None, None, str(view)) for order in orders)
    sentinel = sentinel_at(sentinel_of(store_at))
    return tuple(_answer(order, view, sentinel, now) for order in orders)


def locks_of_run(store_at: str | None) -> tuple[WrittenLock, ...]:
    """The trading locks that a run has written and that were in force at its last tick; none where no run has."""
    view = _view(store_at)
    return () if isinstance(view, str) else view.locks


def _view(store_at: str | None) -> GateView | str:
    """What the run has written for the gate; why there is nothing to judge by."""
    if store_at is None:
        return "no store of a run is named; give --store"
    path = gate_view_file(store_at)
    try:
        return decode_gate_view(path.read_bytes())
    except FileNotFoundError:
        return f"no run has written {path}"
    except (OSError, MsgspecError, ValueError) as error:
        return f"{path} cannot be read: {error}"


def _answer(order: HedgeOrder, view: GateView, sentinel: str | None, now: datetime) -> GateAnswer:
    folder = view.lock_folder
    found = () if folder is None else (read_lock(lock_path(Path(folder), f"account/{order.account}"), now),)
    moment = GateMoment(now, view.run_started_at, lock_state(found), sentinel)
    asked = OrderAsked(order.symbol, order.side, order.contracts, "contracts")
    judged = verdict(Question("preview", order.account, (asked,)), view, Reservations(), moment).verdict
    return GateAnswer(order, judged.allowed, judged.reason, judged.text)


def lock_state(found: Sequence[LockVerdict]) -> LockState:
    """What several lock files say together: the strictest mode, and every part."""
    locking = [each for each in found if each.mode is not None]
    if not locking:
        return LockState()
    mode = strictest_mode([each.mode for each in locking if each.mode is not None])
    reason = "; ".join(dict.fromkeys(each.reason for each in locking))
    if not all(each.only for each in locking):
        whole = [LockPart(each.mode, None) for each in locking if each.mode is not None and not each.only]
        parts = tuple(part for each in locking for part in each.only)
        return LockState(mode, reason, (*whole, *parts) if parts else ())
    return LockState(mode, reason, merged_parts(part for each in locking for part in each.only))
