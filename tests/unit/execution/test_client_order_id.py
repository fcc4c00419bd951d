"""Client order ids: the same on every machine, unique, and within the rules of every venue."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.execution.client_order_id import client_order_id
from killswitch.model.venue import ClientIdRule, is_ours

# As the venues document them: Binance and Bybit up to 36, OKX up to 32 letters and digits, Kraken a UUID or up to 18
# characters of text, Hyperliquid 128 bits in hex.
VENUES = {
    "binance": (ClientIdRule("plain", 36), r"[\.A-Z\:/a-z0-9_-]{1,36}"),
    "okx": (ClientIdRule("plain", 32), r"[A-Za-z0-9]{1,32}"),
    "kraken text": (ClientIdRule("plain", 18), r"[ -~]{1,18}"),
    "hyperliquid": (ClientIdRule("hex"), r"0x[0-9a-f]{32}"),
    "kraken uuid": (ClientIdRule("uuid"), r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
}
ORIGINS = st.tuples(st.text(min_size=1, max_size=30), st.integers(0, 36**4 - 1), st.integers(0, 36**5 - 1))


@pytest.mark.parametrize("venue", VENUES)
@given(origin=ORIGINS)
def test_an_id_fits_the_venue_and_is_recognised_as_ours(venue: str, origin: tuple[str, int, int]) -> None:
    """Length and alphabet are the venue's own, and the check for foreign orders recognises the form."""
    rule, allowed = VENUES[venue]
    name = client_order_id(*origin, rule)
    assert re.fullmatch(allowed, name)
    assert is_ours(name)
    assert name == client_order_id(*origin, rule)


@given(origin=ORIGINS)
def test_a_uuid_parses_as_a_uuid(origin: tuple[str, int, int]) -> None:
    """Version 8, the custom form, in the variant of RFC 9562."""
    read = uuid.UUID(client_order_id(*origin, ClientIdRule("uuid")))
    assert (read.version, read.variant) == (8, uuid.RFC_4122)


@pytest.mark.parametrize("venue", VENUES)
def test_ids_of_one_book_are_distinct(venue: str) -> None:
    """Ten thousand intents and attempts of two decisions have as many ids."""
    rule, _ = VENUES[venue]
    names = {client_order_id(d, i, a, rule) for d in ("d1", "d2") for i in range(1000) for a in range(5)}
    assert len(names) == 10_000


def test_a_decision_of_a_store_is_part_of_the_id_in_plain_form() -> None:
    """A decision's id of twenty letters and digits, then the intent and the attempt to the base of 36."""
    name = client_order_id("0123456789abcdefghij", 35, 36)
    assert name == "ks" + "0123456789abcdefghij" + "000z" + "00010"


@pytest.mark.parametrize("venue", VENUES)
def test_two_decisions_of_a_store_never_have_the_same_ids(venue: str) -> None:
    """Twenty letters and digits that differ in the last: an order of the second is not taken for one of the first."""
    rule, _ = VENUES[venue]
    assert client_order_id("0123456789abcdefghij", 0, 1, rule) != client_order_id("0123456789abcdefghik", 0, 1, rule)


def test_a_venue_whose_ids_are_too_short_is_refused() -> None:
    """Thirteen characters cannot distinguish the orders of one day: no order is better than two with one id."""
    with pytest.raises(ValueError, match="13 characters are too short"):
        client_order_id("d1", 0, 1, ClientIdRule("plain", 13))


@pytest.mark.parametrize(
    "name", [None, "", "ks", "x-ks1234", "web_4711", "KS" + "0" * 29, "6b73" * 7, "0x" + "ab" * 16]
)
def test_foreign_ids_are_not_ours(name: str | None) -> None:
    """A bot's own ids, and missing ones."""
    assert not is_ours(name)
