"""Yielding to another closer on the same account: two polls, 3 s apart, before each round of orders."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from killswitch.execution.order_pass.other_closer import OtherActivity
from killswitch.model.decision import Decision, Rung, Unwinding
from killswitch.model.snapshot import Fill, Order
from tests.faults.exchange import Exchange, Key, Market, WithoutReduceOnly
from tests.faults.mishaps import Mishap, Occasion, Rule
from tests.faults.scene import Scene, long
from tests.faults.wire import KNOWN, Wire

D = Decimal
BTC, ETH = long("BTC", "ETH")
ENFORCED: Final = replace(KNOWN, enforces_reduce_only=True)
IGNORED: Final = replace(KNOWN, enforces_reduce_only=False)
OTHERS: Final = "ks" + 29 * "z"
"""A client order id of this program that no journal of the test has."""
BOTS: Final = "x-bot-17"


def scene(book: dict[Key, str | int] | None = None, *rules: Rule, **options: Any) -> Scene:
    """A close that yields, at a venue that ignores reduce-only."""
    plain: dict[str, Any] = {"exchange": WithoutReduceOnly, "traits": IGNORED, "closing": {"yields": True}}
    return Scene(book or {BTC: 10}, *rules, **(plain | options))


def sent(play: Scene) -> list[tuple[float, str, Decimal]]:
    """When each order of ours was accepted, to the tenth of a second, on which symbol, and how much."""
    times = [it.left for it in play.wire.travelled if it.call == "submit"]
    return [
        (round(at, 1), it.symbol, it.amount) for at, it in zip(times, play.orders(), strict=True)
    ]  # fmt: skip


def oversold(play: Scene) -> Decimal:
    return sum((amount for (_, side), amount in play.exchange.held.items() if side == "short"), D(0))


# When it waits


def test_the_first_order_leaves_after_two_polls_that_are_three_seconds_apart() -> None:
    """Nobody else acts: the first poll is at once, the second 3 s after its answer, and the close is complete."""
    play = scene()
    play.decide({BTC: 0})
    assert play.play() == {"d1": "flat"}
    polls = [it.left for it in play.wire.travelled if it.call == "open_orders"]
    ((at, *_),) = sent(play)
    assert [round(each) for each in polls] == [0, 3]
    assert polls[1] - polls[0] >= 3
    assert polls[1] < at < polls[1] + 0.2


@pytest.mark.parametrize(
    ("traits", "closing"),
    [(ENFORCED, {"yields": True}), (IGNORED, {}), (ENFORCED, {})],
    ids=["enforced", "alone", "both"],
)
def test_nothing_waits_where_the_venue_enforces_reduce_only_or_nobody_else_closes(traits: Any, closing: Any) -> None:
    """The first order leaves after one poll of 0.04 s, and nobody asks for open orders."""
    play = scene(exchange=Exchange, traits=traits, closing=closing)
    play.decide({BTC: 0})
    assert play.play() == {"d1": "flat"}
    ((at, *_),) = sent(play)
    assert at < 0.2
    assert play.calls("open_orders") == 0


def test_a_spot_sale_waits_although_the_venue_enforces_reduce_only_elsewhere() -> None:
    """A spot order has no reduce-only: what is sold twice would be another's."""
    play = scene({BTC: 10}, mode="spot", exchange=Exchange, traits=ENFORCED)
    play.decide({BTC: 0})
    assert play.play() == {"d1": "flat"}
    ((at, *_),) = sent(play)
    assert at >= 3


def test_one_pair_of_polls_serves_all_positions() -> None:
    """Five positions leave together after the same two polls."""
    keys = long("A", "B", "C", "D", "E")
    play = scene(dict.fromkeys(keys, 10))
    play.decide(dict.fromkeys(keys, 0))
    assert play.play() == {"d1": "flat"}
    assert play.calls("open_orders") == 2
    assert len({at for at, *_ in sent(play)}) == 1


def test_each_further_round_waits_again() -> None:
    """The first order fills half, the second the rest: 3 s apart, and as much as is left."""
    play = scene(markets=[Market("BTC", shares=[D("0.5")])])
    play.decide({BTC: 0})
    assert play.play() == {"d1": "flat"}
    (first, _, all_of_it), (second, _, rest) = sent(play)
    assert (all_of_it, rest) == (10, 5)
    assert second - first >= 3


def test_slices_of_one_round_follow_one_another_at_once() -> None:
    """At most 4 contracts an order: three orders within the same round."""
    play = scene(markets=[Market("BTC", maximum=D(4))])
    play.decide({BTC: 0})
    assert play.play() == {"d1": "flat"}
    orders = sent(play)
    assert [amount for *_, amount in orders] == [4, 4, 2]
    assert orders[2][0] - orders[0][0] <= 0.3


# What the other does


def test_a_position_that_the_other_has_closed_between_the_polls_is_left_alone() -> None:
    """The runner sold all of it after 1.4 s: this closer sends nothing and ends flat."""
    play = scene()
    play.decide({BTC: 0})
    play.at(1.4, lambda: play.exchange.trade(BTC, D(-10)))
    play.play()
    assert (sent(play), play.held(BTC), oversold(play)) == ([], [D(0)], D(0))


def test_a_position_that_falls_is_left_to_whoever_reduces_it() -> None:
    """The other sells 3 every 2.5 s, three times: two quiet polls later this one sells the last contract."""
    play = scene()
    play.decide({BTC: 0})
    for second in (2.5, 5.0, 7.5):
        play.at(second, lambda: play.exchange.trade(BTC, D(-3)))
    play.play()
    ((at, _, amount),) = sent(play)
    assert amount == 1
    assert at >= 7.5 + 1.5
    assert oversold(play) == 0


def test_one_position_that_falls_holds_the_others_back() -> None:
    """The other closes ETH after 2 s: its order on BTC may be on its way, and BTC waits for two more polls."""
    play = scene({BTC: 10, ETH: 5})
    play.decide({BTC: 0, ETH: 0})
    play.at(2.0, lambda: play.exchange.trade(ETH, D(-5)))
    play.play()
    ((at, symbol, _),) = sent(play)
    assert (symbol, at >= 6) == ("BTC", True)


def test_a_bot_that_trades_all_the_time_does_not_prevent_the_close() -> None:
    """It sells and buys each second; after 30 s of falls this closer no longer leaves the position to it."""
    play = scene()
    play.decide({BTC: 0})
    for second in range(1, 80):
        play.at(second, lambda: play.exchange.trade(BTC, D(-2)) if play.held(BTC)[0] > 5 else None)
        play.at(second + 0.5, lambda: play.exchange.trade(BTC, D("1.9")) if play.held(BTC)[0] else None)
    play.play(patience=120)
    assert sent(play)
    assert sent(play)[0][0] <= 45


def test_what_the_other_has_outstanding_is_never_sold() -> None:
    """Of 10 it has an order for 4 in the book, which rests: 6 are sold, and it is cancelled after 10 s; then the 4."""
    play = scene()
    resting = play.exchange.rest("BTC", "sell", D(4), name=OTHERS, price=D(200), type="limit")
    play.decide({BTC: 0})
    assert play.play() == {"d1": "flat"}
    orders = sent(play)
    assert [amount for *_, amount in orders] == [6, 4]
    assert 3 <= orders[0][0] < 4
    assert 13 <= orders[1][0] < 25
    assert play.exchange.orders[resting].state == "canceled"
    assert [it.data["order"] for it in play.entries("cancelled")] == [resting]
    assert oversold(play) == 0


def test_orders_of_two_symbols_with_one_id_both_count() -> None:
    """Some venues number the orders of each symbol: two orders of id 7 are two orders."""
    play = scene({BTC: 10, ETH: 10})
    for symbol in ("BTC", "ETH"):
        order = play.exchange.rest(symbol, "sell", D(4), name=f"ks{symbol.lower() * 5}", price=D(200))
        placed = play.exchange.orders[order]
        play.exchange.orders[order] = replace(placed, id="7")
    play.decide({BTC: 0, ETH: 0})
    play.play(patience=8)
    assert [amount for *_, amount in sent(play)] == [6, 6]


class SlowCancels(Wire):
    """Cancels take 1.6 s."""

    async def cancel(self, symbol: str, order_id: str) -> None:
        await asyncio.sleep(1.6)
        await super().cancel(symbol, order_id)


def test_a_permission_lapses_where_the_order_is_held_up() -> None:
    """A stop blocks the first order, and its cancel takes 1.6 s: no order leaves on a poll from before that."""
    play = scene(wire=SlowCancels, blocking=True, exchange=Exchange)
    play.exchange.rest("BTC", "sell", D(10), reduce_only=True, trigger_price=D(50), trigger_when="falls")
    play.decide({BTC: 0})
    assert play.play() == {"d1": "flat"}
    calls = play.wire.travelled
    polls = [it.left for it in calls if it.call == "snapshot"]
    submits = [it.left for it in calls if it.call == "submit"]
    assert len(submits) == 2
    assert [at for at in submits if not any(at - 1.1 <= poll <= at for poll in polls)] == []


def test_an_order_that_the_other_has_just_placed_makes_this_one_yield_again() -> None:
    """It appears after 2 s and ends after 5 s: two further polls without a change come before the first order."""
    play = scene()
    play.decide({BTC: 0})
    placed: list[str] = []
    play.at(2.0, lambda: placed.append(play.exchange.rest("BTC", "sell", D(10), name=OTHERS, price=D(200))))
    play.at(5.0, lambda: play.exchange.cancel(placed[0]))
    assert play.play() == {"d1": "flat"}
    ((at, _, amount),) = sent(play)
    assert amount == 10
    assert at >= 5 + 3


def test_a_fill_of_the_other_on_any_position_makes_this_one_yield_again() -> None:
    """Its fill on ETH is reported after 2 s, and its order on BTC may be on its way: BTC waits for two more polls."""
    play = scene({BTC: 10, ETH: 5})
    play.decide({BTC: 0})
    now = play.time.now()
    fill = Fill("f-other", now, "ETH", "sell", D(1), D(100), order="x-other", client_order_id=OTHERS)
    play.at(2.0, lambda: play.exchange.fills.append(fill))
    assert play.play() == {"d1": "flat"}
    ((at, *_),) = sent(play)
    assert at >= 6


@pytest.mark.parametrize(
    "order", [{"name": BOTS}, {"name": None}, {"name": OTHERS, "trigger_price": D(50), "trigger_when": "falls"}],
    ids=["of a bot", "without a name", "a stop that the other restored"],
)  # fmt: skip
def test_only_active_orders_of_another_closer_count_as_outstanding(order: dict[str, Any]) -> None:
    """A bot's order and a stop that covers the position do not keep it open."""
    play = scene()
    play.exchange.rest("BTC", "sell", D(10), price=D(200), **order)
    play.decide({BTC: 0})
    play.play()
    ((at, _, amount),) = sent(play)
    assert (amount, at < 4) == (10, True)


def test_a_trim_counts_the_others_order_towards_its_target() -> None:
    """Down to 5 of 10, and the other has an order for 3: this one sells 2."""
    play = scene()
    play.exchange.rest("BTC", "sell", D(3), name=OTHERS, price=D(200))
    play.decide({BTC: 5})
    play.play(patience=8)
    assert [amount for *_, amount in sent(play)] == [2]


# What is not answered


class Outage(Struct):
    """One kind of call fails from `since` until `until`."""

    call: str
    since: float
    until: float

    def at(self, occasion: Occasion, now: float) -> Mishap:
        return "down" if occasion[0] == self.call and self.since <= now < self.until else "none"


@pytest.mark.parametrize(
    ("call", "since"), [("snapshot", 3.06), ("open_orders", 0.0), ("open_orders", 2.0)],
    ids=["positions of the second poll", "orders of the first poll", "orders of the second poll"],
)  # fmt: skip
def test_without_both_answers_nothing_is_sent_and_it_pages(call: str, since: float) -> None:
    """One of the answers is missing until the eighth second: nothing is sent before, and it is said at once."""
    play = scene(mishaps=Outage(call, since, 8.0))
    play.decide({BTC: 0})
    assert play.play() == {"d1": "flat"}
    ((at, *_),) = sent(play)
    assert 8 <= at < 13
    if call == "open_orders":
        assert any("the venue does not show what another closer does" in text for text in play.notices)
    assert play.closer.stalls == {}


def test_while_nothing_is_answered_nothing_is_sent() -> None:
    """The open orders are never answered: nothing is sent in ten minutes, and the page lasts."""
    play = scene({BTC: 10}, Rule("open_orders", "down", times=10**6))
    play.decide({BTC: 0})
    assert play.play(patience=600) == {}
    assert sent(play) == []
    assert "another-closer/unanswered" in play.closer.stalls
    polls = play.calls("open_orders")
    assert polls <= 700  # at most one a second, and one more with each repeated failure of the wire


def test_people_are_notified_where_the_other_acts_for_long() -> None:
    """It places and cancels an order each second for a minute: nothing is sent, and after 30 s there is a page."""
    play = scene()
    play.decide({BTC: 0})
    last: list[str] = []

    def replace_order() -> None:
        for each in last:
            play.exchange.cancel(each)
        last[:] = [play.exchange.rest("BTC", "sell", D(10), name=OTHERS, price=D(200))]

    for second in range(1, 61):
        play.at(second, replace_order)
    play.at(61, lambda: play.exchange.cancel(last[0]))
    assert play.play() == {"d1": "flat"}
    ((at, *_),) = sent(play)
    assert at > 61
    assert any("another closer sends orders there" in text for text in play.notices)


# The arithmetic

ORDERS = st.lists(
    st.builds(
        Order, id=st.uuids().map(str), symbol=st.sampled_from(("BTC", "ETH")), side=st.sampled_from(("buy", "sell")),
        amount=st.decimals(0, 100, places=3), filled=st.none() | st.decimals(0, 120, places=3),
        position_side=st.sampled_from((None, "long", "short")),
    ),
    max_size=8,
)  # fmt: skip


@given(ORDERS)
def test_outstanding_is_what_is_left_of_the_orders_that_can_reduce_the_position(orders: list[Order]) -> None:
    """Sells against a long, buys against a short, never below zero; in hedge mode of the named position only."""
    by_id = {(order.symbol, order.id): order for order in orders}
    poll, one_way = OtherActivity(0.0, {}, by_id, {}, is_hedged=True), OtherActivity(0.0, {}, by_id, {})
    for symbol, side, closes in (("BTC", "long", "sell"), ("BTC", "short", "buy"), ("ETH", "long", "sell")):
        expected = of_any_side = D(0)
        for order in orders:
            if order.symbol == symbol and order.side == closes:
                left = max(D(0), order.amount - (order.filled or D(0)))
                of_any_side += left
                expected += left if order.position_side in (None, side) else 0
        assert one_way.outstanding((symbol, side)) == of_any_side  # type: ignore[arg-type] # the sides of the table
        assert poll.outstanding((symbol, side)) == expected  # type: ignore[arg-type] # the sides of the table


def test_an_unreadable_amount_may_close_everything() -> None:
    """Nothing is plausible about NaN."""
    order = Order("1", "BTC", "sell", D("NaN"), client_order_id=OTHERS)
    assert OtherActivity(0.0, {}, {("BTC", "1"): order}, {}).outstanding(BTC) == D("Infinity")


def with_ladder(decision: Decision) -> Decision:
    """One try within 5% of the mark, then at market, as the close of a dead-man's switch."""
    unwinding = Unwinding("dead-man", ladder=(Rung("limit_ioc"), Rung("market", tries=2), Rung("limit")))
    return replace(
        decision, unwinding=unwinding, intents=tuple(replace(it, band=D("0.05")) for it in decision.intents)
    )  # fmt: skip


def test_a_bounded_try_that_finds_no_price_costs_one_more_round() -> None:
    """The book is 20% away: the first order expires, the second goes at market 3 s later."""
    play = scene(markets=[Market("BTC", slip=D("0.2"))])
    play.decide({BTC: 0}, change=with_ladder)
    assert play.play() == {"d1": "flat"}
    first, second = sent(play)
    assert 3 <= second[0] - first[0] < 5


# Where nothing waits, because the venue enforces reduce-only


@pytest.mark.parametrize(("name", "is_restored"), [(OTHERS, False), (BOTS, True)], ids=["another closer", "a bot"])
def test_the_closing_order_of_another_closer_is_cancelled_and_never_restored(name: str, is_restored: bool) -> None:
    """It covers the position, so that ours is refused. Placed again as protection it would sell what is left."""
    play = scene({BTC: 10}, exchange=Exchange, traits=ENFORCED, closing={})
    play.exchange.resting_exits_block = True
    play.exchange.rest("BTC", "sell", D(10), name=name, price=D(200), type="limit", reduce_only=True)
    play.decide({BTC: 6})
    assert play.play() == {"d1": "flat"}
    assert play.held(BTC) == [6]
    assert bool(play.entries("unprotected")) is is_restored
    assert [it.amount for it in play.exchange.orders.values() if it.state == "open"] == [D(6)] * is_restored
