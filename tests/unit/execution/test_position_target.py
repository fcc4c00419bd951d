"""A position target folded from journal entries worked by hand: amounts, costs, tries, and orders of unknown status."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

import pytest

from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.decide.target_verdict import Stall, stall_reason
from killswitch.journal.codec import decode
from killswitch.journal.entries import Entry
from killswitch.journal.lifecycle import ForbiddenTransitionError, TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.store import JournalEntry, JournalKind
from killswitch.risk.trading_cost import MarkedContract

D = Decimal
AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
LATER = AT + timedelta(seconds=9)


def target_of(target: str = "0", decided: str = "10", side: str = "sell") -> PositionTarget:
    return PositionTarget(
        "d1", "main", "BTC", "long" if side == "sell" else "short", "sell" if side == "sell" else "buy",
        D(target), D(decided), D(decided), True, 1, 0, is_enforced=True,
    )  # fmt: skip


def entry(
    kind: JournalKind, name: str | None = "o1", attempt: int | None = 1, at: datetime = AT, **data: str | None
) -> Entry:
    return decode(JournalEntry("d1", kind, at, "main", "BTC", "long", name, attempt, data))


def fold(of: PositionTarget, *entries: Entry) -> PositionTarget:
    for each in entries:
        of.apply(each)
    return of


def sending(name: str = "o1", attempt: int = 1, amount: str | None = "10", **data: str | None) -> Entry:
    return entry("sending", name, attempt, amount=amount, **data)


def test_a_sent_order_has_everything_that_was_journaled_of_it() -> None:
    """Attempt, id, amount, instant, execution step and kind are those of the `sending` entry."""
    of = fold(target_of(), sending("o3", 3, "4", rung="2", order="limit", price="99", mark="100", value="100"))
    assert (of.state, of.attempt, of.client_order_id, of.sent_at) == (TargetState.SENDING, 3, "o3", AT)
    assert (of.sent_amount, of.may_fill, of.execution_step, of.has_limit, of.is_resting) == (D(4), D(4), 2, True, True)
    assert (of.arrival, of.is_in_flight) == (MarkedContract(D(100), D(100)), True)


def test_an_order_at_market_neither_rests_nor_is_bounded() -> None:
    """Without a price there is no bound, and only `limit` rests."""
    of = fold(target_of(), sending(order="market"))
    assert (of.has_limit, of.is_resting, of.execution_step) == (False, False, 0)
    assert not fold(target_of(), sending(order="limit_ioc", price="99")).is_resting


def test_an_unreadable_amount_counts_as_all_that_was_decided() -> None:
    """The most that can have been sent is the whole of it."""
    assert fold(target_of(decided="7"), sending(amount=None)).sent_amount == D(7)


def test_an_attempt_without_a_number_is_the_first() -> None:
    """An entry without a number counts as attempt 0."""
    assert fold(target_of(), entry("sending", attempt=None, amount="1")).attempt == 0


def test_the_largest_amount_sent_under_one_id_may_fill() -> None:
    """4 were sent without an answer, then 3 under the same id: 4 may fill; under a new id, 3."""
    first = sending(amount="4"), entry("rejected", reason="rate_limited")
    assert fold(target_of(), *first, sending(amount="3")).may_fill == D(4)
    assert fold(target_of(), *first, sending(amount="6")).may_fill == D(6)
    answered = sending(amount="4"), entry("rejected", reason="other")
    assert fold(target_of(), *answered, sending("o2", 2, "3")).may_fill == D(3)


def test_the_venues_order_id_is_not_kept_for_the_next_order() -> None:
    """It is set by the acknowledgement, and not carried to another order."""
    of = fold(target_of(), sending(), entry("acknowledged", order="v7"))
    assert (of.state, of.order_id) == (TargetState.WORKING, "v7")
    of = fold(of, entry("filled", filled="4", order="v7"), entry("verified", None, None, position="6", target="0"))
    assert fold(of, sending("o2", 2, "6")).order_id is None


@pytest.mark.parametrize(("side", "cost"), [("sell", "6"), ("buy", "-4")])
def test_cost_is_the_fee_and_the_slippage_against_the_mark(side: str, cost: str) -> None:
    """10 contracts of 50 each, sold 1% below the mark: 5 lost and 1 of fee; bought there, 5 won less the fee."""
    of = fold(
        target_of(side=side), sending(mark="100", value="50"), entry("filled", filled="10", price="99", fee="1")
    )  # fmt: skip
    assert of.cost == D(cost)
    assert of.proceeds == D(990)


def test_costs_of_several_orders_add_up() -> None:
    """Two fills of 4 and 6 at 99 with fees of 1 and 2: 3 + 5."""
    of = fold(
        target_of(), sending(amount="4", mark="100", value="50"), entry("filled", filled="4", price="99", fee="1")
    )
    of = fold(of, entry("sending", "o2", 2, amount="6", after="next slice", mark="100", value="50"))
    of = fold(of, entry("filled", "o2", 2, filled="6", price="98", fee="2"))
    assert of.cost == D(2) + D(1) + D(2) + D(6)
    assert (of.proceeds, of.filled) == (D(396) + D(588), D(10))


@pytest.mark.parametrize("missing", ["price", "fee", "mark", "value"])
def test_one_unknown_part_makes_the_whole_cost_unknown(missing: str) -> None:
    """Whichever of the four numbers is missing."""
    fields: dict[str, str | None] = {"mark": "100", "value": "50", "price": "99", "fee": "1"}
    fields[missing] = None
    of = fold(
        target_of(), sending(mark=fields["mark"], value=fields["value"]),
        entry("filled", filled="10", price=fields["price"], fee=fields["fee"]),
    )  # fmt: skip
    assert of.cost is None
    assert of.proceeds == (None if missing == "price" else D(990))


def test_a_cost_once_unknown_stays_unknown() -> None:
    """A later fill with every number does not make it known again."""
    of = fold(target_of(), sending(amount="4", mark="100", value="50"), entry("filled", filled="4"))
    of = fold(of, entry("sending", "o2", 2, amount="6", after="next slice"))
    of = fold(of, entry("filled", "o2", 2, filled="6", price="99", fee="0"))
    assert (of.cost, of.proceeds, of.filled) == (None, None, D(10))


def test_an_order_that_filled_nothing_costs_nothing() -> None:
    """Without price and fee it is still known to have cost 0."""
    of = fold(target_of(), sending(), entry("filled", filled="0"))
    assert (of.cost, of.proceeds, of.attempts_without_fill, of.failed_tries, of.is_fully_filled) == (
        D(0),
        D(0),
        1,
        1,
        False,
    )


def test_the_decisions_mark_is_the_first_complete_pair_of_mark_and_value() -> None:
    """A mark without a value is skipped; the mark of an order does not change it."""
    of = fold(
        target_of(), entry("planned", None, None, mark="100"), entry("planned", None, None, mark="90", value="45")
    )
    of = fold(of, sending(mark="80", value="40"))
    assert (of.decision_mark, of.arrival) == (MarkedContract(D(90), D(45)), MarkedContract(D(80), D(40)))


def test_a_market_move_before_an_order_is_delay_and_not_its_cost() -> None:
    """10 contracts of 100, decided at 100 and sold at 119 after a rise to 120: 10 of slippage, 200 gained before."""
    of = fold(target_of(), entry("planned", None, None, mark="100", value="100"), sending(mark="120", value="120"))
    of = fold(of, entry("filled", filled="10", price="119", fee="1"))
    assert (of.cost, of.delay) == (D(11), D(-200))


def test_an_order_of_unknown_status_is_measured_against_its_own_arrival_mark() -> None:
    """4 sent at 100 are detached, 6 sent at 80; when the first is found to have sold at 99 it slipped 4, not 76."""
    of = fold(target_of(), entry("planned", None, None, mark="100", value="100"))
    of = fold(of, sending(amount="4", mark="100", value="100"), entry("unknown"), entry("set_aside", at=LATER))
    of = fold(of, sending("o2", 2, "6", mark="80", value="80"))
    of = fold(of, entry("filled", filled="4", price="99", fee="0"))
    assert (of.cost, of.delay) == (D(4), D(0))


def test_an_unreadable_fill_counts_as_all_that_may_fill() -> None:
    """The worst case: 4 are closed at an unknown cost, and the attempt counts as one without a known fill."""
    of = fold(target_of(), sending(amount="4"), entry("filled", filled="much"))
    assert (of.filled, of.cost, of.proceeds, of.attempts_without_fill, of.is_fully_filled) == (
        D(4),
        None,
        None,
        1,
        False,
    )


def test_an_order_counts_once() -> None:
    """A second entry of the same fill adds nothing."""
    of = fold(target_of(), sending(amount="4"), entry("filled", filled="4", price="1", fee="0"))
    of.state = TargetState.SENDING
    of = fold(of, entry("filled", filled="4", price="1", fee="0"))
    assert of.filled == D(4)


def test_a_partial_fill_is_a_failed_try_only_of_a_bounded_order() -> None:
    """Partly filled with a bound: one try; without one, or wholly: none."""
    part = entry("filled", filled="4", price="1", fee="0")
    assert fold(target_of(), sending(order="limit_ioc", price="1"), part).failed_tries == 1
    assert fold(target_of(), sending(order="market"), part).failed_tries == 0
    assert fold(target_of(), sending(amount="4", order="limit_ioc", price="1"), part).failed_tries == 0
    assert fold(target_of(), sending(amount="4", order="limit_ioc", price="1"), part).is_fully_filled


def test_tries_add_up_until_an_order_fills_completely() -> None:
    """Two in a row that filled nothing are two; a whole fill resets them."""
    of, nothing = target_of(), entry("verified", None, None, position="10", target="0")
    for attempt in (1, 2):
        of = fold(of, sending(f"o{attempt}", attempt), entry("filled", f"o{attempt}", filled="0"), nothing)
    assert (of.failed_tries, of.attempts_without_fill) == (2, 2)
    of = fold(of, sending("o3", 3), entry("filled", "o3", filled="10", price="1", fee="0"))
    assert (of.failed_tries, of.attempts_without_fill) == (0, 0)


def test_a_resting_order_without_a_fill_is_a_failed_try() -> None:
    """It is known to have rested, because the next order may follow it at once."""
    of = fold(target_of(), sending(order="limit", price="1"), entry("filled", filled="0"))
    assert (of.attempts_without_fill, of.failed_tries, of.is_resting) == (1, 1, True)


def test_tries_are_counted_per_step_and_attempts_without_fill_per_target() -> None:
    """On another step the tries start at 0; only a fill ends the row of attempts without a fill."""
    of = fold(target_of(), sending(), entry("rejected", reason="other"))
    assert (of.failed_tries, of.attempts_without_fill, of.refusal) == (1, 1, "other")
    assert (fold(of, sending("o2", 2)).failed_tries, of.attempts_without_fill) == (1, 1)
    of = fold(of, entry("rejected", "o2", 2, reason="other"))
    assert (fold(of, sending("o3", 3, rung="1")).failed_tries, of.attempts_without_fill, of.execution_step) == (0, 2, 1)


@pytest.mark.parametrize(
    ("reason", "without_fill", "tried", "largest", "spent"),
    [
        ("other", 1, 1, "10", True),
        ("market_closed", 1, 1, "10", True),
        ("above_maximum", 1, 0, "4", True),
        ("insufficient_margin", 1, 0, "4", True),
        ("blocked_by_order", 1, 0, "10", True),
        ("already_flat", 1, 0, "10", True),
        ("duplicate_client_order_id", 1, 0, "10", True),
        ("rate_limited", 0, 0, "10", False),
        ("venue_down", 0, 0, "10", False),
    ],
)
def test_the_effect_of_a_refusal_depends_on_its_reason(
    reason: str, without_fill: int, tried: int, largest: str, spent: bool
) -> None:
    """Too much: half is tried next. Not processed: nothing counts. What no other kind of order would change: no try."""
    of = fold(target_of(), sending(amount="8"), entry("rejected", reason=reason))
    assert (of.attempts_without_fill, of.failed_tries, of.largest, of.is_id_used) == (
        without_fill,
        tried,
        D(largest),
        spent,
    )
    assert (of.state, of.refusal) == (TargetState.READY, reason)


def test_a_fill_ends_a_refusal() -> None:
    """An earlier refusal is no longer the reason."""
    of = fold(target_of(), sending(), entry("rejected", reason="other"), sending("o2", 2))
    assert fold(of, entry("filled", "o2", 2, filled="10", price="1", fee="0")).refusal is None


def test_a_detached_order_is_kept_with_all_that_is_known_of_it() -> None:
    """Its id, attempt and amount, when it was sent and its status; the target continues under a new id."""
    of = fold(target_of(), sending("o2", 2, "4"), entry("unknown", "o2", 2), entry("set_aside", "o2", 2, at=LATER))
    (detached_order,) = of.detached.values()
    assert (detached_order.name, detached_order.attempt, detached_order.may_fill(of.decided)) == ("o2", 2, D(4))
    assert (detached_order.sent_at, detached_order.status) == (AT, "set aside")
    assert (of.state, of.is_id_used, of.outstanding) == (TargetState.READY, True, D(4))


def test_a_later_answer_settles_a_detached_order_and_nothing_else() -> None:
    """Acknowledged: still detached; filled: its fill counts; the target's own order stays in flight throughout."""
    of = fold(target_of(), sending("o1", 1, "4"), entry("set_aside", "o1"), sending("o2", 2, "6"))
    of = fold(of, entry("acknowledged", "o1"), entry("unknown", "o1"))
    assert (of.outstanding, of.state, of.client_order_id) == (D(4), TargetState.SENDING, "o2")
    of = fold(of, entry("filled", "o1", filled="3", price="1", fee="0"))
    assert (of.outstanding, of.filled, of.detached, of.state) == (D(0), D(3), {}, TargetState.SENDING)


@pytest.mark.parametrize("kind", ["rejected", "absent"])
def test_a_detached_order_that_proves_absent_leaves_nothing(kind: JournalKind) -> None:
    """Nothing of it is outstanding, nothing filled and no cost unknown."""
    of = fold(target_of(), sending("o1", 1, "4"), entry("set_aside"), entry(kind))
    assert (of.outstanding, of.filled, of.cost, of.abandoned, of.detached) == (D(0), D(0), D(0), (), {})


def test_abandoned_orders_always_count_at_their_full_amount() -> None:
    """4 and 5 may have filled; both ids are kept in order, and what was paid is unknown."""
    of = fold(target_of(), sending("o1", 1, "4"), entry("set_aside", "o1"), sending("o2", 2, "5"))
    of = fold(of, entry("set_aside", "o2", 2), entry("abandoned", "o1"))
    assert (of.outstanding, of.abandoned_amount, of.abandoned) == (D(9), D(4), ("o1",))
    of = fold(of, entry("abandoned", "o2", 2))
    assert (of.outstanding, of.abandoned_amount, of.abandoned) == (D(9), D(9), ("o1", "o2"))
    assert (of.cost, of.proceeds, of.filled) == (None, None, D(0))


def test_an_unreadable_fill_of_a_detached_order_counts_at_its_own_amount() -> None:
    """4 of the first order, though the second may fill 6."""
    of = fold(target_of(), sending("o1", 1, "4"), entry("set_aside"), sending("o2", 2, "6"), entry("filled", "o1"))
    assert of.filled == D(4)


def test_a_detached_order_cannot_be_sent_again() -> None:
    """Its id is used: the entry that would send it again is refused, and the target is unchanged."""
    of = fold(target_of(), sending(), entry("set_aside"))
    with pytest.raises(ForbiddenTransitionError, match=r"d1 BTC long.*sending.*o1"):
        of.apply(sending())
    assert (of.state, of.outstanding) == (TargetState.READY, D(10))


def test_a_forbidden_transition_is_refused_by_name() -> None:
    """A fill of an order that was never sent."""
    with pytest.raises(ForbiddenTransitionError, match=r"d1 BTC long.*filled.*ready"):
        target_of().apply(entry("filled", filled="1"))


def test_replaying_a_contradictory_journal_leaves_the_newest_order_unknown() -> None:
    """Two orders at once: the second is queried, and the total cost is unknown."""
    of = target_of()
    for each in (sending("o1", 1, "4"), sending("o2", 2, "6")):
        of.replay(each)
    assert (of.state, of.client_order_id, of.may_fill, of.cost) == (TargetState.UNKNOWN, "o2", D(6), None)


def test_replaying_a_fill_out_of_order_counts_it() -> None:
    """A fill journaled twice by two processes, under two ids, is two fills; the venue is queried."""
    of = target_of()
    for each in (
        sending("o1", 1, "4"),
        entry("filled", "o1", filled="4", price="1", fee="0"),
        entry("filled", "o2", 2, filled="3", price="1", fee="0"),
    ):
        of.replay(each)
    assert (of.state, of.filled, of.cost) == (TargetState.UNKNOWN, D(7), None)


def test_replaying_an_end_out_of_order_is_final() -> None:
    """Finished with an order in flight: over; later entries change nothing."""
    of = target_of()
    for each in (sending("o1", 1, "4"), entry("finished", None, None), sending("o2", 2, "6")):
        of.replay(each)
    assert (of.state, of.client_order_id, of.cost) == (TargetState.OVER, "o1", D(0))


def test_a_contradiction_before_any_order_leaves_nothing_to_query() -> None:
    """No order was sent: the target is still ready, and its cost is unknown."""
    of = target_of()
    of.replay(entry("acknowledged", None, None))
    assert (of.state, of.cost) == (TargetState.READY, None)


@pytest.mark.parametrize(
    ("purpose", "target", "reduce_only", "enforced", "capped"),
    [
        ("reduce", "0", True, True, True),
        ("reduce", "0", True, False, False),
        ("reduce", "1", True, True, False),
        ("reduce", "0", False, True, False),
        ("hop", "0", True, True, False),
    ],
)
def test_the_venue_caps_full_reduce_only_closes_where_it_enforces_the_flag(
    purpose: str, target: str, reduce_only: bool, enforced: bool, capped: bool
) -> None:
    """Closing bounds a trim, an order that may open a position, and a hop itself."""
    of = target_of(target)
    of.reduce_only, of.is_enforced = reduce_only, enforced
    of.purpose = "hop" if purpose == "hop" else "reduce"
    assert of.is_capped_by_venue is capped


def test_the_remaining_amount_of_a_hop_is_never_negative() -> None:
    """10 decided, 4 filled: 6; 12 filled: 0."""
    of = target_of()
    of.filled = D(4)
    assert of.remaining == D(6)
    of.filled = D(12)
    assert of.remaining == D(0)


def test_an_order_that_is_open_or_unknown_for_too_long_is_a_stall_reason() -> None:
    """From the thirtieth second on, with the id, the symbol and the instant it was sent."""
    pace = ClosingPace()
    of = fold(target_of(), sending("o1"), entry("acknowledged"))
    assert stall_reason(of, AT + timedelta(seconds=29.9), pace) is None
    stall = stall_reason(of, AT + timedelta(seconds=30), pace)
    assert stall is not None
    assert stall.kind == "open"
    assert all(part in stall.reason for part in ("o1", "BTC", "has been open", "2026-03-04 05:06:07"))
    not_acknowledged = stall_reason(fold(target_of(), sending("o1")), AT + timedelta(seconds=30), pace)
    assert not_acknowledged is not None
    assert not_acknowledged.kind == "unknown"
    assert "unknown status" in not_acknowledged.reason


def test_a_detached_order_is_a_stall_reason_once_its_absence_could_be_accepted() -> None:
    """Two seconds after it was sent, and not before."""
    of = fold(target_of(), sending("o1"), entry("set_aside", "o1"))
    assert stall_reason(of, AT + timedelta(seconds=1.9), ClosingPace()) is None
    stall = stall_reason(of, AT + timedelta(seconds=2), ClosingPace())
    assert stall is not None
    assert stall.kind == "unknown"
    assert all(part in stall.reason for part in ("o1", "BTC", "unknown status", "2026-03-04 05:06:07"))


def test_a_position_that_no_order_closes_is_a_stall_reason() -> None:
    """After eight in a row, with the venue's reason if it gave one; not once the target is reached."""
    nothing = entry("verified", None, None, position="10", target="0")
    of, refused = target_of(), target_of()
    for attempt in range(1, 9):
        assert (stall_reason(of, AT, ClosingPace()), stall_reason(refused, AT, ClosingPace())) == (None, None)
        of = fold(of, sending(f"o{attempt}", attempt), entry("filled", f"o{attempt}", attempt, filled="0"), nothing)
        refused = fold(refused, sending(f"o{attempt}", attempt), entry("rejected", f"o{attempt}", reason="price_band"))
    assert stall_reason(of, AT, ClosingPace()) == Stall("unfilled", "BTC does not fill and is retried")
    text = "BTC is refused repeatedly (price_band) and is retried"
    assert stall_reason(refused, AT, ClosingPace()) == Stall("refused", text)
    refused = fold(refused, entry("verified", None, None, position="0", target="0"))
    assert stall_reason(refused, AT, ClosingPace()) is None


def test_an_amount_cut_for_margin_is_restored_by_a_fill() -> None:
    """8 of 10 refused for margin, and 4 refused again: 2 is the largest; its fill takes it back to 10."""
    nothing = entry("verified", None, None, position="10", target="0")
    of = fold(target_of(), sending("o1", 1, "8"), entry("rejected", "o1", reason="insufficient_margin"))
    assert of.largest == D(4)
    of = fold(of, sending("o2", 2, "4"), entry("rejected", "o2", 2, reason="insufficient_margin"))
    assert of.largest == D(2)
    of = fold(of, sending("o3", 3, "2"), entry("filled", "o3", 3, filled="0"), nothing)
    assert of.largest == D(2)
    of = fold(of, sending("o4", 4, "2"), entry("filled", "o4", 4, filled="2", price="1", fee="0"))
    assert of.largest == D(10)


def test_an_amount_cut_for_the_venues_maximum_stays_cut_after_a_fill() -> None:
    """Above its maximum: half, and it stays half."""
    of = fold(target_of(), sending("o1", 1, "8"), entry("rejected", "o1", reason="above_maximum"))
    of = fold(of, sending("o2", 2, "4"), entry("filled", "o2", 2, filled="4", price="1", fee="0"))
    assert of.largest == D(4)


@pytest.mark.parametrize(
    ("refusal", "reduce_only", "purpose", "blocked"),
    [
        ("blocked_by_order", True, "reduce", True),
        ("insufficient_margin", False, "reduce", True),
        ("insufficient_margin", False, "hop", True),
        ("insufficient_margin", True, "reduce", False),
        ("insufficient_margin", False, "hedge", False),
        ("other", False, "reduce", False),
        (None, False, "reduce", False),
    ],
)
def test_resting_orders_block_where_the_venue_says_so_or_lends_nothing(
    refusal: str | None, reduce_only: bool, purpose: Literal["reduce", "hop", "hedge"], blocked: bool
) -> None:
    """A sale of what is held needs no margin: what is missing is locked by an order."""
    of = target_of()
    of.refusal, of.reduce_only, of.purpose = refusal, reduce_only, purpose
    assert of.is_blocked is blocked


@pytest.mark.parametrize(
    ("refusals", "blocked"),
    [
        (("already_flat",), False),
        (("already_flat", "already_flat"), True),
        (("already_flat", "already_flat", "already_flat"), False),
        (("price_band", "already_flat"), False),
        (("already_flat", "price_band", "already_flat"), False),
    ],
)
def test_a_second_already_flat_refusal_of_an_open_position_counts_as_blocked(
    refusals: tuple[str, ...], blocked: bool
) -> None:
    """Binance's -2022 has both meanings. Once: the snapshot may be behind. A third time: it was not the orders."""
    of = target_of()
    for number, refusal in enumerate(refusals, 1):
        of = fold(of, sending(f"o{number}", number), entry("rejected", f"o{number}", number, reason=refusal))
    assert of.is_blocked is blocked


def test_a_fill_resets_the_count_of_already_flat_refusals() -> None:
    """A position that an order has reduced was not flat."""
    of = fold(target_of(), sending("o1", 1), entry("rejected", "o1", 1, reason="already_flat"))
    assert of.flat_refusals == 1
    of = fold(of, sending("o2", 2, "4"), entry("filled", "o2", 2, filled="4", price="1", fee="0"))
    assert of.flat_refusals == 0
