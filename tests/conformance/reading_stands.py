"""Every venue of the house whose answers can be changed on their way."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from killswitch.conformance.stand import Stand
from tests.conformance import typed_binance
from tests.conformance.answering import PaperAnswers, deribit, hyperliquid
from tests.conformance.stands import WireStand
from tests.conformance.wires import WIRES


def reading_stands() -> Mapping[str, Callable[[], Stand]]:
    """Name → a stand of its own."""
    wires = {name: lambda wired=wired: _small(WireStand(wired)) for name, wired in WIRES.items()}  # type: ignore[misc] # bound in the loop
    return {**wires, "deribit": deribit, "hyperliquid": hyperliquid, "paper": PaperAnswers,
            "binance-spot": typed_binance.spot, "binance-margin": typed_binance.margin,
            "binance-coinm": typed_binance.coinm}  # fmt: skip


def _small(stand: WireStand) -> WireStand:
    """With the two symbols that are held: what a venue lists beside them is asked for and read each time."""
    stand.more, stand.mutations = (), 40
    return stand
