"""The harnesses of every venue of this project whose answers can be changed before the adapter receives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from killswitch.conformance.harness import VenueHarness
from tests.conformance import typed_binance, typed_generic
from tests.conformance.harnesses import WireHarness
from tests.conformance.typed_harnesses import PaperAnswers, deribit, hyperliquid
from tests.conformance.wires import WIRES


def mutation_harnesses() -> Mapping[str, Callable[[], VenueHarness]]:
    """Name → a harness of its own."""
    wires = {name: lambda wired=wired: _small(WireHarness(wired)) for name, wired in WIRES.items()}
    return {**wires, "deribit": deribit, "hyperliquid": hyperliquid, "paper": PaperAnswers,
            "binance-spot": typed_binance.spot, "binance-margin": typed_binance.margin,
            "binance-coinm": typed_binance.coinm, "kraken": typed_generic.kraken,
            "generic": typed_generic.generic}  # fmt: skip


def _small(harness: WireHarness) -> WireHarness:
    """With the two symbols that are held: a venue's further symbols would be requested and read each time."""
    harness.more, harness.mutations = (), 40
    return harness
