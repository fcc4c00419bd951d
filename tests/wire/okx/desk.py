"""The adapter of an account at OKX on loopback, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

from msgspec.structs import replace

from killswitch.model.snapshot import OrderSide, Side
from killswitch.model.venue import AccountSpec, OrderRequest
from killswitch_ccxt import adapter
from tests.faults.exchange import Exchange, Key, Market, Mode
from tests.faults.mishaps import Rule, Script
from tests.virtual_time import VirtualTime
from tests.wire.okx.venue import OkxWire
from tests.wire.server import KEY, PASSPHRASE, SECRET

T = TypeVar("T")
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


def spec(
    address: str | None, *, clock: object = None, currency: str = "USDT", market: str = "swap", **more: Any
) -> Any:
    """The account as its document declares it. `more`: options."""
    options: dict[str, object] = {"timeout": 5, **({} if clock is None else {"clock": clock}), **more}
    credentials = {"key": KEY, "secret": SECRET, "passphrase": PASSPHRASE}
    return AccountSpec("main", "ccxt", market, currency, address, options, credentials, exchange="okx")


class OkxDesk:
    """An exchange, the OKX server over it, and an adapter connected to the server."""

    def __init__(
        self,
        held: Mapping[Key, Decimal],
        *rules: Rule,
        mode: Mode = "one_way",
        markets: Iterable[Market] = (),
        account: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """`rules`: mishaps. `account`: fields of its document that differ. `more`: options of the venue."""
        self.time = VirtualTime()
        now = lambda: (self.time.monotonic(), self.time.now())  # noqa: E731 - one line, read once
        self.exchange = Exchange(held, now, mode=mode, markets=markets)
        self.venue = OkxWire(self.exchange, mishaps=Script(*rules), **more)
        self._account = dict(account or {})

    def run(self, scenario: Callable[[Any], Awaitable[T]], *, stream: bool = False) -> T:
        """Run a scenario with the adapter; a request for a missing route fails it."""

        async def main() -> T:
            await self.venue.start()
            market = "spot" if self.exchange.mode == "spot" else "swap"
            document = spec(self.venue.address, clock=self.time, **({"market": market} | self._account))
            if stream:
                document = replace(document, endpoint_ws=self.venue.address_ws)
            venue: Any = adapter(document)
            try:
                return await scenario(venue)
            finally:
                await venue.close()
                await self.venue.stop()
                assert self.venue.refusals == []

        return self.time.run(main())


def order(
    name: str = "kswa1", side: OrderSide = "sell", amount: str = "1", *, of: Side | None = None, symbol: str = BTC,
    **more: Any,
) -> OrderRequest:  # fmt: skip
    """A reduce-only market order, unless `more` changes that."""
    of = of or ("long" if side == "sell" else "short")
    return OrderRequest(name, symbol, side, of, Decimal(amount), **({"reduce_only": True} | more))
