"""One list of promises for both adapters of the paper venue: in process, and over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal

import aiohttp
import pytest

from killswitch.market.terms import read_terms
from killswitch.model.venue import (
    AccountSpec,
    ConditionalOrderRule,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    Prices,
    RateLimit,
    RateLimitedError,
    VenueAdapter,
    VenueDescription,
)
from killswitch_paper import adapter
from killswitch_paper.server import serve
from tests.markets import START, Desk, bar, instrument

Promise = Callable[[VenueAdapter, Desk], Awaitable[None]]


def _spec(**more: object) -> AccountSpec:
    endpoint = more.pop("endpoint", None)
    assert endpoint is None or isinstance(endpoint, str)
    return AccountSpec("main", "paper", "swap", "USDT", endpoint, more, {})


async def _in_process(desk: Desk, promise: Promise, terms: dict[str, object]) -> None:
    venue = adapter(_spec(market=desk.market))
    await promise(venue, desk)
    await venue.close()


async def _over_http(desk: Desk, promise: Promise, terms: dict[str, object]) -> None:
    server = await serve(desk.market, port=0, now=lambda: desk.market.now or START)
    venue = adapter(_spec(endpoint=server.address, **terms))
    try:
        await promise(venue, desk)
    finally:
        await venue.close()
        await server.close()


@pytest.fixture(params=[_in_process, _over_http], ids=["in process", "over HTTP"])
def keeps(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Check a promise for one adapter, on a fresh desk: A at 100, 10,000 USDT, 10×, no costs; with these terms."""

    def run(promise: Promise, **terms: object) -> None:
        asyncio.run(request.param(Desk(instrument("A", min_notional="5"), terms=read_terms(terms)), promise, terms))

    return run


def _order(number: int, side: str, amount: str, **more: object) -> OrderRequest:
    fields = {"reduce_only": False, "position_side": "long" if side == "buy" else "short", **more}
    return OrderRequest(f"c{number}", "A", side, amount=Decimal(amount), **fields)  # type: ignore[arg-type] # as named


def test_a_snapshot_equals_the_state_of_the_market(keeps: Callable[[Promise], None]) -> None:
    """Nothing is lost or changed on the way, whatever the numbers look like."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        await venue.submit(_order(1, "buy", "0.333"))
        await venue.submit(_order(2, "buy", "1", type="limit", price=Decimal("99.99")))
        desk.pass_bar(A=bar("100.01"))
        desk.market.flow("main", "deposit", Decimal("0.00000001"))
        seen, stated = await venue.snapshot(), desk.seen
        for name in stated.__struct_fields__:
            if name != "health":
                assert getattr(seen, name) == getattr(stated, name), name
        assert seen.health is not None
        assert (seen.health.requests, seen.health.errors, seen.health.malformed) == (1, 0, 0)

    keeps(promise)


def test_prices_are_fetched_separately(keeps: Callable[[Promise], None]) -> None:
    """For a second poll: the price of each symbol, and its time; a missing symbol is left out."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        assert venue.prices is not None
        desk.pass_bar(A=bar("97.5"))
        price = Decimal("97.5")
        assert await venue.prices(["A", "Z"]) == {"A": Prices(price, price, price, desk.market.now)}
        assert await venue.prices([]) == {}

    keeps(promise)


def test_a_fill_after_a_snapshot_is_dated_after_it() -> None:
    """The server's clock runs on between bars: a fill is never older than the snapshot that did not show it."""
    desk = Desk()
    seconds = iter(range(1, 100))

    async def run() -> None:
        server = await serve(desk.market, port=0, now=lambda: START + timedelta(minutes=1, seconds=next(seconds)))
        venue = adapter(_spec(endpoint=server.address))
        try:
            await venue.submit(_order(1, "buy", "1"))
            before = await venue.snapshot()
            await venue.submit(_order(2, "sell", "1", reduce_only=True, position_side="long"))
            after = await venue.snapshot()
        finally:
            await venue.close()
            await server.close()
        (old,) = before.fills or ()
        _, new = after.fills or ()
        assert before.observed_at is not None and after.observed_at is not None
        assert START + timedelta(minutes=1) < old.at < before.observed_at < new.at < after.observed_at

    asyncio.run(run())


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
    """The answer to sending, the answer to the query, and the fills agree."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        sent = await venue.submit(_order(1, "buy", "2"))
        assert (sent.state, sent.filled, sent.average_price, sent.client_order_id) == ("filled", 2, 100, "c1")
        assert await venue.find_order("A", "c1") == sent
        (fill,) = await venue.fills("A", "c1")
        assert (fill.amount, fill.price, fill.order, fill.position_side) == (2, 100, sent.id, "long")

    keeps(promise)


def test_an_order_that_was_never_sent_is_not_found(keeps: Callable[[Promise], None]) -> None:
    """The venue answers that it has none: under that id, under that symbol."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        await venue.submit(_order(1, "buy", "2"))
        assert await venue.find_order("A", "c2") is None
        assert await venue.find_order("B", "c1") is None
        assert await venue.fills("A", "c2") == ()

    keeps(promise)


def test_a_refusal_keeps_its_reason(keeps: Callable[[Promise], None]) -> None:
    """Closing must know whether there was nothing to close or a blocking order (C13)."""

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
    """Cancelling an order that is gone is no error."""

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


def test_ids_that_need_quoting_arrive(keeps: Callable[[Promise], None]) -> None:
    """A client order id with every special character is the same at the other end."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        awkward = "a/b?c=d&e #%ü"
        request = OrderRequest(awkward, "A", "buy", "long", Decimal(1), reduce_only=False)
        await venue.submit(request)
        found = await venue.find_order("A", awkward)
        assert found is not None
        assert found.client_order_id == awkward
        await venue.cancel("A", awkward)

    keeps(promise)


def test_conditional_and_immediate_orders_arrive_as_they_were_sent(keeps: Callable[[Promise], None]) -> None:
    """A stop is listed with its trigger and sent when the price falls; the rest of an immediate limit has expired."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        await venue.submit(_order(1, "buy", "2"))
        stop = await venue.submit(desk.order("sell", "2", reduce_only=True, falls_to="95", client_order_id="c2"))
        (listed,) = await venue.open_orders()
        assert (stop.state, listed.trigger_price, listed.client_order_id) == ("open", 95, "c2")
        away = await venue.submit(desk.order("buy", "1", price="99", ioc=True, client_order_id="c3"))
        assert (away.state, away.filled) == ("expired", 0)
        desk.pass_bar(A=bar("100", low="90"))
        found = await venue.find_order("A", "c2")
        assert found is not None
        assert (found.state, found.average_price) == ("filled", 95)

    keeps(promise)


def test_a_batch_is_answered_order_by_order(keeps: Callable[[Promise], None]) -> None:
    """One refused among three leaves the others executed, each answer in its place."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        assert venue.batches is not None
        sent = [_order(1, "buy", "2"), _order(2, "buy", "0.049"), _order(3, "buy", "1")]
        first, second, third = await venue.batches.submit(sent)
        assert isinstance(first, OrderReport) and isinstance(third, OrderReport)
        assert (first.client_order_id, first.filled, third.client_order_id, third.filled) == ("c1", 2, "c3", 1)
        assert isinstance(second, OrderRejectedError) and second.reason == "below_minimum"
        with pytest.raises(OrderRejectedError, match="at most 3"):
            await venue.batches.submit([_order(number, "buy", "1") for number in range(4, 8)])
        assert desk.position().contracts == 3

    keeps(promise, batch=3)


def test_a_whole_book_is_closed_where_the_venue_supports_it(keeps: Callable[[Promise], None]) -> None:
    """The positions show that it was executed; a market whose terms lack it refuses the request."""
    market = Desk(instrument("A")).market
    with pytest.raises(OrderRejectedError):
        market.close_book("main")

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        assert venue.close_book is not None
        await venue.submit(_order(1, "buy", "2"))
        await venue.close_book()
        assert (await venue.snapshot()).positions == ()

    keeps(promise, whole_book=True)


def test_an_order_beyond_a_limit_is_refused_and_the_count_is_reported(keeps: Callable[[Promise], None]) -> None:
    """Two orders a minute: the third is refused, did nothing, and fits after the bar that lasts a minute."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        limit = {"name": "orders", "allowed": 2, "per": 60}
        desk.market.agree(read_terms({"limits": [limit], "costs": [{"call": "submit", "limit": "orders", "each": 1}]}))
        assert venue.used is not None
        for number in (1, 2):
            await venue.submit(_order(number, "buy", "1"))
        assert venue.used() == {"orders": 2}
        with pytest.raises(RateLimitedError) as caught:
            await venue.submit(_order(3, "buy", "1"))
        assert caught.value.retry_after == 60
        assert await venue.find_order("A", "c3") is None
        desk.pass_bar(A=bar("100"))
        await venue.submit(_order(3, "buy", "1"))
        assert (venue.used(), desk.position().contracts) == ({"orders": 1}, 3)

    keeps(promise)


def test_liquidity_arrives_with_the_snapshot(keeps: Callable[[Promise], None]) -> None:
    """The snapshot has the liquidity of the market."""

    async def promise(venue: VenueAdapter, desk: Desk) -> None:
        assert (await venue.snapshot()).liquidity is None
        desk.market.agree(read_terms({"liquidity": True}))
        desk.pass_bar(A=bar("100"))
        seen = (await venue.snapshot()).liquidity
        assert seen is not None and seen == desk.seen.liquidity
        assert (seen[0].symbol, seen[0].over) == ("A", 60.0)

    keeps(promise)


def test_an_adapter_declares_the_traits_of_its_venue() -> None:
    """In process from the market's terms, over HTTP from the account's options; plain where nothing is declared."""
    desk = Desk(terms=read_terms({"batch": 5}))
    batches = adapter(_spec(market=desk.market)).batches
    assert batches is not None and batches.most == 5
    away: dict[str, object] = {"endpoint": "http://127.0.0.1:1"}
    plain = adapter(_spec(**away))
    # Its market fills reduce-only orders at the position at most, and knows one price.
    one_price = ConditionalOrderRule(("mark", "index", "last"))
    bounded = VenueDescription(enforces_reduce_only=True, conditional_orders=one_price)
    assert (plain.traits, plain.batches, plain.close_book) == (bounded, None, None)
    stated = adapter(_spec(**away, batch=20, limits=[{"name": "a", "allowed": 3, "per": 1, "by": "symbol"}]))
    assert stated.batches is not None
    assert (stated.batches.most, stated.traits.limits) == (20, (RateLimit("a", 3, 1.0, "symbol"),))


def test_the_venues_own_actions_over_http() -> None:
    """A part is taken, the symbol is halted and delivered; an impossible action is refused with the reason."""

    async def play(venue: VenueAdapter, desk: Desk, endpoint: str) -> None:
        await venue.submit(_order(1, "buy", "10"))
        async with aiohttp.ClientSession() as session:

            async def post(path: str, **body: str) -> tuple[int, str]:
                async with session.post(f"{endpoint}/v1/{path}", json=body) as answer:
                    return answer.status, await answer.text()

            status, text = await post("accounts/main/taken", symbol="A", price="90", contracts="4")
            assert status == 200 and '"cause":"adl"' in text
            assert desk.position().contracts == 6
            assert (await post("accounts/main/taken", symbol="A", price="90", contracts="7"))[0] == 400
            assert (await post("states", symbol="A", state="halted"))[0] == 204
            with pytest.raises(OrderRejectedError) as caught:
                await venue.submit(_order(2, "buy", "1"))
            assert caught.value.reason == "market_closed"
            assert (await post("states", symbol="B", state="halted"))[0] == 400
            assert (await post("states", symbol="A", state="shut"))[0] == 400
            assert (await post("states", symbol="A", state="delisted", delivery="100"))[0] == 204
            assert desk.seen.positions == ()

    async def main() -> None:
        desk = Desk()
        server = await serve(desk.market, port=0, now=lambda: desk.market.now or START)
        venue = adapter(_spec(endpoint=server.address))
        try:
            await play(venue, desk, server.address)
        finally:
            await venue.close()
            await server.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "needs an endpoint"),
        ({"market": "A"}, "must be a PaperMarket"),
        ({"endpoint": "http://example.com:1"}, "is not http://127.0.0.1:PORT"),
        ({"endpoint": "https://127.0.0.1:1"}, "is not http://127.0.0.1:PORT"),
        ({"endpoint": "http://127.0.0.1:1", "timeout": "soon"}, "must be seconds above zero"),
        ({"endpoint": "http://127.0.0.1:1", "timeout": 0}, "must be seconds above zero"),
        ({"endpoint": "http://127.0.0.1:1", "batch": "many"}, "batch"),
    ],
)
def test_an_account_without_a_desk_is_refused(fields: dict[str, object], text: str) -> None:
    """The mistake is reported when the adapter is created, not at the first tick."""
    with pytest.raises(ValueError, match=text):
        adapter(_spec(**fields))


def test_an_account_that_the_market_does_not_have_is_refused() -> None:
    """With the names of the accounts it has."""
    desk = Desk()
    spec = AccountSpec("other", "paper", "swap", "USDT", None, {"market": desk.market}, {})
    with pytest.raises(ValueError, match="has no account other; it has main"):
        adapter(spec)
