"""OKX's codes, each through ccxt's real client: their meaning for an order and for a query."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.venue import (
    CredentialsRefusedError,
    FateUnknownError,
    OrderRejectedError,
    RateLimitedError,
    RejectReason,
    RequestExpiredError,
    VenueDownError,
    VenueError,
)
from killswitch_ccxt.errors import ModeChangedError
from tests.faults.exchange import Key
from tests.wire.okx.desk import BTC, OkxDesk, order
from tests.wire.server import Reply

HELD: Mapping[Key, Decimal] = {(BTC, "long"): Decimal(5)}


def _row(code: str, text: str = "said so") -> Reply:
    """The rejection of an order: its code is in the row, not in the outer code."""
    row = {"ordId": "", "clOrdId": "kswa1", "tag": "", "sCode": code, "sMsg": text}
    return Reply({"code": "1", "msg": "All operations failed", "data": [row]})


def _whole(code: str, status: int = 200) -> Reply:
    """The rejection of a request."""
    return Reply({"code": code, "msg": "said so", "data": []}, status)


def _sent(reply: Reply) -> VenueError:
    """The error that sending an order raises if the venue replies so."""
    desk = OkxDesk(HELD)
    desk.venue.instead["POST trade/order"] = reply

    async def talk(venue: Any) -> VenueError:
        with pytest.raises(VenueError) as said:
            await venue.submit(order())
        return said.value

    return desk.run(talk)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("51000", "other"),  # a parameter error
        ("51121", "other"),  # no multiple of the lot size
        ("51202", "above_maximum"),  # a market order above the maximum
        ("51016", "duplicate_client_order_id"),
        ("51008", "insufficient_margin"),
        ("51169", "already_flat"),  # no position in this direction
        ("51023", "already_flat"),  # position does not exist
        ("51112", "blocked_by_order"),  # more than the available size
        ("51020", "below_minimum"),
        ("51006", "price_band"),
        ("51137", "price_band"),
        ("51138", "price_band"),
        ("51022", "market_closed"),
        ("54072", "market_closed"),
        ("50120", "permission"),
        ("51010", "permission"),  # the account's mode
        ("51043", "already_flat"),  # this isolated position doesn't exist
        ("51148", "blocked_by_order"),  # with those that rest it may turn the position
        ("51168", "blocked_by_order"),  # reduce-only orders are open
        ("51102", "blocked_by_order"),  # too many pending orders of the instrument
        ("51207", "above_maximum"),  # cannot be all closed at the market price: in batches
        ("51302", "price_band"),  # a stop's trigger against the mark price
        ("50009", "market_closed"),  # frozen due to stop-out
        ("54012", "market_closed"),  # the book is too thin: post-only orders, and cancels
        ("50071", "duplicate_client_order_id"),  # "e.g. clOrdId already exists"
        ("51068", "duplicate_client_order_id"),
        ("51252", "other"),  # the amount is out of the available range: either end
        ("54008", "permission"),  # disabled by 'mass cancel order'
        ("51008_1001", "insufficient_margin"),  # code and sub-code, as the documents write them
        ("59999", "other"),  # an unknown code
    ],
)
def test_a_rejected_order_has_its_reason(code: str, reason: RejectReason) -> None:
    """Nothing was executed, and the code gives the reason: "Error Code", REST API, Public of OKX's documents."""
    said = _sent(_row(code))
    assert isinstance(said, OrderRejectedError)
    assert (said.reason, code in str(said)) == (reason, True)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (_whole("50011", 429), RateLimitedError),
        (_whole("50061"), RateLimitedError),
        (_whole("50001", 503), VenueDownError),  # matching engine upgrading
        (_whole("50102", 401), RequestExpiredError),  # arrived too late to be processed: certainly not executed
        (_whole("50004", 400), FateUnknownError),  # "does not indicate success or failure"
        (_row("50004"), FateUnknownError),
        (_whole("50013", 429), FateUnknownError),
        (_whole("50026", 500), FateUnknownError),
        (Reply("<html>Bad gateway</html>", 502), FateUnknownError),
        (_row("51149", "Order timed out. Please try again later."), FateUnknownError),
        (_row("51054", "Request timed out. Please try again."), FateUnknownError),
        (_row("50042", "Repeated request"), FateUnknownError),  # the earlier one may have been accepted
        (_row("50040", "Too frequent operations, please try again later"), RateLimitedError),
        (_row("50037", "Order expired."), RequestExpiredError),
        (_row("59998", "System is upgrading"), FateUnknownError),  # an unknown code
        (_row("59998", "Too small"), OrderRejectedError),
        (_row("51008", "Insufficient margin, try again later"), OrderRejectedError),  # a known code
        (_row("51000", "Parameter posSide error"), ModeChangedError),
        (_row("51000", "Parameter sz error"), OrderRejectedError),
    ],
)
def test_other_errors_are_classified_by_what_is_known_of_the_order(reply: Reply, kind: type[VenueError]) -> None:
    """Rate limited, certainly not executed, or possibly executed: closing must never confuse the three."""
    assert type(_sent(reply)) is kind


@pytest.mark.parametrize("code", ["50111", "50113", "50114", "50105", "50110"])
def test_rejected_credentials_raise_and_never_look_like_a_flat_account(code: str) -> None:
    """A snapshot raises; an order is rejected for missing permission."""
    said = _sent(_whole(code, 401))
    assert isinstance(said, OrderRejectedError)
    assert said.reason == "permission"
    desk = OkxDesk(HELD)
    desk.venue.instead["GET account/positions"] = _whole(code, 401)
    with pytest.raises(CredentialsRefusedError, match=code):
        desk.run(lambda venue: venue.snapshot())


@pytest.mark.parametrize("code", ["51400", "51401", "51402"])
def test_cancelling_an_order_that_is_gone_is_no_error(code: str) -> None:
    """It never existed, was cancelled, or was filled."""
    desk = OkxDesk(HELD)
    for route in ("POST trade/cancel-order", "POST trade/cancel-algos"):
        desk.venue.instead[route] = _row(code)
    desk.run(lambda venue: venue.cancel(BTC, "2497956918703000001"))


def test_an_order_that_is_in_neither_list_is_none_and_a_parameter_error_is_not() -> None:
    """51603 means that no such order exists; 51000 means that OKX has not searched for it."""
    desk = OkxDesk(HELD)

    async def talk(venue: Any) -> None:
        assert await venue.find_order(BTC, "kswa1") is None
        desk.venue.instead["GET trade/order-algo"] = _whole("51000")
        with pytest.raises(VenueDownError, match="51000"):
            await venue.find_order(BTC, "kswa1")

    desk.run(talk)


def test_a_rate_limited_snapshot_raises() -> None:
    """The component that counts requests must receive it."""
    desk = OkxDesk(HELD)
    desk.venue.instead["GET account/balance"] = _whole("50011", 429)

    async def talk(venue: Any) -> None:
        with pytest.raises(RateLimitedError, match="50011"):
            await venue.snapshot()

    desk.run(talk)
