"""A snapshot is read in parts that have ages; what is older than its part may be is unknown, and says why."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.snapshot import Balance, Fill, Flow, Mark, Order, Position
from killswitch.model.venue import AccountSpec, RateLimitedError, VenueDownError
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect
from killswitch_ccxt.equity import AccountEquity
from killswitch_ccxt.instruments import Quote
from killswitch_ccxt.parts import KEPT, LATE_ROWS, RETRY_AFTER, phase_of
from killswitch_ccxt.rules import Rules
from killswitch_ccxt.snapshot_reader import SnapshotReader
from killswitch_ccxt.traits import Ages
from tests.virtual_time import START, VirtualTime

SYMBOL = "A/USDT:USDT"
ON_TIME = next(name for name in map(str, itertools.count()) if phase_of(name) > 0.99)
"""An account whose parts are due after their whole ages, the first time as every other."""
RULE = {"symbol": SYMBOL, "swap": True, "contractSize": Decimal(1), "precision": {"amount": "0.001"}, "limits": {}}
AGES = Ages(orders=5.0, fills=15.0, flows=20.0, quotes=10.0, mode=60.0, states=60.0, clock=300.0)


@dataclass
class Venue:
    """What the venue would say, what was asked, and which questions fail."""

    cash: Decimal = Decimal(1000)
    size: Decimal = Decimal(2)
    maintenance: Decimal | None = None
    wallet: Decimal | None = None
    unrealized: Decimal | None = None
    flows: tuple[Flow, ...] = ()
    fills: tuple[Fill, ...] = ()
    broken: dict[str, BaseException] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def hear(self, question: str) -> None:
        self.asked.append(question)
        if question in self.broken:
            raise self.broken[question]

    def count(self, question: str) -> int:
        return self.asked.count(question)


def _dialect(venue: Venue) -> type[Dialect]:
    class Told(Dialect):
        exchange = "binanceusdm"
        ages = AGES

        @property
        def rules(self) -> Mapping[str, Mapping[str, Any]]:
            return {SYMBOL: RULE}

        async def account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
            venue.hear("account")
            held = (Position(SYMBOL, "long", venue.size, mark_price=Decimal(10)),) if venue.size else ()
            own = Balance("USDT", venue.cash, Decimal(1), wallet=venue.wallet)
            balances = None if venue.wallet is None else (own,)
            return AccountEquity(
                venue.cash, cash=venue.cash, maintenance_margin=venue.maintenance, balances=balances,
                unrealized=venue.unrealized,
            ), held  # fmt: skip

        async def orders(self) -> tuple[Order, ...]:
            venue.hear("orders")
            return (Order("o1", SYMBOL, "sell", Decimal(1), trigger_price=Decimal(8)),)

        async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
            venue.hear("fills")
            return venue.fills

        async def flows(self, since: int) -> tuple[Flow, ...]:
            venue.hear("flows")
            return venue.flows

        async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
            venue.hear("quotes")
            return {SYMBOL: Quote(bid=Decimal("9.9"), ask=Decimal("10.1"))}

        async def marks(self, symbols: Sequence[str]) -> Mapping[str, Decimal]:
            venue.hear("marks")
            return dict.fromkeys(symbols, Decimal(11))

    return Told


def _read(
    venue: Venue, course: Callable[[SnapshotReader, VirtualTime], Awaitable[None]], account: str = ON_TIME
) -> None:
    """Play a course over a reading of this venue, in virtual time."""
    time = VirtualTime()
    spec = AccountSpec(account, "ccxt", "swap", "USDT", None, {"clock": time}, {}, exchange="binanceusdm")

    async def play() -> None:
        kind = _dialect(venue)
        client = Client(spec, kind)
        client.ccxt.has["fetchTime"] = False
        dialect = kind(client, spec)
        rules = Rules(client, dialect, spec)

        async def ready(*, again: bool = False, every: float | None = None) -> None:
            """The rules are there."""

        rules.ready = ready  # type: ignore[method-assign] # they are not what is tried here
        try:
            await course(SnapshotReader(client, dialect, spec, rules), time)
        finally:
            await client.close()

    time.run(play())


def test_worth_and_positions_are_read_each_time_and_the_rest_at_its_age() -> None:
    """In thirty seconds of calm at a tick a second: orders six times, fills and flows twice."""
    venue = Venue()

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        for _ in range(30):
            seen = await reading.snapshot()
            assert seen.quality == "ok"
            await time.sleep(1.0)

    _read(venue, course)
    counts = {name: venue.count(name) for name in ("account", "orders", "fills", "flows", "quotes")}
    assert counts == {"account": 30, "orders": 6, "fills": 2, "flows": 2, "quotes": 3}


def test_accounts_that_begin_together_do_not_ask_for_their_orders_together() -> None:
    """Twenty accounts have their second reading of the orders spread over the five seconds of its age."""
    seconds = Counter[int]()
    for number in range(20):
        venue = Venue()

        async def course(reading: SnapshotReader, time: VirtualTime, venue: Venue = venue) -> None:
            while venue.count("orders") < 2:
                await reading.snapshot()
                await time.sleep(1.0)
            seconds[int(time.elapsed)] += 1

        _read(venue, course, account=f"desk-{number}")
    assert max(seconds.values()) <= 10


def test_a_position_that_moved_brings_fills_and_flows_in_the_same_snapshot_and_orders_soon() -> None:
    """What explains a change is asked for with it, flows too: who closes and takes the money out does both at once."""
    venue = Venue()
    fill = Fill("f1", START, SYMBOL, "sell", Decimal(1), Decimal(10))

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        await reading.snapshot()
        await time.sleep(6.0)
        await reading.snapshot()
        await time.sleep(1.0)
        venue.size, venue.fills = Decimal(1), (fill,)
        seen = await reading.snapshot()
        assert (seen.fills, venue.count("orders"), venue.count("fills"), venue.count("flows")) == ((fill,), 2, 2, 2)
        await time.sleep(1.0)
        await reading.snapshot()
        assert venue.count("orders") == 3

    _read(venue, course)


def test_a_storm_of_movement_reads_all_orders_no_more_than_every_other_second() -> None:
    """They are what costs most of the venue's limits; closing asks for them itself."""
    venue = Venue()

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        for _ in range(40):
            reading.note_activity(SYMBOL)
            await reading.snapshot()
            await time.sleep(0.25)

    _read(venue, course)
    assert venue.count("orders") == 5


def test_money_that_moved_brings_the_ledger_in_the_same_snapshot() -> None:
    """A withdrawal is told beside the equity that it left, so that it is never read as a loss."""
    venue = Venue()
    flow = Flow("w1", START, "withdrawal", Decimal(-400), "USDT")

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        await reading.snapshot()
        await time.sleep(6.0)
        venue.cash, venue.flows = Decimal(600), (flow,)
        seen = await reading.snapshot()
        assert (seen.equity, seen.flows) == (Decimal(600), (flow,))

    _read(venue, course)


def test_a_row_is_told_once_though_questions_overlap() -> None:
    """The venue gives the same minute again with every question."""
    venue = Venue(flows=(Flow("d1", START, "deposit", Decimal(5), "USDT"),))

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        told = []
        for _ in range(60):
            told += [row.id for row in (await reading.snapshot()).flows or ()]
            await time.sleep(1.0)
        assert told == ["d1"]
        assert venue.count("flows") == 3

    _read(venue, course)


def test_a_row_that_was_read_in_a_snapshot_that_failed_is_told_in_the_next() -> None:
    """Nothing gets lost between reading and telling."""
    venue = Venue()
    flow = Flow("d1", START, "deposit", Decimal(5), "USDT")

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        await reading.snapshot()
        await time.sleep(25.0)
        venue.broken["account"], venue.flows = VenueDownError("maintenance"), (flow,)
        assert (await reading.snapshot()).quality == "down"
        venue.broken.clear()
        assert (await reading.snapshot()).flows == (flow,)

    _read(venue, course)


def test_an_account_without_rules_is_down_even_where_its_worth_alone_could_be_read() -> None:
    """The venue's list of markets does not answer at the start: that is told, and nothing breaks."""
    venue = Venue()

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        async def ready(**_: Any) -> None:
            raise VenueDownError("no list of markets")

        async def worth_alone() -> AccountEquity:
            return AccountEquity(Decimal(1000))

        reading._rules.ready = ready  # type: ignore[assignment]
        reading._dialect.equity_alone = worth_alone  # type: ignore[method-assign]
        seen = await reading.snapshot()
        assert (seen.quality, seen.reason, seen.equity) == ("down", "no list of markets", None)

    _read(venue, course)


def test_a_storm_of_movement_spends_no_more_on_rows_than_its_allowance() -> None:
    """Half a minute of movement: the first reading, those of its first two seconds, then one each ten seconds.

    It begins at 1 s: flows are read at 0, 1, 2, 3, 13 and 23 s. Fills are read each five seconds besides.
    """
    venue, asked = Venue(), []

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        for second in range(30):
            venue.size, venue.cash = Decimal(second + 1), Decimal(1000 - second)
            before = venue.count("flows")
            await reading.snapshot()
            asked.extend([second] * (venue.count("flows") - before))
            await time.sleep(1.0)

    _read(venue, course)
    assert asked == [0, 1, 2, 3, 13, 23]
    assert 30 / 5 <= venue.count("fills") <= len(asked) + 30 / 5


def test_rows_are_asked_for_at_once_and_again_until_they_are_known_past_the_movement() -> None:
    """After a withdrawal: at once, after 1, 2, 5, 10 and 20 s, and then as rarely as before."""
    venue, asked = Venue(), []

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        for second in range(80):
            venue.cash = Decimal(1000 if second < 25 else 700)
            before = venue.count("flows")
            seen = await reading.snapshot()
            asked.extend([second] * (venue.count("flows") - before))
            if second == 45:
                assert seen.flows_as_of == START + timedelta(seconds=45)
            await time.sleep(1.0)

    _read(venue, course)
    assert asked == [0, 20, 25, 26, 27, 30, 35, 45, 65]


def test_up_to_when_rows_are_known_is_the_time_of_the_question_until_one_fails() -> None:
    """By the venue's clock; a reading that failed proves nothing, however young the one before it."""
    venue = Venue()

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        await reading.snapshot()
        reading._client.skew_ms = 250.0
        seen = await reading.snapshot()
        assert (seen.fills_as_of, seen.flows_as_of) == (START + timedelta(milliseconds=250),) * 2
        await time.sleep(AGES.fills - 1)
        seen = await reading.snapshot()
        assert seen.fills_as_of == START + timedelta(milliseconds=250)
        venue.broken["fills"] = VenueDownError("the trades are away")
        await time.sleep(1.0)
        seen = await reading.snapshot()
        assert (seen.fills_as_of, seen.flows_as_of) == (None, START + timedelta(milliseconds=250))

    _read(venue, course)


def test_how_late_rows_come_is_measured_by_those_that_an_earlier_reading_lacked() -> None:
    """Filled at 3 s, not there at 15 s, there at 16 s: 13 s late. One that is younger than the last reading is not."""
    venue = Venue()

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        assert (await reading.snapshot()).row_lag_s is None
        await time.sleep(15.0)
        on_time = Fill("f0", START + timedelta(seconds=7), SYMBOL, "sell", Decimal(1), Decimal(10))
        venue.fills = (on_time,)
        assert (await reading.snapshot()).row_lag_s is None
        await time.sleep(1.0)
        late = Fill("f1", START + timedelta(seconds=3), SYMBOL, "sell", Decimal(1), Decimal(10))
        venue.cash, venue.fills = Decimal(999), (on_time, late)
        seen = await reading.snapshot()
        assert ([row.id for row in seen.fills or ()], seen.row_lag_s) == (["f1"], 13.0)
        await time.sleep(3601.0)
        assert (await reading.snapshot()).row_lag_s is None

    _read(venue, course)


def test_a_symbol_that_is_held_no_more_has_its_mark_for_five_minutes() -> None:
    """In the snapshot in which it vanished and in those after it; a venue that does not tell it delays nothing."""
    venue = Venue()

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        assert (await reading.snapshot()).marks is None
        await time.sleep(1.0)
        venue.size = Decimal(0)
        seen = await reading.snapshot()
        assert (seen.positions, seen.marks) == ((), (Mark(SYMBOL, Decimal(11)),))
        await time.sleep(1.0)
        assert (await reading.snapshot()).marks == (Mark(SYMBOL, Decimal(11)),)
        venue.broken["marks"] = VenueDownError("no prices")
        await time.sleep(1.0)
        seen = await reading.snapshot()
        assert (seen.quality, seen.marks) == ("ok", None)
        venue.broken.clear()
        await time.sleep(300.0)
        before = venue.count("marks")
        assert ((await reading.snapshot()).marks, venue.count("marks")) == (None, before)

    _read(venue, course)


def test_no_price_is_put_beside_a_mark_that_is_more_than_a_second_younger() -> None:
    """An index from before a crash beside the mark in it would say that the mark does not hold."""
    venue = Venue()

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        await reading.snapshot()
        await time.sleep(2.0)
        (position,) = (await reading.snapshot()).positions or ()
        assert (position.mark_price, position.bid, position.ask) == (Decimal(10), None, None)

    _read(venue, course)


def test_parts_that_do_not_add_up_to_the_equity_are_not_told() -> None:
    """1000 of equity are not a wallet of 900 and 50 of profit; 950 and 50 are."""
    venue = Venue(wallet=Decimal(900), unrealized=Decimal(50))

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        seen = await reading.snapshot()
        assert (seen.quality, seen.equity, seen.unrealized) == ("ok", Decimal(1000), None)
        assert "differs from the equity by 50.00000000 USDT" in (seen.reason or "")
        venue.wallet = Decimal(950)
        seen = await reading.snapshot()
        assert (seen.unrealized, seen.reason) == (Decimal(50), None)

    _read(venue, course)


def test_a_wallet_that_differs_by_binary_rounding_has_not_moved() -> None:
    """Some venues reckon with floats: the ledger would be asked for each second."""
    venue = Venue(wallet=Decimal(1000), unrealized=Decimal(0))

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        for second in range(10):
            venue.wallet = Decimal(1000) + Decimal("1e-12") * second
            await reading.snapshot()
            await time.sleep(1.0)

    _read(venue, course)
    assert venue.count("flows") == 1


def test_a_fill_that_the_venue_writes_down_late_is_still_found() -> None:
    """Its symbol is asked for until three quarters of a minute after it moved, not once."""
    asked: list[tuple[float, tuple[str, ...]]] = []

    class Named(Venue):
        """Says which symbols were asked for."""

    venue = Named()

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        fills = reading._dialect.fills

        async def noted(symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
            asked.append((time.elapsed, tuple(symbols)))
            return await fills(symbols, since)

        reading._dialect.fills = noted  # type: ignore[method-assign] # to hear what is asked
        for second in range(150):
            venue.size = Decimal(2 if second < 60 else 1)
            await reading.snapshot()
            await time.sleep(1.0)

    _read(venue, course)
    named = [at for at, symbols in asked if symbols]
    assert 60.0 in named
    assert max(named) >= 60.0 + LATE_ROWS
    assert [at for at in named if at > 60.0 + LATE_ROWS + AGES.fills] == []


def test_rows_that_cannot_be_asked_for_are_unknown_at_once() -> None:
    """An empty list would say that nobody has taken money out."""
    venue = Venue()

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        assert (await reading.snapshot()).flows == ()
        venue.broken["flows"] = VenueDownError("the ledger is away")
        await time.sleep(AGES.flows)
        seen = await reading.snapshot()
        assert (seen.quality, seen.flows) == ("ok", None)
        assert seen.reason is not None
        assert "the ledger is away" in seen.reason

    _read(venue, course)


def test_a_part_that_is_refused_with_a_time_to_wait_is_told_to_who_counts() -> None:
    """A venue that says when to come back bans those who do not listen."""
    venue = Venue(broken={"flows": RateLimitedError("banned", 45.0)})

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        with pytest.raises(RateLimitedError):
            await reading.snapshot()
        for _ in range(44):
            await time.sleep(1.0)
            assert (await reading.snapshot()).quality == "ok"
        assert venue.count("flows") == 1

    _read(venue, course)


def test_orders_that_cannot_be_read_grow_old_and_then_are_unknown() -> None:
    """Four ages later, and a little: then None, and the snapshot says why; it is `ok` all the same."""
    venue = Venue()

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        assert (await reading.snapshot()).orders is not None
        venue.broken["orders"] = VenueDownError("the order system is away")
        await time.sleep(KEPT * AGES.orders + RETRY_AFTER)
        kept = await reading.snapshot()
        assert (kept.orders is not None, kept.reason) == (True, None)
        await time.sleep(1.0)
        gone = await reading.snapshot()
        assert (gone.quality, gone.orders) == ("ok", None)
        assert gone.reason is not None
        assert "the order system is away" in gone.reason

    _read(venue, course)


@pytest.mark.parametrize("error", [VenueDownError("away"), KeyError("contracts")])
def test_worth_or_positions_that_cannot_be_read_are_never_an_empty_account(error: BaseException) -> None:
    """Down or malformed, with a reason and without numbers."""
    venue = Venue(broken={"account": error})

    async def course(reading: SnapshotReader, _: VirtualTime) -> None:
        seen = await reading.snapshot()
        assert seen.quality == ("down" if isinstance(error, VenueDownError) else "malformed")
        assert seen.reason
        assert (seen.positions, seen.equity, seen.orders) == (None, None, None)

    _read(venue, course)


def test_being_refused_for_too_many_requests_is_raised() -> None:
    """Who counts requests must know."""
    venue = Venue(broken={"account": RateLimitedError("slow down", 3.0)})

    async def course(reading: SnapshotReader, _: VirtualTime) -> None:
        with pytest.raises(RateLimitedError):
            await reading.snapshot()

    _read(venue, course)


def test_margin_in_use_and_no_positions_is_malformed() -> None:
    """One of the two answers is wrong, and the empty one is the dangerous one (case C2)."""
    venue = Venue(size=Decimal(0), maintenance=Decimal(12))

    async def course(reading: SnapshotReader, _: VirtualTime) -> None:
        seen = await reading.snapshot()
        assert (seen.quality, seen.positions) == ("malformed", None)

    _read(venue, course)


def test_prices_are_put_beside_positions_and_never_in_the_place_of_the_marks() -> None:
    """The venue's own mark stays what it is."""
    venue = Venue()

    async def course(reading: SnapshotReader, _: VirtualTime) -> None:
        (position,) = (await reading.snapshot()).positions or ()
        assert (position.mark_price, position.bid, position.ask) == (Decimal(10), Decimal("9.9"), Decimal("10.1"))

    _read(venue, course)


def test_rules_are_given_once_and_stops_are_remembered_as_conditional() -> None:
    """Instruments hold until they are given again; a stop is cancelled in another way than an order."""
    venue = Venue()

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        first = await reading.snapshot()
        await time.sleep(1.0)
        second = await reading.snapshot()
        assert ([each.symbol for each in first.instruments or ()], second.instruments) == ([SYMBOL], None)
        assert reading.kinds_of("o1") == (True,)
        assert reading.kinds_of("an order of before a restart") == (False, True)

    _read(venue, course)


def test_a_snapshot_is_dated_when_it_was_asked_for() -> None:
    """Not when the answer came: what it shows may be as old as the question."""

    async def course(reading: SnapshotReader, time: VirtualTime) -> None:
        await time.sleep(7.0)
        seen = await reading.snapshot()
        assert seen.observed_at == datetime(2021, 5, 19, 12, 0, 7, tzinfo=UTC)
        assert asyncio.get_running_loop().time() == 7.0

    _read(Venue(), course)
