"""Signals of the unit value: profit, what was given back, and losses since an open, of a capital and under a floor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec import json as msgjson

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.signals.arguments import Value
from killswitch.signals.history.anchored_values import FirstEquities, FirstEquity
from killswitch.signals.history.scope import History
from killswitch.signals.sessions import WEEKDAYS, TradingSession
from killswitch.signals.signal_values import ColumnReader, collector_needs
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import START, account, after, flow, position
from tests.worlds.signals import history_of, made, minutes, readings, restarted

INF = math.inf
UNKNOWN = (-INF, INF)
BOTH = pytest.mark.parametrize("restarts", [False, True], ids=["one-run", "restarts"])
DOWN = account(None, None, quality="down", reason="timeout")


def values(signal: str, arguments: Sequence[Value], *equities: str, restarts: bool = False) -> list[float]:
    """The known values of a signal while prices alone move the equity, each minute."""
    found = readings(signal, arguments, minutes(*map(made, equities)), restarts=restarts)
    assert all(low == high for low, high in found)
    return [low for low, _ in found]


# Profit


@BOTH
@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        ("equity.profit", [0, 0.02, -0.01, 0.01, -1, 0.05]),
        ("equity.best_profit", [0, 0.02, 0.02, 0.02, 0.02, 0.05]),
        ("equity.given_back", [0, 0, 1.5, 0.5, 51, 0]),
    ],
)
def test_profit_the_best_of_it_and_what_was_given_back(signal: str, expected: list[float], restarts: bool) -> None:
    """1.00, 1.02, 0.99: of a best profit of 2% three points are given back, 1.5 of it. In debt the profit is −1."""
    found = values(signal, (), "10000", "10200", "9900", "10100", "-50", "10500", restarts=restarts)
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_profit_reaches_a_threshold_exactly() -> None:
    """2% of 10,000 is 200, and not a rounding error less."""
    assert values("equity.profit", (), "10000", "10200", "9800") == [0, 0.02, -0.02]


def test_without_a_profit_nothing_was_given_back() -> None:
    """A share of nothing is nothing, however much is lost."""
    assert values("equity.given_back", (), "10000", "9000", "5000") == [0, 0, 0]


@pytest.mark.parametrize("signal", ["equity.profit", "equity.best_profit", "equity.given_back"])
def test_profit_is_unknown_without_an_equity(signal: str) -> None:
    """The only account is down, and known again after it."""
    found = readings(signal, (), minutes(made("10000"), DOWN, made("10100")))
    assert found[1] == UNKNOWN
    assert found[2][0] == found[2][1]


def test_an_operators_reset_renews_base_and_best_and_an_automatic_one_does_not() -> None:
    """Base and best become the current value: 10,200 after a best of 10,400."""
    names = ("equity.profit", "equity.best_profit", "equity.given_back")
    references = [SignalRef(name) for name in names]
    past, reader = history_of(references), ColumnReader(references)
    for place, equity in enumerate(("10000", "10400", "10200")):
        view = ScopeView(to_micros(after(minutes=place)), True, (made(equity),), {}, None)
        past.observe(view)
    assert reader.read(past, view).lo == [0.02, 0.04, 0.5]
    past.rebase(accept=False)
    assert reader.read(past, view).lo == [0.02, 0.04, 0.5]
    past.rebase(accept=True)
    assert reader.read(past, view).lo == [0, 0, 0]


FLOWS = st.lists(st.tuples(st.integers(-300, 300), st.sampled_from([0, 0, 0, 2500, -1500])), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(FLOWS)
def test_profit_is_the_time_weighted_return(steps: list[tuple[int, int]]) -> None:
    """The product of the returns between flows, as in GIPS; flows move neither it nor the loss of a capital."""
    equity, growth, best = Decimal(10_000), 1.0, 1.0
    wallet = Decimal(10_000)
    observed = [(START, (made("10000", flows_as_of=START, fills_as_of=START),))]
    wanted = [(0.0, 0.0, 0.2)]
    for place, (per_mille, drawn) in enumerate(steps, start=1):
        at = START + timedelta(minutes=place)
        made_now = (equity * per_mille / 1000).quantize(Decimal("0.01"))
        moved = 0 if equity < 6000 else drawn  # a withdrawal leaves more than is lost
        # the flow is at the value of the observation before
        growth *= float((equity + moved + made_now) / (equity + moved))
        equity, wallet = equity + moved + made_now, wallet + moved
        rows = [flow(f"f{place}", at, str(moved), "deposit" if moved > 0 else "withdrawal")] if moved else []
        observed.append((at, (made(str(equity), str(wallet), flows=rows, flows_as_of=at, fills_as_of=at),)))
        best = max(best, growth)
        wanted.append((growth - 1, best - 1, min(1.0, max(0.0, 1 - 0.8 * growth))))
    signals = [("equity.profit", ()), ("equity.best_profit", ()), ("equity.loss_from_capital", (Decimal(12_500),))]
    for column, (signal, arguments) in enumerate(signals):
        found = readings(signal, arguments, observed)
        assert [low for low, _ in found] == pytest.approx([each[column] for each in wanted], abs=1e-9)


# Loss of a declared capital


@BOTH
def test_the_loss_of_a_declared_capital_counts_what_was_lost_before_the_first_observation(restarts: bool) -> None:
    """10,000 declared, 9,450 at first: 5.5%; a deposit of 5,000 changes nothing; 1% of the rest is lost after it."""
    at = after(minutes=1)
    deposit = flow("d", at, "5000", "deposit")
    observed = minutes(
        made("9450", "9450"),
        made("14450", "14450", flows=[deposit], flows_as_of=at, fills_as_of=at),
        made("14305.50", "14450"),
        made("16000", "14450"),
    )
    found = readings("equity.loss_from_capital", (Decimal(10_000),), observed, restarts=restarts)
    assert [low for low, _ in found] == [0.055, 0.055, pytest.approx(0.06445, abs=1e-12), 0]


def test_another_capital_is_another_declaration() -> None:
    """It begins with its own first observation, also where the trigger before is reloaded; an automatic reset moves
    neither."""
    first, second = (SignalRef("equity.loss_from_capital", (Decimal(it),)) for it in ("10000", "9000.0"))
    past = history_of([first])
    past.observe(ScopeView(to_micros(START), True, (made("10000"),), {}, None))
    past = restarted(past, history_of([first, second]))
    view = ScopeView(to_micros(after(minutes=1)), True, (made("8100"),), {}, None)
    past.observe(view)
    reader = ColumnReader([first, second])
    assert reader.read(past, view).lo == [0.19, 0.1]
    past.rebase(accept=False)
    assert reader.read(past, view).lo == [0.19, 0.1]


@BOTH
@pytest.mark.parametrize("at_reset", ["9450", None], ids=["known", "unknown"])
def test_d18_an_operators_reset_counts_what_is_left_as_the_capital(restarts: bool, at_reset: str | None) -> None:
    """5.5% of 10,000 are accepted, at once or with the next known equity; 9,261 is a loss of 2% of 9,450."""
    used = SignalRef("equity.loss_from_capital", (Decimal(10_000),))
    past, reader, found = history_of([used]), ColumnReader([used]), []
    for minute, equity in enumerate(["10000", "9450", at_reset, "9450", "9261"]):
        answer = DOWN if equity is None else made(equity)
        view = ScopeView(to_micros(after(minutes=minute)), True, (answer,), {}, None)
        past = restarted(past, history_of([used])) if restarts and minute else past
        past.observe(view)
        if minute == 2:
            past.rebase(accept=True)
        found.append(reader.read(past, view).lo[0])
    assert found[1] == 0.055
    assert found[3:] == [0, pytest.approx(0.02, abs=1e-12)]
    assert at_reset is None or found[2] == 0


def test_the_first_equity_of_an_earlier_version_is_read() -> None:
    """It knew of no accepted losses."""
    used = SignalRef("equity.loss_from_capital", (Decimal(10_000),))
    past = history_of([used])
    past.observe(ScopeView(to_micros(START), True, (made("9450"),), {}, None))
    collected = {"first_equities": msgjson.encode({"10000": {"at": 1, "value": 9450.0, "equity": "9450"}})}
    fresh = history_of([used])
    fresh.collectors.restore({name: Raw(blob) for name, blob in collected.items()})
    assert fresh.collectors.of(FirstEquities).under(Decimal(10_000)) == FirstEquity(1, 9450.0, Decimal(9450))


def test_the_loss_of_a_capital_is_all_of_it_in_debt_and_unknown_without_an_equity() -> None:
    """And unknown before the first observation."""
    found = readings("equity.loss_from_capital", (Decimal(10_000),), minutes(DOWN, made("10000"), made("-1"), DOWN))
    assert found == [UNKNOWN, (0, 0), (1, 1), UNKNOWN]


# Loss since an open

NEW_YORK = TradingSession("us", "America/New_York", 9 * HOUR + 30 * MINUTE, 16 * HOUR, WEEKDAYS[:5])


def moment(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}").replace(tzinfo=UTC)


def since(anchor: str | TradingSession, *observed: tuple[str, str | None], restarts: bool = False) -> list[object]:
    """The loss at each (day and time, equity); a number if it is known."""
    answers = [(moment(at), (DOWN if equity is None else made(equity),)) for at, equity in observed]
    found = readings("equity.loss_since", (anchor,), answers, restarts=restarts)
    return [low if low == high else (low, high) for low, high in found]


@BOTH
def test_the_loss_since_midnight_forgets_the_loss_before(restarts: bool) -> None:
    """5% before and 5.9% after midnight never reach 6%, which is the false alarm that it cannot give."""
    found = since(
        "utc_day",
        ("18T23:59:00", "10000"),
        ("19T00:00:00", "10000"),
        ("19T12:00:00", "9700"),
        ("19T23:59:30", "9500"),
        ("20T00:05:00", "9400"),
        ("20T12:00:00", "8939.5"),
        restarts=restarts,
    )
    assert found == [UNKNOWN, 0, 0.03, 0.05, pytest.approx(1 - 9400 / 9500), 0.059]


def test_at_exactly_midnight_the_new_day_begins() -> None:
    """The observation of 00:00:00Z is its open, and not the one before."""
    found = since("utc_day", ("18T23:59:59", "10000"), ("19T00:00:00", "9000"), ("19T00:00:01", "8100"))
    assert found == [UNKNOWN, 0, 0.1]


def test_a_day_without_an_observation_shortly_before_its_open_is_unknown_until_the_next() -> None:
    """Eleven minutes before are more than `max_gap`; ten are not. Nothing before a start counts either."""
    found = since(
        "utc_day",
        ("18T23:49:00", "10000"),
        ("19T00:01:00", "9000"),
        ("19T12:00:00", "8000"),
        ("19T23:50:00", "8000"),
        ("20T00:09:00", "7600"),
    )
    assert found == [UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 0.05]


def test_an_open_that_passes_while_equity_is_unknown_has_the_last_known_value() -> None:
    """Down from 23:58 to 00:04: the open is that of 23:57."""
    found = since(
        "utc_day", ("18T23:57:00", "10000"), ("18T23:58:00", None), ("19T00:03:00", None), ("19T00:04:00", "9600")
    )
    assert found == [UNKNOWN, UNKNOWN, UNKNOWN, 0.04]


@BOTH
def test_on_a_weekend_the_loss_is_that_since_the_last_sessions_open(restarts: bool) -> None:
    """Friday's open at 14:30Z counts until Monday's."""
    found = since(
        NEW_YORK,
        ("20T14:29:00", "10000"),
        ("20T14:30:30", "9900"),
        ("21T12:00:00", "9500"),
        ("23T14:29:59", "9400"),
        ("23T14:31:00", "9400"),
        restarts=restarts,
    )
    assert found == [UNKNOWN, 0.01, 0.05, 0.06, 0]


def test_an_edited_session_begins_with_its_next_open() -> None:
    """What another calendar opened is no open of this one."""
    used = SignalRef("equity.loss_since", (NEW_YORK,))
    edited = SignalRef("equity.loss_since", (TradingSession("us", "UTC", 14 * HOUR, 20 * HOUR, WEEKDAYS),))
    past = history_of([used])
    for at, equity in (("20T14:29:00", "10000"), ("20T14:31:00", "9500")):
        past.observe(ScopeView(to_micros(moment(at)), True, (made(equity),), {}, None))
    past = restarted(past, history_of([edited]))
    view = ScopeView(to_micros(moment("20T14:32:00")), True, (made("9500"),), {}, None)
    past.observe(view)
    assert ColumnReader([edited]).read(past, view).lo == [-INF]


def test_no_reset_moves_the_open_and_so_it_may_exceed_the_fall_from_the_peak() -> None:
    """An operator's reset makes the peak the current value; the day's loss stays a loss of the day."""
    references = [SignalRef("equity.loss_since", ("utc_day",)), SignalRef("equity.drawdown_from_peak")]
    past, reader = history_of(references), ColumnReader(references)
    for place, equity in enumerate(("10000", "9500")):
        view = ScopeView(to_micros(after(minutes=place)), True, (made(equity),), {}, None)
        past.observe(view)
    assert reader.read(past, view).lo == [0.05, 0.05]
    past.rebase(accept=True)
    assert reader.read(past, view).lo == [0.05, 0]


def test_a_late_row_corrects_the_value_at_the_open() -> None:
    """5,000 came before the open and their row an hour after it: 3% are lost of what is there, as before the row."""
    rows = flow("d", moment("18T23:50:00"), "5000", "deposit")
    observed = [
        (moment("18T23:45:00"), (made("10000"),)),
        (moment("18T23:50:00"), (made("15000", "15000"),)),
        (moment("18T23:59:00"), (made("15000", "15000"),)),
        (moment("19T00:01:00"), (made("14550", "15000"),)),
        (moment("19T01:00:00"), (made("14550", "15000", flows=[rows], flows_as_of=moment("19T01:00:00")),)),
    ]
    found = readings("equity.loss_since", ("utc_day",), observed)
    assert found[3] == found[4] == (0.03, 0.03)


def test_a_deposit_just_before_the_open_is_identified_after_it() -> None:
    """Five seconds before it equity rose by half without a row: the open is at the value of the deposit's units."""
    observed = [
        (moment("18T23:55:00"), (made("10000"),)),
        (moment("18T23:59:55"), (made("15000", "15000"),)),
        (moment("19T00:05:00"), (made("14700", "15000"),)),
    ]
    found = readings("equity.loss_since", ("utc_day",), observed)
    assert found[-1] == (pytest.approx(0.02, abs=1e-12), pytest.approx(0.02, abs=1e-12))


# Sum of the losses of accounts


def pair(one: str | None, other: str | None) -> list[AccountSnapshot]:
    down = [account(None, None, name=name, quality="down", reason="timeout") for name in "ab"]
    return [
        down[place] if equity is None else made(equity, name=name)
        for place, (name, equity) in enumerate(zip("ab", (one, other), strict=True))
    ]


@BOTH
def test_a_gain_of_one_account_cancels_no_loss_of_another(restarts: bool) -> None:
    """+500 and −800 since 00:00 UTC are a loss of 800, although the scope lost 300; one down leaves at least 800."""
    observed = minutes(
        pair("10000", "10000"), pair("10500", "9200"), pair("9900", "9200"), pair(None, "9200"), pair(None, None),
        pair("10000", "10000"),
    )  # fmt: skip
    found = readings("equity.loss_sum", ("utc_day",), observed, restarts=restarts)
    assert found == [(0, 0), (800, 800), (900, 900), (800, 10_800), (0, 20_000), (0, 0)]


def test_a_transfer_between_accounts_is_no_loss_of_either() -> None:
    """2,000 move from a to b, with their rows; then b loses a tenth of what it has."""
    at = after(minutes=1)
    moved = [
        made("8000", "8000", name="a", flows=[flow("t", at, "-2000", "transfer")], flows_as_of=at, fills_as_of=at),
        made("12000", "12000", name="b", flows=[flow("t", at, "2000", "transfer")], flows_as_of=at, fills_as_of=at),
    ]
    after_it = [made("8000", "8000", name="a"), made("10800", "12000", name="b")]
    found = readings("equity.loss_sum", ("utc_day",), minutes(pair("10000", "10000"), moved, after_it))
    # of the 10,000 at the open a tenth is lost; the loss of what came later is not one of the open
    assert found == [(0, 0), (0, 0), (1000, 1000)]


def test_an_account_that_joins_after_the_open_has_no_loss_since_it() -> None:
    """Its own is unknown until the next open: at least that of the others."""
    observed = minutes([made("10000", name="a")], [made("9000", name="a"), made("500", name="b")])
    assert readings("equity.loss_sum", ("utc_day",), observed) == [(0, 0), (1000, INF)]


def test_the_sum_is_unknown_after_a_start_until_an_open() -> None:
    """Nothing was observed before the open of any account."""
    observed = minutes(pair("10000", "10000"), pair("9000", "9000"), begin=after(hours=5))
    assert readings("equity.loss_sum", ("utc_day",), observed) == [UNKNOWN, UNKNOWN]


# Under a floor

FLOOR = (Decimal(2000), "intraday", Decimal(50_100))
DAILY = (Decimal(2000), "end_of_day", Decimal(50_100))


def floors(arguments: Sequence[Value], *observed: tuple[str, str, str], restarts: bool = False) -> list[float]:
    """Equity less floor at each (day and time, equity, wallet); known."""
    answers, before = [], Decimal(observed[0][2])
    for at, equity, wallet in observed:
        moved, now = Decimal(wallet) - before, moment(at)
        rows = [flow(at, now, str(moved), "deposit" if moved > 0 else "withdrawal")] if moved else []
        answers.append((now, (made(equity, wallet, flows=rows, flows_as_of=now, fills_as_of=now),)))
        before = Decimal(wallet)
    found = readings("equity.above_floor", arguments, answers, restarts=restarts, max_gap=24 * HOUR)
    assert all(low == high for low, high in found)
    return [low for low, _ in found]


@BOTH
def test_a_floor_follows_the_highest_equity_and_freezes(restarts: bool) -> None:
    """50,000 less 2,000 at first; a high of 51,000 makes it 49,000, one of 53,000 the frozen 50,100."""
    found = floors(
        FLOOR,
        ("19T10:00:00", "50000", "50000"),
        ("19T10:01:00", "51000", "50000"),
        ("19T10:02:00", "50500", "50000"),
        ("19T10:03:00", "53000", "50000"),
        ("19T10:04:00", "50050", "50000"),
        restarts=restarts,
    )
    assert found == [2000, 2000, 1500, 2900, -50]


@BOTH
def test_a_daily_floor_follows_the_last_equity_of_each_day(restarts: bool) -> None:
    """The high of 53,000 at noon was given back by 23:59; a day without an observation leaves the floor."""
    found = floors(
        DAILY,
        ("19T10:00:00", "50000", "50000"),
        ("19T12:00:00", "53000", "50000"),
        ("19T23:59:00", "51000", "50000"),
        ("20T00:00:00", "52000", "50000"),
        ("20T12:00:00", "49500", "50000"),
        ("22T12:00:00", "49400", "50000"),
        restarts=restarts,
    )
    assert found == [2000, 5000, 3000, 3000, 500, 400]


@BOTH
@pytest.mark.parametrize("arguments", [FLOOR, DAILY], ids=["intraday", "end-of-day"])
def test_a_deposit_raises_equity_the_highest_and_the_freeze_alike(arguments: Sequence[Value], restarts: bool) -> None:
    """10,000 in and 4,000 out leave the distance to the floor as it was, below the freeze and at it."""
    found = floors(
        arguments,
        ("19T23:00:00", "50000", "50000"),
        ("20T10:01:00", "60000", "60000"),
        ("20T23:02:00", "63000", "60000"),
        ("21T10:02:00", "63000", "60000"),
        ("21T10:03:00", "59000", "56000"),
        ("21T10:04:00", "56000", "56000"),
        restarts=restarts,
    )
    # of 53,000 without transfers the floor is frozen at 50,100
    assert found[:2] == [2000, 2000]
    assert found[3:] == [2900, 2900, -100]


def test_a_deposit_without_a_row_moves_no_floor_either() -> None:
    """It is a transfer as long as no price and no trade explains it, and once its row arrives."""
    now = moment("19T12:00:00")
    answers = [
        (moment("19T10:00:00"), (made("50000", "50000"),)),
        (moment("19T10:05:00"), (made("50500", "50000"),)),
        (moment("19T10:10:00"), (made("60500", "60000"),)),
        (moment("19T10:15:00"), (made("60200", "60000"),)),
        (
            now,
            (
                made(
                    "60200",
                    "60000",
                    flows=[flow("d", moment("19T10:09:30"), "10000", "deposit")],
                    flows_as_of=now,
                    fills_as_of=now,
                ),
            ),
        ),
        (moment("19T12:05:00"), (made("60000", "60000"),)),
    ]
    found = readings("equity.above_floor", (Decimal(2000), "intraday", Decimal(99_999)), answers, max_gap=6 * HOUR)
    assert found == [(each, each) for each in (2000, 2000, 2000, 1700, 1700, 1500)]


def test_a_deposit_that_is_identified_after_a_high_lowers_that_high() -> None:
    """The high of 60,900 was seen a second after 10,000 had come, and is one of 50,900 once they are a transfer."""
    seconds = (("50000", "50000"), ("60000", "60000"), ("60900", "60000"), ("60500", "60000"), ("60500", "60000"))
    answers = [(after(seconds=place), (made(*each),)) for place, each in enumerate(seconds)]
    answers += [(after(minutes=5), (made("60500", "60000"),)), (after(minutes=6), (made("60000", "60000"),))]
    found = readings("equity.above_floor", (Decimal(2000), "intraday", Decimal(99_999)), answers)
    assert found == [(each, each) for each in (2000, 2000, 2000, 1600, 1600, 1600, 1100)]


def test_a_fall_that_may_be_a_withdrawal_leaves_two_distances() -> None:
    """With `on_unexplained: close` 5,000 that left without a row may be lost; an hour later they are."""
    used = SignalRef("equity.above_floor", (Decimal(8000), "intraday", Decimal(99_999)))
    terms = EquityTerms(10 * MINUTE, 0.001, 60 * SECOND, closes=True)
    past = History((), HOUR, terms, collectors=collector_needs([used]))
    found = []
    for at, equity in (
        (START, "50000"),
        (after(minutes=1), "45000"),
        (after(minutes=2), "45000"),
        (after(hours=1), "45000"),
    ):
        view = ScopeView(to_micros(at), True, (made(equity, equity, flows_as_of=at, fills_as_of=at),), {}, None)
        past.observe(view)
        columns = ColumnReader([used]).read(past, view)
        found.append((columns.lo[0], columns.hi[0]))
    assert found[0] == (8000, 8000)
    assert found[1] == (3000, 8000)
    assert found[-1] == (3000, 3000)


def test_an_operators_reset_makes_the_current_equity_the_highest() -> None:
    """At 49,000 the floor is 47,000 again; an automatic reset moves nothing, and deposits stay counted."""
    used = SignalRef("equity.above_floor", FLOOR)
    past, reader = history_of([used]), ColumnReader([used])
    for place, equity in enumerate(("50000", "50800", "49000")):
        view = ScopeView(to_micros(after(minutes=place)), True, (made(equity, "50000"),), {}, None)
        past.observe(view)
    assert reader.read(past, view).lo == [200]
    past.rebase(accept=False)
    assert reader.read(past, view).lo == [200]
    past.rebase(accept=True)
    assert reader.read(past, view).lo == [2000]


def test_a_reset_while_the_account_is_down_takes_the_next_equity() -> None:
    """Nothing is known to be the highest at the time of the reset."""
    used = SignalRef("equity.above_floor", FLOOR)
    past, reader = history_of([used]), ColumnReader([used])
    for place, answer in enumerate((made("50000", "50000"), DOWN)):
        view = ScopeView(to_micros(after(minutes=place)), True, (answer,), {}, None)
        past.observe(view)
    assert reader.read(past, view).lo == [-INF]
    past.rebase(accept=True)
    view = ScopeView(to_micros(after(minutes=2)), True, (made("48500", "50000"),), {}, None)
    past.observe(view)
    assert reader.read(past, view).lo == [2000]


@settings(max_examples=40, deadline=None)
@given(FLOWS, st.sampled_from(["intraday", "end_of_day"]))
def test_a_floor_is_that_of_the_money_made(steps: list[tuple[int, int]], trail: str) -> None:
    """Of what was made alone, as if nothing had been transferred: in steps of seven hours over several days."""
    wallet, money, highs, wanted = Decimal(10_000), Decimal(10_000), [Decimal(10_000)], []
    observed, closes = [], Decimal(10_000)
    for place, (amount, moved) in enumerate([(0, 0), *steps]):
        at = START + timedelta(hours=7 * place)
        if place and at.date() != (at - timedelta(hours=7)).date():
            closes = max(closes, money)
        wallet, money = wallet + moved, money + amount
        highs.append(money)
        rows = [flow(f"f{place}", at, str(moved), "deposit" if moved > 0 else "withdrawal")] if moved else []
        equity = str(money + wallet - 10_000)
        observed.append((at, (made(equity, str(wallet), flows=rows, flows_as_of=at, fills_as_of=at),)))
        highest = max(highs) if trail == "intraday" else closes
        wanted.append(float(money - min(Decimal(10_150), highest - 200)))
    found = readings("equity.above_floor", (Decimal(200), trail, Decimal(10_150)), observed, max_gap=24 * HOUR)
    assert [low for low, _ in found] == [high for _, high in found] == pytest.approx(wanted, abs=1e-9)


# One account of several is down

HELD = "BTC/USDT:USDT"


def two(mark: str, *, is_down: bool) -> list[AccountSnapshot]:
    """Each had 10,000, and a long of 10,000 at a mark of 100; a loses by the mark, b may be down since."""
    profit = (Decimal(mark) - 100) * 100
    fields = {"notional": str(10_000 + profit), "mark_price": mark, "contracts": "100"}
    found = [account(str(10_000 + profit), [position(HELD, "long", str(profit), **fields)], name=name) for name in "ab"]
    down = account(None, None, name="b", quality="down", reason="timeout")
    return [found[0], down] if is_down else found


@pytest.mark.parametrize(
    ("signal", "arguments", "expected"),
    [
        # a has 9,000; b had 10,000 of notional, at a mark that fell by 10%: 8,900 to 10,100 with 1% of the gross
        ("equity.profit", (), (-0.105, -0.045)),
        ("equity.best_profit", (), (0, 0)),
        ("equity.given_back", (), (0, 0)),
        ("equity.loss_since", ("utc_day",), (0.045, 0.105)),
        ("equity.loss_from_capital", (Decimal(20_000),), (0.045, 0.105)),
        ("equity.above_floor", (Decimal(3000), "intraday", Decimal(99_999)), (900, 2100)),
        ("equity.above_floor", (Decimal(3000), "end_of_day", Decimal(16_500)), (1400, 2600)),
    ],
)
def test_with_one_account_down_a_signal_is_bounded(
    signal: str, arguments: Sequence[Value], expected: tuple[float, float]
) -> None:
    """By what it held, and how the mark moved at the other account; it may have closed at any price in between."""
    observed = minutes(two("100", is_down=False), two("90", is_down=True))
    assert readings(signal, arguments, observed)[1] == pytest.approx(expected, abs=1e-9)


def test_a_profit_that_may_not_have_been_made_leaves_any_part_of_it_given_back() -> None:
    """While b is down the mark rises by 10% and falls again: the best profit may be none, or more than seen."""
    observed = minutes(two("100", is_down=False), two("110", is_down=True), two("95", is_down=True))
    low, high = readings("equity.given_back", (), observed)[2]
    assert (low, high) == (0, INF)
