"""The paper server accepts requests with valid numbers from programs on this machine, and none from a web page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from decimal import Decimal

import aiohttp
import pytest

from killswitch_paper.server import serve
from tests.markets import START, Desk

AS_JSON = {"Content-Type": "application/json"}
WITHDRAWAL = {"kind": "withdrawal", "amount": "-1000"}
ORDER = {
    "client_order_id": "c1", "symbol": "A", "side": "buy", "position_side": "long", "amount": "1", "reduce_only": False
}  # fmt: skip


def _post(desk: Desk, path: str, body: object, headers: Mapping[str, str]) -> tuple[int, str]:
    """Status and text of the answer to a POST; the account can be read afterwards."""

    async def run() -> tuple[int, str]:
        server = await serve(desk.market, port=0, now=lambda: desk.market.now or START)
        try:
            async with aiohttp.ClientSession() as session:
                url = f"{server.address}/v1/{path}"
                async with session.post(url, data=json.dumps(body), headers=headers) as answer:
                    result = answer.status, await answer.text()
                async with session.get(f"{server.address}/v1/accounts/main/snapshot") as answer:
                    assert answer.status == 200
            return result
        finally:
            await server.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    "headers",
    [
        {**AS_JSON, "Origin": "https://page.example"},
        {**AS_JSON, "Origin": "null"},
        {**AS_JSON, "Sec-Fetch-Site": "cross-site"},
        {**AS_JSON, "Host": "page.example:8701"},
        {**AS_JSON, "Host": "127.0.0.1.page.example"},
        {**AS_JSON, "Host": "10.0.0.7:8701"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
    ids=lambda headers: ", ".join(f"{name} {value}" for name, value in headers.items()),
)
def test_requests_that_a_web_page_makes_a_browser_send_move_no_money(headers: dict[str, str]) -> None:
    """Another origin, a host name that resolves to this machine, or a body that a form can send: 403 and a reason."""
    desk = Desk()
    before = desk.seen.equity
    status, text = _post(desk, "accounts/main/flows", WITHDRAWAL, headers)
    assert (status, json.loads(text)["code"]) == (403, "not_allowed")
    assert desk.seen.equity == before


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:8701"])
def test_programs_on_this_machine_may_use_any_loopback_name(host: str) -> None:
    """A forwarded port has another number, and loopback has three names."""
    desk = Desk()
    headers = {"Content-Type": "application/json; charset=utf-8", "Host": host}
    assert _post(desk, "accounts/main/flows", WITHDRAWAL, headers)[0] == 200
    assert desk.seen.equity == 9000


@pytest.mark.parametrize("number", ["NaN", "sNaN", "Infinity", "-Infinity", "1e999999", "0e999999", "1e-999999"])
@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("accounts/main/flows", {"kind": "deposit"}, "amount"),
        ("accounts/main/orders", ORDER, "amount"),
        ("accounts/main/orders", {**ORDER, "type": "limit"}, "price"),
        ("accounts/main/taken", {"symbol": "A"}, "price"),
        ("states", {"symbol": "A", "state": "open"}, "price_band"),
        ("states", {"symbol": "A", "state": "delisted"}, "delivery"),
    ],
    ids=["flow", "order", "limit", "taken", "band", "delivery"],
)
def test_d14_an_invalid_number_is_rejected_by_field_name_and_the_account_stays_usable(
    path: str, body: dict[str, object], name: str, number: str
) -> None:
    """Once in a wallet, it would make every later answer an error."""
    desk = Desk()
    status, text = _post(desk, path, {**body, name: number}, AS_JSON)
    refusal = json.loads(text)
    assert (status, refusal["code"]) == (400, "bad_request")
    assert name in refusal["text"]
    assert (desk.seen.equity, desk.seen.orders) == (Decimal(10_000), ())


def test_an_invalid_number_rejects_the_whole_batch() -> None:
    """No order of the batch is executed."""
    desk = Desk()
    status, text = _post(desk, "accounts/main/orders/batch", [ORDER, {**ORDER, "amount": "NaN"}], AS_JSON)
    assert (status, "amount is not a number" in text) == (400, True)
    assert desk.seen.positions == ()


def test_a_delivery_price_below_zero_is_rejected() -> None:
    """Delivered at such a price, a position would pay the side that owes."""
    status, text = _post(Desk(), "states", {"symbol": "A", "state": "delisted", "delivery": "-1"}, AS_JSON)
    assert (status, "delivery is below zero" in text) == (400, True)
