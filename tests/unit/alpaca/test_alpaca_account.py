"""An account at Alpaca from its document: rejected fields, addresses, capabilities, hidden secrets."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from killswitch.accounts.plug_ins import make_adapter
from killswitch.model.venue import (
    OPTIONAL_ATTRIBUTES,
    VenueDownError,
    VenueFamily,
)
from killswitch_alpaca import adapter
from killswitch_alpaca.family import family
from killswitch_alpaca.settings import read_settings
from tests.unit.alpaca.account_specs import spec

CAPABILITIES = (
    "equity", "positions", "orders", "trigger orders", "fills", "flows", "prices", "market orders", "limit orders",
    "reduce only", "put back stops", "batch orders", "close book", "position mode", "find by client id", "dead man",
    "push", "key rights", "clock", "bars", "sandbox", "demo",
)  # fmt: skip


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"environment": "demo"}, "sandbox: true"),
        ({"exchange": "binance"}, "take `exchange` out"),
        ({"market": "swap"}, "market: equity.* or .market: spot"),
        ({"credentials": {"key": "K"}}, "missing: secret"),
        ({"credentials": {}}, "missing: key, secret"),
        ({"endpoint": "ftp://x"}, "http:// or https://"),
        ({"endpoint_ws": "http://x"}, "ws:// or wss://"),
        ({"options": {"timeout": 0}}, "option timeout"),
        ({"options": {"timeout": "soon"}}, "option timeout"),
        ({"options": {"extended_band": 1}}, "below 1"),
        ({"options": {"requests_per_minute": True}}, "option requests_per_minute"),
        ({"options": {"data_feed": 7}}, "option data_feed"),
        ({"options": {"proxy": "socks5://127.0.0.1:9"}}, "option proxy must be http:// or https:// and a host"),
    ],
)
def test_an_invalid_document_is_rejected_with_a_fix(more: dict[str, Any], why: str) -> None:
    """Before any connection is made."""
    with pytest.raises(ValueError, match=why):
        adapter(spec(**more))


@pytest.mark.parametrize(
    ("more", "addresses"),
    [
        ({}, ("https://paper-api.alpaca.markets", "wss://paper-api.alpaca.markets/stream")),
        ({"environment": "production"}, ("https://api.alpaca.markets", "wss://api.alpaca.markets/stream")),
        ({"endpoint": "http://127.0.0.1:7/"}, ("http://127.0.0.1:7", "ws://127.0.0.1:7/stream")),
        ({"endpoint_ws": "ws://127.0.0.1:8/s"}, ("https://paper-api.alpaca.markets", "ws://127.0.0.1:8/s")),
    ],
)
def test_paper_live_and_other_addresses(more: dict[str, Any], addresses: tuple[str, str]) -> None:
    """From Alpaca's documentation; an endpoint replaces all of them."""
    settings = read_settings(spec(**more))
    assert (settings.trading, settings.stream) == addresses


def test_the_capabilities_and_traits_agree() -> None:
    """Push, broker suspension, its own request count and inspection; no batch, dead-man timer or whole-book close."""
    venue = adapter(spec())
    offered = {name for name in OPTIONAL_ATTRIBUTES if getattr(venue, name) is not None}
    assert offered == {"used", "listen", "suspend_trading", "prices", "remember", "inspect", "key_rights"}
    known: VenueFamily = family
    (listing,) = known.listings()
    assert tuple(each.name for each in listing.capabilities) == CAPABILITIES
    assert (listing.adapter, listing.exchange, listing.markets) == ("alpaca", None, ("equity", "spot"))
    assert not listing.traits.whole_book
    assert family.history("binance") is None


def test_creating_the_adapter_imports_no_http_client() -> None:
    """A command that only lists venues must start fast."""
    program = (
        "import sys; from killswitch_alpaca import adapter; from killswitch_alpaca.family import family;"
        "from tests.unit.alpaca.account_specs import spec; adapter(spec()); family.listings();"
        "print([name for name in ('requests', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bars_of_stocks_without_keys_are_rejected_with_the_names_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request is sent."""
    monkeypatch.delenv("APCA_API_KEY_ID", raising=False)
    history = family.history("alpaca", "http://127.0.0.1:9")
    assert history is not None
    with pytest.raises(VenueDownError, match="APCA_API_KEY_ID and APCA_API_SECRET_KEY"):
        asyncio.run(history.bars("AAPL", "1d", 0))
    with pytest.raises(ValueError, match="no bars of 7m"):
        asyncio.run(history.bars("BTC/USD", "7m", 0))


def test_no_message_contains_a_key() -> None:
    """Neither the adapter's messages nor the runner's, with nobody listening at the address."""
    made = make_adapter(spec(endpoint="http://127.0.0.1:9", options={"timeout": 1}))

    async def main() -> tuple[str, str]:
        seen = await made.snapshot()
        try:
            await made.find_order("AAPL", "SECRET-PLANTED")
        except VenueDownError as error:
            return seen.reason or "", str(error)
        finally:
            await made.close()
        raise AssertionError("nobody listens there")

    reason, error = asyncio.run(main())
    assert "127.0.0.1:9 refused the connection" in reason
    for text in (reason, error, repr(adapter(spec())), repr(made)):
        assert "PLANTED" not in text


def test_settings_do_not_show_the_keys() -> None:
    """Settings that are printed by accident are printed without keys."""
    assert "PLANTED" not in repr(read_settings(spec()))
