"""The verdict on one position target, at the edges of amounts, attempts, refusals and rules."""

from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.execution.decide.target_verdict import (
    TargetAction,
    TargetVerdict,
    evaluate_target,
    left_to_close,
    select_active,
    size_order,
)
from killswitch.journal.entries import OrderSending
from killswitch.journal.ledger import PositionLedger
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.orders import JournaledOrder, JournaledOrders
from killswitch.journal.targets import PositionTarget
from killswitch.model.snapshot import Instrument
from tests.honest_venue import NOW

D = Decimal
BLANK = PositionLedger()


def target_of(target: str = "0", decided: str = "10", **fields: object) -> PositionTarget:
    of = PositionTarget(
        "d1", "main", "BTC", "long", "sell", D(target), D(decided), D(decided), True, 1, 0, is_enforced=True
    )  # fmt: skip
    return replace(of, **fields)


def rules(**fields: str) -> Instrument:
    return Instrument("BTC", **{name: D(value) for name, value in fields.items()})  # type: ignore[arg-type]  # the fields of each test


def detached_of(amount: str) -> dict[str, JournaledOrder]:
    sent = OrderSending("d1", NOW, "main", "BTC", "long", "o1", 1, amount=D(amount))
    return JournaledOrders([sent]).newest


@pytest.mark.parametrize("state", [TargetState.SENDING, TargetState.UNKNOWN, TargetState.WORKING, TargetState.SETTLED])
def test_a_target_waits_for_its_order_and_for_its_effect(state: TargetState) -> None:
    """Whatever position is shown meanwhile."""
    assert evaluate_target(target_of(state=state), D(0), BLANK, None, attempts=8).do is TargetAction.WAIT


def test_at_the_target_and_below_it_there_is_nothing_to_do() -> None:
    """Four of four and three of four; at five one is sold."""
    of = target_of("4", "6")
    assert evaluate_target(of, D(4), BLANK, None, attempts=8) == TargetVerdict(TargetAction.NOTHING)
    assert evaluate_target(of, D(3), BLANK, None, attempts=8) == TargetVerdict(TargetAction.NOTHING)
    assert evaluate_target(of, D(5), BLANK, None, attempts=8) == TargetVerdict(TargetAction.SEND, D(1))


def test_a_below_minimum_refusal_ends_the_target_at_once() -> None:
    """At the first refusal, with what is left in the reason."""
    verdict = evaluate_target(target_of(refusal="below_minimum"), D("0.1"), BLANK, None, attempts=8)
    assert (verdict.do, verdict.amount, verdict.is_final) == (TargetAction.BLOCKED, D(0), True)
    assert "0.1 of BTC" in (verdict.reason or "")


@pytest.mark.parametrize(
    ("refusal", "do"),
    [("permission", TargetAction.BLOCKED), ("unknown_symbol", TargetAction.GIVE_UP), (None, TargetAction.GIVE_UP)],
)
def test_after_enough_attempts_without_fill_the_refusal_decides_the_end(refusal: str | None, do: TargetAction) -> None:
    """A trim is blocked by the venue's rules and given up for its problems; one attempt earlier it is retried."""
    of = target_of("1", "9", refusal=refusal, attempts_without_fill=3)
    verdict = evaluate_target(of, D(10), BLANK, None, attempts=3)
    assert (verdict.do, "BTC" in (verdict.reason or ""), "3" in (verdict.reason or "")) == (do, True, True)
    assert evaluate_target(of, D(10), BLANK, None, attempts=4).do is TargetAction.SEND


@pytest.mark.parametrize(
    "refusal",
    [
        "market_closed",
        "other",
        "price_band",
        "insufficient_margin",
        "blocked_by_order",
        "permission",
        "already_flat",
        None,
    ],
)
def test_a_full_close_outlasts_every_refusal_and_a_trim_does_not(refusal: str | None) -> None:
    """Nor does a hop, which is counted by its own fills."""
    assert (
        evaluate_target(target_of(refusal=refusal, attempts_without_fill=99), D(10), BLANK, None, attempts=8).do
        is TargetAction.SEND
    )
    ended = (TargetAction.BLOCKED, TargetAction.GIVE_UP)
    assert (
        evaluate_target(
            target_of("1", "9", refusal=refusal, attempts_without_fill=99), D(10), BLANK, None, attempts=8
        ).do
        in ended
    )
    hop = target_of(refusal=refusal, attempts_without_fill=99, purpose="hop")
    assert evaluate_target(hop, D(10), BLANK, None, attempts=8).do in ended


def test_a_below_minimum_refusal_ends_a_full_close_too() -> None:
    """No further order changes that: only the venue's own minimum ends it while a position is shown."""
    assert (
        evaluate_target(target_of(refusal="below_minimum", attempts_without_fill=1), D(10), BLANK, None, attempts=8).do
        is TargetAction.BLOCKED
    )


def test_a_trim_never_sends_more_than_was_decided() -> None:
    """Of 6 decided 4 are closed and 1 is detached: 1 is left, though the venue shows 10 over the target."""
    ledger = PositionLedger(closed=D(7))
    of = target_of("4", "6", closed_before=D(3), detached=detached_of("1"))
    assert left_to_close(of, ledger) == D(1)
    assert evaluate_target(of, D(14), ledger, None, attempts=8) == TargetVerdict(TargetAction.SEND, D(1))


def test_an_order_in_flight_elsewhere_reduces_the_next_order_by_its_amount() -> None:
    """Ten are shown, another decision's three may fill: a target that may overshoot sends seven."""
    ledger = PositionLedger(anchor=D(10), outstanding={"x": D(3)})
    of = target_of(reduce_only=False)
    assert evaluate_target(of, D(10), ledger, None, attempts=8) == TargetVerdict(TargetAction.SEND, D(7))
    assert evaluate_target(of, D(10), ledger, None, attempts=8, believe_venue=True) == TargetVerdict(
        TargetAction.SEND, D(7)
    )
    assert evaluate_target(target_of(), D(10), ledger, None, attempts=8, believe_venue=True) == TargetVerdict(
        TargetAction.SEND, D(10)
    )
    ledger.detached.add("x")
    assert evaluate_target(target_of(), D(10), ledger, None, attempts=8) == TargetVerdict(TargetAction.SEND, D(10))
    assert evaluate_target(of, D(10), ledger, None, attempts=8) == TargetVerdict(TargetAction.SEND, D(7))


def test_the_venue_is_believed_over_our_fills_only_after_repetition() -> None:
    """Our fills leave 4, the venue shows 6: four are sold, or six once it is believed."""
    ledger = PositionLedger(anchor=D(4))
    of = target_of(reduce_only=False)
    assert evaluate_target(of, D(6), ledger, None, attempts=8) == TargetVerdict(TargetAction.SEND, D(4))
    assert evaluate_target(of, D(6), ledger, None, attempts=8, believe_venue=True) == TargetVerdict(
        TargetAction.SEND, D(6)
    )


def test_a_position_larger_than_our_fills_leave_is_a_contradiction_first() -> None:
    """They left nothing and the venue shows 6: a contradiction, and a sale once it is believed."""
    ledger = PositionLedger(anchor=D(0), closed=D(10))
    assert evaluate_target(target_of(), D(6), ledger, None, attempts=8) == TargetVerdict(TargetAction.CONTRADICTED)
    assert evaluate_target(target_of(), D(6), ledger, None, attempts=8, believe_venue=True) == TargetVerdict(
        TargetAction.SEND, D(6)
    )


def test_a_trim_whose_position_has_grown_meanwhile_is_given_up() -> None:
    """All 6 are closed and 10 are shown: the reason has both numbers, and only when the venue is believed."""
    ledger = PositionLedger(anchor=D(4), closed=D(6))
    of = target_of("4", "6")
    assert evaluate_target(of, D(10), ledger, None, attempts=8).do is TargetAction.CONTRADICTED
    verdict = evaluate_target(of, D(10), ledger, None, attempts=8, believe_venue=True)
    assert (verdict.do, verdict.is_final) == (TargetAction.GIVE_UP, True)
    assert all(part in (verdict.reason or "") for part in ("BTC", "6", "10"))


def test_an_order_that_may_have_closed_the_rest_is_waited_for_and_finally_abandoned() -> None:
    """Of unknown status: wait; never to be known: the target ends as abandoned."""
    ledger = PositionLedger(anchor=D(10), outstanding={"x": D(10)})
    of = target_of("4", "6")
    assert evaluate_target(of, D(10), ledger, None, attempts=8).do is TargetAction.WAIT
    ledger.abandoned.add("x")
    verdict = evaluate_target(of, D(10), ledger, None, attempts=8)
    assert (verdict.do, verdict.is_final, "BTC" in (verdict.reason or "")) == (TargetAction.ABANDON, True, True)
    own = target_of("4", "6", detached=detached_of("6"))
    assert evaluate_target(own, D(10), PositionLedger(), None, attempts=8).do is TargetAction.WAIT
    lost = target_of("4", "6", abandoned=("o1",), abandoned_amount=D(6))
    assert evaluate_target(lost, D(10), PositionLedger(), None, attempts=8).do is TargetAction.ABANDON


def test_a_hop_ignores_the_outstanding_orders_of_others() -> None:
    """A hop of 10 sends 10 whatever is outstanding on the position, less its own detached amount."""
    ledger = PositionLedger(anchor=D(1), outstanding={"x": D(9)})
    assert evaluate_target(target_of(purpose="hop"), D(10), ledger, None, attempts=8) == TargetVerdict(
        TargetAction.SEND, D(10)
    )
    assert evaluate_target(
        target_of(purpose="hop", detached=detached_of("4")), D(10), ledger, None, attempts=8
    ) == TargetVerdict(TargetAction.SEND, D(6))
    assert (
        evaluate_target(target_of(purpose="hop", detached=detached_of("10")), D(10), ledger, None, attempts=8).do
        is TargetAction.WAIT
    )
    lost = target_of(purpose="hop", abandoned=("o1",), abandoned_amount=D(10))
    assert evaluate_target(lost, D(10), ledger, None, attempts=8).do is TargetAction.ABANDON


def test_an_order_keeps_to_the_smallest_maximum_and_to_whole_steps() -> None:
    """The plan's maximum, the venue's maximum, and down to the step."""
    of = target_of(largest=D(6))
    assert size_order(of, D(10), None) == TargetVerdict(TargetAction.SEND, D(6))
    assert size_order(of, D(5), None) == TargetVerdict(TargetAction.SEND, D(5))
    assert size_order(of, D(10), rules(max_amount="4")) == TargetVerdict(TargetAction.SEND, D(4))
    assert size_order(of, D(3), rules(max_amount="4")) == TargetVerdict(TargetAction.SEND, D(3))
    assert size_order(of, D(10), rules(amount_step="1", max_amount="4")) == TargetVerdict(TargetAction.SEND, D(4))
    assert size_order(of, D(10), rules(amount_step="1", max_amount="8")) == TargetVerdict(TargetAction.SEND, D(6))
    assert size_order(of, D("5.99"), rules(amount_step="0.5")) == TargetVerdict(TargetAction.SEND, D("5.5"))


def test_dust_is_blocked_and_the_plans_own_first_order_is_not() -> None:
    """Below the step always; below the minimum except as a plan's first order; at the minimum never."""
    minimum = rules(amount_step="0.1", min_amount="1")
    for of in (target_of(attempt=1), target_of(purpose="hop")):
        verdict = size_order(of, D("0.9"), minimum)
        assert (verdict.do, verdict.is_final) == (TargetAction.BLOCKED, True)
        assert "0.9 of BTC" in (verdict.reason or "")
        assert size_order(of, D(1), minimum) == TargetVerdict(TargetAction.SEND, D(1))
    assert size_order(target_of(), D("0.9"), minimum) == TargetVerdict(TargetAction.SEND, D("0.9"))
    assert size_order(target_of(), D("0.05"), minimum).do is TargetAction.BLOCKED
    assert size_order(target_of(attempt=1), D("0.1"), rules(amount_step="0.1")) == TargetVerdict(
        TargetAction.SEND, D("0.1")
    )


def test_only_three_actions_are_final() -> None:
    """Blocked, given up and abandoned; the others continue."""
    assert {do for do in TargetAction if TargetVerdict(do).is_final} == {
        TargetAction.BLOCKED,
        TargetAction.GIVE_UP,
        TargetAction.ABANDON,
    }


def target_named(decision: str, target: str, **fields: object) -> PositionTarget:
    return target_of(target, decision=decision, **fields)


def test_of_several_targets_on_one_position_the_smallest_is_active() -> None:
    """Of equals the one already begun; an ended one is skipped; if all have ended, none is active."""
    half, whole, begun = target_named("a", "5"), target_named("b", "0"), target_named("c", "0", attempt=2)
    assert select_active([half, whole], lambda _: False) == [whole]
    assert select_active([half, whole, begun], lambda _: False) == [begun]
    assert select_active([whole, begun, half], lambda of: of is begun) == [whole]
    assert select_active([half, whole], lambda _: True) == []
    assert select_active([half], lambda _: True) == [half]


def test_a_hop_is_active_beside_a_close_of_its_symbol() -> None:
    """A hop on the symbol of a close is active with it; two closes of both sides are both active, in their order."""
    close, hop = target_named("a", "0", rank=2), target_named("a", "0", purpose="hop", rank=1)
    assert select_active([close, hop], lambda _: False) == [hop, close]
    short = target_named("a", "0", rank=2, index=-1, position_side="short")
    assert select_active([close, short], lambda _: False) == [short, close]


def test_of_a_shared_position_no_more_than_the_own_part_is_closed() -> None:
    """Once the decided 4 are closed, what the venue shows is another's, also where the target is 0; a full close of a
    position of one's own goes on.
    """
    closed = PositionLedger(closed=D(4))
    own = target_of("0", "4", is_own_part=True)
    assert evaluate_target(own, D(3), BLANK, None, attempts=8) == TargetVerdict(TargetAction.SEND, D(3))
    assert evaluate_target(own, D(3), closed, None, attempts=8).do is TargetAction.CONTRADICTED
    ended = evaluate_target(own, D(3), closed, None, attempts=8, believe_venue=True)
    assert (ended.do, ended.amount) == (TargetAction.GIVE_UP, D(0))
    whole = evaluate_target(target_of("0", "4"), D(3), closed, None, attempts=8, believe_venue=True)
    assert whole == TargetVerdict(TargetAction.SEND, D(3))


def test_orders_that_block_the_close_of_a_part_are_not_cancelled() -> None:
    """They may be another strategy's."""
    assert target_of("0", "4", refusal="blocked_by_order").is_blocked
    assert not target_of("0", "4", refusal="blocked_by_order", is_own_part=True).is_blocked
