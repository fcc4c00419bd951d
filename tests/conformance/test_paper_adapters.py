"""One list of promises for both ways to the paper venue: in process, and over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest

from killswitch.model.venue import AccountSpec, OrderRejectedError, OrderRequest, VenueAdapter
from killswitch_paper import adapter
from killswitch_paper.server import serve
from tests.markets import START, Desk, bar, instrument

Promise = Callable[[VenueAdapter, Desk], Awaitable[None]]


def _spec(**more: object) -> AccountSpec:
    endpoint = more.pop("endpoint", None)
    assert endpoint is None or isinstance(endpoint, str)
    return AccountSpec("main", "paper", "swap", "USDT", endpoint, more, {})


async def _in_process(desk: Desk, promise: Promise) -> None:
    venue = adapter(_spec(market=desk.market))
    await promise(venue, desk)
    await venue.close()


async def _over_http(desk: Desk, promise: Promise) -> None:
    server = await serve(desk.market, port=0, now=lambda: desk.market.now or START)
    venue = adapter(_spec(endpoint=server.address))
    try:
        await promise(venue, desk)
    finally:
        await venue.close()
        await server.close()


@pytest.fixture(params=[_in_process, _over_http], ids=["in process", "over HTTP"])
def keeps(request: pytest.FixtureRequest) -> Callable[[Promise], None]:
    """Hold one way against a promise, on a fresh desk: A at 100, 10,000 USDT, 10×, nothing costs anything."""

    def run(promise: Promise) -> None:
        asyncio.run(request.param(Desk(instrument("A", min_notional="5")), promise))

    return run


def _order(number: int, side: str, amount: str, **more: object) -> OrderRequest:
    fields = {"reduce_only": False, "position_side": "long" if side == "buy" else "short", **more}
    return OrderRequest(f"c{number}", "A", side, amount=Decimal(amount), **fields)  # type: ignore[arg-type] # as named


def test_a_snapshot_is_what_the_market_says(keeps: Callable[[Promise], None]) -> None:
    """Nothing is lost or changed on the way, whatever the numbers look like."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        await venue.submit(_order(1, "buy", "0.333"))
        await venue.submit(_order(2, "buy", "1", type="limit", price=Decimal("99.99")))
        desk.pass_bar(A=bar("100.01"))
        desk.market.flow("main", "deposit", Decimal("0.00000001"))
        seen, said = await venue.snapshot(), desk.seen
        for name in said.__struct_fields__:
            if name != "health":
                assert getattr(seen, name) == getattr(said, name), name
        assert seen.health is not None
        assert (seen.health.requests, seen.health.errors, seen.health.malformed) == (1, 0, 0)

    keeps(promise)


def test_instruments_are_given_first_and_when_they_change(keeps: Callable[[Promise], None]) -> None:
    """The rules hold until they are given again."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        given = [(await venue.snapshot()).instruments, (await venue.snapshot()).instruments]
        desk.market.set_instrument(instrument("A", state="halted"))
        given.append((await venue.snapshot()).instruments)
        states = [one and one[0].state for one in given]
        assert states == [None, None, "halted"]
        assert [one is None for one in given] == [False, True, False]

    keeps(promise)


def test_an_order_is_reported_filled_and_found_again(keeps: Callable[[Promise], None]) -> None:
    """The answer to sending, the answer to asking, and the fills agree."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        sent = await venue.submit(_order(1, "buy", "2"))
        assert (sent.state, sent.filled, sent.average_price, sent.client_order_id) == ("filled", 2, 100, "c1")
        assert await venue.find_order("A", "c1") == sent
        (fill,) = await venue.fills("A", "c1")
        assert (fill.amount, fill.price, fill.order, fill.position_side) == (2, 100, sent.id, "long")

    keeps(promise)


def test_an_order_that_never_was_is_none(keeps: Callable[[Promise], None]) -> None:
    """The venue says that it has none: under that id, under that symbol."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        await venue.submit(_order(1, "buy", "2"))
        assert await venue.find_order("A", "c2") is None
        assert await venue.find_order("B", "c1") is None
        assert await venue.fills("A", "c2") == ()

    keeps(promise)


def test_a_refusal_keeps_its_reason(keeps: Callable[[Promise], None]) -> None:
    """Whoever closes must know whether there was nothing to close or something in the way (C13)."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        exit_order = _order(1, "sell", "1", reduce_only=True, position_side="long")
        with pytest.raises(OrderRejectedError) as flat:
            await venue.submit(exit_order)
        assert flat.value.reason == "already_flat"
        await venue.submit(_order(2, "buy", "1"))
        with pytest.raises(OrderRejectedError) as twice:
            await venue.submit(_order(2, "buy", "1"))
        assert twice.value.reason == "duplicate_client_order_id"
        with pytest.raises(OrderRejectedError) as small:
            await venue.submit(_order(3, "buy", "0.049"))
        assert small.value.reason == "below_minimum"

    keeps(promise)


def test_a_resting_order_is_listed_until_it_is_cancelled_once_or_twice(keeps: Callable[[Promise], None]) -> None:
    """Cancelling what is gone is no error."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        sent = await venue.submit(_order(1, "buy", "2", type="limit", price=Decimal(90)))
        assert [one.client_order_id for one in await venue.open_orders()] == ["c1"]
        for _ in range(2):
            await venue.cancel("A", sent.id)
        assert await venue.open_orders() == ()
        found = await venue.find_order("A", "c1")
        assert found is not None
        assert found.state == "canceled"

    keeps(promise)


def test_names_that_need_quoting_arrive(keeps: Callable[[Promise], None]) -> None:
    """A client id with every awkward sign is the same at the other end."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        awkward = "a/b?c=d&e #%ü"
        request = OrderRequest(awkward, "A", "buy", "long", Decimal(1), reduce_only=False)
        await venue.submit(request)
        found = await venue.find_order("A", awkward)
        assert found is not None
        assert found.client_order_id == awkward
        await venue.cancel("A", awkward)

    keeps(promise)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "needs an endpoint"),
        ({"market": "A"}, "is no PaperMarket"),
        ({"endpoint": "http://example.com:1"}, "is not http://127.0.0.1:PORT"),
        ({"endpoint": "https://127.0.0.1:1"}, "is not http://127.0.0.1:PORT"),
        ({"endpoint": "http://127.0.0.1:1", "timeout": "soon"}, "not a number of seconds"),
        ({"endpoint": "http://127.0.0.1:1", "timeout": 0}, "not a number of seconds"),
    ],
)
def test_an_account_that_leads_nowhere_is_refused(fields: dict[str, object], text: str) -> None:
    """The mistake is told when the adapter is made, not at the first tick."""
    with pytest.raises(ValueError, match=text):
        adapter(_spec(**fields))


def test_an_account_that_the_market_does_not_have_is_refused() -> None:
    """With the names of those it has."""
    desk = Desk()
    spec = AccountSpec("other", "paper", "swap", "USDT", None, {"market": desk.market}, {})
    with pytest.raises(ValueError, match="has no account other; it has main"):
        adapter(spec)
