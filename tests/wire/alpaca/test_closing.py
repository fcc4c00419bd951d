"""A level-3 close at Alpaca on loopback: the closer, our adapter, and the market's hours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.decision import Decision, Intent
from killswitch.model.store import JournalEntry
from killswitch.ratelimit.budget import RequestBudgets
from killswitch.store.sqlite import open_store
from tests.closing_cases import commit
from tests.faults.exchange import Key, Market
from tests.faults.mishaps import Chance, Rule, Script
from tests.virtual_time import VirtualTime
from tests.wire.alpaca.scene import AAPL, BTC, EVENING, HELD, REGULAR, SPY, alpaca
from tests.wire.alpaca.venue import AlpacaWire

D = Decimal
HOUR = 3600.0
NONE = D(0)


class CloseRun:
    """The run of a close of a whole account: the journal, the seconds it took, the server afterwards."""

    def __init__(
        self,
        folder: Path,
        *,
        start: datetime = REGULAR,
        held: Mapping[Key, Decimal] = HELD,
        prepare: Callable[[AlpacaWire], object] = lambda _: None,
        outside_hours: Literal["queue", "extended"] | None = None,
        limit: float = 24 * HOUR,
        target: Decimal = NONE,
        **more: Any,
    ) -> None:
        """`limit`: seconds of the timeline after which the run ends. `target`: the amount to keep of each position."""
        self.stall_notices: set[str] = set()
        self.seconds = 0.0
        timeline = VirtualTime(start)
        intents = tuple(
            Intent(
                "main",
                symbol,
                side,
                "sell" if side == "long" else "buy",
                amount - target,
                target,
                reduce_only=False,
                rank=rank,
            )
            for rank, ((symbol, side), amount) in enumerate(held.items(), 1)
        )
        decision = Decision(
            id="d" * 20, as_of=start, policy="p", policy_set="sha256:0", scope="account/main", mode="enforce",
            stage="close", level=3, previous_level=0, intents=intents,
        )  # fmt: skip
        store = open_store(str(folder / "store.sqlite"))

        async def main() -> None:
            async with alpaca(timeline, held, outside_hours=outside_hours, **more) as (wire, venue):
                self.wire = wire
                prepare(wire)
                budget = RequestBudgets().of("main", "alpaca", venue.traits, D("0.5"))
                closer = AccountExecutor("main", venue, store, timeline, budget=budget)
                closer.adopt(decision)
                while await closer.advance() and timeline.elapsed < limit:
                    self.stall_notices.update(closer.stalls.values())
                    await timeline.sleep(min(max(closer.wait, 0.02), 30.0))

        try:
            commit(store, decision)
            timeline.run(main())
            self.journal: tuple[JournalEntry, ...] = tuple(store.journal(decision.id))
        finally:
            store.close()
        self.seconds = timeline.elapsed
        self.left = {key: amount for key, amount in self.wire.exchange.held.items() if amount}

    def fields(self, kind: str, *names: str) -> list[tuple[str | None, ...]]:
        """These fields of the journal entries of a kind."""
        return [tuple(entry.data.get(name) for name in names) for entry in self.journal if entry.kind == kind]

    @property
    def status(self) -> str | None:
        (finished,) = self.fields("finished", "status")
        return finished[0]


def test_longs_shorts_and_coins_are_closed(tmp_path: Path) -> None:
    """Three positions, three orders, flat within seconds, and no position is turned."""
    closed = CloseRun(tmp_path)
    assert (closed.status, closed.left, closed.wire.exchange.turned) == ("flat", {}, [])
    assert len(closed.wire.bodies) == 3
    intents = {body["symbol"]: body.get("position_intent") for body in closed.wire.bodies}
    assert intents == {AAPL: "sell_to_close", SPY: "buy_to_close", BTC: None}
    assert closed.seconds < 10


@pytest.mark.parametrize("mishap", ["done", "done_silent", "garbled", "nonsense"])
def test_an_accepted_order_without_an_answer_is_sent_once(tmp_path: Path, mishap: Any) -> None:
    """The closer queries the order by client order id, and does not send another."""
    closed = CloseRun(tmp_path, held={(AAPL, "long"): D(10)}, mishaps=Script(Rule("submit", mishap)))
    assert (closed.status, closed.left) == ("flat", {})
    assert closed.wire.calls("submit") == 1
    assert len(closed.fields("unknown")) == 1


@pytest.mark.parametrize("mishap", ["lost", "silent", "down"])
def test_an_order_that_never_arrived_is_sent_again_under_the_same_client_order_id(tmp_path: Path, mishap: Any) -> None:
    """Only after Alpaca has denied it."""
    closed = CloseRun(tmp_path, held={(AAPL, "long"): D(10)}, mishaps=Script(Rule("submit", mishap)))
    assert (closed.status, closed.left, closed.wire.exchange.turned) == ("flat", {}, [])
    assert closed.wire.calls("submit") == 2
    assert len(closed.fields("absent")) == 1


def test_a_stop_that_reserves_the_shares_is_cancelled_first(tmp_path: Path) -> None:
    """The order is refused for want of free shares; then the stop is cancelled and the position closed."""

    def prepare(wire: AlpacaWire) -> None:
        stop = wire.exchange.rest(AAPL, "sell", D(10), trigger_price=D(80), trigger_when="falls")
        wire.rows[stop] = {"position_intent": "sell_to_close"}

    closed = CloseRun(tmp_path, held={(AAPL, "long"): D(10)}, prepare=prepare)
    assert closed.fields("rejected", "reason") == [("blocked_by_order",)]
    assert (closed.status, closed.left) == ("flat", {})
    assert closed.wire.exchange.resting() == ()


def test_a_close_at_night_is_queued_and_filled_at_the_opening(tmp_path: Path) -> None:
    """Coins are sold at once; the order for shares rests at Alpaca until 09:30, is sent once, and is followed."""
    start = datetime(2021, 5, 20, 13, 15, tzinfo=REGULAR.tzinfo)
    held: dict[Key, Decimal] = {(AAPL, "long"): D(10), (BTC, "long"): D("0.5")}
    closed = CloseRun(tmp_path, start=start, held=held, outside_hours="queue")
    assert (closed.status, closed.left) == ("flat", {})
    assert len(closed.wire.bodies) == 2
    assert 900 <= closed.seconds < 960
    assert f"{AAPL} waits for the market to open: the venue has the order" in closed.stall_notices
    busiest = max(sum(at <= it.at < at + 60 for it in closed.wire.seen) for at in range(0, 900, 60))
    assert busiest <= 200


def test_a_close_at_night_without_outside_hours_waits_for_the_opening(tmp_path: Path) -> None:
    """The close is refused once without a request; the stall notice names the reason, and the opening ends it."""
    start = datetime(2021, 5, 20, 13, 10, tzinfo=REGULAR.tzinfo)
    closed = CloseRun(tmp_path, start=start, held={(AAPL, "long"): D(10)})
    assert (closed.status, closed.left) == ("flat", {})
    assert len(closed.wire.bodies) == 1
    assert HOUR / 3 <= closed.seconds < HOUR / 3 + 60
    assert f"{AAPL} waits for the market to open: until then orders are refused (market_closed)" in closed.stall_notices
    assert len(closed.fields("rejected")) == 1


def test_a_close_in_the_evening_uses_the_extended_session(tmp_path: Path) -> None:
    """Limit orders for the day within the band of the quote, for the long and for the short."""

    def prepare(wire: AlpacaWire) -> None:
        for market in wire.exchange.markets.values():
            market.slip = D("0.001")

    closed = CloseRun(
        tmp_path, start=EVENING, held={(AAPL, "long"): D(10), (SPY, "short"): D(4)}, outside_hours="extended",
        prepare=prepare,
    )  # fmt: skip
    assert (closed.status, closed.left) == ("flat", {})
    kinds = {(body["type"], body["time_in_force"], body.get("extended_hours")) for body in closed.wire.bodies}
    assert kinds == {("limit", "day", True)}
    prices = {body["symbol"]: D(body["limit_price"]) for body in closed.wire.bodies}
    # Not below 1% under the bid of 99.90, and not above 1% over the ask of 400.40.
    assert D("98.91") <= prices[AAPL] <= D("99.9")
    assert D("400.4") <= prices[SPY] <= D("404.40")
    assert closed.seconds < 60


def test_a_thin_extended_market_gets_new_limit_orders(tmp_path: Path) -> None:
    """An unfilled order is cancelled after seconds and replaced at the new quote, always with a limit."""

    def prepare(wire: AlpacaWire) -> None:
        wire.exchange.markets[AAPL].shares = [D(0), D("0.5"), D(1)]

    closed = CloseRun(
        tmp_path, start=EVENING, held={(AAPL, "long"): D(10)}, outside_hours="extended", prepare=prepare, limit=HOUR
    )
    assert (closed.status, closed.left, closed.wire.exchange.turned) == ("flat", {}, [])
    assert all(body["type"] == "limit" and body["extended_hours"] for body in closed.wire.bodies)
    assert closed.seconds < 120


def test_a_close_of_a_suspended_account_does_not_end(tmp_path: Path) -> None:
    """suspend_trade refuses our own closes too: a full close continues without end, and everything is still held."""

    def prepare(wire: AlpacaWire) -> None:
        wire.configuration["suspend_trade"] = True

    closed = CloseRun(tmp_path, held={(AAPL, "long"): D(10)}, prepare=prepare, limit=HOUR / 3)
    assert closed.fields("finished", "status") == []
    assert closed.left == {(AAPL, "long"): D(10)}
    assert {reason for (reason,) in closed.fields("rejected", "reason")} == {"permission"}


def test_a_large_book_is_closed_within_the_rate_limit(tmp_path: Path) -> None:
    """250 positions at 200 requests a minute: none is refused, and no minute has more than 200."""
    held: dict[Key, Decimal] = {(f"S{number:03}", "long"): D(10) for number in range(250)}
    markets = tuple(Market(symbol) for symbol, _ in held)
    closed = CloseRun(tmp_path, held=held, markets=markets, enforced=True, limit=HOUR)
    assert (closed.status, closed.left) == ("flat", {})
    assert closed.fields("rejected") == []
    busiest = max(sum(at <= it.at < at + 60 for it in closed.wire.seen) for at in {it.at for it in closed.wire.seen})
    assert busiest <= 200
    assert closed.seconds < 3 * 60


def test_half_is_sold_and_the_stop_is_restored_over_the_rest(tmp_path: Path) -> None:
    """A stop over ten shares is cancelled, five are sold, and it rests again over five at its price, close-only."""

    def prepare(wire: AlpacaWire) -> None:
        wire.exchange.rest(
            AAPL, "sell", D(10), trigger_price=D(80), trigger_when="falls", key=(AAPL, "long"), reduce_only=True
        )

    closed = CloseRun(tmp_path, held={(AAPL, "long"): D(10)}, prepare=prepare, target=D(5), limit=HOUR)
    assert (closed.status, closed.left) == ("flat", {(AAPL, "long"): D(5)})
    (stop,) = closed.wire.exchange.resting()
    assert (stop.amount, stop.trigger_price, stop.price) == (5, 80, None)
    body = closed.wire.bodies[-1]
    assert (body["type"], body["time_in_force"], body["position_intent"]) == ("stop", "gtc", "sell_to_close")


@pytest.mark.parametrize("seed", range(6))
def test_a_minute_of_random_failures_leaves_everything_flat_and_nothing_turned(tmp_path: Path, seed: int) -> None:
    """A third of all calls fail for a minute: every position is closed once, and none is turned."""
    held: dict[Key, Decimal] = {(AAPL, "long"): D(10), (SPY, "short"): D(4), (BTC, "long"): D("0.5")}
    closed = CloseRun(tmp_path, held=held, mishaps=Chance(seed, 0.33, 60.0), limit=HOUR)
    assert (closed.status, closed.left, closed.wire.exchange.turned) == ("flat", {}, [])
    sold = {key: sum(fill.closed for fill in closed.wire.exchange.deeds if fill.key == key) for key in held}
    assert sold == held
