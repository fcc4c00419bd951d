"""A line folded from journal entries worked by hand: amounts, costs, tries, and orders of unknown fate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

import pytest

from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.decide.line_verdict import stall_reason
from killswitch.journal.codec import decode
from killswitch.journal.entries import Entry
from killswitch.journal.lifecycle import ForbiddenTransitionError, TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.store import JournalEntry, JournalKind
from killswitch.risk.trading_cost import MarkedContract

D = Decimal
AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
LATER = AT + timedelta(seconds=9)


def line(target: str = "0", decided: str = "10", side: str = "sell") -> PositionTarget:
    return PositionTarget(
        "d1", "main", "BTC", "long" if side == "sell" else "short", "sell" if side == "sell" else "buy",
        D(target), D(decided), D(decided), True, 1, 0,
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


def test_an_order_that_has_left_is_known_by_everything_that_was_journaled() -> None:
    """Attempt, name, amount, instant, rung and kind are those of the `sending` entry."""
    of = fold(line(), sending("o3", 3, "4", rung="2", order="limit", price="99", mark="100", value="100"))
    assert (of.state, of.attempt, of.client_order_id, of.sent_at) == (TargetState.SENDING, 3, "o3", AT)
    assert (of.sent_amount, of.may_fill, of.execution_step, of.has_limit, of.is_resting) == (D(4), D(4), 2, True, True)
    assert (of.arrival, of.is_in_flight) == (MarkedContract(D(100), D(100)), True)


def test_an_order_at_market_neither_rests_nor_is_bounded() -> None:
    """Without a price there is no bound, and only `limit` rests."""
    of = fold(line(), sending(order="market"))
    assert (of.has_limit, of.is_resting, of.execution_step) == (False, False, 0)
    assert not fold(line(), sending(order="limit_ioc", price="99")).is_resting


def test_an_amount_that_cannot_be_read_counts_as_all_that_was_decided() -> None:
    """The worst that can have left is the whole of it."""
    assert fold(line(decided="7"), sending(amount=None)).sent_amount == D(7)


def test_an_attempt_that_was_never_numbered_is_the_first_that_could_be() -> None:
    """An entry without a number stands at 0."""
    assert fold(line(), entry("sending", attempt=None, amount="1")).attempt == 0


def test_under_one_name_the_most_that_was_ever_sent_may_fill() -> None:
    """4 were sent and not heard, then 3 under the same id: 4 may fill; under a new id, 3."""
    first = sending(amount="4"), entry("rejected", reason="rate_limited")
    assert fold(line(), *first, sending(amount="3")).may_fill == D(4)
    assert fold(line(), *first, sending(amount="6")).may_fill == D(6)
    answered = sending(amount="4"), entry("rejected", reason="other")
    assert fold(line(), *answered, sending("o2", 2, "3")).may_fill == D(3)


def test_the_venues_own_name_of_an_order_ends_with_the_next_one() -> None:
    """It is learnt from the acknowledgement, and not carried to another order."""
    of = fold(line(), sending(), entry("acknowledged", order="v7"))
    assert (of.state, of.order_id) == (TargetState.WORKING, "v7")
    of = fold(of, entry("filled", filled="4", order="v7"), entry("verified", None, None, position="6", target="0"))
    assert fold(of, sending("o2", 2, "6")).order_id is None


@pytest.mark.parametrize(("side", "cost"), [("sell", "6"), ("buy", "-4")])
def test_cost_is_the_fee_and_the_slippage_against_the_mark(side: str, cost: str) -> None:
    """10 contracts of 50 each, sold 1% below the mark: 5 lost and 1 of fee; bought there, 5 won less the fee."""
    of = fold(
        line(side=side), sending(mark="100", value="50"), entry("filled", filled="10", price="99", fee="1")
    )  # fmt: skip
    assert of.cost == D(cost)
    assert of.proceeds == D(990)


def test_costs_of_several_orders_add_up() -> None:
    """Two fills of 4 and 6 at 99 with fees of 1 and 2: 3 + 5."""
    of = fold(line(), sending(amount="4", mark="100", value="50"), entry("filled", filled="4", price="99", fee="1"))
    of = fold(of, entry("sending", "o2", 2, amount="6", after="next slice", mark="100", value="50"))
    of = fold(of, entry("filled", "o2", 2, filled="6", price="98", fee="2"))
    assert of.cost == D(2) + D(1) + D(2) + D(6)
    assert (of.proceeds, of.filled) == (D(396) + D(588), D(10))


@pytest.mark.parametrize("missing", ["price", "fee", "mark", "value"])
def test_a_part_of_the_cost_that_is_unknown_makes_all_of_it_unknown(missing: str) -> None:
    """Whichever of the four numbers is not there."""
    words: dict[str, str | None] = {"mark": "100", "value": "50", "price": "99", "fee": "1"}
    words[missing] = None
    of = fold(
        line(), sending(mark=words["mark"], value=words["value"]),
        entry("filled", filled="10", price=words["price"], fee=words["fee"]),
    )  # fmt: skip
    assert of.cost is None
    assert of.proceeds == (None if missing == "price" else D(990))


def test_a_cost_once_unknown_stays_unknown() -> None:
    """A later fill with every number does not make it known again."""
    of = fold(line(), sending(amount="4", mark="100", value="50"), entry("filled", filled="4"))
    of = fold(of, entry("sending", "o2", 2, amount="6", after="next slice"))
    of = fold(of, entry("filled", "o2", 2, filled="6", price="99", fee="0"))
    assert (of.cost, of.proceeds, of.filled) == (None, None, D(10))


def test_an_order_that_filled_nothing_costs_nothing() -> None:
    """Without price and fee it is still known to have cost 0."""
    of = fold(line(), sending(), entry("filled", filled="0"))
    assert (of.cost, of.proceeds, of.attempts_without_fill, of.failed_tries, of.is_fully_filled) == (
        D(0),
        D(0),
        1,
        1,
        False,
    )


def test_the_first_whole_pair_of_mark_and_value_is_the_decisions() -> None:
    """A mark without a value is passed over; the mark of an order does not move it."""
    of = fold(line(), entry("planned", None, None, mark="100"), entry("planned", None, None, mark="90", value="45"))
    of = fold(of, sending(mark="80", value="40"))
    assert (of.decision_mark, of.arrival) == (MarkedContract(D(90), D(45)), MarkedContract(D(80), D(40)))


def test_what_the_market_moved_before_an_order_is_delay_and_no_cost_of_it() -> None:
    """10 contracts of 100, decided at 100 and sold at 119 after a rise to 120: 10 of slippage, 200 gained before."""
    of = fold(line(), entry("planned", None, None, mark="100", value="100"), sending(mark="120", value="120"))
    of = fold(of, entry("filled", filled="10", price="119", fee="1"))
    assert (of.cost, of.delay) == (D(11), D(-200))


def test_an_order_of_unknown_fate_is_counted_against_the_mark_when_it_was_sent() -> None:
    """4 sent at 100 are set aside, 6 sent at 80; when the first is known to have sold at 99 it slipped 4, not 76."""
    of = fold(line(), entry("planned", None, None, mark="100", value="100"))
    of = fold(of, sending(amount="4", mark="100", value="100"), entry("unknown"), entry("set_aside", at=LATER))
    of = fold(of, sending("o2", 2, "6", mark="80", value="80"))
    of = fold(of, entry("filled", filled="4", price="99", fee="0"))
    assert (of.cost, of.delay) == (D(4), D(0))


def test_a_fill_that_cannot_be_read_counts_as_all_that_may_fill() -> None:
    """At its worst: 4 are closed, at a cost that nobody knows, and the order came to nothing that one could see."""
    of = fold(line(), sending(amount="4"), entry("filled", filled="much"))
    assert (of.filled, of.cost, of.proceeds, of.attempts_without_fill, of.is_fully_filled) == (
        D(4),
        None,
        None,
        1,
        False,
    )


def test_an_order_counts_once() -> None:
    """Its fill after it was set aside and after it was told are one."""
    of = fold(line(), sending(amount="4"), entry("filled", filled="4", price="1", fee="0"))
    of.state = TargetState.SENDING
    of = fold(of, entry("filled", filled="4", price="1", fee="0"))
    assert of.filled == D(4)


def test_tries_are_counted_by_what_the_order_was_good_for() -> None:
    """Partly filled with a bound: one try; without one, or wholly: none."""
    part = entry("filled", filled="4", price="1", fee="0")
    assert fold(line(), sending(order="limit_ioc", price="1"), part).failed_tries == 1
    assert fold(line(), sending(order="market"), part).failed_tries == 0
    assert fold(line(), sending(amount="4", order="limit_ioc", price="1"), part).failed_tries == 0
    assert fold(line(), sending(amount="4", order="limit_ioc", price="1"), part).is_fully_filled


def test_tries_add_up_and_end_with_an_order_that_was_good() -> None:
    """Two in a row that filled nothing are two; a whole fill begins anew."""
    of, nothing = line(), entry("verified", None, None, position="10", target="0")
    for attempt in (1, 2):
        of = fold(of, sending(f"o{attempt}", attempt), entry("filled", f"o{attempt}", filled="0"), nothing)
    assert (of.failed_tries, of.attempts_without_fill) == (2, 2)
    of = fold(of, sending("o3", 3), entry("filled", "o3", filled="10", price="1", fee="0"))
    assert (of.failed_tries, of.attempts_without_fill) == (0, 0)


def test_an_order_that_has_rested_in_vain_was_a_try_as_any_other() -> None:
    """It is known to have been one that rests, because the next may follow it at once."""
    of = fold(line(), sending(order="limit", price="1"), entry("filled", filled="0"))
    assert (of.attempts_without_fill, of.failed_tries, of.is_resting) == (1, 1, True)


def test_tries_are_those_of_the_rung_and_fruitless_attempts_those_of_the_line() -> None:
    """On another rung the tries begin anew; only a fill ends the row of attempts that came to nothing."""
    of = fold(line(), sending(), entry("rejected", reason="other"))
    assert (of.failed_tries, of.attempts_without_fill, of.refusal) == (1, 1, "other")
    assert (fold(of, sending("o2", 2)).failed_tries, of.attempts_without_fill) == (1, 1)
    of = fold(of, entry("rejected", "o2", 2, reason="other"))
    assert (fold(of, sending("o3", 3, rung="1")).failed_tries, of.attempts_without_fill, of.execution_step) == (0, 2, 1)


@pytest.mark.parametrize(
    ("reason", "fruitless", "tried", "largest", "spent"),
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
def test_what_a_refusal_costs_depends_on_why(
    reason: str, fruitless: int, tried: int, largest: str, spent: bool
) -> None:
    """Too much: half is tried next. Not heard: nothing is spent. Nothing another kind of order would change: no try."""
    of = fold(line(), sending(amount="8"), entry("rejected", reason=reason))
    assert (of.attempts_without_fill, of.failed_tries, of.largest, of.is_id_used) == (
        fruitless,
        tried,
        D(largest),
        spent,
    )
    assert (of.state, of.refusal) == (TargetState.READY, reason)


def test_a_fill_ends_a_refusal() -> None:
    """What the venue refused before is no longer why."""
    of = fold(line(), sending(), entry("rejected", reason="other"), sending("o2", 2))
    assert fold(of, entry("filled", "o2", 2, filled="10", price="1", fee="0")).refusal is None


def test_an_order_set_aside_is_kept_with_all_that_is_known_of_it() -> None:
    """Its name, attempt and amount, when it left and when nobody waited any longer; the line goes on under a new id."""
    of = fold(line(), sending("o2", 2, "4"), entry("unknown", "o2", 2), entry("set_aside", "o2", 2, at=LATER))
    (aside,) = of.detached.values()
    assert (aside.name, aside.attempt, aside.may_fill(of.decided)) == ("o2", 2, D(4))
    assert (aside.sent_at, aside.status) == (AT, "set aside")
    assert (of.state, of.is_id_used, of.outstanding) == (TargetState.READY, True, D(4))


def test_what_is_heard_of_an_order_set_aside_settles_it_and_moves_nothing_else() -> None:
    """Acknowledged: still aside; filled: its fill counts; the line's own order stays in flight throughout."""
    of = fold(line(), sending("o1", 1, "4"), entry("set_aside", "o1"), sending("o2", 2, "6"))
    of = fold(of, entry("acknowledged", "o1"), entry("unknown", "o1"))
    assert (of.outstanding, of.state, of.client_order_id) == (D(4), TargetState.SENDING, "o2")
    of = fold(of, entry("filled", "o1", filled="3", price="1", fee="0"))
    assert (of.outstanding, of.filled, of.detached, of.state) == (D(0), D(3), {}, TargetState.SENDING)


@pytest.mark.parametrize("kind", ["rejected", "absent"])
def test_an_order_set_aside_that_never_was_leaves_nothing(kind: JournalKind) -> None:
    """Nothing of it is outstanding, nothing filled and no cost unknown."""
    of = fold(line(), sending("o1", 1, "4"), entry("set_aside"), entry(kind))
    assert (of.outstanding, of.filled, of.cost, of.abandoned, of.detached) == (D(0), D(0), D(0), (), {})


def test_orders_that_are_abandoned_count_at_their_worst_for_ever() -> None:
    """4 and 5 may have filled; both names are kept in order, and what was paid is unknown."""
    of = fold(line(), sending("o1", 1, "4"), entry("set_aside", "o1"), sending("o2", 2, "5"))
    of = fold(of, entry("set_aside", "o2", 2), entry("abandoned", "o1"))
    assert (of.outstanding, of.abandoned_amount, of.abandoned) == (D(9), D(4), ("o1",))
    of = fold(of, entry("abandoned", "o2", 2))
    assert (of.outstanding, of.abandoned_amount, of.abandoned) == (D(9), D(9), ("o1", "o2"))
    assert (of.cost, of.proceeds, of.filled) == (None, None, D(0))


def test_an_unreadable_fill_of_an_order_set_aside_counts_at_its_own_worst() -> None:
    """4 of the first order, though the second may fill 6."""
    of = fold(line(), sending("o1", 1, "4"), entry("set_aside"), sending("o2", 2, "6"), entry("filled", "o1"))
    assert of.filled == D(4)


def test_an_order_set_aside_cannot_be_sent_again() -> None:
    """Its id is spent: whatever would send it again is refused, and the line stays as it was."""
    of = fold(line(), sending(), entry("set_aside"))
    with pytest.raises(ForbiddenTransitionError, match=r"d1 BTC long.*sending.*o1"):
        of.apply(sending())
    assert (of.state, of.outstanding) == (TargetState.READY, D(10))


def test_what_cannot_follow_is_refused_by_its_name() -> None:
    """A fill of what never left."""
    with pytest.raises(ForbiddenTransitionError, match=r"d1 BTC long.*filled.*ready"):
        line().apply(entry("filled", filled="1"))


def test_a_past_that_contradicts_itself_leaves_the_newest_order_unknown() -> None:
    """Two orders at once: the second is asked about, and what it all cost is unknown."""
    of = line()
    for each in (sending("o1", 1, "4"), sending("o2", 2, "6")):
        of.replay(each)
    assert (of.state, of.client_order_id, of.may_fill, of.cost) == (TargetState.UNKNOWN, "o2", D(6), None)


def test_a_past_fill_out_of_order_still_counts() -> None:
    """A fill told twice by two hands, under two ids, is two fills; the line asks the venue."""
    of = line()
    for each in (
        sending("o1", 1, "4"),
        entry("filled", "o1", filled="4", price="1", fee="0"),
        entry("filled", "o2", 2, filled="3", price="1", fee="0"),
    ):
        of.replay(each)
    assert (of.state, of.filled, of.cost) == (TargetState.UNKNOWN, D(7), None)


def test_a_past_that_ended_out_of_order_is_over_and_stays_over() -> None:
    """Finished with an order in flight: over; whatever comes later moves nothing."""
    of = line()
    for each in (sending("o1", 1, "4"), entry("finished", None, None), sending("o2", 2, "6")):
        of.replay(each)
    assert (of.state, of.client_order_id, of.cost) == (TargetState.OVER, "o1", D(0))


def test_nonsense_before_any_order_leaves_nothing_to_ask_about() -> None:
    """Without an order that ever left, the line is still ready, and its cost is unknown."""
    of = line()
    of.replay(entry("acknowledged", None, None))
    assert (of.state, of.cost) == (TargetState.READY, None)


@pytest.mark.parametrize(
    ("purpose", "target", "reduce_only", "guarded"),
    [
        ("reduce", "0", True, True),
        ("reduce", "1", True, False),
        ("reduce", "0", False, False),
        ("hop", "0", True, False),
    ],
)
def test_the_venue_guards_full_reduce_only_closes_and_nothing_else(
    purpose: str, target: str, reduce_only: bool, guarded: bool
) -> None:
    """A trim, an order that may open, and a hop are ours to bound."""
    of = line(target)
    of.reduce_only = reduce_only
    of.purpose = "hop" if purpose == "hop" else "reduce"
    assert of.is_capped_by_venue is guarded


def test_what_a_hop_has_still_to_trade_is_never_below_nothing() -> None:
    """10 decided, 4 filled: 6; 12 filled: 0."""
    of = line()
    of.filled = D(4)
    assert of.remaining == D(6)
    of.filled = D(12)
    assert of.remaining == D(0)


def test_a_person_is_told_of_an_order_that_stays_open_or_unknown_for_too_long() -> None:
    """From the thirtieth second on, with the name, the symbol and the instant it left."""
    pace = ClosingPace()
    of = fold(line(), sending("o1"), entry("acknowledged"))
    assert stall_reason(of, AT + timedelta(seconds=29.9), pace) is None
    words = stall_reason(of, AT + timedelta(seconds=30), pace)
    assert words is not None
    assert all(part in words for part in ("o1", "BTC", "has been open", "2026-03-04 05:06:07"))
    unsaid = stall_reason(fold(line(), sending("o1")), AT + timedelta(seconds=30), pace)
    assert unsaid is not None
    assert "unknown status" in unsaid


def test_a_person_is_told_of_an_order_set_aside_once_its_absence_could_be_believed() -> None:
    """Two seconds after it left, and not before."""
    of = fold(line(), sending("o1"), entry("set_aside", "o1"))
    assert stall_reason(of, AT + timedelta(seconds=1.9), ClosingPace()) is None
    words = stall_reason(of, AT + timedelta(seconds=2), ClosingPace())
    assert words is not None
    assert all(part in words for part in ("o1", "BTC", "unknown status", "2026-03-04 05:06:07"))


def test_a_person_is_told_of_a_position_that_no_order_closes() -> None:
    """After eight in a row, and why if the venue said why; not once the target is reached."""
    nothing = entry("verified", None, None, position="10", target="0")
    of, barred = line(), line()
    for attempt in range(1, 9):
        assert (stall_reason(of, AT, ClosingPace()), stall_reason(barred, AT, ClosingPace())) == (None, None)
        of = fold(of, sending(f"o{attempt}", attempt), entry("filled", f"o{attempt}", attempt, filled="0"), nothing)
        barred = fold(barred, sending(f"o{attempt}", attempt), entry("rejected", f"o{attempt}", reason="price_band"))
    assert "BTC" in (stall_reason(of, AT, ClosingPace()) or "")
    assert "price_band" not in (stall_reason(of, AT, ClosingPace()) or "")
    assert "price_band" in (stall_reason(barred, AT, ClosingPace()) or "")
    barred = fold(barred, entry("verified", None, None, position="0", target="0"))
    assert stall_reason(barred, AT, ClosingPace()) is None


def test_what_margin_has_cut_is_whole_again_once_something_has_filled() -> None:
    """8 of 10 refused for margin, and 4 refused again: 2 is the largest; its fill takes it back to 10."""
    nothing = entry("verified", None, None, position="10", target="0")
    of = fold(line(), sending("o1", 1, "8"), entry("rejected", "o1", reason="insufficient_margin"))
    assert of.largest == D(4)
    of = fold(of, sending("o2", 2, "4"), entry("rejected", "o2", 2, reason="insufficient_margin"))
    assert of.largest == D(2)
    of = fold(of, sending("o3", 3, "2"), entry("filled", "o3", 3, filled="0"), nothing)
    assert of.largest == D(2)
    of = fold(of, sending("o4", 4, "2"), entry("filled", "o4", 4, filled="2", price="1", fee="0"))
    assert of.largest == D(10)


def test_what_the_venue_takes_at_most_stays_so_after_a_fill() -> None:
    """Above its maximum: half, and half it stays."""
    of = fold(line(), sending("o1", 1, "8"), entry("rejected", "o1", reason="above_maximum"))
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
def test_resting_orders_stand_in_the_way_where_the_venue_says_so_or_nothing_is_lent(
    refusal: str | None, reduce_only: bool, purpose: Literal["reduce", "hop", "hedge"], blocked: bool
) -> None:
    """A sale of what is held needs no margin: what is missing is locked by an order."""
    of = line()
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
def test_flat_that_is_said_again_of_a_position_that_is_shown_may_mean_that_orders_cover_it(
    refusals: tuple[str, ...], blocked: bool
) -> None:
    """Binance's -2022 has both meanings. Once: the reading may be behind. A third time: it was not the orders."""
    of = line()
    for number, refusal in enumerate(refusals, 1):
        of = fold(of, sending(f"o{number}", number), entry("rejected", f"o{number}", number, reason=refusal))
    assert of.is_blocked is blocked


def test_a_fill_begins_the_count_of_flat_anew() -> None:
    """A position that an order has reduced was not flat."""
    of = fold(line(), sending("o1", 1), entry("rejected", "o1", 1, reason="already_flat"))
    assert of.flat_refusals == 1
    of = fold(of, sending("o2", 2, "4"), entry("filled", "o2", 2, filled="4", price="1", fee="0"))
    assert of.flat_refusals == 0
