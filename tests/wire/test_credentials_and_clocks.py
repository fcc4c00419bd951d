"""Wrong secrets, secrets that cannot sign, and machines whose clock is off."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.unanswered import CLOCK_OFF
from killswitch.model.venue import (
    AccountSpec,
    CredentialsRefusedError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    RequestExpiredError,
    VenueDownError,
)
from killswitch_ccxt import adapter
from tests.e2e.wire_venues import VENUES, VenueAccess
from tests.faults.exchange import Exchange, Market
from tests.rotation import each_taking_turns, taking_turns
from tests.wire.__main__ import server_of
from tests.wire.server import WireVenue

CCXT = [name for name, reached in VENUES.items() if reached.adapter == "ccxt"]
TIMED = ["binance", "bybit", "bitget", "okx", "mexc"]
"""Venues that compare the timestamp of a request with their own clock."""


class LateClock:
    """Machine time, late by some seconds."""

    def __init__(self, late: float) -> None:
        self.late = timedelta(seconds=late)

    def now(self) -> datetime:
        return datetime.now(UTC) - self.late


def call_account(reached: VenueAccess, method: str, *, late: float = 0.0) -> tuple[Any, WireVenue]:
    """Call `snapshot`, `inspect` or `submit` on an account of a fresh venue; the result or the error, and the venue."""

    async def main() -> tuple[Any, WireVenue]:
        started = asyncio.get_running_loop().time()
        symbol = reached.symbols[0]
        exchange = Exchange(
            {(symbol, "long"): Decimal(2)},
            lambda: (asyncio.get_running_loop().time() - started, datetime.now(UTC)),
            markets=[Market(symbol)],
        )
        wire = await server_of(reached.wire)(exchange).start()
        venue = adapter(
            AccountSpec(
                "main", "ccxt", "swap", reached.currency, wire.address, {"clock": LateClock(late)} if late else {},
                dict(reached.secrets), reached.exchange,
            )
        )  # fmt: skip
        try:
            if method == "submit":
                return await venue.submit(
                    OrderRequest("ks1", symbol, "sell", "long", Decimal(1), reduce_only=True)
                ), wire
            return await getattr(venue, method)(), wire
        except Exception as error:  # noqa: BLE001 - the exception is the answer
            return error, wire
        finally:
            await venue.close()
            await wire.stop()

    return asyncio.run(main())


def with_secret(name: str, secret: str) -> VenueAccess:
    """The venue with another secret."""
    reached = VENUES[name]
    return replace(reached, secrets={**reached.secrets, "secret": secret})


@pytest.mark.parametrize("name", CCXT)
def test_a_wrong_secret_raises_credentials_refused(name: str) -> None:
    """The snapshot reports it at every venue; at Kraken Futures no request of an inspection is signed."""
    result, wire = call_account(with_secret(name, "V1JPTkcx"), "snapshot")
    assert isinstance(result, CredentialsRefusedError), result
    assert "V1JPTkcx" not in str(result)
    assert not wire.exchange.orders


@pytest.mark.parametrize("secret", ["not-base64!", "PLANTED-SECRET-X"])
def test_a_secret_that_cannot_sign_is_refused_before_any_request(secret: str) -> None:
    """Kraken Futures signs with the decoded base64 secret. An invalid secret is refused, and never printed."""
    reached = with_secret("krakenfutures", secret)
    result, wire = call_account(reached, "snapshot")
    assert isinstance(result, CredentialsRefusedError), result
    assert "the secret cannot be used for signing (it is not base64" in str(result)
    assert "nothing was sent" in str(result)
    assert secret not in str(result)
    order, order_wire = call_account(reached, "submit")
    assert isinstance(order, OrderRejectedError), order
    assert order.reason == "permission"
    signed = [it for it in (*wire.seen, *order_wire.seen) if it.ask.headers.get("Authent")]
    assert signed == []


@pytest.mark.parametrize(("name", "late"), each_taking_turns(TIMED, "a clock is off", [40.0, -3600.0]))
def test_a_machine_whose_clock_is_off_polls_and_closes_an_account(name: str, late: float) -> None:
    """After a rejection by timestamp, requests carry the venue's time as soon as its clock was queried."""
    seen, _ = call_account(VENUES[name], "snapshot", late=late)
    assert (seen.quality, seen.reason) == ("ok", None)
    order, wire = call_account(VENUES[name], "submit", late=late)
    # The adapter does not send an order again: the closer repeats what was refused.
    assert isinstance(order, RequestExpiredError | OrderReport), order
    assert all(amount >= 0 for amount in wire.exchange.held.values())


@pytest.mark.parametrize("name", taking_turns(TIMED, "a refusal that means the clock"))
def test_a_refusal_by_timestamp_names_the_clock(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason adds it to the venue's own message when the venue's clock cannot be queried."""
    monkeypatch.setattr("killswitch_ccxt.client.Client.measure_skew", _no_clock)
    seen, _ = call_account(VENUES[name], "snapshot", late=40.0)
    assert seen.quality == "down"
    assert seen.reason.endswith(CLOCK_OFF), seen.reason
    good, _ = call_account(VENUES[name], "snapshot")
    assert (good.quality, good.reason) == ("ok", None)


async def _no_clock(_: object) -> float:
    raise VenueDownError("no clock")
