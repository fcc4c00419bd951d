"""MEXC's states of contracts and types of positions, which ccxt reduces to open or not and long or not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.exchange import Key
from tests.unit.ccxt.venues.test_mexc import BTC, ETH, account
from tests.wire.mexc import payloads


@pytest.mark.parametrize(
    ("number", "state"), [(0, "open"), (1, "halted"), (2, "delisted"), (3, "delisted"), (4, "halted")]
)
def test_the_state_of_a_contract(number: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 enabled, 1 in delivery, 2 completed, 3 offline, 4 paused; the other contract stays open."""
    monkeypatch.setitem(payloads.MARKETS, "delisted", number)
    desk = account()
    desk.exchange.markets[BTC].state = "delisted"
    seen = desk.run(lambda made, venue: made.snapshot())
    assert {it.symbol: it.state for it in seen.instruments or ()} == {BTC: state, ETH: "open"}


@pytest.mark.parametrize("wrong", [{"holdVol": -30}, {"positionType": 3}, {"positionType": None}, {"holdVol": None}])
def test_a_position_without_a_valid_direction_or_size_is_rejected(
    wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ccxt reads every type except 1 as short, and a size below zero as positive."""
    right = payloads.position_row

    def told(key: Key, *about: Any) -> dict[str, Any]:
        row: dict[str, Any] = right(key, *about)
        return row | wrong if key == (BTC, "long") else row

    monkeypatch.setattr("tests.wire.mexc.venue.position_row", told)
    seen = account().run(lambda made, venue: made.snapshot())
    assert (seen.quality, seen.positions, seen.equity) == ("malformed", None, None)
    assert BTC in (seen.reason or "")
