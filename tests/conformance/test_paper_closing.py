"""The executor on the paper venue: strict rules are met, and bounds hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.execution.account_executor import AccountExecutor
from killswitch.lab.rehearsal import VirtualClock
from killswitch.market.paper import PaperMarket
from killswitch.market.rules import MarketRules
from killswitch.market.tape import MarketBar
from killswitch.market.terms import read_terms
from killswitch.model.decision import Decision, Intent, Rung, Unwinding
from killswitch.model.snapshot import InstrumentState
from killswitch.model.store import JournalEntry
from killswitch.model.venue import AccountSpec
from killswitch.ratelimit.budget import RequestBudgets
from killswitch.store.sqlite import open_store
from killswitch_paper import adapter
from tests.closing_cases import commit
from tests.markets import FREE, START, Desk, bar, instrument

D = Decimal
BOOK = MarketRules(
    taker_fee=D(0), maker_fee=D(0), half_spread=D("0.001"), impact=D("0.1"), participation=D(1), liquidates=False
)
"""Of a bar of 1,000 at 100: bid 99.90, and each further unit sold costs 0.02 more."""
MINUTE = timedelta(minutes=1)


def _decision(intents: tuple[Intent, ...], unwinding: Unwinding | None = None) -> Decision:
    return Decision(
        id="d" * 20, as_of=START, policy="p", policy_set="sha256:0", scope="account/main", mode="enforce",
        stage="close", level=1, previous_level=0, intents=intents, unwinding=unwinding,
    )  # fmt: skip


def _all(desk: Desk, *, left: str = "0", band: str | None = None) -> tuple[Intent, ...]:
    """Every position down to `left`."""
    return tuple(
        Intent(
            "main", held.symbol, held.side, "sell" if held.side == "long" else "buy", held.contracts - D(left), D(left),
            reduce_only=True, rank=rank, band=D(band) if band else None,
        )
        for rank, held in enumerate(desk.seen.positions or (), 1)
    )  # fmt: skip


class Closed:
    """A decision brought to its end on a desk: the journal, and the seconds that it took."""

    def __init__(
        self,
        desk: Desk,
        decision: Decision,
        folder: Path,
        bars: Mapping[str, MarketBar] | None = None,
        minutely: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`bars` close each minute, and `minutely` is called with the number of each."""
        assert desk.market.now is not None
        self._desk = desk
        self._bars = bars or {}
        self._minutely = minutely
        self.stuck: set[str] = set()
        self._clock = VirtualClock(desk.market.now)
        store = open_store(str(folder / "store.sqlite"))
        try:
            commit(store, decision)
            options: dict[str, object] = {"market": desk.market, "clock": self._clock}
            venue = adapter(AccountSpec("main", "paper", desk.seen.market, "USDT", None, options, {}))
            budget = RequestBudgets().of("main", "paper", venue.traits)
            closer = AccountExecutor("main", venue, store, self._clock, budget=budget)
            closer.adopt(decision)
            asyncio.run(asyncio.wait_for(self._drive(closer), 30))
            self.journal: tuple[JournalEntry, ...] = tuple(store.journal(decision.id))
        finally:
            store.close()
        self.seconds = self._clock.monotonic()

    async def _drive(self, closer: AccountExecutor) -> None:
        minute = 0
        while await closer.advance():
            self.stuck.update(closer.stalls.values())
            await self._clock.sleep(min(max(closer.wait, 0.02), 1.0))
            if self._clock.monotonic() >= (minute + 1) * MINUTE.total_seconds():
                minute += 1
                self._desk.market.advance(self._clock.now(), self._bars)
                self._minutely(minute)

    def fields_of(self, kind: str, *names: str) -> list[tuple[str | None, ...]]:
        """Those fields of the entries of a kind."""
        return [tuple(entry.data.get(name) for name in names) for entry in self.journal if entry.kind == kind]

    @property
    def status(self) -> str | None:
        (finished,) = self.fields_of("finished", "status")
        return finished[0]


def test_a_bound_is_kept_step_by_step_until_one_has_none(tmp_path: Path) -> None:
    """Within 0.5% the book has (99.90 − 99.50) ÷ 0.02 = 20, within 1.5% 50 more; the market order takes the rest."""
    desk = Desk(rules=BOOK)
    desk.market.open_position("main", "A", "long", D(20000))
    ladder = (Rung("limit_ioc"), Rung("limit_ioc", D(3)), Rung("market", tries=2), Rung("limit", D(3)))
    closed = Closed(desk, _decision(_all(desk, band="0.005"), Unwinding("u", ladder)), tmp_path)
    sent = [("limit_ioc", "99.50"), ("limit_ioc", "98.50"), ("market", None)]
    assert closed.fields_of("sending", "order", "price") == sent
    filled = [(state, D(amount or 0)) for state, amount in closed.fields_of("filled", "state", "filled")]
    assert filled == [("expired", D(20)), ("expired", D(50)), ("filled", D(130))]
    assert (closed.status, desk.seen.positions) == ("flat", ())


def test_c6_c22_blocking_exits_are_cancelled_and_restored_for_what_is_left(tmp_path: Path) -> None:
    """Of 300 with a take-profit and a stop, 100 are left: both rest again, over 100, with their prices."""
    desk = Desk(terms=read_terms({"resting_exits_block": True}))
    desk.send("buy", "300")
    desk.send("sell", "300", reduce_only=True, price="120")
    desk.send("sell", "300", reduce_only=True, falls_to="90")
    closed = Closed(desk, _decision(_all(desk, left="100")), tmp_path)
    assert closed.fields_of("rejected", "reason") == [("blocked_by_order",)]
    assert desk.position().contracts == 100
    resting = [(o.amount, o.price, o.trigger_price, o.reduce_only) for o in desk.market.open_orders("main")]
    assert sorted(resting, key=str) == sorted([(100, 120, None, True), (100, None, 90, True)], key=str)
    desk.pass_bar(A=bar("100", low="85"))
    assert desk.seen.positions == ()


def test_c14_a_close_keeps_to_the_venues_limit_and_takes_no_longer_than_needed(tmp_path: Path) -> None:
    """Thirty orders at ten in ten seconds: ten at once, ten at 10 s and ten at 20 s, and none is refused."""
    limits = [{"name": "orders", "allowed": 10, "per": 10}]
    costs = [{"call": call, "limit": "orders", "each": 1} for call in ("submit", "submit_batch")]
    symbols = [instrument(f"S{number}") for number in range(30)]
    desk = Desk(*symbols, wallet="1e6", terms=read_terms({"limits": limits, "costs": costs, "batch": 5}))
    for symbol in symbols:
        desk.market.open_position("main", symbol.symbol, "long", D(1000))
    closed = Closed(desk, _decision(_all(desk)), tmp_path)
    assert (closed.status, desk.seen.positions) == ("flat", ())
    assert (len(closed.fields_of("sending")), closed.fields_of("rejected")) == (30, [])
    assert 20 <= closed.seconds < 20.5


@pytest.mark.parametrize("blocked", [False, True])
def test_c8_both_sides_of_a_symbol_are_closed_each_by_its_own_order(tmp_path: Path, blocked: bool) -> None:
    """5 long and 3 short: flat, with two orders, or three where a stop had to be cancelled first."""
    desk = Desk()
    desk.market = PaperMarket([instrument("A")], seed=1, rules=FREE, terms=read_terms({"resting_exits_block": blocked}))
    desk.market.add_account("main", market="swap", currency="USDT", wallet=D(10000), leverage=D(10), hedge=True)
    desk.pass_bar(A=bar("100"))
    desk.send("buy", "5", position_side="long")
    desk.send("sell", "3", position_side="short")
    desk.send("sell", "5", position_side="long", falls_to="90")
    closed = Closed(desk, _decision(_all(desk)), tmp_path)
    assert (closed.status, desk.seen.positions, desk.seen.orders) == ("flat", (), ())
    assert len(closed.fields_of("sending")) == 2 + blocked
    assert desk.seen.equity == 10000


def test_c19_two_hops_sell_the_proceeds_of_the_first_and_nothing_else(tmp_path: Path) -> None:
    """10 X bring 0.0999… BTC; whole lots of it are sold for USDT, and the 0.1 BTC held before stay."""
    names = {"X/BTC": {"price_step": "0.00000001"}, "BTC/USDT": {"amount_step": "0.00001", "min_amount": "0.00001"}}
    symbols = [instrument(name, **more) for name, more in names.items()]
    desk = Desk(*symbols, wallet="20000", market="spot", rules=MarketRules(participation=D(1)))
    desk.pass_bar(**{"X/BTC": bar("0.01"), "BTC/USDT": bar("50000")})
    for symbol in names:
        desk.market.open_position("main", symbol, "long", D(5000))
    hops = (
        Intent("main", "X/BTC", "long", "sell", D(10), D(0), reduce_only=False, rank=1),
        Intent(
            "main", "BTC/USDT", "long", "sell", D("0.1"), D("0.1"), reduce_only=False, rank=2, purpose="hop", after=0
        ),
    )
    closed = Closed(desk, _decision(hops), tmp_path)
    assert closed.status == "flat"
    (left,) = desk.seen.positions or ()
    assert left.symbol == "BTC/USDT"
    assert D("0.1") <= left.contracts < D("0.1") + D("0.00001")


@pytest.mark.parametrize("state", ["limit_only", "post_only"])
def test_c11_an_exit_is_found_where_market_orders_are_not_accepted(tmp_path: Path, state: InstrumentState) -> None:
    """At once where a limit may cross, and with the next bars where it must rest."""
    desk = Desk(rules=BOOK)
    desk.market.open_position("main", "A", "long", D(3000))
    desk.market.set_state("A", state)
    closed = Closed(desk, _decision(_all(desk)), tmp_path, {"A": bar("100", high="103", low="97")})
    assert (closed.status, desk.seen.positions) == ("flat", ())
    assert {order for (order,) in closed.fields_of("sending", "order")} == {"limit"}
    assert (closed.seconds < 1) == (state == "limit_only")


def test_c12_a_halt_delays_no_other_symbol_and_is_outlasted(tmp_path: Path) -> None:
    """A is halted for ten minutes: B is closed at once, A is reported as waiting for the opening, and closed then."""
    desk = Desk(instrument("A"), instrument("B"))
    for symbol in ("A", "B"):
        desk.market.open_position("main", symbol, "long", D(1000))
    desk.market.set_state("A", "halted")
    left: dict[int, list[str]] = {}

    def minutely(minute: int) -> None:
        left[minute] = [held.symbol for held in desk.seen.positions or ()]
        if minute == 10:
            desk.market.set_state("A", "open")

    closed = Closed(desk, _decision(_all(desk)), tmp_path, {"A": bar("100"), "B": bar("100")}, minutely)
    assert (left[1], left[10]) == (["A"], ["A"])
    assert any("A waits for the market to open" in each for each in closed.stuck), closed.stuck
    assert (closed.status, desk.seen.positions) == ("flat", ())
    assert 600 <= closed.seconds < 900


def test_c21_a_deleveraging_by_the_venue_during_a_close_is_respected(tmp_path: Path) -> None:
    """Of 250, 100 are sold at once and 100 in the first minute; of 50 left ADL takes 30, and 20 are sold: no more."""
    desk = Desk(rules=MarketRules(impact=D(0), participation=D("0.1"), liquidates=False))
    desk.market.open_position("main", "A", "long", D(25000))

    def minutely(minute: int) -> None:
        if minute == 1:
            desk.market.deleverage("main", "A", D(30), D(99))

    closed = Closed(desk, _decision(_all(desk)), tmp_path, {"A": bar("100")}, minutely)
    assert (closed.status, desk.seen.positions) == ("flat", ())
    fills = [(fill.cause, fill.side, fill.amount) for fill in desk.seen.fills or ()]
    assert fills == [("trade", "sell", 100), ("trade", "sell", 100), ("adl", "sell", 30), ("trade", "sell", 20)]
