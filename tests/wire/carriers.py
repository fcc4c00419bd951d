"""The venues that closing is tried over, as far as a scene has to know them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from tests.wire.server import KEY, PASSPHRASE, SECRET, WireVenue


@dataclass(frozen=True)
class Carrier:
    """A venue that closing can be tried over. `modes`: the account modes that it has on loopback."""

    exchange: str
    venue: tuple[str, str]
    credentials: Mapping[str, str]
    numbers: tuple[str, str]
    """Where the names of two functions are: the exchange's `x12` → the venue's id of it, and back."""
    modes: tuple[str, ...] = ("one_way", "hedge")
    names_stops: bool = True
    """Whether a conditional order has a client id, so that one is told from another whatever befalls the process."""

    def number(self, which: Literal[0, 1], order_id: str) -> str:
        """The venue's id of an order of the exchange's (0), or the exchange's of the venue's (1)."""
        module, _ = self.venue
        beside = module.removesuffix(".venue") + f".{self.words}"
        found: str = getattr(importlib.import_module(beside), self.numbers[which])(order_id)
        return found

    words: str = "words"

    @property
    def server(self) -> type[WireVenue]:
        """The venue's server."""
        module, name = self.venue
        found: type[WireVenue] = getattr(importlib.import_module(module), name)
        return found


ALL_MODES: Final = ("one_way", "hedge", "spot")
TWO_KEYS: Final = {"key": KEY, "secret": SECRET}
CARRIERS: Final[Mapping[str, Carrier]] = {
    it.exchange: it
    for it in (
        Carrier("binanceusdm", ("tests.wire.binance.venue", "BinanceWire"), TWO_KEYS, ("ordinary_id", "own_id")),
        Carrier("bybit", ("tests.wire.bybit.venue", "BybitWire"), TWO_KEYS, ("order_id", "own_id")),
        Carrier(
            "okx",
            ("tests.wire.okx.venue", "OkxWire"),
            TWO_KEYS | {"passphrase": PASSPHRASE},
            ("order_id", "ours_of"),
            ALL_MODES,
            words="rows",
        ),
        Carrier(
            "bitget",
            ("tests.wire.bitget.venue", "BitgetWire"),
            TWO_KEYS | {"passphrase": PASSPHRASE},
            ("order_id", "own_id"),
        ),
        Carrier(
            "mexc",
            ("tests.wire.mexc.venue", "MexcWire"),
            TWO_KEYS,
            ("order_id", "order_id"),
            words="rows",
            names_stops=False,
        ),
    )
}
