"""Possible secrets in an address appear in no message about it."""

from __future__ import annotations

import asyncio

import pytest

from killswitch.model.venue import VenueDownError
from killswitch_alpaca import adapter
from killswitch_alpaca.errors import redacted, without_secrets
from killswitch_alpaca.family import family
from tests.unit.alpaca.account_specs import spec

ADDRESS = "http://user:hunt%2Fer2@127.0.0.1:9/way?token=hunter3"


def test_an_address_is_shown_without_user_password_and_query() -> None:
    """Host and path are enough to find a mistake."""
    assert without_secrets(ADDRESS) == "http://127.0.0.1:9/way"


@pytest.mark.parametrize("text", [ADDRESS, "/way?token=hunter3&x=1", "user:hunt%2Fer2 is bad", "hunt/er2", "hunter3"])
def test_messages_of_libraries_are_repeated_without_secrets(text: str) -> None:
    """In every notation, and only the secrets that are present."""
    said = redacted(f"so: {text} after", None, ADDRESS)
    assert "hunt" not in said
    assert said.startswith("so: ")
    assert said.endswith(" after")


@pytest.mark.parametrize(
    "address", [ADDRESS, "http://user:hunter2@:bad?token=hunter3", "http://user:hunter2@[::1?hunter3"]
)
def test_an_error_about_bars_shows_no_secret_of_their_address(address: str) -> None:
    """Nobody listens there, or it is no valid address; the error also has no cause that would show it."""

    async def main() -> None:
        history = family.history("alpaca", address)
        assert history is not None
        with pytest.raises(VenueDownError) as caught:
            await history.bars("BTC/USD", "1d", 0)
        assert "no bars" in str(caught.value)
        assert "hunt" not in str(caught.value)
        assert caught.value.__cause__ is None
        await history.close()

    asyncio.run(main())


def test_an_account_shows_no_secret_of_its_address() -> None:
    """Neither in a snapshot nor in a rejection."""
    made = adapter(spec(endpoint=ADDRESS, options={"timeout": 1}))

    async def main() -> str:
        try:
            return (await made.snapshot()).reason or ""
        finally:
            await made.close()

    reason = asyncio.run(main())
    assert "127.0.0.1:9 refused the connection" in reason
    assert "hunt" not in reason
