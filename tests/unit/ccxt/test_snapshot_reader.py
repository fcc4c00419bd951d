"""A snapshot is read in parts with maximum ages; a part that is too old is unknown, and the snapshot states why."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec import Struct, field

from killswitch.model.snapshot import Balance, Fill, Flow, Mark, Order, Position, WatchedPrice
from killswitch.model.venue import AccountSpec, RateLimitedError, VenueDownError
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect
from killswitch_ccxt.equity import AccountEquity
from killswitch_ccxt.instruments import Quote
from killswitch_ccxt.parts import KEPT, LATE_ROWS, RETRY_AFTER, phase_of
from killswitch_ccxt.rules import Rules
from killswitch_ccxt.snapshot_reader import SnapshotReader
from killswitch_ccxt.traits import Ages
from killswitch_ccxt.venues.generic import Generic
from tests.virtual_time import START, VirtualTime

SYMBOL = "A/USDT:USDT"
ON_TIME = next(name for name in map(str, itertools.count()) if phase_of(name) > 0.99)
"""An account whose parts are due after their full ages, the first time as every other."""
RULE = {"symbol": SYMBOL, "swap": True, "contractSize": Decimal(1), "precision": {"amount": "0.001"}, "limits": {}}
AGES = Ages(orders=5.0, fills=15.0, flows=20.0, quotes=10.0, mode=60.0, states=60.0, clock=300.0)


class VenueData(Struct):
    """The data of the venue, the requests that were made, and which of them fail."""

    cash: Decimal = Decimal(1000)
    size: Decimal = Decimal(2)
    maintenance: Decimal | None = None
    wallet: Decimal | None = None
    unrealized: Decimal | None = None
    flows: tuple[Flow, ...] = ()
    fills: tuple[Fill, ...] = ()
    alone: Decimal | None = None
    """The equity that the venue states where its positions cannot be read."""
    skew_ms: float | None = None
    """By how much the venue's clock is ahead."""
    broken: dict[str, BaseException] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    symbols_of_fills: list[tuple[str, ...]] = field(default_factory=list)
    """The symbols that each request for fills names."""

    def record(self, request: str) -> None:
        self.requests.append(request)
        if request in self.broken:
            raise self.broken[request]

    def count(self, request: str) -> int:
        return self.requests.count(request)


def _dialect(venue: VenueData) -> type[Dialect]:
    class FromVenueData(Generic):
        exchange = "binanceusdm"
        ages = AGES
        complete_lists = frozenset({"fills", "flows"})

        @property
        def rules(self) -> Mapping[str, Mapping[str, Any]]:
            return {SYMBOL: RULE}

        async def account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
            venue.record("account")
            held = (Position(SYMBOL, "long", venue.size, mark_price=Decimal(10)),) if venue.size else ()
            own = Balance("USDT", venue.cash, Decimal(1), wallet=venue.wallet)
            balances = None if venue.wallet is None else (own,)
            return AccountEquity(
                venue.cash, cash=venue.cash, maintenance_margin=venue.maintenance, balances=balances,
                unrealized=venue.unrealized,
            ), held  # fmt: skip

        async def equity_alone(self) -> AccountEquity | None:
            return None if venue.alone is None else AccountEquity(venue.alone)

        async def orders(self) -> tuple[Order, ...]:
            venue.record("orders")
            return (Order("o1", SYMBOL, "sell", Decimal(1), trigger_price=Decimal(8)),)

        async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
            venue.record("fills")
            venue.symbols_of_fills.append(tuple(symbols))
            return venue.fills

        async def flows(self, since: int) -> tuple[Flow, ...]:
            venue.record("flows")
            return venue.flows

        async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
            venue.record("quotes")
            return {SYMBOL: Quote(bid=Decimal("9.9"), ask=Decimal("10.1"))}

        async def marks(self, symbols: Sequence[str]) -> Mapping[str, Decimal]:
            venue.record("marks")
            return dict.fromkeys(symbols, Decimal(11))

    return FromVenueData


def _run(
    venue: VenueData,
    scenario: Callable[[SnapshotReader, VirtualTime], Awaitable[None]],
    account: str = ON_TIME,
    watch: tuple[str, ...] = (),
    orders_first: bool = False,
) -> None:
    """Run a scenario with a snapshot reader of this venue, in virtual time."""
    time = VirtualTime()
    spec = AccountSpec(
        account,
        "ccxt",
        "swap",
        "USDT",
        None,
        {"clock": time},
        {},
        exchange="binanceusdm",
        watch=watch,
        orders_first=orders_first,
    )

    async def play() -> None:
        kind = _dialect(venue)
        client = Client(spec, kind)
        client.ccxt.has["fetchTime"] = False
        dialect = kind(client, spec)
        rules = Rules(client, dialect, spec)

        async def ready(*, again: bool = False, every: float | None = None) -> None:
            """The rules are available, unless their request fails."""
            client.skew_ms = venue.skew_ms
            venue.record("rules")

        rules.ready = ready  # type: ignore[method-assign] # not under test
        try:
            await scenario(SnapshotReader(client, dialect, spec, rules), time)
        finally:
            await client.close()

    time.run(play())


def test_equity_and_positions_are_read_each_time_and_other_parts_at_their_ages() -> None:
    """In thirty quiet seconds with a tick a second: orders six times, fills and flows twice."""
    venue = VenueData()

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        for _ in range(30):
            seen = await reader.snapshot()
            assert seen.quality == "ok"
            await time.sleep(1.0)

    _run(venue, scenario)
    counts = {name: venue.count(name) for name in ("account", "orders", "fills", "flows", "quotes")}
    assert counts == {"account": 30, "orders": 6, "fills": 2, "flows": 2, "quotes": 3}


def test_accounts_that_start_together_do_not_request_their_orders_together() -> None:
    """The second order requests of twenty accounts are spread over the five seconds of the part's age."""
    seconds = Counter[int]()
    for number in range(20):
        venue = VenueData()

        async def scenario(reader: SnapshotReader, time: VirtualTime, venue: VenueData = venue) -> None:
            while venue.count("orders") < 2:
                await reader.snapshot()
                await time.sleep(1.0)
            seconds[int(time.elapsed)] += 1

        _run(venue, scenario, account=f"desk-{number}")
    assert max(seconds.values()) <= 10


def test_a_position_change_fetches_fills_and_flows_in_the_same_snapshot_and_orders_soon() -> None:
    """What may explain a change is fetched with it, flows too: somebody may close and withdraw at the same time."""
    venue = VenueData()
    fill = Fill("f1", START, SYMBOL, "sell", Decimal(1), Decimal(10))

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        await reader.snapshot()
        await time.sleep(6.0)
        await reader.snapshot()
        await time.sleep(1.0)
        venue.size, venue.fills = Decimal(1), (fill,)
        seen = await reader.snapshot()
        assert (seen.fills, venue.count("orders"), venue.count("fills"), venue.count("flows")) == ((fill,), 2, 2, 2)
        await time.sleep(1.0)
        await reader.snapshot()
        assert venue.count("orders") == 3

    _run(venue, scenario)


def test_under_constant_activity_all_orders_are_read_at_most_every_other_second() -> None:
    """The order lists cost most of the venue's rate limits; closing fetches them itself."""
    venue = VenueData()

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        for _ in range(40):
            reader.note_activity(SYMBOL)
            await reader.snapshot()
            await time.sleep(0.25)

    _run(venue, scenario)
    assert venue.count("orders") == 5


def test_a_change_of_cash_fetches_the_ledger_in_the_same_snapshot() -> None:
    """A withdrawal is in the snapshot whose equity it reduced, so it is never read as a loss."""
    venue = VenueData()
    flow = Flow("w1", START, "withdrawal", Decimal(-400), "USDT")

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        await reader.snapshot()
        await time.sleep(6.0)
        venue.cash, venue.flows = Decimal(600), (flow,)
        seen = await reader.snapshot()
        assert (seen.equity, seen.flows) == (Decimal(600), (flow,))

    _run(venue, scenario)


def test_a_row_is_returned_once_though_requests_overlap() -> None:
    """The venue returns the same minute again with every request."""
    venue = VenueData(flows=(Flow("d1", START, "deposit", Decimal(5), "USDT"),))

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        row_ids = []
        for _ in range(60):
            row_ids += [row.id for row in (await reader.snapshot()).flows or ()]
            await time.sleep(1.0)
        assert row_ids == ["d1"]
        assert venue.count("flows") == 3

    _run(venue, scenario)


def test_a_row_read_in_a_failed_snapshot_is_returned_in_the_next() -> None:
    """No row is lost between its fetch and its snapshot."""
    venue = VenueData()
    flow = Flow("d1", START, "deposit", Decimal(5), "USDT")

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        await reader.snapshot()
        await time.sleep(25.0)
        venue.broken["account"], venue.flows = VenueDownError("maintenance"), (flow,)
        assert (await reader.snapshot()).quality == "down"
        venue.broken.clear()
        assert (await reader.snapshot()).flows == (flow,)

    _run(venue, scenario)


def test_an_account_without_rules_is_down_even_if_its_equity_alone_could_be_read() -> None:
    """The venue does not return its list of markets at the start: the snapshot states that, and nothing raises."""
    venue = VenueData(alone=Decimal(1000), broken={"rules": VenueDownError("no list of markets")})

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        seen = await reader.snapshot()
        assert (seen.quality, seen.reason, seen.equity) == ("down", "no list of markets", None)

    _run(venue, scenario)


def test_under_constant_change_row_fetches_stay_within_their_allowance() -> None:
    """Half a minute of changes: the first fetch, those of the first two seconds, then one every ten seconds.

    The changes begin at 1 s: flows are read at 0, 1, 2, 3, 13 and 23 s. Fills are also read every five seconds.
    """
    venue, fetched_at = VenueData(), []

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        for second in range(30):
            venue.size, venue.cash = Decimal(second + 1), Decimal(1000 - second)
            before = venue.count("flows")
            await reader.snapshot()
            fetched_at.extend([second] * (venue.count("flows") - before))
            await time.sleep(1.0)

    _run(venue, scenario)
    assert fetched_at == [0, 1, 2, 3, 13, 23]
    assert 30 / 5 <= venue.count("fills") <= len(fetched_at) + 30 / 5


def test_rows_are_fetched_at_once_and_again_until_they_are_complete_past_the_change() -> None:
    """After a withdrawal: at once, after 1, 2, 5, 10 and 20 s, and then at the normal rate."""
    venue, fetched_at = VenueData(), []

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        for second in range(80):
            venue.cash = Decimal(1000 if second < 25 else 700)
            before = venue.count("flows")
            seen = await reader.snapshot()
            fetched_at.extend([second] * (venue.count("flows") - before))
            if second == 45:
                assert seen.flows_as_of == START + timedelta(seconds=45)
            await time.sleep(1.0)

    _run(venue, scenario)
    assert fetched_at == [0, 20, 25, 26, 27, 30, 35, 45, 65]


def test_rows_are_complete_up_to_the_time_of_their_request_until_one_fails() -> None:
    """By the venue's clock; after a failed request nothing is complete, however recent the one before it."""
    venue = VenueData()

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        await reader.snapshot()
        venue.skew_ms = 250.0
        seen = await reader.snapshot()
        assert (seen.fills_as_of, seen.flows_as_of) == (START + timedelta(milliseconds=250),) * 2
        await time.sleep(AGES.fills - 1)
        seen = await reader.snapshot()
        assert seen.fills_as_of == START + timedelta(milliseconds=250)
        venue.broken["fills"] = VenueDownError("the trades are away")
        await time.sleep(1.0)
        seen = await reader.snapshot()
        assert (seen.fills_as_of, seen.flows_as_of) == (None, START + timedelta(milliseconds=250))

    _run(venue, scenario)


def test_row_lag_is_measured_by_rows_that_an_earlier_fetch_lacked() -> None:
    """Filled at 3 s, missing at 15 s, present at 16 s: 13 s late. A row younger than the last fetch is not late."""
    venue = VenueData()

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        assert (await reader.snapshot()).row_lag_s is None
        await time.sleep(15.0)
        on_time = Fill("f0", START + timedelta(seconds=7), SYMBOL, "sell", Decimal(1), Decimal(10))
        venue.fills = (on_time,)
        assert (await reader.snapshot()).row_lag_s is None
        await time.sleep(1.0)
        late = Fill("f1", START + timedelta(seconds=3), SYMBOL, "sell", Decimal(1), Decimal(10))
        venue.cash, venue.fills = Decimal(999), (on_time, late)
        seen = await reader.snapshot()
        assert ([row.id for row in seen.fills or ()], seen.row_lag_s) == (["f1"], 13.0)
        await time.sleep(3601.0)
        assert (await reader.snapshot()).row_lag_s is None

    _run(venue, scenario)


def test_a_symbol_that_is_no_longer_held_has_a_mark_for_five_minutes() -> None:
    """From the snapshot in which the position vanished on; a venue that returns no mark does not fail the snapshot."""
    venue = VenueData()

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        assert (await reader.snapshot()).marks is None
        await time.sleep(1.0)
        venue.size = Decimal(0)
        seen = await reader.snapshot()
        assert (seen.positions, seen.marks) == ((), (Mark(SYMBOL, Decimal(11)),))
        await time.sleep(1.0)
        assert (await reader.snapshot()).marks == (Mark(SYMBOL, Decimal(11)),)
        venue.broken["marks"] = VenueDownError("no prices")
        await time.sleep(1.0)
        seen = await reader.snapshot()
        assert (seen.quality, seen.marks) == ("ok", None)
        venue.broken.clear()
        await time.sleep(300.0)
        before = venue.count("marks")
        assert ((await reader.snapshot()).marks, venue.count("marks")) == (None, before)

    _run(venue, scenario)


def test_a_quote_more_than_a_second_older_than_the_mark_is_left_out() -> None:
    """An index from before a crash, compared with a mark from within it, would make the mark look wrong."""
    venue = VenueData()

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        await reader.snapshot()
        await time.sleep(2.0)
        (position,) = (await reader.snapshot()).positions or ()
        assert (position.mark_price, position.bid, position.ask) == (Decimal(10), None, None)

    _run(venue, scenario)


def test_equity_components_that_do_not_add_up_are_left_out() -> None:
    """An equity of 1000 is not a wallet of 900 and a profit of 50; 950 and 50 are."""
    venue = VenueData(wallet=Decimal(900), unrealized=Decimal(50))

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        seen = await reader.snapshot()
        assert (seen.quality, seen.equity, seen.unrealized) == ("ok", Decimal(1000), None)
        assert "differs from the equity by 50.00000000 USDT" in (seen.reason or "")
        venue.wallet = Decimal(950)
        seen = await reader.snapshot()
        assert (seen.unrealized, seen.reason) == (Decimal(50), None)

    _run(venue, scenario)


def test_a_wallet_that_differs_by_binary_rounding_is_unchanged() -> None:
    """Some venues compute with floats: otherwise the ledger would be fetched every second."""
    venue = VenueData(wallet=Decimal(1000), unrealized=Decimal(0))

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        for second in range(10):
            venue.wallet = Decimal(1000) + Decimal("1e-12") * second
            await reader.snapshot()
            await time.sleep(1.0)

    _run(venue, scenario)
    assert venue.count("flows") == 1


def test_a_fill_that_the_venue_publishes_late_is_still_found() -> None:
    """Its symbol is requested until 45 s after the position changed, not once."""
    venue, named_at = VenueData(), []

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        for second in range(150):
            venue.size = Decimal(2 if second < 60 else 1)
            venue.symbols_of_fills.clear()
            await reader.snapshot()
            if any(venue.symbols_of_fills):
                named_at.append(time.elapsed)
            await time.sleep(1.0)

    _run(venue, scenario)
    assert 60.0 in named_at
    assert max(named_at) >= 60.0 + LATE_ROWS
    assert [at for at in named_at if at > 60.0 + LATE_ROWS + AGES.fills] == []


def test_rows_that_cannot_be_fetched_are_unknown_at_once() -> None:
    """An empty list would claim that nobody has withdrawn money."""
    venue = VenueData()

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        assert (await reader.snapshot()).flows == ()
        venue.broken["flows"] = VenueDownError("the ledger is away")
        await time.sleep(AGES.flows)
        seen = await reader.snapshot()
        assert (seen.quality, seen.flows) == ("ok", None)
        assert seen.reason is not None
        assert "the ledger is away" in seen.reason

    _run(venue, scenario)


def test_a_rate_limited_part_raises_and_is_not_fetched_before_its_retry_time() -> None:
    """A venue that states when to retry bans clients that retry earlier."""
    venue = VenueData(broken={"flows": RateLimitedError("banned", 45.0)})

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        with pytest.raises(RateLimitedError):
            await reader.snapshot()
        for _ in range(44):
            await time.sleep(1.0)
            assert (await reader.snapshot()).quality == "ok"
        assert venue.count("flows") == 1

    _run(venue, scenario)


def test_orders_that_cannot_be_read_are_kept_for_a_time_and_then_unknown() -> None:
    """A little after four ages they are None, and the snapshot states why; its quality is still `ok`."""
    venue = VenueData()

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        assert (await reader.snapshot()).orders is not None
        venue.broken["orders"] = VenueDownError("the order system is away")
        await time.sleep(KEPT * AGES.orders + RETRY_AFTER)
        with_orders = await reader.snapshot()
        assert (with_orders.orders is not None, with_orders.reason) == (True, None)
        await time.sleep(1.0)
        without_orders = await reader.snapshot()
        assert (without_orders.quality, without_orders.orders) == ("ok", None)
        assert without_orders.reason is not None
        assert "the order system is away" in without_orders.reason

    _run(venue, scenario)


@pytest.mark.parametrize("error", [VenueDownError("away"), KeyError("contracts")])
def test_equity_or_positions_that_cannot_be_read_are_never_an_empty_account(error: BaseException) -> None:
    """The snapshot is down or malformed, with a reason and without numbers."""
    venue = VenueData(broken={"account": error})

    async def scenario(reader: SnapshotReader, _: VirtualTime) -> None:
        seen = await reader.snapshot()
        assert seen.quality == ("down" if isinstance(error, VenueDownError) else "malformed")
        assert seen.reason
        assert (seen.positions, seen.equity, seen.orders) == (None, None, None)

    _run(venue, scenario)


def test_a_rate_limit_error_is_raised_to_the_caller() -> None:
    """The component that counts requests must receive it."""
    venue = VenueData(broken={"account": RateLimitedError("slow down", 3.0)})

    async def scenario(reader: SnapshotReader, _: VirtualTime) -> None:
        with pytest.raises(RateLimitedError):
            await reader.snapshot()

    _run(venue, scenario)


def test_margin_in_use_without_positions_is_malformed() -> None:
    """One of the two answers is wrong, and the empty one is the dangerous one (case C2)."""
    venue = VenueData(size=Decimal(0), maintenance=Decimal(12))

    async def scenario(reader: SnapshotReader, _: VirtualTime) -> None:
        seen = await reader.snapshot()
        assert (seen.quality, seen.positions) == ("malformed", None)

    _run(venue, scenario)


def test_quotes_are_added_to_positions_and_never_replace_the_marks() -> None:
    """The venue's own mark stays unchanged."""
    venue = VenueData()

    async def scenario(reader: SnapshotReader, _: VirtualTime) -> None:
        (position,) = (await reader.snapshot()).positions or ()
        assert (position.mark_price, position.bid, position.ask) == (Decimal(10), Decimal("9.9"), Decimal("10.1"))

    _run(venue, scenario)


def test_a_watch_list_is_read_with_the_quotes_whether_or_not_anything_is_held() -> None:
    """One request every ten seconds for what is held and watched; in between, the same prices with their time."""
    venue = VenueData(size=Decimal(0))

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        for _ in range(30):
            seen = await reader.snapshot()
            assert seen.watched == (WatchedPrice(SYMBOL, bid=Decimal("9.9"), ask=Decimal("10.1")),)
            assert seen.reason == "watch: the venue's rules have no B/USDT:USDT"
            await time.sleep(1.0)

    _run(venue, scenario, watch=(SYMBOL, "B/USDT:USDT"))
    assert venue.count("quotes") == 3


def test_watched_prices_that_cannot_be_read_are_unknown_after_twice_their_age() -> None:
    """The account itself is read, and its snapshot states why."""
    venue = VenueData()

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        assert (await reader.snapshot()).watched is not None
        venue.broken["quotes"] = VenueDownError("no answer")
        await time.sleep(19.0)
        assert (await reader.snapshot()).watched is not None
        await time.sleep(2.0)
        seen = await reader.snapshot()
        assert (seen.quality, seen.watched, seen.reason) == ("ok", None, "watch: no answer")

    _run(venue, scenario, watch=(SYMBOL,))


def test_instruments_are_returned_once_and_stops_are_remembered_as_conditional() -> None:
    """Instruments are valid until they are returned again; a stop is cancelled by another request than an order."""
    venue = VenueData()

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        first = await reader.snapshot()
        await time.sleep(1.0)
        second = await reader.snapshot()
        assert ([each.symbol for each in first.instruments or ()], second.instruments) == ([SYMBOL], None)
        assert reader.kinds_of("o1") == (True,)
        assert reader.kinds_of("an order of before a restart") == (False, True)

    _run(venue, scenario)


def test_a_snapshot_is_dated_by_the_time_of_its_request() -> None:
    """Not by the time of the answer: the data may be as old as the request."""

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        await time.sleep(7.0)
        seen = await reader.snapshot()
        assert seen.observed_at == datetime(2021, 5, 19, 12, 0, 7, tzinfo=UTC)
        assert asyncio.get_running_loop().time() == 7.0

    _run(VenueData(), scenario)


@pytest.mark.parametrize("orders_first", [False, True])
def test_with_a_gate_orders_are_never_read_after_positions(orders_first: bool) -> None:
    """Also after a movement, which makes them due: read in the same snapshot they would be newer than the positions."""
    venue = VenueData()

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        for second in range(20):
            if second == 7:
                venue.size = Decimal(3)
            venue.requests.clear()
            seen = await reader.snapshot()
            assert seen.orders_as_of is not None
            assert seen.positions_as_of is not None
            assert seen.orders_as_of <= seen.positions_as_of
            if "orders" in venue.requests:
                is_before = venue.requests.index("orders") < venue.requests.index("account")
                assert is_before is orders_first
                assert seen.orders_as_of == seen.positions_as_of
            await time.sleep(1.0)

    _run(venue, scenario, orders_first=orders_first)


def test_old_orders_are_dated_by_their_own_request() -> None:
    """Orders of 5 s keep the time at which they were requested."""
    venue = VenueData()

    async def scenario(reader: SnapshotReader, time: VirtualTime) -> None:
        ages = []
        for _ in range(6):
            seen = await reader.snapshot()
            assert seen.orders_as_of is not None and seen.positions_as_of is not None
            ages.append((seen.positions_as_of - seen.orders_as_of).total_seconds())
            await time.sleep(1.0)
        assert ages == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0, 0.0], abs=0.01)

    _run(venue, scenario, orders_first=True)
