"""Signals of profit and loss: the values of their definitions, what they are false alarms of, and what is unknown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Flow, Snapshot
from killswitch.signals.arguments import Value
from tests.worlds import START, account, after, flow, position, snapshot
from tests.worlds.firings import firings, policy_of, unknowns
from tests.worlds.signals import values_after, values_of

INF = math.inf
ANY = (-INF, INF)


def at_equity(at: datetime, equity: str | None, *flows: Flow, lost: str = "0", **more: object) -> Snapshot:
    """One account with one position of 10,000 whose prices made the rest of its equity; None: it cannot be read."""
    if equity is None:
        return snapshot(at, account(None, None, quality="down", reason="no answer"))
    held = [position("A", "long", lost, notional="10000", mark_price="100", contracts="100")]
    return snapshot(at, account(equity, held, flows=flows, observed_at=at, **more))  # type: ignore[arg-type]  # fields


def course(*equities: str, begin: datetime = START, every: timedelta = timedelta(minutes=1)) -> list[Snapshot]:
    """Equities that prices move, one after another."""
    first = Decimal(equities[0])
    return [
        at_equity(begin + number * every, equity, lost=str(Decimal(equity) - first))
        for number, equity in enumerate(equities)
    ]


@pytest.mark.parametrize(
    ("signal", "arguments", "equities", "value"),
    [
        ("equity.profit", (), ["100", "102"], 0.02),
        ("equity.profit", (), ["100", "90"], -0.10),
        ("equity.profit", (), ["100", "-5"], -1.0),
        ("equity.best_profit", (), ["100", "90"], 0.0),
        ("equity.best_profit", (), ["100", "102", "99"], 0.02),
        ("equity.given_back", (), ["100", "102", "99"], 1.5),
        ("equity.given_back", (), ["100", "90"], 0.0),
        ("equity.loss_from_capital", (Decimal(10000),), ["10000", "9450"], 0.055),
        ("equity.loss_from_capital", (Decimal(20000),), ["10000", "10000"], 0.5),
        ("equity.loss_from_capital", (Decimal(10000),), ["10000", "10500"], 0.0),
        ("equity.above_floor", (Decimal(2000), "intraday", Decimal(50100)), ["50000", "53000"], 2900.0),
        ("equity.above_floor", (Decimal(2000), "intraday", Decimal(60000)), ["50000", "53000", "50500"], -500.0),
        ("equity.above_floor", (Decimal(2000), "end_of_day", Decimal(60000)), ["50000", "53000", "50500"], 2500.0),
    ],
)
def test_values_of_the_definitions(signal: str, arguments: Sequence[Value], equities: list[str], value: float) -> None:
    """Worked by hand; a restart before the last observation changes none of them."""
    for restart in (False, True):
        found = values_after(signal, arguments, course(*equities), restart=restart)
        assert found == (pytest.approx(value), pytest.approx(value)), restart


def test_a_deposit_moves_no_fraction_and_the_floor_with_the_equity() -> None:
    """10,000 declared, 9,450 (5.5%), then a deposit of 5,000: still 5.5%; the floor stays 1,450 below the equity."""
    fallen = course("10000", "9450")
    paid = at_equity(after(minutes=2), "14450", flow("d", after(minutes=2), "5000", "deposit"), lost="-550")
    assert values_after("equity.loss_from_capital", (Decimal(10000),), [*fallen, paid]) == pytest.approx((0.055, 0.055))
    assert values_after("equity.profit", (), [*fallen, paid]) == pytest.approx((-0.055, -0.055))
    floor: tuple[Value, ...] = (Decimal(2000), "intraday", Decimal(60000))
    assert values_after("equity.above_floor", floor, fallen) == pytest.approx((1450.0, 1450.0))
    assert values_after("equity.above_floor", floor, [*fallen, paid]) == pytest.approx((1450.0, 1450.0))


def test_an_end_of_day_floor_trails_the_last_equity_of_a_day() -> None:
    """53,000 at noon counts only if it is the last of the day: the floor is 52,400 − 2,000 after midnight."""
    seen = course("50000", "53000", "52400", "51000", every=timedelta(hours=8))
    arguments: tuple[Value, ...] = (Decimal(2000), "end_of_day", Decimal(60000))
    assert values_after("equity.above_floor", arguments, seen[:3]) == pytest.approx((4400.0, 4400.0))
    assert values_after("equity.above_floor", arguments, seen) == pytest.approx((600.0, 600.0))


MIDNIGHT = START + timedelta(days=1)


def test_the_loss_of_a_day_begins_at_its_open() -> None:
    """99 before midnight and 98 after it: 1.01% of the new day; an observation at 00:00:00 is that of the new day."""
    before = at_equity(MIDNIGHT - timedelta(minutes=1), "99")
    later = at_equity(MIDNIGHT + timedelta(minutes=1), "98", lost="-1")
    loss = 1 / 99
    assert values_after("equity.loss_since", ("utc_day",), [before, later]) == pytest.approx((loss, loss))
    at_open = at_equity(MIDNIGHT, "98.5", lost="-0.5")
    loss = 0.5 / 98.5
    assert values_after("equity.loss_since", ("utc_day",), [before, at_open, later]) == pytest.approx((loss, loss))


def test_a_day_without_an_observation_before_its_open_is_unknown() -> None:
    """The last one is older than max_gap (10 minutes): unknown for that whole day, and known on the next."""
    early = at_equity(MIDNIGHT - timedelta(minutes=11), "100")
    during = [at_equity(MIDNIGHT + timedelta(minutes=5 * number), "99", lost="-1") for number in range(288)]
    assert values_after("equity.loss_since", ("utc_day",), [early, during[0]]) == pytest.approx((0.0, 0.0))
    assert values_after("equity.loss_since", ("utc_day",), [early, *during[1:]]) == ANY
    next_day = at_equity(MIDNIGHT + timedelta(days=1), "98", lost="-2")
    assert values_after("equity.loss_since", ("utc_day",), [early, *during[1:], next_day]) == pytest.approx((0.0, 0.0))


def test_d10_what_a_loss_is_measured_from_is_in_the_policy() -> None:
    """100 → 120 → 108: 10% from the peak, none from the start, 8% of the profit's... each signal says which."""
    seen = course("100", "120", "108")
    values = {
        name: values_after(name, arguments, seen)[0]
        for name, arguments in {
            "equity.drawdown_from_peak": (), "equity.loss_from_start": (), "equity.profit": (),
            "equity.given_back": (), "equity.loss_from_capital": (Decimal(100),),
        }.items()
    }  # fmt: skip
    assert values == pytest.approx({
        "equity.drawdown_from_peak": 0.10, "equity.loss_from_start": 0.0, "equity.profit": 0.08,
        "equity.given_back": 0.6, "equity.loss_from_capital": 0.0,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("side", "entry", "mark", "pnl", "against", "value"),
    [
        ("short", "100", "125", "-250", "entry", 0.25),  # 10 contracts: 250 of 1,000
        ("long", "100", "75", "-250", "entry", 0.25),
        ("long", "100", "110", "100", "entry", 0.0),
        ("short", "100", "125", "-250", "equity", 0.025),
        ("short", "100", "125", "-250", "margin", 2.5),
    ],
)
def test_the_worst_loss_of_a_position(side: str, entry: str, mark: str, pnl: str, against: str, value: float) -> None:
    """Of an equity of 10,000 and a margin of 100."""
    notional = str(10 * int(mark))
    fields = {"entry_price": entry, "mark_price": mark, "notional": notional, "margin": "100", "contracts": "10"}
    held = [position("A", side, pnl, **fields)]
    assert values_of("positions.worst_loss", held, "10000", (against,)) == pytest.approx((value, value))
    assert values_of("positions.worst_loss", [], "10000", (against,)) == (0.0, 0.0)
    assert values_of("positions.worst_loss", None, "10000", (against,)) == ANY


def test_a_position_of_unknown_loss_makes_the_worst_at_least_that_of_the_others() -> None:
    """A gives no margin: its loss against margin may be anything."""
    held = [
        position("A", "long", "-5", notional="100", mark_price="100"),
        position("B", "long", "-6", notional="100", mark_price="100", margin="100"),
    ]
    assert values_of("positions.worst_loss", held, "10000", ("margin",)) == (pytest.approx(0.06), INF)


@pytest.mark.parametrize(
    ("pnl", "equity", "money", "share"),
    [("-10000", "90000", -10000.0, -1 / 9), ("-10", "0", -10.0, -INF), ("0", "0", 0.0, 0.0)],
)
def test_unrealised_profit_as_money_and_as_a_share(pnl: str, equity: str, money: float, share: float) -> None:
    """Equity contains the loss: −10,000 of 90,000 is −11.1%; a loss on nothing is without bound."""
    held = [position("A", "long", pnl, notional="100", mark_price="100")]
    assert values_of("pnl.unrealised", held, equity) == (money, money)
    assert values_of("pnl.unrealised_share", held, equity) == pytest.approx((share, share))
    assert values_of("pnl.unrealised", [], equity) == (0.0, 0.0)
    assert values_of("pnl.unrealised", [position("A", "long")], equity) == ANY


CASES = {
    "pnl.unrealised": ("signal: pnl.unrealised, at_most: -500 USDT", ["10000", "9400"], ["10000", "9600"]),
    "pnl.unrealised_share": ("signal: pnl.unrealised_share, at_most: -0.05", ["10000", "9400"], ["10000", "9600"]),
    "equity.profit": ("signal: equity.profit, at_most: -5%", ["10000", "9400"], ["10000", "11000", "10000"]),
    "equity.best_profit": (
        "when: 'equity.best_profit >= 0.02 && equity.profit < 0.01'",
        ["10000", "10300", "10050"],
        ["10000", "10150", "10050"],
    ),
    # of 0.01% all is soon given back, which the best profit keeps from being an alarm
    "equity.given_back": (
        "when: 'equity.given_back >= 0.5 && equity.best_profit >= 0.02'",
        ["10000", "10300", "10100"],
        ["10000", "10001", "9990"],
    ),
    "equity.loss_from_capital": (
        "signal: equity.loss_from_capital, capital: 10000 USDT, at_least: 5%",
        ["10000", "9450"],
        ["10000", "9600"],
    ),
    "equity.above_floor": (
        "signal: equity.above_floor, allowed: 500 USDT, trail: end_of_day, freeze_at: 12000 USDT, at_most: 0 USDT",
        ["10000", "9400"],
        ["10000", "10600", "10050"],  # open profit within the day that was never booked
    ),
    "positions.worst_loss": (
        "signal: positions.worst_loss, against: equity, at_least: 5%",
        ["10000", "9400"],
        ["10000", "9800"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_trigger_fires_on_the_loss_and_not_on_its_false_alarm(name: str) -> None:
    """Each in a replay of a recording; when equity cannot be read the trigger is unknown, and nothing fires."""
    trigger, loss, calm = CASES[name]
    policies = policy_of(trigger, scope="{each: account, match: {currency: USDT}}")
    assert len(firings(policies, course(*loss))) == 1
    assert firings(policies, course(*calm)) == []
    missing = [*course("10000"), *(at_equity(after(minutes=minute), None) for minute in range(1, 5))]
    assert firings(policies, missing) == []
    assert unknowns(policies, missing) != []


def test_the_loss_of_a_day_fires_within_it_and_forgets_at_midnight() -> None:
    """6% in a day fires; 5% before midnight and 5.9% after it never do, which is why it is no only guard."""
    policies = policy_of("signal: equity.loss_since, anchor: utc_day, at_least: 6%")
    noon = START - timedelta(minutes=1)
    assert len(firings(policies, course("10000", "9990", "9300", begin=noon))) == 1
    late = MIDNIGHT - timedelta(minutes=3)
    seen = course("10000", "9600", "9500", "9500", "8945", begin=late)
    assert firings(policies, seen) == []
    assert to_micros(seen[3].as_of) == to_micros(MIDNIGHT)


def test_d13_one_leg_of_a_hedge_lost_while_the_book_did_not() -> None:
    """9% of equity on one leg, 0.5% of the book: the loss of the position alone fires, joined with the book's it does
    not."""
    legs = [
        position("A", "long", "-900", notional="9000", mark_price="100"),
        position("B", "short", "850", notional="9000", mark_price="100"),
    ]
    seen = [at_equity(START, "10000"), snapshot(after(minutes=1), account("9950", legs, observed_at=after(minutes=1)))]
    alone = policy_of("signal: positions.worst_loss, against: equity, at_least: 8%")
    joined = policy_of('when: \'positions.worst_loss("equity") >= 0.08 && equity.drawdown("1h") >= 0.03\'')
    assert len(firings(alone, seen)) == 1
    assert firings(joined, seen) == []
