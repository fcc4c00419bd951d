"""Orders without an answer are queried after 1.5 s while their request still runs, and not sent again meanwhile."""

from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.model.store import JournalEntry
from killswitch.model.venue import OrderReport, OrderRequest, VenueDescription
from tests.faults.exchange import Mode
from tests.faults.mishaps import Mishap, Rule
from tests.faults.scene import Scene, long
from tests.faults.wire import SLOW, BatchingWire, Wire

(BTC, ETH) = long("BTC", "ETH")


def second(scene: Scene, entry: JournalEntry) -> float:
    return (entry.at - scene.time.start).total_seconds()


@pytest.mark.parametrize("batch", [1, 10])
@pytest.mark.parametrize("answer", ["silent", "done_silent"])
def test_an_order_without_an_answer_is_queried_after_a_second_and_a_half(answer: Mishap, batch: int) -> None:
    """The request may take ten seconds; the order is queried after 1.5, and the position is closed soon after that."""
    rules = [Rule("submit", answer), Rule("submit_batch", answer)][batch > 1 :]
    keys = [BTC, ETH][: 1 + (batch > 1)]
    scene = Scene(dict.fromkeys(keys, 10), *rules, wire=BatchingWire, traits=VenueDescription(batch=batch))
    scene.decide(dict.fromkeys(keys, 0))
    assert scene.play() == {"d1": "flat"}
    queried = [it.left for it in scene.wire.travelled if it.call == "find_order"]
    assert 1.5 <= min(queried) <= 1.6
    assert max(deed.at for deed in scene.exchange.deeds) < 2.0


def test_a_late_answer_counts() -> None:
    """Every query goes unanswered, and the order's own answer takes three seconds: its fill is journaled then."""
    scene = Scene(
        {BTC: 10}, Rule("submit", "slow"), *(Rule(call, "lost", times=99) for call in ("find_order", "fills"))
    )
    scene.decide({BTC: 5})
    assert scene.play() == {"d1": "flat"}
    filled = scene.entries("filled")
    assert [entry.data["filled"] for entry in filled] == ["5"]
    assert SLOW <= second(scene, filled[0]) <= SLOW + 1.5
    assert sum(order.filled for order in scene.orders()) == 5


@pytest.mark.parametrize("mode", ["one_way", "hedge", "spot"])
def test_the_same_order_is_not_sent_again_while_its_request_still_runs(mode: Mode) -> None:
    """The venue denies it for ten seconds; a denial counts once the request is given up, not after two seconds."""
    scene = Scene({BTC: 10}, Rule("submit", "silent"), mode=mode)
    scene.decide({BTC: 5})
    assert scene.play() == {"d1": "flat"}
    absent = scene.entries("absent")
    assert [second(scene, entry) >= 10.0 for entry in absent] == [True]
    assert sum(order.filled for order in scene.orders()) == 5


class MalformedReports(Wire):
    """Reports about BTC have a list as state."""

    async def submit(self, request: OrderRequest) -> OrderReport:
        report = await super().submit(request)
        return replace(report, state=["filled"]) if request.symbol == "BTC" else report


def test_a_malformed_answer_loses_no_other_answer() -> None:
    """BTC's answer is malformed, ETH's arrives at the same time: one is unknown, the other counts."""
    scene = Scene({BTC: 10, ETH: 4}, wire=MalformedReports)
    scene.decide({BTC: 5, ETH: 2})
    assert scene.play() == {"d1": "flat"}
    assert ("ETH", "2") in [(entry.symbol, entry.data["filled"]) for entry in scene.entries("filled")]
    broken = [entry for entry in scene.entries("unknown") if "TypeError" in str(entry.data["text"])]
    assert [entry.symbol for entry in broken] == ["BTC"]
    assert scene.held(BTC, ETH) == [Decimal(5), Decimal(2)]


def test_a_late_answer_to_a_settled_order_is_not_counted_twice() -> None:
    """A query finds the fill after 1.5 s; the answer that arrives after three changes nothing."""
    scene = Scene({BTC: 10, ETH: 4}, Rule("submit", "slow", "BTC"), Rule("submit", "silent", "ETH"))
    scene.decide({BTC: 5, ETH: 2})
    assert scene.play() == {"d1": "flat"}
    assert [entry.data["filled"] for entry in scene.entries("filled") if entry.symbol == "BTC"] == ["5"]
    assert scene.held(BTC, ETH) == [Decimal(5), Decimal(2)]


def test_other_orders_do_not_wait_for_one_without_an_answer() -> None:
    """BTC's request hangs; what is left of ETH after a partial fill is sent anyway, before BTC's is given up."""
    from tests.faults.exchange import Market

    scene = Scene(
        {BTC: 10, ETH: 4}, Rule("submit", "silent", "BTC"), markets=[Market("ETH", shares=[Decimal("0.5")] * 2)]
    )
    scene.decide({BTC: 5, ETH: 0})
    assert scene.play() == {"d1": "flat"}
    assert max(deed.at for deed in scene.exchange.deeds if deed.key == ETH) < 3.0
