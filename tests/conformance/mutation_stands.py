"""The stands of every venue of this project whose answers can be changed before the adapter receives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from killswitch.conformance.stand import Stand
from tests.conformance import typed_binance, typed_generic
from tests.conformance.stands import WireStand
from tests.conformance.typed_stands import PaperAnswers, deribit, hyperliquid
from tests.conformance.wires import WIRES


def mutation_stands() -> Mapping[str, Callable[[], Stand]]:
    """Name → a stand of its own."""
    wires = {name: lambda wired=wired: _small(WireStand(wired)) for name, wired in WIRES.items()}  # type: ignore[misc] # bound in the loop
    return {**wires, "deribit": deribit, "hyperliquid": hyperliquid, "paper": PaperAnswers,
            "binance-spot": typed_binance.spot, "binance-margin": typed_binance.margin,
            "binance-coinm": typed_binance.coinm, "kraken": typed_generic.kraken,
            "generic": typed_generic.generic}  # fmt: skip


def _small(stand: WireStand) -> WireStand:
    """With the two symbols that are held: a venue's further symbols would be requested and read each time."""
    stand.more, stand.mutations = (), 40
    return stand
