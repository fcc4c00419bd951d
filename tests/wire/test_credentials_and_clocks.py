"""What becomes of a secret that is wrong, of one that nothing can be signed with, and of a clock that is off."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

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
"""Venues that hold the time in a request against their own."""


class Clock:
    """Machine time, so much late."""

    def __init__(self, late: float) -> None:
        self.late = timedelta(seconds=late)

    def now(self) -> datetime:
        return datetime.now(UTC) - self.late


def asked(reached: VenueAccess, what: str, *, late: float = 0.0) -> tuple[Any, WireVenue]:
    """What an account of a fresh venue answers to `snapshot`, `inspect` or `submit`, or raises; and the venue."""

    async def course() -> tuple[Any, WireVenue]:
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
                "main", "ccxt", "swap", reached.currency, wire.address, {"clock": Clock(late)} if late else {},
                dict(reached.secrets), reached.exchange,
            )
        )  # fmt: skip
        try:
            if what == "submit":
                return await venue.submit(
                    OrderRequest("ks1", symbol, "sell", "long", Decimal(1), reduce_only=True)
                ), wire
            return await getattr(venue, what)(), wire
        except Exception as error:  # noqa: BLE001 - what is raised is the answer
            return error, wire
        finally:
            await venue.close()
            await wire.stop()

    return asyncio.run(course())


def with_secret(name: str, secret: str) -> VenueAccess:
    """The venue, and another secret."""
    reached = VENUES[name]
    return replace(reached, secrets={**reached.secrets, "secret": secret})


@pytest.mark.parametrize("name", CCXT)
def test_a_wrong_secret_is_refused_credentials(name: str) -> None:
    """At every venue, and said by the reading: at Kraken Futures no question of an inspection is signed."""
    found, wire = asked(with_secret(name, "V1JPTkcx"), "snapshot")
    assert isinstance(found, CredentialsRefusedError), found
    assert "V1JPTkcx" not in str(found)
    assert not wire.exchange.orders


@pytest.mark.parametrize("secret", ["not-base64!", "PLANTED-SECRET-X"])
def test_a_secret_that_cannot_sign_is_refused_before_anything_is_sent(secret: str) -> None:
    """Kraken Futures signs with what a base64 text stands for. What is not one is the secret's fault, and not told."""
    reached = with_secret("krakenfutures", secret)
    found, wire = asked(reached, "snapshot")
    assert isinstance(found, CredentialsRefusedError), found
    assert "the secret cannot be used for signing (it is not base64" in str(found)
    assert "nothing was sent" in str(found)
    assert secret not in str(found)
    order, acted = asked(reached, "submit")
    assert isinstance(order, OrderRejectedError), order
    assert order.reason == "permission"
    signed = [it for it in (*wire.seen, *acted.seen) if it.ask.headers.get("Authent")]
    assert signed == []


@pytest.mark.parametrize(("name", "late"), each_taking_turns(TIMED, "a clock is off", [40.0, -3600.0]))
def test_an_account_is_read_and_closed_by_a_machine_whose_clock_is_off(name: str, late: float) -> None:
    """Requests that are refused for their time are dated by the venue's clock, as soon as it was asked for it."""
    seen, _ = asked(VENUES[name], "snapshot", late=late)
    assert (seen.quality, seen.reason) == ("ok", None)
    order, wire = asked(VENUES[name], "submit", late=late)
    # An order is not sent again by the adapter: what was refused is the closing's to repeat.
    assert isinstance(order, RequestExpiredError | OrderReport), order
    assert all(amount >= 0 for amount in wire.exchange.held.values())


@pytest.mark.parametrize("name", taking_turns(TIMED, "a refusal that means the clock"))
def test_a_refusal_that_means_the_clock_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the venue's own words, where its clock cannot be asked for."""
    monkeypatch.setattr("killswitch_ccxt.client.Client.measure_skew", _no_clock)
    seen, _ = asked(VENUES[name], "snapshot", late=40.0)
    assert seen.quality == "down"
    assert seen.reason.endswith(CLOCK_OFF), seen.reason
    good, _ = asked(VENUES[name], "snapshot")
    assert (good.quality, good.reason) == ("ok", None)


async def _no_clock(_: object) -> float:
    raise VenueDownError("no clock")
