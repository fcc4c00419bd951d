"""C9, C11, C24: a full close continues while the venue shows a position, and where its positions are unavailable."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest

from killswitch.model.venue import OrderRejectedError, OrderReport, OrderRequest, RejectReason
from tests.faults.exchange import Actor, Exchange, Market, Mode
from tests.faults.mishaps import Mishap, Rule
from tests.faults.scene import Scene, long

(BTC, ETH) = long("BTC", "ETH")
MINUTES = 20 * 60.0
REASONS: tuple[RejectReason, ...] = ("permission", "insufficient_margin", "other", "price_band", "already_flat")


class RefusingExchange(Exchange):
    """Refuses every order in BTC for twenty minutes."""

    reason: RejectReason = "other"

    def place(self, request: OrderRequest, by: Actor = "ours") -> OrderReport:
        if request.symbol == "BTC" and self.now()[0] < MINUTES:
            raise OrderRejectedError(self.reason, "not now")
        return super().place(request, by)


@pytest.mark.parametrize("reason", REASONS)
def test_a_full_close_outlasts_twenty_minutes_of_refusals_for_any_reason(reason: RejectReason) -> None:
    """With at most half a minute between two orders, and with the refusal reported to people."""
    exchange = type("ForAReason", (RefusingExchange,), {"reason": reason})
    scene = Scene({BTC: 10, ETH: 4}, exchange=exchange)
    scene.decide({BTC: 0, ETH: 0})
    assert scene.play(patience=MINUTES + 120) == {"d1": "flat"}
    assert scene.held(BTC, ETH) == [0, 0]
    assert max(deed.at for deed in scene.exchange.deeds if deed.key == ETH) < 2.0, "ETH was held up by BTC"
    at = [(entry.at - scene.time.start).total_seconds() for entry in scene.entries("sending") if entry.symbol == "BTC"]
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert max(pauses) <= 32.0
    assert len(pauses) < 80
    assert any(reason in text for text in scene.notices)


def test_a_full_close_outlasts_orders_that_fill_nothing() -> None:
    """Thirty orders find no buyer; the next one does."""
    scene = Scene({BTC: 10}, markets=[Market("BTC", shares=[Decimal(0)] * 30)])
    scene.decide({BTC: 0})
    assert scene.play(patience=3600) == {"d1": "flat"}
    assert scene.held(BTC) == [0]


def test_a_trim_is_given_up_after_eight_orders_beyond_its_ladder() -> None:
    """The rest of a trim is a choice that can wait for a person."""
    scene = Scene({BTC: 10}, markets=[Market("BTC", shares=[Decimal(0)] * 99)])
    scene.decide({BTC: 5})
    assert scene.play(patience=3600) == {"d1": "residual"}


@pytest.mark.parametrize("mode", ["one_way", "hedge"])
@pytest.mark.parametrize("answer", ["down", "malformed", "silent", "garbled"])
def test_a_close_uses_the_last_known_positions_while_they_are_unavailable(answer: Mishap, mode: Mode) -> None:
    """A quarter of each order fills, and no poll succeeds for two minutes: the book is flat long before that."""
    scene = Scene(
        {BTC: 10, ETH: 4}, mode=mode, markets=[Market(it, shares=[Decimal("0.25")] * 3) for it in ("BTC", "ETH")]
    )
    scene.wire.mishaps.rules.append(Rule("snapshot", answer, times=10**6))
    scene.at(120.0, scene.wire.mishaps.rules.clear)
    scene.decide({BTC: 0, ETH: 0})
    assert scene.play() == {"d1": "flat"}
    assert max(deed.at for deed in scene.exchange.deeds if deed.after == 0) < 20.0
    assert scene.notices, "nobody was told that the positions cannot be read"


def test_a_decision_that_is_minutes_old_closes_on_its_own_snapshot_once_orders_get_through() -> None:
    """For a minute no request succeeds; then orders do, and the positions are still unavailable."""
    rules = [Rule("submit", "down", times=10**6), Rule("snapshot", "down", times=10**6)]
    scene = Scene({BTC: 10}, *rules)
    scene.at(60.0, lambda: scene.wire.mishaps.rules.remove(rules[0]))
    scene.at(200.0, scene.wire.mishaps.rules.clear)
    scene.decide({BTC: 0})
    assert scene.play() == {"d1": "flat"}
    (closed,) = (deed for deed in scene.exchange.deeds if deed.key == BTC)
    assert 60.0 < closed.at < 100.0


@pytest.mark.parametrize(("target", "mode"), [(0, "spot"), (4, "one_way")])
def test_an_order_that_could_open_or_close_too_much_waits_for_a_snapshot(target: int, mode: Mode) -> None:
    """A spot sale, and the rest of a trim: after the first order, nothing leaves on the last known positions."""
    scene = Scene({BTC: 10}, mode=mode, markets=[Market("BTC", shares=[Decimal("0.25")])])
    scene.wire.mishaps.rules.append(Rule("snapshot", "down", times=10**6))
    scene.at(60.0, scene.wire.mishaps.rules.clear)
    scene.decide({BTC: target})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [target]
    early = [deed for deed in scene.exchange.deeds if deed.at < 60.0]
    assert len(early) == (0 if mode == "spot" else 1)
