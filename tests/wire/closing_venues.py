"""The venues that closes are tested over, with what a fault scene has to know about each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

from tests.wire.server import KEY, PASSPHRASE, SECRET, WireVenue


class ClosingVenue(Struct, frozen=True):
    """A venue over which closes can be tested. `modes`: the account modes that it supports on loopback."""

    exchange: str
    venue: tuple[str, str]
    credentials: Mapping[str, str]
    numbers: tuple[str, str]
    """Names of two functions: the exchange's `x12` → the venue's order id, and back."""
    modes: tuple[str, ...] = ("one_way", "hedge")
    names_stops: bool = True
    """Whether a conditional order has a client id, which identifies it even after the process was killed."""

    def number(self, which: Literal[0, 1], order_id: str) -> str:
        """The venue's id of an order of the exchange (0), or the exchange's id of an order of the venue (1)."""
        module, _ = self.venue
        payloads_module = module.removesuffix(".venue") + ".payloads"
        found: str = getattr(importlib.import_module(payloads_module), self.numbers[which])(order_id)
        return found

    @property
    def server(self) -> type[WireVenue]:
        """The class of the venue's server."""
        module, name = self.venue
        found: type[WireVenue] = getattr(importlib.import_module(module), name)
        return found


ALL_MODES: Final = ("one_way", "hedge", "spot")
TWO_KEYS: Final = {"key": KEY, "secret": SECRET}
CLOSING_VENUES: Final[Mapping[str, ClosingVenue]] = {
    it.exchange: it
    for it in (
        ClosingVenue("binanceusdm", ("tests.wire.binance.venue", "BinanceWire"), TWO_KEYS, ("ordinary_id", "own_id")),
        ClosingVenue("bybit", ("tests.wire.bybit.venue", "BybitWire"), TWO_KEYS, ("order_id", "own_id")),
        ClosingVenue(
            "okx",
            ("tests.wire.okx.venue", "OkxWire"),
            TWO_KEYS | {"passphrase": PASSPHRASE},
            ("order_id", "ours_of"),
            ALL_MODES,
        ),
        ClosingVenue(
            "bitget",
            ("tests.wire.bitget.venue", "BitgetWire"),
            TWO_KEYS | {"passphrase": PASSPHRASE},
            ("order_id", "own_id"),
        ),
        ClosingVenue(
            "mexc",
            ("tests.wire.mexc.venue", "MexcWire"),
            TWO_KEYS,
            ("order_id", "order_id"),
            names_stops=False,
        ),
    )
}
