"""An account whose stream is listened to as a runner does it, at a wire-level venue in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.push_listener import PushListener, StreamView
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import AccountSpec
from killswitch_ccxt import adapter
from tests.virtual_time import VirtualTime
from tests.wire.server import KEY, SECRET, WireVenue


@dataclass(frozen=True)
class Heard:
    """What a story is told with."""

    time: VirtualTime
    venue: Any
    account: Any
    listening: PushListener

    @property
    def view(self) -> StreamView:
        """What `status` shows of the stream."""
        (view,) = self.listening.views
        return view

    async def wakes(self, deed: Callable[[], object]) -> bool:
        """Whether `deed` calls for a reading within a second, where nothing did in the five before it."""
        await self.time.sleep(5.0)
        self.listening.pushed.clear()
        self.listening.bell.clear()
        await self.time.sleep(5.0)
        assert not self.listening.bell.is_set()
        deed()
        await self.time.sleep(1.0)
        return self.listening.bell.is_set() and "main" in self.listening.pushed

    async def poll(self) -> AccountSnapshot:
        """What a scheduled tick reads."""
        snapshot: AccountSnapshot = await self.account.snapshot()
        return snapshot


def listened_to(
    exchange: str,
    made: Callable[[VirtualTime], WireVenue],
    story: Callable[[Heard], Awaitable[None]],
    *,
    currency: str = "USDT",
    credentials: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
) -> None:
    """Tell a story of this venue. Whatever it is asked for must be spoken there."""
    # ccxt dates some answers to its pings by the account's clock, and counts how old they are by the machine's.
    time = VirtualTime(datetime.now(UTC))

    async def course() -> None:
        venue = made(time)
        await venue.start()
        spec = AccountSpec(
            account="main", adapter="ccxt", market="swap", currency=currency, endpoint=venue.address,
            endpoint_ws=venue.address_ws, options={"clock": time, "timeout": 5, **(options or {})},
            credentials=credentials or {"key": KEY, "secret": SECRET}, exchange=exchange,
        )  # fmt: skip
        account: Any = adapter(spec)
        armed = ArmedAccount("main", exchange, "swap", currency, account, armed=False)
        listening = PushListener({"main": armed}, time)
        listening.start()
        try:
            await story(Heard(time, venue, account, listening))
            assert venue.refusals == []
        finally:
            await listening.stop(5.0)
            await account.close()
            await venue.stop()

    time.run(course())
