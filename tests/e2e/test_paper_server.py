"""`ksctl paper` as a separate process, reached over loopback through the adapter."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import pytest

from killswitch.model.snapshot import AccountSnapshot, OrderSide
from killswitch.model.venue import AccountSpec, OrderRejectedError, OrderRequest, RateLimitedError, VenueAdapter
from killswitch_paper import adapter
from tests.e2e.fork_client import Process, begin, finish

T = TypeVar("T")
WAIT_LIMIT = 30.0


@contextmanager
def _serving(*options: str) -> Iterator[tuple[str, Process]]:
    """The address and the process of a running server, which is stopped by its id."""
    with begin(("paper", *options), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), address
            yield address, process
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)


def _call_venue(address: str, use: Callable[[VenueAdapter], Awaitable[T]]) -> T:
    async def run() -> T:
        venue = adapter(AccountSpec("main", "paper", "swap", "USDT", address, {}, {}))
        try:
            return await asyncio.wait_for(use(venue), WAIT_LIMIT)
        finally:
            await venue.close()

    return asyncio.run(run())


def test_a_book_is_closed_to_the_last_contract_over_the_wire() -> None:
    """Each of the demo's eight positions is closed reduce-only; then there is none, and equity equals P&L less fees."""

    async def close_all(venue: VenueAdapter) -> tuple[AccountSnapshot, AccountSnapshot]:
        before = await venue.snapshot()
        for number, held in enumerate(before.positions or ()):
            side = "sell" if held.side == "long" else "buy"
            await venue.submit(
                OrderRequest(f"close{number}", held.symbol, side, held.side, held.contracts, reduce_only=True)  # type: ignore[arg-type] # side is one of the two
            )
        after = await venue.snapshot()
        while after.positions:  # a bar's volume may not be enough: the remainder fills in the next ones
            after = await venue.snapshot()
        return before, after

    with _serving("--crash", "1", "--speed", "6000") as (address, _):
        before, after = _call_venue(address, close_all)
    assert (before.quality, len(before.positions or ())) == ("ok", 8)
    assert after.positions == ()
    fees = sum((fill.fee or Decimal(0) for fill in after.fills or ()), Decimal(0))
    realized = sum((fill.realized_pnl or Decimal(0) for fill in after.fills or ()), Decimal(0))
    assert after.equity == 100000 + realized - fees
    assert fees > 0


def test_a_close_between_two_bars_leaves_nothing_unexplained() -> None:
    """At real-time speed, marks and fills dated between two snapshots explain every change of equity between them.

    ΔE = Σ quantity × Δmark of what was held before + (realised − fees of the new rows, against the new marks): the
    fills' prices are compared with the mark of the second snapshot, without trusting `realized_pnl`.
    """

    async def close_all(venue: VenueAdapter) -> tuple[AccountSnapshot, AccountSnapshot]:
        before = await venue.snapshot()
        for number, held in enumerate(before.positions or ()):
            side: OrderSide = "sell" if held.side == "long" else "buy"
            request = OrderRequest(f"c{number}", held.symbol, side, held.side, held.contracts / 2, reduce_only=True)
            with suppress(OrderRejectedError):  # half of an odd lot is no lot
                await venue.submit(request)
        return before, await venue.snapshot()

    with _serving("--crash", "1", "--speed", "1") as (address, _):
        before, after = _call_venue(address, close_all)
    assert before.observed_at is not None and after.observed_at is not None
    assert before.equity is not None and after.equity is not None
    seen = {fill.id for fill in before.fills or ()}
    rows = [fill for fill in after.fills or () if fill.id not in seen]
    assert len(rows) >= 4
    assert all(before.observed_at < fill.at <= after.observed_at for fill in rows)
    marks = {p.symbol: p.mark_price for p in after.positions or ()} | {
        m.symbol: m.mark_price for m in after.marks or ()
    }
    explained = Decimal(0)
    for held in before.positions or ():
        mark = marks[held.symbol]
        assert mark is not None and held.mark_price is not None
        explained += (held.contracts if held.side == "long" else -held.contracts) * (mark - held.mark_price)
    for fill in rows:
        mark = marks[fill.symbol]
        assert mark is not None and fill.fee is not None
        explained += (fill.amount if fill.side == "buy" else -fill.amount) * (mark - fill.price) - fill.fee
    assert after.equity - before.equity == explained
    assert explained < 0


def test_prices_change_by_themselves_at_the_given_speed() -> None:
    """At 6,000 times real time a one-minute bar passes every 10 ms: prices change without any order."""

    async def two_prices(venue: VenueAdapter) -> None:
        first = (await venue.snapshot()).positions
        while (await venue.snapshot()).positions == first:
            pass

    with _serving("--crash", "1", "--speed", "6000") as (address, _):
        _call_venue(address, two_prices)


def test_at_speed_zero_prices_do_not_change() -> None:
    """Two snapshots differ in their time and in nothing else."""

    async def twice(venue: VenueAdapter) -> tuple[AccountSnapshot, AccountSnapshot]:
        return await venue.snapshot(), await venue.snapshot()

    with _serving("--crash", "1", "--speed", "0") as (address, _):
        first, second = _call_venue(address, twice)
    assert first.observed_at is not None and second.observed_at is not None
    assert first.observed_at < second.observed_at
    assert first.positions == second.positions != ()
    assert first.equity == second.equity


def test_every_client_gets_every_fill() -> None:
    """A preview at the same time as a runner gets the same fill, and so does a client that connects later."""

    async def buy(venue: VenueAdapter) -> AccountSnapshot:
        await venue.submit(OrderRequest("x", "BTC_USDT", "buy", "short", Decimal("0.1"), reduce_only=True))
        return await venue.snapshot()

    with _serving("--crash", "1", "--speed", "0") as (address, _):
        first = _call_venue(address, buy)
        second = _call_venue(address, lambda venue: venue.snapshot())
    assert first.fills == second.fills
    assert len(first.fills or ()) == 1


def test_a_venue_with_terms_enforces_them(tmp_path: Path) -> None:
    """The second order within an hour is refused without effect; the used count is returned, and liquidity is shown."""
    terms = tmp_path / "terms.yaml"
    terms.write_text(
        "limits: [{name: orders, allowed: 1, per: 3600}]\n"
        "costs: [{call: submit, limit: orders, each: 1}]\n"
        "liquidity: true\n"
    )

    async def buy_twice(venue: VenueAdapter) -> tuple[AccountSnapshot, object]:
        await venue.submit(OrderRequest("x", "BTC_USDT", "buy", "short", Decimal("0.1"), reduce_only=True))
        with pytest.raises(RateLimitedError):
            await venue.submit(OrderRequest("y", "BTC_USDT", "buy", "short", Decimal("0.1"), reduce_only=True))
        return await venue.snapshot(), venue.used()

    with _serving("--crash", "1", "--speed", "0", "--terms", str(terms)) as (address, _):
        seen, used = _call_venue(address, buy_twice)
    assert (len(seen.fills or ()), used) == (1, {"orders": 1})
    assert "BTC_USDT" in {each.symbol for each in seen.liquidity or ()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_and_the_venue_is_then_down(number: signal.Signals) -> None:
    """The process ends with 0; the adapter returns a snapshot of quality down, without numbers."""
    with _serving("--crash", "1", "--speed", "0") as (address, process):
        os.kill(process.pid, number)
        assert process.wait(WAIT_LIMIT) == 0
        seen = _call_venue(address, lambda venue: venue.snapshot())
    assert (seen.quality, seen.positions, seen.equity) == ("down", None, None)


def test_real_bars_and_a_real_book_are_served(shared: Path) -> None:
    """The book is opened at the close of the bar after the skipped ones."""
    market = shared / "data/market/2021-05-19_binance-spot_1m"
    book = shared / "data/books/short-2021-05-19.yaml"
    options = ("--market", str(market), "--book", str(book), "--skip", "3000", "--speed", "0")
    with _serving(*options) as (address, _):
        seen = _call_venue(address, lambda venue: venue.snapshot())
    assert seen.equity == 100000
    assert {(p.symbol, p.side) for p in seen.positions or ()} == {
        ("BTC_USDT", "short"), ("ETH_USDT", "short"), ("LINK_USDT", "short"), ("XRP_USDT", "short")}  # fmt: skip
    btc = next(p for p in seen.positions or () if p.symbol == "BTC_USDT")
    assert btc.mark_price is not None and abs(btc.mark_price / 40000 - 1) < Decimal("0.1")


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        ((), 64, "Give either --market DIR or --crash SEED."),
        (("--crash", "1", "--market", "x"), 64, "Give either --market DIR or --crash SEED."),
        (("--crash", "-1"), 64, "-1 is not in the range x>=0"),
        (("--market", "x"), 64, "--market needs --book FILE."),
        (("--market", "nowhere", "--book", "b.yaml"), 1, "nowhere: no such folder"),
        (("--crash", "1", "--book", "none.yaml"), 1, "none.yaml: No such file"),
        (("--crash", "1", "--terms", "none.yaml"), 1, "none.yaml: No such file"),
        (("--crash", "1", "--terms", __file__), 1, "test_paper_server.py: "),
        (("--crash", "1", "--skip", "100000"), 1, "no bar is left after skipping 100000"),
        (("--crash", "1", "--port", "70000"), 64, "70000"),
    ],
)
def test_a_wrong_call_prints_a_message_and_no_traceback(
    tmp_path: Path, options: tuple[str, ...], status: int, text: str
) -> None:
    """Wrong usage exits 64, an unreadable file exits 1."""
    done = finish(("paper", *options), cwd=tmp_path, timeout=WAIT_LIMIT)
    assert done.returncode == status
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_reported() -> None:
    """The second server on the same port fails with a message."""
    with _serving("--crash", "1", "--speed", "0") as (address, _):
        port = address.rpartition(":")[2]
        done = finish(("paper", "--crash", "1", "--port", port), timeout=WAIT_LIMIT)
    assert done.returncode == 1
    assert f"cannot serve on port {port}" in done.stderr


def test_the_market_does_not_move_before_the_requested_number_of_snapshots() -> None:
    """A client sees the first prices however late it starts; the bars advance after its last requested snapshot."""

    async def equities(venue: VenueAdapter) -> list[Decimal | None]:
        # Without waiting, two of the venue's bars would have closed before the first answer.
        await asyncio.sleep(0.1)
        seen = [(await venue.snapshot()).equity for _ in range(3)]
        async with asyncio.timeout(WAIT_LIMIT):
            while (moved := (await venue.snapshot()).equity) == seen[0]:
                pass
        return [*seen, moved]

    with _serving("--crash", "1", "--speed", "6000", "--begin-after-readings", "3") as (address, _):
        first, second, third, moved = _call_venue(address, equities)
    assert first == second == third != moved
