"""Signals of trades: round trips from flat to flat, what each lost, and how it was closed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.snapshot import Fill, Order, Position, Snapshot
from killswitch.signals.arguments import Value
from killswitch.signals.signal_values import ColumnReader
from tests.worlds import account, after, fill, position, rules, snapshot
from tests.worlds.firings import firings, policy_of
from tests.worlds.signals import history_of, restarted, values_after, view_of

INF = math.inf
OWN = "ks0123456789abcdefghijklmnopqrs"
"""The form of a client order id of this program."""


class Book:
    """An account that trades one contract at a time: each trade is a fill of the minute in which it is seen."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.held: dict[tuple[str, str], Decimal] = {}
        self.orders: list[Order] = []
        self.number = 0
        self.minute(0)

    def minute(self, at: float, *fills: Fill, fills_known: bool = True) -> Book:
        """A snapshot with these fills."""
        positions: list[Position] = [
            position(symbol, side, "0", contracts=str(size), notional="100", mark_price="100", entry_price="100")
            for (symbol, side), size in self.held.items()
            if size
        ]
        seen = account(
            "10000", positions, fills=fills, orders=self.orders, observed_at=after(minutes=at),
            instruments=[rules("A"), rules("B")],
        )  # fmt: skip
        if not fills_known:
            seen = account("10000", positions, observed_at=after(minutes=at), fills=(), quality="down", reason="away")
        self.snapshots.append(snapshot(after(minutes=at), seen))
        return self

    def trip(self, at: float, made: str, symbol: str = "A", side: str = "long", **closing: object) -> Book:
        """Open at 100 and, a minute later, close with this profit."""
        begin, end = ("buy", "sell") if side == "long" else ("sell", "buy")
        self.number += 2
        self.held[symbol, side] = Decimal(1)
        self.minute(at, fill(f"f{self.number}", after(minutes=at), symbol, begin, "1", "100", position_side=side))
        self.held[symbol, side] = Decimal(0)
        price = str(100 + Decimal(made) if side == "long" else 100 - Decimal(made))
        closed = fill(
            f"f{self.number + 1}", after(minutes=at + 1), symbol, end, "1", price, position_side=side,
            realized_pnl=made, **closing,
        )  # fmt: skip
        return self.minute(at + 1, closed)

    def value(self, signal: str, *arguments: Value, restart: bool = False) -> tuple[float, float]:
        return values_after(signal, arguments, self.snapshots, restart=restart)


def of(*made: str, **closing: object) -> Book:
    """Trips of A, ten minutes apart."""
    book = Book()
    for number, each in enumerate(made):
        book.trip(1 + 10 * number, each, **closing)
    return book


@pytest.mark.parametrize("restart", [False, True])
def test_round_trips_are_counted_by_outcome(restart: bool) -> None:
    """−1, −2, 0, −3: four trips, three losses (0 is none), and a streak of one."""
    book = of("-1", "-2", "0", "-3")
    whole = (HOUR, "any", "scope", "any")
    # the book was observed for 32 minutes, so that an hour holds at least what was seen
    assert book.value("trades.count", *whole, restart=restart) == (4.0, INF)
    half = 30 * MINUTE
    assert book.value("trades.count", half, "any", "scope", "any", restart=restart) == (3.0, 3.0)
    assert book.value("trades.count", half, "loss", "scope", "any", restart=restart) == (2.0, 2.0)
    assert book.value("trades.count", half, "loss", "scope", "short", restart=restart) == (0.0, 0.0)
    assert book.value("trades.losing_streak", "scope", restart=restart) == (1.0, 1.0)


def test_a_trip_that_closed_exactly_a_window_ago_is_out() -> None:
    """Closed at minute 2, at minute 12: a window of ten minutes is (2, 12]."""
    book = of("-1").minute(12)
    assert book.value("trades.count", 10 * MINUTE, "any", "scope", "any")[0] == 0.0
    assert book.value("trades.count", 10 * MINUTE + 1, "any", "scope", "any")[0] == 1.0


def test_the_worst_symbol_has_the_most_losses_and_the_least_profit() -> None:
    """Two losses of A and one of B, of which B's is larger: "the same loss again" is A's."""
    book = Book().trip(1, "-1").trip(11, "-1").trip(21, "-5", "B").minute(30)
    window = 30 * MINUTE
    assert book.value("trades.count", window, "loss", "worst_symbol", "any") == (2.0, 2.0)
    assert book.value("trades.count", window, "loss", "B", "any") == (1.0, 1.0)
    assert book.value("trades.profit", window, "worst_symbol") == pytest.approx((-0.05, -0.05))
    assert book.value("trades.profit", window, "scope") == pytest.approx((-0.07, -0.07))
    assert book.value("trades.losing_streak", "worst_symbol") == (2.0, 2.0)


def test_fees_make_a_loss_of_no_profit_and_a_foreign_fee_makes_it_unknown() -> None:
    """0 − 0.1 is a loss; a fee in BNB may make one."""
    window = 11 * MINUTE
    paid = Book().trip(1, "0", fee="0.1", fee_currency="USDT").minute(12)
    assert paid.value("trades.count", window, "loss", "scope", "any") == (1.0, 1.0)
    foreign = Book().trip(1, "0", fee="0.1", fee_currency="BNB").minute(12)
    assert foreign.value("trades.count", window, "loss", "scope", "any") == (0.0, 1.0)
    assert foreign.value("trades.profit", window, "scope") == (-INF, INF)


def test_a_stop_is_an_order_that_was_seen_resting_with_a_trigger_or_a_liquidation() -> None:
    """Another losing close may have been a stop: [sure, sure + other losses]; a winner was none."""
    window = 11 * MINUTE
    resting = Book()
    resting.orders = [Order("s1", "A", "sell", Decimal(1), trigger_price=Decimal(90), reduce_only=True)]
    resting.trip(1, "-10", order="s1").minute(12)
    assert resting.value("trades.count", window, "stop", "scope", "any") == (1.0, 1.0)
    assert of("-10").minute(12).value("trades.count", window, "stop", "scope", "any") == (0.0, 1.0)
    assert of("10").minute(12).value("trades.count", window, "stop", "scope", "any") == (0.0, 0.0)
    forced = of("-10", cause="liquidation").minute(12)
    assert forced.value("trades.count", window, "stop", "scope", "any") == (1.0, 1.0)
    assert forced.value("trades.count", window, "liquidated", "scope", "any") == (1.0, 1.0)


def test_a_trip_that_this_program_closed_is_none() -> None:
    """Or closing would fire the next rule; nor does its fill turn anything over."""
    book = of("-10", client_order_id=OWN).minute(12)
    assert book.value("trades.count", 11 * MINUTE, "any", "scope", "any") == (0.0, 0.0)
    assert book.value("trades.losing_streak", "scope") == (0.0, 0.0)
    opened_by_others = 100 / 10_000
    assert book.value("exposure.turnover", 11 * MINUTE) == pytest.approx((opened_by_others, opened_by_others))


def test_a_fill_that_turns_a_position_over_ends_one_trip_and_begins_another() -> None:
    """One-way mode: buy 1 at 100, sell 2 at 90, buy 1 at 95: −10 and −5, by the prices alone."""
    book = Book()
    book.held["A", "long"] = Decimal(1)
    book.minute(1, fill("a", after(minutes=1), "A", "buy", "1", "100"))
    book.held = {("A", "short"): Decimal(1)}
    book.minute(2, fill("b", after(minutes=2), "A", "sell", "2", "90"))
    book.held = {}
    book.minute(3, fill("c", after(minutes=3), "A", "buy", "1", "95"))
    book.minute(13)
    window = 12 * MINUTE
    assert book.value("trades.count", window, "loss", "scope", "long") == (1.0, 1.0)
    assert book.value("trades.count", window, "loss", "scope", "short") == (1.0, 1.0)
    assert book.value("trades.profit", window, "scope") == pytest.approx((-0.1 - 5 / 90,) * 2)


def test_partial_closes_are_one_trip_and_averaging_down_never_closes() -> None:
    """Two halves, one trip. A book that only adds has no trip: its open loss is not in the count (D8)."""
    book = Book()
    book.held["A", "long"] = Decimal(2)
    book.minute(1, fill("a", after(minutes=1), "A", "buy", "2", "100", position_side="long"))
    book.held["A", "long"] = Decimal(1)
    book.minute(2, fill("b", after(minutes=2), "A", "sell", "1", "90", position_side="long"))
    assert book.value("trades.count", MINUTE, "any", "scope", "any") == (0.0, 0.0)
    book.held["A", "long"] = Decimal(0)
    book.minute(3, fill("c", after(minutes=3), "A", "sell", "1", "80", position_side="long"))
    assert book.value("trades.count", MINUTE, "loss", "scope", "any") == (1.0, 1.0)
    assert book.value("trades.profit", 2 * MINUTE, "scope") == pytest.approx((-0.15, -0.15))


def test_d8_open_losses_are_invisible_to_closed_trades() -> None:
    """Averaging down: no trip closes, and the drawdown of the scope sees the loss all the same."""
    snapshots = []
    for minute, (size, equity) in enumerate([("0", "10000"), ("1", "9900"), ("2", "9500"), ("4", "8000")]):
        lost = str(Decimal(equity) - 10000)
        held = [position("A", "long", lost, contracts=size, notional="100", mark_price="100")] if minute else []
        fills = [fill(f"f{minute}", after(minutes=minute), "A", "buy", "1", "100", position_side="long")]
        seen = account(
            equity, held, fills=fills if minute else [], observed_at=after(minutes=minute), instruments=[rules("A")]
        )
        snapshots.append(snapshot(after(minutes=minute), seen))
    assert values_after("trades.count", (MINUTE, "loss", "scope", "any"), snapshots)[0] == 0.0
    assert values_after("equity.drawdown_from_peak", (), snapshots)[0] == pytest.approx(0.2)


def test_the_drawdown_of_trades_begins_at_zero() -> None:
    """−2%, +1%, −3%: the fall from 0 is 4%; the first loss counts."""
    assert of("-2", "1", "-3").minute(32).value("trades.drawdown", 31 * MINUTE, "ratios") == pytest.approx((0.04, 0.04))
    assert of("-2").minute(12).value("trades.drawdown", 11 * MINUTE, "ratios") == pytest.approx((0.02, 0.02))
    assert of("2").minute(12).value("trades.drawdown", 11 * MINUTE, "ratios") == (0.0, 0.0)


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=12))
def test_the_drawdown_of_trades_is_that_of_a_plain_search(made: list[int]) -> None:
    """The largest fall between any two points of the running sum, of which 0 is the first."""
    sums = [sum(made[:count]) / 100 for count in range(len(made) + 1)]
    wanted = max(high - low for i, high in enumerate(sums) for low in sums[i:])
    book = of(*map(str, made)).minute(10 * len(made) + 2)
    window = (10 * len(made) + 1) * MINUTE
    assert book.value("trades.drawdown", window, "ratios") == pytest.approx((wanted, wanted))


def test_the_time_since_a_close_is_unbounded_until_one_is_seen() -> None:
    """L5: a lock after the last close must know a winner from no trade at all."""
    assert Book().minute(10).value("trades.since_close", "A") == (600.0, INF)
    assert of("5").minute(10).value("trades.since_close", "A") == (480.0, 480.0)
    assert of("5").minute(10).value("trades.since_close", "B") == (600.0, INF)


def test_fills_that_are_missing_leave_a_lower_bound() -> None:
    """An outage of five minutes inside the window: at least what was seen, and a profit is unknown."""
    book = of("-1").minute(3, fills_known=False).minute(20)
    assert book.value("trades.count", 19 * MINUTE, "loss", "scope", "any") == (1.0, INF)
    assert book.value("trades.profit", 19 * MINUTE, "scope") == (-INF, INF)
    assert book.value("trades.losing_streak", "scope") == (1.0, INF)
    assert book.trip(21, "1").value("trades.losing_streak", "scope") == (0.0, 0.0)  # a winner ends any streak


def test_what_the_venue_closed_is_counted_by_cause() -> None:
    """A trade, a delivery and a deleveraging: one of them is forced, two with deliveries."""
    book = Book()
    rows: Sequence[tuple[str, str]] = (("a", "trade"), ("b", "delivery"), ("c", "adl"))
    book.minute(1, *(fill(name, after(minutes=1), "A", "sell", "1", "100", cause=cause) for name, cause in rows))
    window = MINUTE
    assert book.value("fills.closed_by_venue", window, "forced") == (1.0, 1.0)
    assert book.value("fills.closed_by_venue", window, "all") == (2.0, 2.0)
    assert book.value("fills.closed_by_venue", window, "liquidation") == (0.0, 0.0)
    assert book.value("fills.closed_by_venue_share", window, "forced") == pytest.approx((0.01, 0.01))
    assert book.value("exposure.turnover", window) == pytest.approx((0.03, 0.03))


FREQTRADE = {
    "StoplossGuard: four stops of any symbol within an hour": (
        "signal: trades.count, window: 1h, outcome: stop, per: scope, side: any, at_least: 4",
        ["-10"] * 4, ["-10"] * 3,
    ),
    "MaxDrawdown: 20% over the trades of a day": (
        "signal: trades.drawdown, window: 24h, mode: ratios, at_least: 20%",
        ["-10", "-10"], ["-10", "5", "-10"],
    ),
    "LowProfitPairs: below 2% over at least two trades of one symbol": (
        "when: 'trades.count(\"1h\", \"any\", \"worst_symbol\", \"any\") >= 2.0 && "
        "trades.profit(\"1h\", \"worst_symbol\") < -0.02'",
        ["-2", "-1"], ["-2", "1"],
    ),
    "CooldownPeriod: two minutes after any close, a winner included": (
        "signal: trades.since_close, symbol: A, below: 2m", ["10"], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("signal", ["fills.closed_by_venue", "exposure.turnover"])
def test_d18_a_fill_before_a_reset_counts_no_more_where_it_is_reported_again(signal: str, restarts: bool) -> None:
    """Passes for another account repeat it, and the first poll of the next run does; a later fill counts once."""
    used = SignalRef(signal, (HOUR, "forced") if signal == "fills.closed_by_venue" else (HOUR,))
    past, reader = history_of([used]), ColumnReader([used])
    rows = [fill(f"f{minute}", after(minutes=minute), "A", "sell", "1", "100", cause="adl") for minute in (1, 5)]
    found = []
    for minute in range(8):
        fills = [] if minute < 1 else rows[:1] if minute < 5 else rows
        seen = account("10000", [], fills=fills, observed_at=after(minutes=minute), instruments=[rules("A")])
        view = view_of(snapshot(after(minutes=minute), seen))
        past = restarted(past, history_of([used])) if restarts and minute else past
        past.observe(view)
        if minute == 1:
            past.rebase(accept=True)
        found.append(reader.read(past, view).lo[0])
    once = found[5]
    assert once > 0.0
    assert found[2:] == [0.0, 0.0, 0.0, once, once, once]


@pytest.mark.parametrize("name", FREQTRADE)
def test_freqtrades_protections_can_be_said(name: str) -> None:
    """Each fires on trades that reach its limit, and not on those that do not; a history of an hour is complete."""
    trigger, reached, below = FREQTRADE[name]

    def recording(made: list[str]) -> list[Snapshot]:
        book = Book()
        for minute in range(10, 1450, 10):
            book.minute(minute)
        for number, each in enumerate(made):
            book.trip(1451 + 10 * number, each, cause="liquidation" if "stop" in name.lower() else "trade")
        return book.snapshots

    policies = policy_of(trigger, max_gap="15m")
    assert len(firings(policies, recording(reached))) == 1
    assert firings(policies, recording(below)) == []


def test_d9_a_rule_on_trades_does_not_fire_without_any() -> None:
    """A new store, and a whole day without a trade."""
    book = Book()
    for minute in range(10, 1500, 10):
        book.minute(minute)
    for trigger, *_ in FREQTRADE.values():
        assert firings(policy_of(trigger, max_gap="15m"), book.snapshots) == []
