"""C1–C4: answers that are missing, empty, late or wrong, and a process that is killed between them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest

from tests.faults.exchange import Key, Market, Mode
from tests.faults.mishaps import Mishap, Rule
from tests.faults.scene import Scene, long
from tests.faults.wire import BatchingWire, Wire

BTC, ETH = long("BTC", "ETH")
SHORT: Key = ("BTC", "short")


@pytest.mark.parametrize("answer", ["empty", "page", "malformed", "nan", "sign", "down", "garbled", "silent", "stale"])
def test_c1_a_missing_or_empty_answer_is_never_taken_for_flat(answer: Mishap) -> None:
    """The orders are refused and every poll goes wrong for a while: nothing ends before a true answer."""
    scene = Scene({BTC: 10}, Rule("snapshot", answer, times=3), Rule("submit", "down", times=2))
    scene.decide({BTC: 0})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [0]
    assert scene.notices, "nobody was told that the answers could not be relied on"


@pytest.mark.parametrize("answer", ["empty", "page"])
def test_c1_an_answer_without_the_position_is_not_believed_though_its_order_is_done(answer: Mishap) -> None:
    """Of 10, an order fills a quarter, and then the position is missing from the answer: 7.5 are still held."""
    scene = Scene({BTC: 10}, Rule("snapshot", answer, after=1, times=2), markets=[Market("BTC", shares=[QUARTER])])
    scene.decide({BTC: 0})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [0]


@pytest.mark.parametrize("answer", ["empty", "page"])
def test_c1_one_wrong_answer_ends_nothing_while_an_order_on_the_position_is_of_unknown_status(answer: Mishap) -> None:
    """An order over all of it is lost, and one answer lacks the position: another decision on it is not flat."""
    for reading in range(1, 12):
        rules = [Rule("submit", "lost"), Rule("snapshot", answer, after=reading)]
        scene = Scene({BTC: 10}, *rules, mode="spot")
        scene.decide({BTC: 0})
        scene.decide({BTC: 5})
        assert set(scene.play().values()) == {"flat"}
        assert scene.held(BTC) == [0]


def test_c1_an_empty_book_with_margin_in_use_is_not_flat_though_our_orders_would_explain_it() -> None:
    """All 10 are sold, a bot has bought 3 again, and three answers show an empty book with 60 of margin in use."""
    scene = Scene({BTC: 10}, Rule("snapshot", "empty", after=1, times=3))
    scene.decide({BTC: 0})
    scene.at(0.07, lambda: scene.exchange.trade(BTC, Decimal(3)))
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [0]
    assert any("margin in use" in text for text in scene.notices)


@pytest.mark.parametrize("mode", ["one_way", "hedge", "spot"])
@pytest.mark.parametrize("target", [5, 0])
def test_c1_positions_that_lag_behind_our_fills_are_not_closed_again(mode: Mode, target: int) -> None:
    """For three polls the venue shows the positions of seconds ago, with quality `ok`."""
    scene = Scene({BTC: 10, ETH: 4}, Rule("snapshot", "lagging", after=1, times=3), mode=mode)
    scene.decide({BTC: target, ETH: 1})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC, ETH) == [target, 1]
    assert sum(order.filled for order in scene.orders()) == 10 - target + 3


QUARTER = Decimal("0.25")
TIMEOUTS: Sequence[Mishap] = (
    "done", "done_silent", "garbled", "defect", "called_off", "nonsense", "lost", "silent", "late", "twice", "slow",
)  # fmt: skip


@pytest.mark.parametrize("mode", ["one_way", "hedge", "spot"])
@pytest.mark.parametrize("answer", TIMEOUTS)
def test_c2_an_order_whose_answer_is_lost_is_queried_and_never_doubled(answer: Mishap, mode: Mode) -> None:
    """A half is closed, whether or not the first order arrived: not three quarters, and nothing on the other side."""
    scene = Scene({BTC: 10, ETH: 4}, Rule("submit", answer, "BTC"), mode=mode)
    scene.decide({BTC: 5, ETH: 0})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC, ETH) == [5, 0]
    assert sum(order.filled for order in scene.orders("BTC")) == 5


@pytest.mark.parametrize("mode", ["one_way", "spot"])
def test_c2_an_order_delayed_for_eight_seconds_is_not_executed_besides_its_repeat(mode: Mode) -> None:
    """The venue denies the order meanwhile, and accepts an id again once the order of that id has ended."""
    scene = Scene({BTC: 10, ETH: 4}, Rule("submit", "held", "BTC"), mode=mode)
    scene.exchange.keeps_names = "open"
    scene.at(40.0, lambda: None)  # until then it arrives
    scene.decide({BTC: 5, ETH: 2})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC, ETH) == [5, 2]


@pytest.mark.parametrize("question", ["empty", "lagging", "down", "silent", "nonsense", "garbled"])
@pytest.mark.parametrize("answer", ["done", "late", "lost"])
def test_c2_the_query_may_fail_as_well(answer: Mishap, question: Mishap) -> None:
    """The order's answer is lost, and the first three answers to its query are lost or wrong."""
    scene = Scene({BTC: 10}, Rule("submit", answer), Rule("find_order", question, times=3))
    scene.decide({BTC: 5})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [5]


@pytest.mark.parametrize("answer", ["done", "done_silent", "lost", "late", "twice"])
def test_c2_a_batch_of_unknown_status_is_not_sent_again(answer: Mishap) -> None:
    """Both orders of the batch are of unknown status; each is queried separately."""
    scene = Scene({BTC: 10, ETH: 4}, Rule("submit_batch", answer), Rule("submit", answer), wire=BatchingWire)
    scene.decide({BTC: 5, ETH: 1})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC, ETH) == [5, 1]


KILLS = [0.01 * step for step in range(1, 40)]


@pytest.mark.parametrize("mode", ["one_way", "hedge"])
@pytest.mark.parametrize("position", [BTC, SHORT])
def test_c3_killed_at_any_moment_the_close_continues_where_it_was(position: Key, mode: Mode) -> None:
    """Every 10 ms of a close in turn: neither side is closed further than decided, and the other is never opened."""
    for kill in KILLS:
        scene = Scene({position: 10, ETH: 3}, mode=mode, markets=[Market("BTC", shares=[QUARTER])])
        scene.decide({position: 5, ETH: 0})
        assert scene.play(kills=[kill, kill + 0.05]) == {"d1": "flat"}, kill
        assert scene.held(position, ETH) == [5, 0]
        assert sum(scene.exchange.held.values()) == 5, "something was opened"


@pytest.mark.parametrize("by", [-10, -7, 6])
def test_c3_trades_of_others_while_the_process_was_dead_are_respected(by: int) -> None:
    """A half of 10 is decided and the process dies; others close 10 or 7, or open 6: nothing is flipped or fought."""
    scene = Scene({BTC: 10}, Rule("submit", "lost"))
    scene.decide({BTC: 5})
    scene.at(0.3, lambda: scene.exchange.trade(BTC, Decimal(by)))
    statuses = scene.play(kills=[0.2, 0.4])
    left = {-10: 0, -7: 3, 6: 11}[by]
    closed = sum(order.filled for order in scene.orders())
    assert scene.held(BTC) == [left if by < 0 else 16 - closed]
    assert closed == (0 if by < 0 else 5)
    assert statuses == {"d1": "flat" if by < 0 else "residual"}


def test_c4_a_partial_fill_is_no_success() -> None:
    """A quarter fills, then a half of the rest, then all: three orders, and flat only after the last."""
    shares = [Decimal("0.25"), Decimal("0.5")]
    scene = Scene({BTC: 10}, markets=[Market("BTC", shares=shares)])
    scene.decide({BTC: 0})
    assert scene.play() == {"d1": "flat"}
    assert [order.filled for order in scene.orders()] == [Decimal("2.5"), Decimal("3.75"), Decimal("3.75")]


def test_c4_a_close_without_fills_ends_with_its_residual_and_not_with_success() -> None:
    """Nothing ever fills: after so many orders it is given up, with the 5 that were to be closed as residual."""
    nothing = [Decimal(0)] * 50
    scene = Scene({BTC: 10, ETH: 1}, markets=[Market("BTC", shares=nothing)])
    scene.decide({BTC: 5, ETH: 0})
    assert scene.play() == {"d1": "residual"}
    (ended,) = scene.entries("finished")
    assert ended.data["left long BTC"] == "5"
    (closing,) = scene.progress()
    assert [(it.symbol, it.contracts) for it in closing.residual] == [("BTC", Decimal(5))]
    assert scene.held(ETH) == [0]


def test_c4_flat_is_proved_by_a_poll_made_after_the_last_order() -> None:
    """The order's own answer says that all is filled; the account is polled once more all the same."""
    scene = Scene({BTC: 10}, wire=Wire)
    scene.decide({BTC: 0})
    scene.play()
    (verified,) = [it for it in scene.entries("verified") if it.data["position"] == "0"]
    (filled,) = scene.entries("filled")
    assert filled.sequence < verified.sequence
    # To the microsecond, the resolution of the journal.
    assert scene.calls("snapshot", since=(filled.at - scene.time.start).total_seconds() - 1e-5) >= 1
