"""C11, C18, C22, C24, C25: price bounds, exits, protection, orders of unknown status, and margin during a close."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.model.decision import Decision, Rung, Unwinding
from killswitch.model.snapshot import InstrumentState
from killswitch.model.venue import OrderRejectedError, OrderRequest, RejectReason
from tests.cases.resting import RESTING, Resting, resting_market, resting_order
from tests.faults.exchange import Exchange, Key, Market
from tests.faults.mishaps import Mishap, Rule
from tests.faults.scene import Scene, long

BTC, ETH = long("BTC", "ETH")
LADDER = (Rung("limit_ioc", tries=2), Rung("limit_ioc", Decimal("2.5")), Rung("market", tries=2))


def within(band: str, ladder: Sequence[Rung] = LADDER) -> Callable[[Decision], Decision]:
    """The decision, its orders bounded at `band` from the mark."""

    def bounded(decision: Decision) -> Decision:
        intents = tuple(replace(intent, band=Decimal(band)) for intent in decision.intents)
        return replace(decision, intents=intents, unwinding=Unwinding("careful", tuple(ladder)))

    return bounded


def test_c11_a_price_band_that_refuses_market_orders_leaves_an_exit() -> None:
    """The market slips by 3% and the venue refuses market orders beyond 1%: it is sold at a limit."""
    market = Market("BTC", slip=Decimal("0.03"), band=Decimal("0.01"))
    scene = Scene({BTC: 10}, markets=[market])
    scene.at(20.0, lambda: setattr(market, "slip", Decimal("0.001")))
    scene.decide({BTC: 0})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [0]


def test_c11_where_market_orders_are_disabled_a_limit_order_is_sent() -> None:
    """`limit_only`: no market order is even tried, because the rules forbid it; the bid is taken at once."""
    scene = Scene({BTC: 10}, markets=[Market("BTC", state="limit_only", slip=Decimal("0.01"))])
    scene.decide({BTC: 0})
    assert scene.play() == {"d1": "flat"}
    (sent,) = scene.entries("sending")
    assert (sent.data["order"], Decimal(sent.data["price"] or 0)) == ("limit", Decimal(99))


@pytest.mark.parametrize("state", ["post_only", "reduce_only", "cancel_only"])
def test_c11_in_every_market_state_the_close_ends_with_a_true_status(state: InstrumentState) -> None:
    """The state lasts for a minute. Makers fill when the price reaches them; where nothing trades, the close waits."""
    market = Market("BTC", state=state, slip=Decimal("0.01"))
    scene = Scene({BTC: 10, ETH: 4}, markets=[market])
    scene.at(3.0, lambda: scene.exchange.reprice("BTC", Decimal(102)))
    scene.at(60.0, lambda: setattr(market, "state", "open"))
    scene.decide({BTC: 0, ETH: 0})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC, ETH) == [0, 0]
    limits = [order for order in scene.orders("BTC") if order.type == "limit"]
    assert limits if state == "post_only" else state == "cancel_only" or not limits


def test_c18_the_bound_is_in_every_order_and_is_widened_as_declared() -> None:
    """Takers get 99 for a mark of 100: nothing at 99.50, nothing again, and all at 98.75, which is 2.5 times as far."""
    scene = Scene({BTC: 10}, markets=[Market("BTC", slip=Decimal("0.01"))])
    scene.decide({BTC: 0}, change=within("0.005"))
    assert scene.play() == {"d1": "flat"}
    orders = [(order.type, order.ioc, order.price, order.filled) for order in scene.orders()]
    assert orders == [
        ("limit", True, Decimal("99.50"), 0),
        ("limit", True, Decimal("99.50"), 0),
        ("limit", True, Decimal("98.75"), 10),
    ]
    assert [entry.data["rung"] for entry in scene.entries("sending")] == ["0", "0", "1"]


def test_c18_an_exit_without_a_bound_is_journaled_as_such() -> None:
    """Takers get 95: no limit fills, and the last step is a market order, which the journal names as such."""
    scene = Scene({BTC: 10}, markets=[Market("BTC", slip=Decimal("0.05"))])
    scene.decide({BTC: 0}, change=within("0.005"))
    assert scene.play() == {"d1": "flat"}
    last = scene.entries("sending")[-1]
    assert (last.data["order"], last.data.get("price")) == ("market", None)
    assert [order.filled for order in scene.orders()] == [0, 0, 0, 10]


def test_c18_each_position_has_its_own_bound() -> None:
    """BTC at 0.1% does not fill, ETH at 2% does, in the same batch."""
    slip = Decimal("0.01")
    scene = Scene({BTC: 10, ETH: 4}, markets=[Market("BTC", slip=slip), Market("ETH", slip=slip)])

    def bounds(decision: Decision) -> Decision:
        bands = {"BTC": Decimal("0.001"), "ETH": Decimal("0.02")}
        intents = tuple(replace(intent, band=bands[intent.symbol]) for intent in decision.intents)
        return replace(decision, intents=intents, unwinding=Unwinding("careful", LADDER))

    scene.decide({BTC: 0, ETH: 0}, change=bounds)
    assert scene.play() == {"d1": "flat"}
    firsts = {order.symbol: (order.price, order.filled) for order in reversed(scene.orders())}
    assert firsts == {"BTC": (Decimal("99.90"), 0), "ETH": (Decimal("98.00"), 4)}


# C22: protective orders, and how long a position lacks them.

STOP = {"reduce_only": True, "trigger_price": Decimal(90), "trigger_when": "falls"}


class ProtectedScene(Scene):
    """A scene with a stop on BTC that blocks its close; records when the position was unprotected."""

    def __init__(self, book: dict[Key, str | int], *rules: Rule, markets: Sequence[Market] = ()) -> None:
        super().__init__(book, *rules, markets=markets, blocking=True)
        self.stop = self.exchange.rest("BTC", "sell", self.exchange.held[BTC], **STOP)
        self.unprotected_at: list[float] = []
        for tenth in range(1, 1200):
            self.at(tenth / 10, self._sample)

    def stops(self) -> list[Decimal]:
        """What the stops that rest on BTC would sell."""
        return [it.amount for it in self.exchange.resting() if it.symbol == "BTC" and it.trigger_price == 90]

    def _sample(self) -> None:
        if self.exchange.held[BTC] > 0 and not self.stops():
            self.unprotected_at.append(self.time.elapsed)


def test_c22_a_trim_leaves_a_stop_for_what_remains() -> None:
    """Half of 10 is closed, and the blocking stop over 10 is restored over 5, otherwise unchanged."""
    scene = ProtectedScene({BTC: 10})
    scene.decide({BTC: 5})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [5]
    assert scene.stops() == [5]
    kinds = [entry.kind for entry in scene.entries("unprotected", "cancelled", "protected", "guarded")]
    assert kinds == ["unprotected", "cancelled", "protected", "guarded"]
    assert len(scene.unprotected_at) <= 5, "naked for more than half a second"


@pytest.mark.parametrize("refusal", ["other", "price_band", "permission"])
def test_c22_a_close_refused_after_its_stop_was_cancelled_is_protected_again(refusal: RejectReason) -> None:
    """The stop is cancelled, and then the venue refuses the close for a minute: the stop is restored after seconds."""
    scene = ProtectedScene({BTC: 10})
    refuse_until(scene, 60.0, refusal)
    scene.decide({BTC: 0})
    (status,) = scene.play().values()
    assert longest_stretch(scene.unprotected_at) <= 15.0
    if status == "flat":
        assert scene.held(BTC) == [0]
    else:
        # Given up and reported: then its protection is there, over all that is left.
        assert status == ("blocked" if refusal == "permission" else "residual")
        assert scene.stops() == scene.held(BTC) == [10]


def refuse_until(scene: Scene, until: float, reason: RejectReason) -> None:
    """The venue accepts conditional orders, and refuses everything else."""
    admit = scene.exchange.admit

    def refuse(request: OrderRequest) -> None:
        admit(request)
        if request.trigger_price is None and scene.time.elapsed < until:
            raise OrderRejectedError(reason, "not now")

    scene.exchange.admit = refuse  # type: ignore[method-assign] # the rules of the venue change


def longest_stretch(moments: Sequence[float]) -> float:
    """Of moments a tenth of a second apart, the longest time without a gap."""
    longest, began, last = 0.0, float("-inf"), float("-inf")
    for moment in moments:
        if moment - last > 0.15:
            began = moment
        last = moment
        longest = max(longest, last - began)
    return longest


@pytest.mark.parametrize("second", [0.05, 0.1, 0.15, 0.2, 0.3])
def test_c22_killed_while_unprotected_the_process_restores_protection(second: float) -> None:
    """Whenever it is killed: after the restart a half is closed, and one stop over the other half rests."""
    scene = ProtectedScene({BTC: 10})
    scene.decide({BTC: 5})
    assert scene.play(kills=[second]) == {"d1": "flat"}
    assert scene.held(BTC) == [5]
    assert scene.stops() == [5]


@pytest.mark.parametrize("answer", ["late", "done", "done_silent"])
@pytest.mark.parametrize("question", ["empty", "lost"])
def test_c22_protection_whose_answer_is_lost_is_not_restored_twice(answer: Mishap, question: Mishap) -> None:
    """The cancel takes long, the answer about the new stop is lost, and its query fails: one stop rests, not two."""
    scene = ProtectedScene(
        {BTC: 10}, Rule("cancel", "slow"), Rule("submit", answer, after=2), Rule("find_order", question, times=3)
    )
    scene.decide({BTC: 5})
    scene.play()
    assert scene.held(BTC) == [5]
    assert scene.stops() == [5]


@pytest.mark.parametrize("answer", ["limited", "down", "lost"])
def test_c22_a_stop_that_could_not_be_cancelled_is_not_restored_besides(answer: Mishap) -> None:
    """The cancel does not arrive, and a manual trade takes the position to its target: only the original stop rests."""
    scene = ProtectedScene({BTC: 10}, Rule("cancel", answer, times=4))
    scene.decide({BTC: 5})
    scene.at(0.3, lambda: scene.exchange.trade(BTC, Decimal(-5)))
    scene.play()
    assert scene.held(BTC) == [5]
    assert len(scene.stops()) == 1


@pytest.mark.parametrize("answer", ["limited", "down"])
def test_c22_protection_is_restored_after_any_number_of_unprocessed_requests(answer: Mishap) -> None:
    """A dozen requests are refused with 429, or find the venue down: no attempt counts, so nothing is given up."""
    scene = ProtectedScene({BTC: 10}, Rule("submit", answer, after=2, times=12))
    scene.decide({BTC: 5})
    scene.play()
    assert scene.stops() == [5]


def test_c22_a_stop_cancelled_by_two_decisions_is_restored_once() -> None:
    """The first one's cancel is lost, the second one's succeeds: over the 2 that are left there is one stop."""
    scene = ProtectedScene({BTC: 10}, Rule("cancel", "silent", times=1))
    scene.decide({BTC: 5})
    scene.at(1.0, lambda: scene.decide({BTC: 2}))
    scene.play()
    assert scene.held(BTC) == [2]
    assert scene.stops() == [2]


# C24: an order of unknown status.


@pytest.mark.parametrize("arrived", ["done_silent", "silent"])
def test_c24_a_full_close_does_not_wait_for_an_order_of_unknown_status(arrived: Mishap) -> None:
    """For a minute no query is answered: the position is flat within 15 s, and the order is reported."""
    outage = Rule("find_order", "down", times=60)
    scene = Scene({BTC: 10}, Rule("submit", arrived), outage, Rule("open_orders", "garbled", times=60))
    flat: list[Decimal] = []
    scene.at(15.0, lambda: flat.extend(scene.held(BTC)))
    scene.decide({BTC: 0})
    scene.play()
    assert flat == [0]
    assert scene.held(("BTC", "short")) == [0]


def test_c24_an_order_whose_status_stays_unknown_is_reported_as_abandoned() -> None:
    """It is queried until the queries end: the position is flat, and the close is not reported as flat."""
    deaf = [Rule(call, "garbled", times=10_000) for call in ("find_order", "open_orders", "fills")]
    scene = Scene({BTC: 10}, Rule("submit", "lost"), *deaf)
    scene.decide({BTC: 0})
    assert scene.play(patience=2000.0) == {"d1": "abandoned"}
    assert scene.held(BTC) == [0]
    (lost,) = scene.entries("abandoned")
    (ended,) = scene.entries("finished")
    assert lost.client_order_id is not None
    assert lost.client_order_id in (ended.data["reason"] or "")
    assert any("unknown status" in text for text in scene.notices)


def test_c24_of_a_position_without_reduce_only_at_most_the_rest_is_sent() -> None:
    """Spot, 10 held, 4 at a time: the status of the first 4 is unknown, so 6 more may be sent, and no 7th yet."""
    rules = [Rule("submit", "silent"), Rule("find_order", "down", times=40), Rule("fills", "garbled", times=40)]
    scene = Scene({BTC: 10}, *rules, mode="spot", markets=[Market("BTC", maximum=Decimal(4))])
    held: list[Decimal] = []
    for second in (5.0, 12.0):
        scene.at(second, lambda: held.extend(scene.held(BTC)))
    scene.decide({BTC: 0})
    scene.play()
    assert min(held) >= 4
    assert scene.held(BTC) == [0]


def test_c24_a_trim_sends_nothing_beyond_what_was_decided_while_its_order_may_fill_yet() -> None:
    """Half of 10, and its order is lost for 40 s: it may have filled, so nothing goes; then the other half does."""
    scene = Scene({BTC: 10}, Rule("submit", "done_silent"), Rule("find_order", "garbled", times=30))
    scene.decide({BTC: 5})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [5]
    assert len(scene.orders()) == 1


@pytest.mark.parametrize("why", RESTING)
def test_c24_a_resting_order_is_not_taken_for_gone_while_the_open_orders_are_unknown(why: Resting) -> None:
    """Queried by id the venue denies it three times, and the open orders are missing: it rests, and fills later."""
    rules = [Rule("find_order", "empty", times=3), Rule("open_orders", "down", times=30)]
    scene = Scene({BTC: 10}, *rules, markets=[resting_market(why)])
    scene.at(4.0, lambda: scene.exchange.reprice("BTC", Decimal(103)))
    scene.at(20.0, lambda: scene.exchange.reprice("BTC", Decimal(106)))
    scene.decide({BTC: 5}, change=resting_order(why))
    scene.play()
    assert scene.held(BTC) == [5]


# C25: two legs of one margin.


class PortfolioMargined(Exchange):
    """Refuses what would leave the account with more net exposure than it had."""

    def admit(self, request: OrderRequest) -> None:
        super().admit(request)
        now = sum(amount if side == "long" else -amount for (_, side), amount in self.held.items())
        then = now - request.amount if request.side == "sell" else now + request.amount
        if abs(then) > max(abs(now), Decimal(2)):
            raise OrderRejectedError("insufficient_margin", f"the net exposure would be {then}")


def test_c25_legs_limited_by_margin_are_closed_in_turn_and_in_parts() -> None:
    """10 long against 10 short, and no more than 2 net: each refusal halves the order until both legs are gone."""
    short: Key = ("BTC-PERP", "short")
    scene = Scene({BTC: 10, short: 10}, exchange=PortfolioMargined)
    scene.decide({BTC: 0, short: 0})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC, short) == [0, 0]


def test_c11_an_order_that_rests_too_long_is_cancelled_and_another_follows_the_price() -> None:
    """It rests at 99.5; the mark falls to 90, which it cannot reach: it is cancelled, and the next order fills."""
    scene = Scene({BTC: 10}, markets=[resting_market("declared")])
    scene.decide({BTC: 0}, change=resting_order("declared"))

    def fall() -> None:
        scene.exchange.markets["BTC"].slip = Decimal(0)
        scene.exchange.reprice("BTC", Decimal(90))

    scene.at(1.0, fall)
    assert scene.play(patience=300) == {"d1": "flat"}
    first, *_, last = scene.orders()
    assert (first.state, first.filled, last.filled) == ("canceled", 0, 10)
