"""The gate's verdict: the order of the checks, what passes every limit, and what unknown does."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.limits.moment import GateMoment, LockState
from killswitch.limits.question import OrderAsked, OutcomeReport
from killswitch.limits.reservations import Reservations
from killswitch.limits.view import InFlight, Pause, ReadTimes
from killswitch.model.snapshot import LockPart
from tests.unit.limits.gates import (
    BTC,
    ETH,
    LOCKED,
    NOW,
    START,
    answer,
    asks,
    gate_account,
    held,
    judged,
    limits,
    moment,
    resting,
    seconds,
    sizes,
    usdt,
)

LONG = gate_account(held("long", "10"))
CAPPED = limits(position_size=sizes(usdt("2000")))
BUY, SELL = asks("buy", "1"), asks("sell", "4")
FLAGGED, PLAIN = asks("sell", "99", reduce_only=True), asks("sell", "10")
ALL = moment(lock=LockState("all", "an operator"))
NO_FLAGS = gate_account(held("long", "10"), enforced=())
STALE = ReadTimes(NOW - seconds(11), NOW - seconds(11.1), NOW - seconds(11))
UNORDERED = ReadTimes(NOW, NOW + seconds(0.1), NOW)
FRESH_GATE = moment(started_at=NOW - seconds(5))


def outcome(seen: Any, order: OrderAsked, at: GateMoment | None = None, **more: Any) -> str:
    """`entry` or `exit` where it is allowed, else the reason."""
    found = answer(seen, order, at=at, **more)
    return {"allowed": "entry"}.get(found.reason, found.reason) if found.allowed else f"-{found.reason}"


@pytest.mark.parametrize(
    ("at", "more", "entry", "bounded", "plain"),
    [
        (moment(), {}, "entry", "exit", "exit"),
        (LOCKED, {}, "-locked", "exit", "exit"),
        (moment(sentinel="/run/halt"), {}, "-sentinel", "exit", "exit"),
        (ALL, {}, "-lock_all", "-lock_all", "-lock_all"),
        (moment(), {"pauses": (Pause("account/main", "a person", START),)}, "-paused", "exit", "exit"),
        (moment(clock_went_back=True), {}, "-clock_went_back", "exit", "exit"),
        (moment(), {"reads": STALE}, "-view_stale", "exit", "-exit_unproved"),
        (moment(), {"quality": "down"}, "-account_unknown", "exit", "-exit_unproved"),
        (moment(), {"reads": UNORDERED}, "-orders_newer_than_positions", "exit", "-exit_unproved"),
        (moment(), {"reads": ReadTimes(NOW)}, "-orders_newer_than_positions", "exit", "-exit_unproved"),
        (moment(), {"reads": ReadTimes(), "quality": "down"}, "-account_unknown", "exit", "-exit_unproved"),
        (FRESH_GATE, {}, "-warming_up", "exit", "-warming_up"),
        (moment(), {"positions": None}, "-positions_unknown", "exit", "-positions_unknown"),
        (moment(), {"rule": limits(position_size=sizes(usdt("100")))}, "-position_size", "exit", "exit"),
        (moment(), {"equity": None, "rule": limits(leverage=Decimal(3))}, "-leverage", "exit", "exit"),
    ],
)  # fmt: skip
def test_what_each_state_does_to_an_entry_a_bounded_exit_and_a_plain_one(
    at: GateMoment, more: dict[str, Any], entry: str, bounded: str, plain: str
) -> None:
    """The table of the definition, row by row: long 10, a purchase of 1, 99 reduce-only, a plain sale of 10."""
    seen = gate_account(held("long", "10"), **more)
    assert outcome(seen, BUY, at) == entry
    assert outcome(seen, FLAGGED, at) == bounded
    assert outcome(seen, replace(PLAIN, is_exit=True), at) == plain


def test_without_a_record_no_new_risk_is_taken_and_every_exit_passes() -> None:
    """A store that refuses writes: what opens is denied with the reason, what closes is not."""
    orders = {"entry": BUY, "bounded": FLAGGED, "plain": PLAIN}
    found = {name: answer(LONG, order, unrecorded="the disk is full") for name, order in orders.items()}
    assert {name: each.reason for name, each in found.items()} == {
        "entry": "unrecorded", "bounded": "exit", "plain": "exit",
    }  # fmt: skip
    assert "the disk is full" in found["entry"].text


def test_a_plain_exit_that_claims_nothing_is_an_entry_while_nothing_is_proved() -> None:
    """A stale state proves nothing; the reason is the state's age."""
    seen = gate_account(held("long", "10"), reads=STALE)
    assert outcome(seen, PLAIN) == "-view_stale"
    assert answer(seen, PLAIN).retry_after_ms == 1000


def test_where_no_flag_is_enforced_a_claim_counts_within_the_last_known_position() -> None:
    """Stale: 10 of 10 pass as assumed, more does not, and nothing while the gate is starting."""
    seen = replace(NO_FLAGS, reads=STALE)
    claim = replace(PLAIN, is_exit=True)
    assert answer(seen, claim).legs[0].effect == "assumed"
    assert outcome(seen, replace(claim, amount=Decimal("10.1"))) == "-exit_unproved"
    assert outcome(seen, claim, FRESH_GATE) == "-warming_up"
    assert outcome(gate_account(held("long", "10"), reads=STALE), claim) == "-exit_unproved"
    assert "reduce-only" in answer(gate_account(held("long", "10"), reads=STALE), claim).text


def test_more_than_the_position_is_an_entry_and_under_a_lock_the_answer_names_what_would_reduce() -> None:
    """Long 10: 11 sold open a short of 1."""
    more = asks("sell", "11")
    assert outcome(LONG, more) == "entry"
    found = answer(LONG, more, at=LOCKED)
    assert (found.reason, found.legs[0].max_reducing) == ("locked", Decimal(10))


@pytest.mark.parametrize(
    ("rests", "own", "sold", "expected"),
    [
        (resting("stop", "sell", "10", type="stop_market", reduce_only=True), (), "1", "-locked"),
        (resting("target", "sell", "4", type="limit", price=Decimal(120)), (), "6", "exit"),
        (resting("target", "sell", "4", type="limit", price=Decimal(120)), (), "6.1", "-locked"),
        (resting("more", "buy", "5"), (), "10", "exit"),
        (None, (InFlight("ks1", BTC, "sell", Decimal(7), reduce_only=True),), "3", "exit"),
        (None, (InFlight("ks1", BTC, "sell", Decimal(7), reduce_only=True),), "3.1", "-locked"),
        (None, (InFlight("ks1", BTC, "sell", None, reduce_only=True),), "0.1", "-locked"),
    ],
)
def test_a_plain_exit_fits_what_is_left_of_everything_on_its_side(
    rests: Any, own: Any, sold: str, expected: str
) -> None:
    """Resting orders, flagged ones too, and our own in flight; the other side changes nothing."""
    seen = gate_account(held("long", "10"), orders=() if rests is None else (rests,), own=own)
    assert outcome(seen, asks("sell", sold), LOCKED) == expected


def test_our_own_order_counts_once_when_it_also_rests() -> None:
    """In flight by our journal, and among the resting orders under the same client order id."""
    seen = gate_account(
        held("long", "10"), orders=(resting("ks1", "sell", "6", reduce_only=True),),
        own=(InFlight("ks1", BTC, "sell", Decimal(6), reduce_only=True),),
    )  # fmt: skip
    assert outcome(seen, SELL, LOCKED) == "exit"


def test_a_bounded_exit_names_the_plain_orders_that_it_makes_able_to_flip() -> None:
    """It never waits for them."""
    seen = gate_account(held("long", "10"), orders=(resting("target", "sell", "10"), resting("more", "buy", "1")))
    found = answer(seen, asks("sell", "5", reduce_only=True))
    assert (found.allowed, found.conflicts) == (True, ("target",))
    assert answer(gate_account(held("long", "10")), asks("sell", "5", reduce_only=True)).conflicts == ()


# Reservations


def test_what_is_allowed_counts_until_it_is_seen() -> None:
    """2,000 USDT at most and 10 held at 100: 6 and then 4 fit, and 1 more does not."""
    seen = gate_account(held("long", "10"), rule=CAPPED)
    first = judged(seen, asks("buy", "6"))
    second = judged(seen, asks("buy", "4"), before=first.reservations, name="q2")
    assert first.verdict.allowed
    assert second.verdict.allowed
    assert answer(seen, BUY, before=second.reservations, name="q3").reason == "position_size"


def test_two_plain_exits_share_the_position() -> None:
    """Long 10: the first of 6 is an exit, the second of 6 is not."""
    first = judged(LONG, asks("sell", "6"), at=LOCKED)
    assert first.verdict.reason == "exit"
    assert answer(LONG, asks("sell", "6"), at=LOCKED, before=first.reservations, name="q2").reason == "locked"
    assert answer(LONG, SELL, at=LOCKED, before=first.reservations, name="q3").reason == "exit"


def test_an_exit_makes_no_room_before_it_fills() -> None:
    """A position at its limit, and an allowed close of half: an entry is denied still."""
    seen = gate_account(held("long", "20"), rule=CAPPED)
    closing = judged(seen, asks("sell", "10", reduce_only=True))
    assert answer(seen, BUY, before=closing.reservations, name="q2").reason == "position_size"


def test_the_same_question_gets_the_same_verdict_once_reserved() -> None:
    """Within `valid_for`; a lock that came in between makes a denial of an entry, and of no exit."""
    seen = gate_account(held("long", "10"), rule=CAPPED)
    entry = judged(seen, asks("buy", "10"))
    again = judged(seen, asks("buy", "10"), before=entry.reservations, at=moment(NOW + seconds(1)))
    assert again.verdict == entry.verdict
    assert len(again.reservations.approved) == 1
    assert answer(seen, asks("buy", "10"), before=entry.reservations, at=LOCKED).reason == "locked"
    leave = judged(seen, SELL)
    assert answer(seen, SELL, before=leave.reservations, at=LOCKED).reason == "exit"
    later = answer(seen, asks("buy", "10"), before=entry.reservations, at=moment(NOW + seconds(2.1)))
    assert later.reason == "position_size"


def test_a_client_order_id_opens_once() -> None:
    """In flight, resting, or ever seen; a bounded exit passes with any id."""
    named = asks("buy", "1", client_order_id="mine")
    first = judged(LONG, named)
    assert answer(LONG, named, before=first.reservations, name="q2").reason == "duplicate"
    assert answer(gate_account(orders=(resting("mine", "buy", "1"),)), named).reason == "duplicate"
    assert answer(gate_account(seen_ids=("mine",)), named).reason == "duplicate"
    closing = asks("sell", "1", client_order_id="mine", reduce_only=True)
    assert answer(LONG, closing, before=first.reservations, name="q3").allowed


AFTER = NOW + seconds(0.1)


@pytest.mark.parametrize(
    ("reads", "orders", "kept"),
    [
        (ReadTimes(AFTER, AFTER, AFTER), ("mine",), False),
        (ReadTimes(AFTER, NOW - seconds(0.1), AFTER), ("mine",), True),
        (ReadTimes(AFTER, AFTER, AFTER), (), True),
        (ReadTimes(*[NOW + seconds(32)] * 3), (), True),
        (ReadTimes(*[NOW + seconds(32.1)] * 3), (), False),
        (ReadTimes(NOW + seconds(60), NOW + seconds(31), NOW + seconds(60)), (), True),
        (ReadTimes(NOW + seconds(60), NOW + seconds(60), NOW + seconds(31)), (), True),
        (ReadTimes(NOW + seconds(60), None, NOW + seconds(60)), (), True),
    ],
)
def test_a_reservation_ends_when_a_read_shows_the_order_or_that_it_cannot_come(
    reads: ReadTimes, orders: tuple[str, ...], kept: bool
) -> None:
    """Only reads count that began after the approval; to prove an absence, all after 2 s and the time-out of 30 s."""
    allowed = judged(LONG, asks("buy", "1", client_order_id="mine")).reservations
    seen = gate_account(held("long", "10"), reads=reads, orders=tuple(resting(name, "buy", "1") for name in orders))
    assert bool(allowed.seen(seen).approved) is kept


@pytest.mark.parametrize(("what", "kept"), [("not_sent", False), ("refused", False), ("sent", True)])
def test_a_report_ends_a_reservation_unless_the_order_may_exist(what: Any, kept: bool) -> None:
    """Nothing was sent, or the venue refused it readably."""
    allowed = judged(LONG, BUY).reservations
    assert bool(allowed.reported("main", OutcomeReport("q1", what)).approved) is kept
    assert allowed.reported("main", OutcomeReport("other", what)) == allowed


# Lists, brackets and amendments


def test_a_list_is_judged_leg_by_leg_all_or_none() -> None:
    """6 and 4 fit, 6 and 5 do not, and then nothing is reserved."""
    seen = gate_account(held("long", "10"), rule=CAPPED)
    assert answer(seen, asks("buy", "6"), asks("buy", "4")).allowed
    both = judged(seen, asks("buy", "6"), asks("buy", "5"))
    assert (both.verdict.allowed, both.reservations) == (False, Reservations())


def test_the_exits_of_a_bracket_belong_to_its_entry() -> None:
    """Stop and target of the parent's size, linked by the venue; locked, the whole bracket is denied."""
    bracket = (
        asks("buy", "5"),
        asks("sell", "5", type="stop", trigger_price=Decimal(90), parent=0, oco="x", oco_by="venue"),
        asks("sell", "5", type="take_profit", trigger_price=Decimal(120), parent=0, oco="x", oco_by="venue"),
    )
    tight = limits(position_size=sizes(usdt("500")))
    assert answer(gate_account(rule=tight), *bracket).allowed
    assert answer(gate_account(), *bracket, at=LOCKED).reason == "locked"
    by_bot = tuple(replace(each, oco_by="bot") for each in bracket)
    assert (
        answer(gate_account(rule=tight), *by_bot).reason == "position_size"
        or not answer(gate_account(rule=tight), *by_bot).allowed
    )
    larger = (bracket[0], replace(bracket[1], amount=Decimal(6)))
    assert not answer(gate_account(rule=limits(position_size=sizes(usdt("500")))), *larger).allowed


def test_a_list_of_exits_linked_by_the_venue_counts_once() -> None:
    """Stop and target of 10 each next to a long of 10; kept by the bot they count twice."""
    pair = [asks("sell", "10", type=kind, oco="x", oco_by="venue") for kind in ("stop", "take_profit")]
    assert answer(LONG, *pair, at=LOCKED).reason == "exit"
    assert answer(LONG, *(replace(each, oco_by="bot") for each in pair), at=LOCKED).reason == "locked"


def amend(side: str, amount: str, order: str = "old", **more: Any) -> OrderAsked:
    return asks(side, amount, change="amend", order=order, **more)


def test_an_amendment_counts_by_what_it_becomes() -> None:
    """An entry of 5 rests next to 10 held, and 2,000 USDT are allowed: 10 fit, 11 do not; locked, none."""
    seen = gate_account(held("long", "10"), rule=CAPPED, orders=(resting("old", "buy", "5"),))
    assert answer(seen, amend("buy", "10")).allowed
    assert answer(seen, amend("buy", "11")).reason == "position_size"
    assert answer(seen, amend("buy", "4"), at=LOCKED).reason == "locked"
    assert answer(seen, amend("sell", "4")).reason == "amendment"
    assert answer(seen, amend("buy", "4", order="gone")).reason == "amendment"
    assert answer(seen, replace(amend("buy", "4"), amount_is="remaining")).reason == "question"


def test_an_amendment_reserves_what_it_adds_until_the_new_total_is_seen() -> None:
    """From 5 to 8: 3 more count, until a read after the approval shows 8."""
    seen = gate_account(held("long", "10"), rule=CAPPED, orders=(resting("old", "buy", "5"),))
    after = judged(seen, amend("buy", "8")).reservations
    assert [each.order.amount for each in after.approved] == [Decimal(3)]
    assert answer(seen, asks("buy", "2"), before=after, name="q2").allowed
    assert answer(seen, asks("buy", "3"), before=after, name="q2").reason == "position_size"
    later = ReadTimes(AFTER, AFTER, AFTER)
    same = gate_account(held("long", "10"), reads=later, orders=(resting("old", "buy", "5"),))
    assert after.seen(same) == after
    assert after.seen(gate_account(reads=later, orders=(resting("old", "buy", "8"),))).approved == ()


def test_an_exit_may_shrink_or_move_and_a_replaced_one_counts_twice() -> None:
    """A plain stop of the whole position: amended it passes under a lock, cancelled and sent again it does not fit."""
    seen = gate_account(held("long", "10"), orders=(resting("old", "sell", "10", type="stop"),))
    moved = amend("sell", "10", type="stop", trigger_price=Decimal(95))
    assert answer(seen, moved, at=LOCKED).reason == "exit"
    assert answer(seen, replace(moved, amount=Decimal(4)), at=LOCKED).reason == "exit"
    assert answer(seen, replace(moved, amount=Decimal(11)), at=LOCKED).reason == "locked"
    assert answer(seen, replace(moved, change="replace"), at=LOCKED).reason == "locked"
    assert answer(seen, replace(moved, change="replace", reduce_only=True), at=LOCKED).reason == "exit"


# Locks of a part, modes, the question itself


def test_a_lock_of_one_side_stops_what_adds_to_it() -> None:
    """`long`: short entries and covers pass, a cover beyond flat does not."""
    short = gate_account(held("short", "4"))
    long_only = moment(lock=LockState("reduce_only", "x", (LockPart("reduce_only", None, side="long"),)))
    assert answer(short, asks("sell", "1"), at=long_only).allowed
    assert answer(short, asks("buy", "4"), at=long_only).reason == "exit"
    assert answer(short, asks("buy", "5"), at=long_only).reason == "side_locked"
    part = LockPart("all", None, symbols=(BTC,))
    one_symbol = moment(lock=LockState("all", "x", (part,)))
    assert answer(LONG, BUY, at=one_symbol).reason == "symbol_locked"
    assert answer(LONG, FLAGGED, at=one_symbol).reason == "lock_all"
    assert answer(LONG, asks("buy", "1", ETH), at=one_symbol).allowed


def test_in_hedge_mode_an_entry_names_its_position() -> None:
    """And its closing side is an exit of any size."""
    hedged = gate_account(held("long", "10"), position_mode="hedge")
    assert answer(hedged, BUY).reason == "position_side"
    assert answer(hedged, asks("buy", "1", position_side="long")).allowed
    assert answer(hedged, asks("sell", "99", position_side="long"), at=LOCKED).reason == "exit"
    assert answer(LONG, asks("buy", "1", position_side="short"), at=moment()).reason == "position_side"


@pytest.mark.parametrize(
    "order",
    [
        asks("buy", "0"), asks("buy", "-1"), asks("buy", "NaN"), asks("buy", "1e40"), asks("buy", "1", symbol=""),
        asks("buy", "1", price=Decimal(0)), asks("buy", "1", unit="money"), asks("buy", "1", currency="USDT"),
        asks("buy", "1", order="x"), asks("buy", "1", change="amend"), asks("sell", "1", close_position=True),
        asks("buy", "1", parent=0),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_understood_is_denied(order: OrderAsked) -> None:
    """With what to write; also where it would reduce."""
    found = answer(LONG, order)
    assert (found.allowed, found.reason) == (False, "question")


def test_units_are_converted_exactly_and_money_is_rounded_down() -> None:
    """Contracts of 0.01 BTC at 100: 0.5 BTC are 50, 0.07 USDT are 0.07 contracts, and money never becomes more."""
    from tests.worlds import rules

    small = gate_account(instruments=[rules(BTC, contract_size="0.01", amount_step="1", min_amount="1")])
    assert answer(small, asks("buy", "0.5", unit="base")).legs[0].contracts == Decimal(50)
    assert answer(small, asks("buy", "0.505", unit="base")).reason == "amount_step"
    assert answer(small, asks("buy", "7.9", unit="money", currency="USDT")).legs[0].contracts == Decimal(7)
    assert answer(small, asks("buy", "0.9", unit="money", currency="USDT")).reason == "minimum"
    assert answer(small, asks("buy", "9", unit="money", currency="EUR")).reason == "amount_unit"
    assert answer(gate_account(instruments=[]), asks("buy", "1", unit="base")).reason == "amount_unit"


def test_an_account_that_the_run_does_not_have_or_that_has_no_limits_admits_no_entry() -> None:
    """Exits of the second pass where the venue bounds them: without limits nothing says how old a state may be."""
    from killswitch.limits.question import Question
    from killswitch.limits.verdict import verdict
    from tests.unit.limits.gates import view

    found = verdict(Question("q", "other", (BUY,)), view(LONG), Reservations(), moment()).verdict
    assert found.reason == "unknown_account"
    bare = gate_account(held("long", "10"), limits=None)
    assert answer(bare, BUY).reason == "no_limits" or not answer(bare, BUY).allowed
    assert answer(bare, FLAGGED).reason == "exit"


def test_other_orders_under_the_id_of_an_allowed_question_are_denied_and_reserve_nothing() -> None:
    """An exit under a lock, then an entry with its id; and a small entry, then a large one."""
    seen = gate_account(held("long", "10"), rule=CAPPED)
    leave = judged(seen, SELL)
    found = judged(seen, BUY, before=leave.reservations, at=LOCKED)
    assert (found.verdict.allowed, found.verdict.reason) == (False, "question")
    assert found.reservations == leave.reservations
    small = judged(seen, asks("buy", "1"))
    assert not answer(seen, asks("buy", "10"), before=small.reservations).allowed
