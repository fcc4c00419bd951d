"""The cancel of entries is repeated after a lock until nothing from before it can arrive."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, LockOrder
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, LockPart, Order, OwnOrder, Snapshot, WrittenLock
from killswitch.planning.entry_sweeps import EntrySweeps
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.operator.closes import OPERATOR
from killswitch.valuation.snapshot_facts import SnapshotFacts
from tests import graphs
from tests.unit.limits.gates import limits
from tests.worlds import account, after, operator_event, position, snapshot

POLICIES = graphs.policy_set(graphs.graph([], [], [], policy="calm"))
WITH_LIMITS = replace(POLICIES, limits=(limits(valid_for=2_000_000, request_timeout=30_000_000),))
"""A verdict is valid for 2 s there, and a request is given up after 30 s."""
BTC = "BTC/USDT:USDT"
EXIT = Order(id="exit", symbol=BTC, side="sell", amount=Decimal(10))


def entry(name: str, side: str = "buy", **more: Any) -> Order:
    return Order(id=name, symbol=BTC, side=side, amount=Decimal(1), **more)  # type: ignore[arg-type]  # literal


def book(at: datetime, *orders: Order, age: float = 1.0, **more: Any) -> AccountSnapshot:
    """10 BTC long, whose orders were read `age` seconds before its positions."""
    rows = [position(BTC, "long", contracts="10", mark_price="100")]
    seen = account("1000", rows, position_mode="one_way", orders=(EXIT, *orders), observed_at=at)
    return replace(seen, **{"positions_as_of": at, "orders_as_of": at - timedelta(seconds=age)} | more)


class Locked:
    """An interpreter with a lock by hand that was decided at second 0 and written at once."""

    def __init__(self, kind: str, policies: PolicySet = POLICIES, *first: Order, **more: Any) -> None:
        self.interpreter = Interpreter(policies)
        self.interpreter.tick(self.seen(-1.0, *first))
        event = replace(operator_event(kind, after(seconds=0)), lock="reduce_only")  # type: ignore[arg-type]  # a kind
        (self.decision,) = self.interpreter.tick(replace(self.seen(0.0, *first), events=(event,))).decisions
        self.locks = (
            WrittenLock(self.decision.id, OPERATOR, "account/main", after(seconds=0.1), ("main",), **more),
        )  # fmt: skip

    def seen(self, seconds: float, *orders: Order, **more: Any) -> Snapshot:
        return snapshot(after(seconds=seconds), book(after(seconds=seconds), *orders, **more))

    def cancelled(self, seconds: float, *orders: Order, **more: Any) -> list[str]:
        """The orders that are cancelled at a later tick."""
        own = more.pop("own", ())
        found = replace(self.seen(seconds, *orders, **more), locks=self.locks, own_orders=own)
        return [each.order for one in self.interpreter.tick(found).decisions for each in one.cancels]


def test_an_entry_that_arrives_after_a_halt_is_cancelled_and_an_exit_stays() -> None:
    """The one of before the lock was cancelled with it."""
    locked = Locked("halt", POLICIES, entry("early"))
    assert [each.order for each in locked.decision.cancels] == ["early"]
    assert locked.cancelled(2, entry("late")) == ["late"]


def test_an_order_whose_cancel_is_under_way_is_cancelled_again_only_after_ten_seconds() -> None:
    """The list of orders is a few seconds old."""
    locked = Locked("halt", POLICIES, entry("early"))
    assert locked.cancelled(2, entry("early")) == []
    assert locked.cancelled(9.9, entry("early")) == []
    assert locked.cancelled(10, entry("early")) == ["early"]


@pytest.mark.parametrize(
    ("end", "age", "is_over"),
    [
        (38.0, 1.0, False),
        (38.2, 1.0, True),
        (42.0, 5.0, False),
        (42.2, 5.0, True),
        (57.0, None, False),
        (57.2, None, True),
    ],
)  # fmt: skip
def test_it_ends_with_the_first_read_of_orders_that_began_late_enough(
    end: float, age: float | None, is_over: bool
) -> None:
    """Lock at 0.1 s, 2 s of validity, 30 s of time-out, 5 s between clocks: a read after 37.1 s, which is older by its
    age, or by 20 s where its time is not stated. What that read still shows is cancelled."""
    locked = Locked("halt")
    more = {"orders_as_of": None} if age is None else {"age": age}
    assert locked.cancelled(end, entry("last"), **more) == ["last"]
    assert locked.cancelled(end + 1, entry("after")) == ([] if is_over else ["after"])


def test_no_time_ends_it_while_the_account_cannot_be_read() -> None:
    """An hour later the first readable list of orders is the first proof."""
    locked = Locked("halt")
    for minute in (1, 30, 59):
        down = replace(locked.seen(60 * minute).accounts[0], quality="down", reason="x", orders=None, positions=None)
        found = replace(snapshot(after(minutes=minute), down), locks=locked.locks)
        assert locked.interpreter.tick(found).decisions == ()
    assert locked.cancelled(3600, entry("stuck")) == ["stuck"]
    assert locked.cancelled(3620, entry("new")) == []


def test_a_plain_lock_leaves_what_rested_and_takes_what_arrives_where_a_gate_judges() -> None:
    """Its author cancelled nothing; the gate promised that nothing opens. Without `Limits` no gate allows an entry."""
    plain = Locked("lock", WITH_LIMITS, entry("early"))
    assert plain.cancelled(2, entry("early"), entry("late")) == ["late"]
    assert plain.cancelled(3, entry("early"), entry("late")) == []
    without = Locked("lock", POLICIES, entry("early"))
    assert without.cancelled(2, entry("early"), entry("late")) == []


def test_the_part_that_is_locked_is_swept_and_our_own_orders_are_not() -> None:
    """A lock of the long side leaves a short entry; an order of ours that opens is a hedge."""
    part = (LockPart("reduce_only", None, "long", None),)
    locked = Locked("halt", only=part)
    assert locked.cancelled(2, entry("long"), entry("short", "sell")) == ["long"]
    hedge = OwnOrder("ks-1", "main", BTC, "accepted", after(), after())
    assert locked.cancelled(3, entry("hedge", client_order_id="ks-1"), own=(hedge,)) == []


def test_a_stage_goes_on_only_if_it_cancels_entries() -> None:
    """As its actions say; an observed stage writes no lock."""
    lock = LockTrading("reduce_only", None)
    stages = (graphs.stage("a", 1, 0, actions=(lock, CancelOrders("entry"))), graphs.stage("b", 2, 0, actions=(lock,)))
    policies = graphs.policy_set(graphs.graph([], [], stages, policy="p"))
    for stage, expected in (("a", ["late"]), ("b", [])):
        sweeps = EntrySweeps(policies)
        fired = Decision("d", after(), "p", policies.digest, "account/main", "enforce", stage, 1, 0,
                         lock=LockOrder("account/main", "reduce_only", None))  # fmt: skip
        sweeps.restore([fired])
        seen = snapshot(after(seconds=2), book(after(seconds=2), entry("late")))
        seen = replace(seen, locks=(WrittenLock("d", "p", "account/main", after(), ("main",), stage),))
        found = sweeps.plan(seen, SnapshotFacts(to_micros(seen.as_of), seen.accounts, {}))
        assert [each.order for one in found for each in one.cancels] == expected
        assert {(each.kind, each.stage, each.policy) for each in found} <= {("breach", stage, "p")}


def swept(sweeps: EntrySweeps, found: Snapshot) -> list[str]:
    """The orders that are cancelled at a tick."""
    facts = SnapshotFacts(to_micros(found.as_of), found.accounts, {})
    return [each.order for one in sweeps.plan(found, facts) for each in one.cancels]


def test_what_rested_at_a_lock_is_not_taken_for_nothing_while_nobody_knows_it() -> None:
    """No list of orders until after the lock: what the first one shows is left, and what arrives later is cancelled."""
    locked, sweeps = Locked("lock", WITH_LIMITS), EntrySweeps(WITH_LIMITS)
    sweeps.acted([locked.decision])
    assert swept(sweeps, replace(locked.seen(1, orders=None), locks=locked.locks)) == []
    assert swept(sweeps, replace(locked.seen(2, entry("early")), locks=locked.locks)) == []
    assert swept(sweeps, replace(locked.seen(3, entry("early"), entry("late")), locks=locked.locks)) == ["late"]


def test_what_rested_at_a_lock_is_what_the_last_list_before_it_showed() -> None:
    """The account could not be read when the lock was written."""
    locked, sweeps = Locked("lock", WITH_LIMITS), EntrySweeps(WITH_LIMITS)
    sweeps.acted([locked.decision])
    assert swept(sweeps, locked.seen(-2, entry("early"))) == []
    assert swept(sweeps, locked.seen(-1, orders=None)) == []
    assert swept(sweeps, replace(locked.seen(1, entry("early"), entry("late")), locks=locked.locks)) == ["late"]


def test_a_restart_does_not_begin_the_sweep_of_an_old_halt_again() -> None:
    """Ended by a read at second 40: the next process leaves what arrives then; one that knows of no end goes on."""
    locked = Locked("halt")
    locked.cancelled(40.0)
    stored = locked.interpreter.live()
    for blobs, cancelled in ((stored, []), ({}, ["late"])):
        again = Interpreter(POLICIES)
        again.restore(locked.interpreter.states(), lambda *_: [], past=[locked.decision], live=blobs.get)
        locked.interpreter = again
        assert locked.cancelled(60.0, entry("late")) == cancelled
