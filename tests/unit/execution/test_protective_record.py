"""Protective orders folded from the journal: what is kept, which orders block a close, and how one is restored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

import pytest
from msgspec.structs import replace

from killswitch.execution.client_order_id import PLAIN
from killswitch.execution.state.protective_record import (
    Protections,
    ProtectionState,
    blocking_orders,
    restoring_request,
    unprotected_entry,
)
from killswitch.journal.codec import decode, encode
from killswitch.journal.entries import Entry, known
from killswitch.journal.targets import PositionTarget
from killswitch.model.snapshot import Order, Position
from killswitch.model.store import JournalEntry, JournalKind
from killswitch.model.venue import ClientIdRule, OrderRequest
from killswitch.planning.resting_orders import trigger_when

D = Decimal
AT = datetime(2026, 1, 1, tzinfo=UTC)
STOP: dict[str, str | None] = {
    "order": "s1",
    "side": "sell",
    "amount": "4",
    "type": "stop_market",
    "trigger_price": "90",
    "trigger_when": "falls",
}


def entry(
    kind: JournalKind, decision: str = "d1", symbol: str | None = "BTC", held: str = "long", **data: str | None
) -> Entry:
    return decode(JournalEntry(decision, kind, AT, "main", symbol, held, None, None, data))


def taken_away(decision: str = "d1", held: str = "long", **fields: str | None) -> Entry:
    return entry("unprotected", decision, "BTC", held, **(STOP | fields))


def fold(*entries: Entry) -> Protections:
    of = Protections()
    for each in entries:
        of.apply(each)
    return of


def test_all_that_is_needed_to_restore_an_order_is_kept() -> None:
    """Decision, account, position, side, amount, prices, direction, and since when it is cancelled."""
    (one,) = fold(taken_away(price="89.5")).open()
    of = one.entry
    assert (of.decision, of.account, one.key, one.order, of.side) == ("d1", "main", ("BTC", "long"), "s1", "sell")
    assert (one.amount, of.price, of.trigger_price, of.trigger_when) == (D(4), D("89.5"), D(90), "falls")
    assert (of.at, one.number, one.state, one.is_gone, one.refused, one.sent_at) == (
        AT, 0, ProtectionState.OFF, False, 0, None
    )  # fmt: skip
    (short,) = fold(taken_away(held="short")).open()
    assert short.key == ("BTC", "short")


def test_unreadable_fields_are_unknown_and_the_amount_is_0() -> None:
    """Prices None; an amount of 0, which a restoring order takes for all that is left."""
    (one,) = fold(entry("unprotected", order="s1", trigger_price="?")).open()
    assert (one.amount, one.entry.price, known(one.entry.trigger_price)) == (D(0), None, None)
    assert restoring_request(one, D(3), reduce_only=True, rule=PLAIN) == "neither its price nor its trigger is known"


def test_an_order_without_a_symbol_is_skipped() -> None:
    """It protects no position that could be restored."""
    assert fold(entry("unprotected", symbol=None, order="s1")).open() == []


def test_each_order_of_a_decision_has_its_own_number_and_id() -> None:
    """Two of one decision differ, as do two decisions' first ones; a repeated entry changes nothing."""
    of = fold(taken_away(), taken_away(), taken_away(order="s2"), taken_away("d2", order="s3"))
    assert [(one.entry.decision, one.order, one.number) for one in of.open()] == [
        ("d1", "s1", 0), ("d1", "s2", 1), ("d2", "s3", 0)
    ]  # fmt: skip
    assert len({one.name(PLAIN) for one in of.open()}) == 3
    uuid = ClientIdRule(form="uuid", longest=36)
    assert all(len(one.name(uuid)) == 36 for one in of.open())


def test_the_state_from_off_to_done_follows_the_journal() -> None:
    """Cancelled: surely gone; sent: restoring, with the time; answered: done."""
    of = fold(taken_away(), entry("cancelled", order="s1"))
    (one,) = of.open()
    assert (one.is_gone, one.state) == (True, ProtectionState.OFF)
    later = AT + timedelta(seconds=5)
    of.apply(decode(JournalEntry("d1", "protected", later, "main", "BTC", "long", None, None, {"for": "s1"})))
    assert (one.state, one.sent_at, one.is_gone) == (ProtectionState.RESTORING, later, True)
    of.apply(entry("guarded", **{"for": "s1", "state": "resting"}))
    assert (one.state, of.open(), of.is_open("s1")) == (ProtectionState.DONE, [], False)


@pytest.mark.parametrize(("fields", "refused"), [("again", 0), ("tried: too many", 1)])
def test_an_order_that_was_not_accepted_is_off_again(fields: str, refused: int) -> None:
    """Not processed: the same id again; refused: another id."""
    of = fold(taken_away(), entry("protected", **{"for": "s1"}))
    (one,) = of.open()
    name = one.name(PLAIN)
    of.apply(entry("guarded", **{"for": "s1", "state": fields}))
    assert (one.state, one.refused, one.name(PLAIN) == name) == (ProtectionState.OFF, refused, refused == 0)


def test_an_end_without_a_state_is_an_end() -> None:
    """`guarded` without a state."""
    assert fold(taken_away(), entry("guarded", **{"for": "s1"})).open() == []


def test_entries_about_another_order_or_decision_change_nothing() -> None:
    """Neither another order id nor the same id for another decision."""
    of = fold(
        taken_away(), entry("guarded", "d2", **{"for": "s1"}), entry("guarded", **{"for": "s2"}), entry("cancelled")
    )
    assert [(one.state, one.is_gone) for one in of.open()] == [(ProtectionState.OFF, False)]


def test_a_restored_order_can_be_cancelled_again() -> None:
    """It is another one, with another number; while it is open, it is the same."""
    of = fold(taken_away(), entry("protected", **{"for": "s1"}), taken_away(amount="9"))
    assert [(one.number, one.amount, one.state) for one in of.open()] == [(0, D(4), ProtectionState.RESTORING)]
    of.apply(entry("guarded", **{"for": "s1", "state": "resting"}))
    of.apply(taken_away(amount="9"))
    assert [(one.number, one.amount, one.state) for one in of.open()] == [(1, D(9), ProtectionState.OFF)]


def test_open_orders_are_found_by_decision_and_by_order_id() -> None:
    """`of` has those of one decision; `is_open` those of all."""
    of = fold(taken_away(), taken_away("d2", order="s2"), taken_away("d2", order="s3"))
    assert [one.order for one in of.of("d2")] == ["s2", "s3"]
    assert [of.is_open(name) for name in ("s1", "s2", "s9")] == [True, True, False]


TARGET = PositionTarget("d1", "main", "BTC", "long", "sell", D(0), D(4), D(4), True, 1, 0)


@pytest.mark.parametrize(
    ("fields", "blocks"),
    [
        ({}, True),
        ({"position_side": "long"}, True),
        ({"position_side": "short"}, False),
        ({"symbol": "ETH"}, False),
        ({"side": "buy"}, False),
        ({"client_order_id": "ours"}, False),
        ({"client_order_id": "theirs"}, True),
        ({"reduce_only": False}, False),
        ({"reduce_only": False, "position_side": "long"}, True),
        ({"reduce_only": True}, True),
    ],
)
def test_only_exits_of_the_same_position_that_are_not_ours_block(fields: dict[str, object], blocks: bool) -> None:
    """Same symbol, same direction, the position's own side where known; what reduces nothing is an entry."""
    order = Order(**{"id": "s1", "symbol": "BTC", "side": "sell", "amount": D(4)} | fields)  # type: ignore[arg-type]  # the fields of each case
    assert blocking_orders(TARGET, [order], frozenset({"ours"})) == ([order] if blocks else [])


def unprotected_row(order: Order, position: Position | None) -> dict[str, str | None]:
    """The row of an order that is cancelled."""
    return encode(unprotected_entry(TARGET, order, position, AT)).data


def test_a_cancelled_protective_order_is_journaled_completely() -> None:
    """Its remaining amount, its prices as they were; unknown fields stay unknown."""
    order = Order(
        "s1", "BTC", "sell", D(10), client_order_id="mine", position_side="long", type="stop", price=D("89.5"),
        trigger_price=D(90), filled=D(3),
    )  # fmt: skip
    assert unprotected_row(order, Position("BTC", "long", D(10), mark_price=D(100))) == {
        "order": "s1", "client_order_id": "mine", "side": "sell", "position_side": "long", "amount": "7",
        "type": "stop", "price": "89.5", "trigger_price": "90", "trigger_when": "falls",
    }  # fmt: skip
    plain = unprotected_row(Order("s1", "BTC", "sell", D(10)), None)
    assert (plain["amount"], plain["price"], plain["trigger_price"], plain["trigger_when"]) == ("10", None, None, None)
    assert unprotected_row(Order("s1", "BTC", "sell", D("NaN"), filled=D(3)), None)["amount"] is None
    assert unprotected_row(Order("s1", "BTC", "sell", D(10), filled=D("NaN")), None)["amount"] == "10"


@pytest.mark.parametrize(
    ("kind", "side", "when"),
    [
        ("TAKE_PROFIT_MARKET", "sell", "rises"),
        ("take_profit", "buy", "falls"),
        ("STOP_MARKET", "sell", "falls"),
        ("stop", "buy", "rises"),
    ],
)
def test_a_stop_waits_for_a_loss_and_a_take_profit_for_a_gain_whatever_the_mark(
    kind: str, side: Literal["sell", "buy"], when: str
) -> None:
    """A sale stops below and takes profit above, a purchase the other way, though the mark has passed the trigger."""
    order = Order("s1", "BTC", side, D(1), type=kind, trigger_price=D(100))
    for mark in ("90", "100", "110"):
        assert trigger_when(order, Position("BTC", "long", D(1), mark_price=D(mark))) == when
    assert trigger_when(order, None) == when
    bare = Order("s1", "BTC", side, D(1), type=kind)
    assert trigger_when(bare, Position("BTC", "long", D(1), mark_price=D(100))) is None


@pytest.mark.parametrize(
    ("trigger", "mark", "when"),
    [("90", "100", "falls"), ("110", "100", "rises"), ("100", "100", None), (None, "100", None), ("90", None, None)],
)
def test_the_trigger_direction_follows_from_the_mark_or_is_unknown(
    trigger: str | None, mark: str | None, when: str | None
) -> None:
    """At the mark itself it waits for neither."""
    order = Order("s1", "BTC", "sell", D(1), trigger_price=None if trigger is None else D(trigger))
    at_mark = Position("BTC", "long", D(1), mark_price=None if mark is None else D(mark))
    assert trigger_when(order, at_mark) == when
    assert trigger_when(order, None) is None


def restoring_request_of(side: str = "sell", **fields: str | None) -> tuple[OrderRequest | str, str]:
    (one,) = fold(taken_away(**fields)).open()
    one.entry = replace(one.entry, side=side)
    return restoring_request(one, D(3), reduce_only=True, rule=PLAIN), one.name(PLAIN)


@pytest.mark.parametrize(("side", "sent"), [("sell", "sell"), ("buy", "buy")])
def test_a_stop_is_restored_for_what_is_left_with_its_trigger(side: str, sent: Literal["sell", "buy"]) -> None:
    """3 of its 4 contracts, at market once 90 is reached falling, under its own id."""
    request, name = restoring_request_of(side)
    assert request == OrderRequest(
        client_order_id=name, symbol="BTC", side=sent, position_side="long", amount=D(3), reduce_only=True,
        type="market", price=None, trigger_price=D(90), trigger_when="falls",
    )  # fmt: skip


def test_a_limit_order_is_restored_with_its_limit() -> None:
    """With a trigger or without; a rise is a rise."""
    request, _ = restoring_request_of(price="111", trigger_price="110", trigger_when="rises")
    assert isinstance(request, OrderRequest)
    assert (request.type, request.price, request.trigger_price, request.trigger_when) == (
        "limit", D(111), D(110), "rises"
    )  # fmt: skip
    bare, _ = restoring_request_of(price="111", trigger_price=None, trigger_when=None)
    assert isinstance(bare, OrderRequest)
    assert (bare.type, bare.price, bare.trigger_price, bare.trigger_when) == ("limit", D(111), None, None)


@pytest.mark.parametrize(("amount", "restored"), [("2", "2"), ("3", "3"), ("9", "3"), (None, "3"), ("0", "3")])
def test_no_more_is_restored_than_there_was_nor_than_is_left(amount: str | None, restored: str) -> None:
    """Three are left; an unknown amount counts as all of it."""
    request, _ = restoring_request_of(amount=amount)
    assert isinstance(request, OrderRequest)
    assert request.amount == D(restored)


def test_an_order_with_missing_fields_is_not_restored_and_gives_the_reason() -> None:
    """Neither price nor trigger; or a trigger of unknown direction."""
    assert "price" in str(restoring_request_of(trigger_price=None, price=None)[0])
    assert isinstance(restoring_request_of(trigger_price=None, price=None)[0], str)
    assert isinstance(restoring_request_of(trigger_when=None)[0], str)
    assert isinstance(restoring_request_of(trigger_when=None, price="91")[0], str)


def test_after_a_restore_a_replacement_is_queried_first_and_then_has_a_name_of_the_epoch() -> None:
    """The lost time may have sent it under any name that the backup would give it next, and so may later orders."""
    of = fold(taken_away(), entry("cancelled", order="s1"))
    (one,) = of.open()
    before = {one.name(PLAIN), fold(taken_away(order="s0"), taken_away()).open()[1].name(PLAIN)}
    of.apply(entry("restored", epoch="e1"))
    assert (one.state, one.sent_at, of.is_lost(one)) == (ProtectionState.RESTORING, None, True)
    assert one.name(PLAIN) in before, "the one of the lost time is found by its name"
    of.apply(entry("guarded", **{"for": "s1", "state": "again"}))
    of.apply(taken_away(order="s2"))
    assert [(each.state, of.is_lost(each)) for each in of.open()] == [(ProtectionState.OFF, False)] * 2
    assert before.isdisjoint(each.name(PLAIN) for each in of.open())
    names = {each.name(PLAIN) for each in of.open()}
    of.apply(entry("restored", epoch="e2"))
    for order in ("s1", "s2"):
        of.apply(entry("guarded", **{"for": order, "state": "tried: no"}))
    assert names.isdisjoint(each.name(PLAIN) for each in of.open())


def test_a_restore_leaves_a_protection_that_is_done() -> None:
    """It rests, or the position is gone: the open orders of the next close show it."""
    of = fold(taken_away(), entry("guarded", **{"for": "s1", "state": "resting"}), entry("restored", epoch="e1"))
    assert of.open() == []
