"""Which catastrophe stops belong to a book. Prices are worked by hand from the definition: entry × (1 ∓ distance)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.graph.nodes import CatastropheStopRule, StopTwin
from killswitch.model.snapshot import AccountSnapshot, Instrument, Order, Position, Side
from killswitch.model.words import Place
from killswitch.planning.catastrophe_stops import AccountStops, StopInputs, StopLine, stops_of

D = Decimal
OURS = "kscstop000000000000000000000000"
"""The form of the client order id of a stop of ours: 31 characters."""


def rule(**more: Any) -> CatastropheStopRule:
    place = Place("stops.yaml", 3, 12, "")
    made = CatastropheStopRule("far", ("main",), None, D("0.2"), "mark", None, D("0.1"), "none", place)
    return replace(made, **more)


def held(side: Side = "long", contracts: str = "10", symbol: str = "BTC", **more: Any) -> Position:
    values: dict[str, Any] = {"entry_price": D(100), "mark_price": D(100)} | more
    return Position(symbol, side, D(contracts), **values)


def stop(amount: str, trigger: str, number: int = 1, side: str = "sell", symbol: str = "BTC") -> Order:
    name = f"{OURS[:-2]}{number:02d}"
    return Order(
        f"s{number}", symbol, "sell" if side == "sell" else "buy", D(amount), client_order_id=name,
        trigger_price=D(trigger), reduce_only=True,
    )  # fmt: skip


def book(positions: tuple[Position, ...] | None, *orders: Order, name: str = "main", **more: Any) -> AccountSnapshot:
    return AccountSnapshot(name, "paper", "swap", "USDT", "ok", positions=positions, orders=orders, **more)


def rules_of(symbol: str = "BTC", **more: Any) -> Instrument:
    values = {"amount_step": D(1), "price_step": D(1), "min_amount": D(1)} | more
    return Instrument(symbol, contract_size=D(1), **values)


def decided(account: AccountSnapshot, found: CatastropheStopRule | None = None, **more: Any) -> AccountStops:
    instruments = more.pop("instruments", (rules_of(),))
    inputs = StopInputs({each.symbol: each for each in instruments}, **more)
    return stops_of(found or rule(), "main", {"main": account}, {"main": inputs})


def line(account: AccountSnapshot, found: CatastropheStopRule | None = None, **more: Any) -> StopLine:
    ((one),) = decided(account, found, **more).lines
    return one


def orders_of(one: StopLine) -> tuple[list[str], list[tuple[object, ...]]]:
    """Ids of what is cancelled, and side, amount, trigger and direction of what is placed."""
    placed: list[tuple[object, ...]] = [
        (each.side, each.amount, each.trigger_price, each.trigger_when) for each in one.to_place
    ]
    return [each.id for each in one.to_cancel], placed


@pytest.mark.parametrize(
    ("position", "found", "instrument", "expected"),
    [
        (held(), {}, {}, ("sell", D(10), D(80), "falls")),
        (held("short"), {}, {}, ("buy", D(10), D(120), "rises")),
        # 99.9 × 0.8 = 79.92: towards the mark, up for a long and down for a short (99.9 × 1.2 = 119.88)
        (held(entry_price=D("99.9")), {}, {}, ("sell", D(10), D(80), "falls")),
        (held("short", entry_price=D("99.9")), {}, {}, ("buy", D(10), D(119), "rises")),
        (held(entry_price=D("99.9")), {}, {"price_step": D("0.05")}, ("sell", D(10), D("79.95"), "falls")),
        # the entry is unknown: from the mark at first sight
        (held(entry_price=None, mark_price=D(90)), {}, {}, ("sell", D(10), D(72), "falls")),
        # liquidated at 90: a stop at 80 protects nothing, 2% inside is 91.8
        (held(liquidation_price=D(90)), {"inside_liquidation": D("0.02")}, {}, ("sell", D(10), D(92), "falls")),
        (
            held("short", liquidation_price=D(110)), {"inside_liquidation": D("0.02")}, {},
            ("buy", D(10), D(107), "rises"),
        ),
        # a liquidation price beyond the stop changes nothing
        (held(liquidation_price=D(50)), {"inside_liquidation": D("0.02")}, {}, ("sell", D(10), D(80), "falls")),
        # inverse contracts: the distance is of the price
        (held(contracts="25"), {}, {"inverse": True}, ("sell", D(25), D(80), "falls")),
        (held(contracts="10.7"), {}, {}, ("sell", D(10), D(80), "falls")),
    ],
)  # fmt: skip
def test_a_position_has_one_stop_at_its_distance_from_the_entry(
    position: Position, found: dict[str, Any], instrument: dict[str, Any], expected: tuple[object, ...]
) -> None:
    """Of the size of the position in whole lots, rounded towards the mark, inside the liquidation price."""
    one = line(book((position,)), rule(**found), instruments=(rules_of(**instrument),))
    assert orders_of(one) == ([], [expected])


def test_a_first_mark_is_kept_and_the_stop_does_not_follow_the_mark() -> None:
    """The mark at first sight is to be stored; from then on 90 × 0.8 = 72 holds, whatever the mark is."""
    position = held(entry_price=None, mark_price=D(90))
    assert decided(book((position,))).first_marks == {("BTC", "long"): D(90)}
    later = replace(position, mark_price=D(300))
    again = decided(book((later,), stop("10", "72")), first_marks={("BTC", "long"): D(90)})
    assert again.first_marks == {}
    assert orders_of(again.lines[0]) == ([], [])


@pytest.mark.parametrize(
    ("contracts", "entry", "resting", "cancelled", "placed"),
    [
        ("10", "100", ["10"], [], []),
        ("10.5", "100", ["10"], [], []),  # 10 whole lots are covered
        ("11", "100", ["10"], [], []),  # 10 of 11 is above 1 − 10%
        ("12", "100", ["10"], [], [(D(2), D(80))]),  # 10 of 12 is below: what is missing is placed
        ("9", "100", ["10"], ["s1"], [(D(9), D(80))]),  # larger than the position: changed at once
        ("9", "100", ["5", "5"], ["s1", "s2"], [(D(9), D(80))]),
        ("10", "101", ["10"], [], []),  # 80.8 is within 10% of the distance, 2.02, of 80
        ("10", "104", ["10"], ["s1"], [(D(10), D(84))]),  # 83.2, rounded up, is not
        (
            "20",
            "100",
            ["1", "2", "3", "4", "3", "2", "1"],
            ["s1", "s2", "s3", "s4", "s5", "s6", "s7"],
            [(D(20), D(80))],
        ),
    ],
)
def test_a_stop_is_changed_beyond_its_band_only(
    contracts: str, entry: str, resting: list[str], cancelled: list[str], placed: list[tuple[Decimal, Decimal]]
) -> None:
    """A stop that exceeds the position is changed at once, one that covers less of it beyond the band."""
    stops = [stop(each, "80", number) for number, each in enumerate(resting, start=1)]
    one = line(book((held(contracts=contracts, entry_price=D(entry)),), *stops))
    assert [each.id for each in one.to_cancel] == cancelled
    assert [(each.amount, each.trigger_price) for each in one.to_place] == placed


def test_a_stop_beyond_the_largest_order_is_several() -> None:
    """21 contracts where the largest order is 10 and the smallest 2: no order is below the smallest."""
    one = line(book((held(contracts="21"),)), instruments=(rules_of(max_amount=D(10), min_amount=D(2)),))
    assert [each.amount for each in one.to_place] == [D(10), D(9), D(2)]


def test_orders_of_others_are_no_stops_of_ours() -> None:
    """A stop of a bot neither counts nor is cancelled."""
    theirs = replace(stop("10", "85"), client_order_id="bot-1")
    assert orders_of(line(book((held(),), theirs))) == ([], [("sell", D(10), D(80), "falls")])


def test_a_flip_cancels_the_old_stop_and_places_one_of_the_other_side() -> None:
    """The stop of the long position has no position any more; the short one needs a purchase at 120."""
    found = decided(book((held("short"),), stop("10", "80")))
    assert [each.id for each in found.leftovers] == ["s1"]
    assert orders_of(found.lines[0]) == ([], [("buy", D(10), D(120), "rises")])


def test_in_hedge_mode_each_side_has_its_stop() -> None:
    """Long 10 and short 4 of one symbol."""
    mine = replace(stop("10", "80"), position_side="long")
    found = decided(book((held(), held("short", "4")), mine, position_mode="hedge"))
    assert [orders_of(each) for each in found.lines] == [([], []), ([], [("buy", D(4), D(120), "rises")])]


def test_nothing_is_left_when_the_account_is_flat() -> None:
    assert [each.id for each in decided(book((), stop("10", "80"))).leftovers] == ["s1"]


@pytest.mark.parametrize(
    ("position", "found", "instrument", "kind", "why"),
    [
        (held(entry_price=None, mark_price=None), {}, {}, "unknown", "neither the entry nor the mark of BTC is known"),
        (held(), {}, {"price_step": None}, "unknown", "the price step of BTC is unknown"),
        (held(), {}, {"amount_step": None}, "unknown", "the amount step is unknown"),
        (held(contracts="3"), {}, {"min_amount": D(5)}, "dust",
         "3 contracts are less than the venue's smallest order of 5"),
        (held(liquidation_price=D(85)), {}, {}, "beyond-liquidation",
         "a stop at 80 lies beyond the liquidation price 85, and no `inside_liquidation` is declared"),
        (held(mark_price=D(79)), {}, {}, "reached", "the mark 79 is at the trigger 80 already"),
        (held("short", mark_price=D(120)), {}, {}, "reached", "the mark 120 is at the trigger 120 already"),
    ],
)  # fmt: skip
def test_a_position_without_a_stop_has_a_reason(
    position: Position, found: dict[str, Any], instrument: dict[str, Any], kind: str, why: str
) -> None:
    """Nothing is placed, and what is unknown stays unknown."""
    one = line(book((position,)), rule(**found), instruments=(rules_of(**instrument),))
    assert one.to_place == ()
    assert one.problem is not None
    assert (one.problem.kind, one.problem.why) == (kind, why)


def test_an_unknown_account_changes_nothing() -> None:
    """Neither a failed poll nor unknown positions or orders cancel a stop."""
    unknown = [
        book(None, stop("10", "80")),
        replace(book((held(),)), orders=None),
        replace(book((), stop("10", "80")), quality="down", reason="no answer"),
    ]
    for account in unknown:
        found = decided(account)
        assert (found.lines, found.leftovers) == ((), ())
        assert found.unknown is not None


def test_the_stops_of_a_position_that_is_closed_are_left_to_the_close() -> None:
    """The close cancels and restores what blocks it; a leftover of a flat position is cancelled all the same."""
    account = book((held(contracts="6"),), stop("10", "80"), stop("3", "80", 2, symbol="ETH"))
    found = decided(account, closing=(("BTC", "long"),))
    assert orders_of(found.lines[0]) == ([], [])
    assert [each.id for each in found.leftovers] == ["s2"]


PAIR = (StopTwin("main", "BTC", "other", "BTC-SPOT"), StopTwin("other", "BTC-SPOT", "main", "BTC"))


def pair(*others: Position, quality: str = "ok") -> tuple[AccountStops, AccountStops]:
    accounts = {
        "main": book((held(),)),
        "other": replace(book(others, name="other"), quality=quality),
    }
    known = StopInputs({"BTC": rules_of(), "BTC-SPOT": rules_of("BTC-SPOT")})
    inputs = {"main": known, "other": known}
    both = rule(accounts=("main", "other"), twins=PAIR)
    return stops_of(both, "main", accounts, inputs), stops_of(both, "other", accounts, inputs)


def test_both_legs_of_one_base_have_orders_at_the_same_two_prices() -> None:
    """A stop on one and a take-profit on the other: long from 100 at 80 and 121, short from 101 at 121 and 80."""
    one, other = pair(held("short", symbol="BTC-SPOT", entry_price=D(101)))
    assert orders_of(one.lines[0])[1] == [("sell", D(10), D(80), "falls"), ("sell", D(10), D(121), "rises")]
    assert orders_of(other.lines[0])[1] == [("buy", D(10), D(121), "rises"), ("buy", D(10), D(80), "falls")]


@pytest.mark.parametrize(
    ("others", "quality"),
    [((), "ok"), ((held("short", symbol="BTC-SPOT"),), "down"), ((held("long", symbol="BTC-SPOT"),), "ok")],
)
def test_without_an_order_on_the_other_leg_there_is_none_on_this_one(
    others: tuple[Position, ...], quality: str
) -> None:
    """The leg is not there, is unknown, or is on the same side: a single stop would leave a naked leg."""
    one, _ = pair(*others, quality=quality)
    assert one.lines[0].to_place == ()
    assert one.lines[0].problem is not None
    assert one.lines[0].problem.kind == "no-twin"


numbers = st.integers(min_value=0, max_value=60)


@given(
    contracts=st.integers(min_value=1, max_value=50),
    entry=st.integers(min_value=20, max_value=1000),
    mark=st.integers(min_value=1, max_value=2000),
    side=st.sampled_from(["long", "short"]),
    resting=st.lists(st.tuples(numbers, st.integers(min_value=1, max_value=2000)), max_size=8),
    largest=st.integers(min_value=3, max_value=60),
)
def test_stops_never_exceed_the_position_and_never_follow_the_mark(
    contracts: int, entry: int, mark: int, side: Side, resting: list[tuple[int, int]], largest: int
) -> None:
    """What rests and is not cancelled, and what is placed, is at most the position; its price is of the entry alone."""
    sign = "sell" if side == "long" else "buy"
    orders = [stop(str(amount), str(at), number, sign) for number, (amount, at) in enumerate(resting)]
    position = held(side, str(contracts), entry_price=D(entry), mark_price=D(mark))
    instruments = (rules_of(max_amount=D(largest)),)
    one = line(book((position,), *orders), instruments=instruments)
    kept = [each for each in orders if each not in one.to_cancel]
    if one.problem is None:
        assert sum(each.amount for each in kept) + sum(each.amount for each in one.to_place) <= contracts
        assert all(D(1) <= each.amount <= largest for each in one.to_place)
    other = line(book((replace(position, mark_price=D(mark * 7)),), *orders), instruments=instruments)
    assert one.trigger == other.trigger
    exact = D(entry) * (D("0.8") if side == "long" else D("1.2"))
    assert one.trigger is not None
    assert abs(one.trigger - exact) < 1
    assert one.trigger >= exact if side == "long" else one.trigger <= exact
