"""Money that moves between two accounts of the paper market, in process and over HTTP."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from killswitch.market.paper import PaperMarket
from killswitch.model.venue import (
    AccountSpec,
    OrderRejectedError,
    SentTransfer,
    TransferFate,
    Transfers,
    VenueAdapter,
)
from killswitch_paper.client import HttpVenue
from killswitch_paper.local import LocalVenue
from killswitch_paper.server import serve
from tests.markets import START, bar, instrument


def market() -> PaperMarket:
    """Two accounts in USDT with 1,000 each, one of them with 600 of it in margin, and one in USDC."""
    made = PaperMarket([instrument("A")], seed=1)
    for name, currency in (("main", "USDT"), ("treasury", "USDT"), ("other", "USDC")):
        made.add_account(name, market="swap", currency=currency, wallet=Decimal(1000))
    made.advance(START, {"A": bar("100")})
    made.open_position("treasury", "A", "long", Decimal(600), Decimal(1))
    return made


def test_a_transfer_moves_free_money_with_a_row_in_each_account_and_creates_none() -> None:
    """400 of the 1,000 are free; the sum of both equities stays at 2,000."""
    one = market()
    assert one.snapshot("treasury").free == 400
    one.move("treasury", "main", Decimal(400), "t1")
    seen = {name: one.snapshot(name) for name in ("treasury", "main")}
    assert {name: account.equity for name, account in seen.items()} == {"treasury": 600, "main": 1400}
    rows = [(row.kind, row.amount) for account in seen.values() for row in account.flows or ()]
    assert rows == [("transfer", -400), ("transfer", 400)]


@pytest.mark.parametrize(
    ("account", "amount", "words"),
    [
        ("main", "400.01", "treasury has 400 free"),
        ("main", "0", "not 0"),
        ("main", "-5", "not -5"),
        ("other", "1", "cannot move USDT to other"),
        ("treasury", "1", "cannot move USDT to treasury"),
        ("nobody", "1", "cannot move USDT to nobody"),
    ],
)
def test_a_transfer_that_is_refused_moves_nothing(account: str, amount: str, words: str) -> None:
    one = market()
    with pytest.raises(OrderRejectedError, match=words):
        one.move("treasury", account, Decimal(amount), "t1")
    assert {one.snapshot(name).equity for name in one.accounts} == {1000}


def test_an_id_moves_money_once() -> None:
    one = market()
    one.move("treasury", "main", Decimal(100), "t1")
    with pytest.raises(OrderRejectedError, match="t1 already"):
        one.move("treasury", "main", Decimal(100), "t1")
    assert one.snapshot("main").equity == 1100


def test_both_paper_adapters_offer_it_and_name_the_place_that_two_accounts_share() -> None:
    """In process and over HTTP; two markets are two places."""

    async def run() -> None:
        one = market()
        server = await serve(one, port=0, now=lambda: START)
        specs = [AccountSpec(name, "paper", "swap", "USDT", server.address, {}, {}) for name in ("treasury", "main")]
        remote = [HttpVenue(spec, 5.0) for spec in specs]
        try:
            await _moved(remote[0], remote[1])
            with pytest.raises(OrderRejectedError, match="300 free"):
                await _transfers(remote[0]).send("main", Decimal(301), "t2")
        finally:
            for each in remote:
                await each.close()
            await server.close()
        two = market()
        local = [LocalVenue(name, two, None) for name in ("treasury", "main")]
        await _moved(local[0], local[1])
        assert one.snapshot("main").equity == two.snapshot("main").equity == 1100
        assert _transfers(LocalVenue("main", one, None)).place != _transfers(local[0]).place

    asyncio.run(run())


def _transfers(venue: VenueAdapter) -> Transfers:
    assert venue.transfers is not None
    return venue.transfers


async def _moved(source: VenueAdapter, target: VenueAdapter) -> None:
    assert _transfers(source).place == _transfers(target).place
    await _transfers(source).send(_transfers(target).name, Decimal(100), "t1")


def test_a_transfer_whose_answer_was_lost_is_looked_up_over_http() -> None:
    """The market has made it: `moved`. One that it does not have may still arrive: `open`, and never `failed`."""

    async def run() -> tuple[TransferFate, TransferFate]:
        one = market()
        server = await serve(one, port=0, now=lambda: START)
        venue = HttpVenue(AccountSpec("treasury", "paper", "swap", "USDT", server.address, {}, {}), 5.0)
        try:
            find = _transfers(venue).find
            assert find is not None
            sent = SentTransfer("main", Decimal(100), "t1", START)
            before = await find(sent)
            one.move("treasury", "main", Decimal(100), "t1")  # the answer of this one never arrives
            return before, await find(sent)
        finally:
            await venue.close()
            await server.close()

    assert asyncio.run(run()) == ("open", "moved")
