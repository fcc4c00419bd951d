"""An account whose stream is listened to as in a runner, at a wire-level venue in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.push_listener import PushListener, StreamView
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import AccountSpec
from killswitch_ccxt import adapter
from tests.virtual_time import VirtualTime
from tests.wire.server import KEY, SECRET, WireVenue


class ListenedAccount(Struct, frozen=True):
    """The parts of a scenario."""

    time: VirtualTime
    venue: Any
    account: Any
    listener: PushListener

    @property
    def view(self) -> StreamView:
        """The view of the stream that `status` shows."""
        (view,) = self.listener.views
        return view

    async def requests_poll(self, action: Callable[[], object]) -> bool:
        """Whether `action` requests a poll within a second, where nothing did in the five seconds before."""
        await self.time.sleep(5.0)
        self.listener.pushed.clear()
        self.listener.bell.clear()
        await self.time.sleep(5.0)
        assert not self.listener.bell.is_set()
        action()
        await self.time.sleep(1.0)
        return self.listener.bell.is_set() and "main" in self.listener.pushed

    async def poll(self) -> AccountSnapshot:
        """The snapshot of a scheduled tick."""
        snapshot: AccountSnapshot = await self.account.snapshot()
        return snapshot


def run_listened_account(
    exchange: str,
    server: Callable[[VirtualTime], WireVenue],
    scenario: Callable[[ListenedAccount], Awaitable[None]],
    *,
    currency: str = "USDT",
    credentials: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
) -> None:
    """Run a scenario at this venue. A request for a missing route fails it."""
    # ccxt dates some answers to its pings by the account's clock, and computes their age by the machine's.
    time = VirtualTime(datetime.now(UTC))

    async def main() -> None:
        venue = server(time)
        await venue.start()
        spec = AccountSpec(
            account="main", adapter="ccxt", market="swap", currency=currency, endpoint=venue.address,
            endpoint_ws=venue.address_ws, options={"clock": time, "timeout": 5, **(options or {})},
            credentials=credentials or {"key": KEY, "secret": SECRET}, exchange=exchange,
        )  # fmt: skip
        account: Any = adapter(spec)
        armed = ArmedAccount("main", exchange, "swap", currency, account, armed=False)
        listener = PushListener({"main": armed}, time)
        listener.start()
        try:
            await scenario(ListenedAccount(time, venue, account, listener))
            assert venue.refusals == []
        finally:
            await listener.stop(5.0)
            await account.close()
            await venue.stop()

    time.run(main())
