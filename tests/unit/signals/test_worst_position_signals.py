"""The worst position: its loss against entry, equity and margin, and how fast it loses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import HOUR, MINUTE, to_micros
from killswitch.model.snapshot import Fill, Position
from killswitch.planning.targets.ranking import candidates
from killswitch.signals.history.bleed_rates import BleedRates, bleed_rates
from killswitch.signals.signal_values import ColumnReader
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import START, account, after, fill, position, rules
from tests.worlds.signals import history_of, readings, restarted

INF = math.inf
UNKNOWN = (-INF, INF)
BOTH = pytest.mark.parametrize("restarts", [False, True], ids=["one-run", "restarts"])
RULES = [rules("A", contract_size="10"), rules("B"), rules("C", contract_size="100", inverse=True)]


def priced(symbol: str, side: str, entry: str, mark: str, **more: Any) -> Position:
    """A contract whose profit is computed from its prices."""
    return position(symbol, side, entry_price=entry, mark_price=mark, **more)


def worst(against: str, positions: Sequence[Position] | None, equity: str | None = "1000", **more: Any) -> object:
    answer = account(equity, positions, instruments=RULES, **more)
    return readings("positions.worst_loss", (against,), [(START, (answer,))])[0]


@pytest.mark.parametrize(
    ("against", "positions", "expected"),
    [
        ("entry", [priced("B", "short", "100", "125")], 0.25),
        ("entry", [priced("A", "short", "100", "125", contracts="3")], 0.25),
        ("entry", [priced("B", "long", "100", "125")], 0),
        ("entry", [], 0),
        ("entry", [priced("B", "long", "100", "94"), priced("A", "short", "100", "109")], 0.09),
        # by its face, long from 50 at 40: 100 × (1/50 − 1/40) = −0.5 of the 2 coins at the entry
        ("entry", [priced("C", "long", "50", "40")], 0.25),
        ("equity", [priced("A", "short", "100", "109")], 0.09),
        ("equity", [position("B", "long", "-80"), position("A", "long", "-90")], 0.09),
        ("margin", [priced("B", "long", "100", "99.4", margin="10")], 0.06),  # 0.6% at 10×
        ("margin", [position("B", "long", "5")], 0),
    ],
    ids=[
        "row",
        "sizes",
        "profit",
        "empty",
        "of-two",
        "inverse",
        "equity",
        "of-two-equity",
        "margin",
        "profit-no-margin",
    ],
)
def test_the_worst_loss_against_entry_equity_and_margin(
    against: str, positions: Sequence[Position], expected: float
) -> None:
    """A short from 100 at 125 has lost 25% of its entry."""
    assert worst(against, positions) == (pytest.approx(expected), pytest.approx(expected))


@pytest.mark.parametrize(
    ("against", "positions", "expected"),
    [
        ("entry", [priced("B", "short", "100", "125"), position("A", "long", "-90")], (0.25, INF)),
        ("entry", [priced("B", "short", "100", "125"), position("X", "long", "-1", entry_price="2")], (0.25, INF)),
        ("margin", [position("B", "long", "-5", margin="10"), position("A", "long", "-5")], (0.5, INF)),
        ("margin", [position("B", "long", "-5", margin="0")], (0.0, INF)),
        ("equity", [position("B", "long", "-50"), position("A", "long")], (0.05, INF)),
        ("equity", None, UNKNOWN),
        ("entry", None, UNKNOWN),
    ],
    ids=["no-entry", "no-contract-size", "no-margin", "margin-of-nothing", "no-profit", "positions", "positions-entry"],
)
def test_a_position_of_unknown_loss_leaves_at_least_that_of_the_others(
    against: str, positions: Sequence[Position] | None, expected: tuple[float, float]
) -> None:
    """What is divided by may be unknown, too."""
    assert worst(against, positions) == expected


def test_against_equity_in_debt_any_loss_is_infinite() -> None:
    """And no loss is none."""
    assert worst("equity", [position("A", "long", "-1")], "-5") == (INF, INF)
    assert worst("equity", [position("A", "long", "1")], "0") == (0, 0)


@pytest.mark.parametrize(("against", "least"), [("entry", 0.25), ("equity", 25 / 2000)])
def test_with_one_account_down_the_worst_loss_is_at_least_that_of_the_other(against: str, least: float) -> None:
    """The equity of the account that is down is its last one, 1,000, as it held nothing."""
    up = account("1000", [priced("B", "short", "100", "125")], instruments=RULES, name="a")
    flat, down = account("1000", [], name="b"), account(None, None, name="b", quality="down", reason="timeout")
    found = readings("positions.worst_loss", (against,), [(START, (up, flat)), (after(minutes=1), (up, down))])
    assert found[1] == (pytest.approx(least), INF)
    both = [(START, (account(None, None, quality="down", reason="timeout"),))]
    assert readings("positions.worst_loss", (against,), both) == [UNKNOWN]


# How many


def losing(side: str, positions: Sequence[Position] | None, **more: Any) -> object:
    """Of an account of 1,000, those that have lost at least 6% of their margin of 100."""
    answer = account("1000", positions, **more)
    return readings("positions.losing", (side, "margin", 0.06), [(START, (answer,))])[0]


def margined(*profits: str | None, side: str = "long", margin: str | None = "100") -> list[Position]:
    return [position(f"{side}{number}", side, profit, margin=margin) for number, profit in enumerate(profits)]


@pytest.mark.parametrize(
    ("side", "positions", "expected"),
    [
        ("long", margined("-6", "-6", "-5.9", "7"), (2, 2)),
        ("long", [*margined("-6"), *margined("-60", "-60", side="short")], (1, 1)),
        ("any", [*margined("-6"), *margined("-60", "-60", side="short")], (3, 3)),
        ("short", [], (0, 0)),
        ("long", margined("-6", None, "-1"), (1, 2)),
        ("short", [*margined("-6", None), *margined("-6", side="short")], (1, 1)),
        ("long", [*margined("-6"), position("Z", "long", "-6")], (1, 2)),
    ],
    ids=["at least", "one side", "any side", "empty", "one unknown", "the other side unknown", "margin unknown"],
)
def test_how_many_positions_of_a_side_have_lost_so_much(
    side: str, positions: Sequence[Position], expected: tuple[float, float]
) -> None:
    """−6 of 100 is 6%, and counts; a profit and −5.9 do not."""
    assert losing(side, positions) == expected


def test_how_many_lose_is_unknown_without_positions_and_has_no_end_while_an_account_is_missing() -> None:
    """The account that is down may hold any number."""
    down = account(None, None, name="b", quality="down", reason="timeout")
    up = account("1000", margined("-6"), name="a")
    assert losing("long", None) == UNKNOWN
    assert readings("positions.losing", ("long", "margin", 0.06), [(START, (up, down))]) == [(1, INF)]


# The rate


def bled(at: datetime, *profits: tuple[str, str | None], fills: Sequence[Fill] = (), wallet: str = "10000") -> Any:
    """An answer with a long position of each profit (None: it is unknown)."""
    held = [position(symbol, "long", profit) for symbol, profit in profits]
    total = sum((Decimal(profit) for _, profit in profits if profit is not None), Decimal(wallet))
    return at, (account(str(total), held, fills=fills),)


def rate(*observed: Any, restarts: bool = False, max_gap: int = 10 * MINUTE) -> list[tuple[float, float]]:
    return readings("positions.worst_bleed", (), observed, restarts=restarts, max_gap=max_gap)


@BOTH
def test_a_young_position_loses_over_at_least_a_quarter_of_each_window(restarts: bool) -> None:
    """−100 in six minutes are 1,000 an hour over 6, 400 over 15 and 100 over 60 minutes: 500 in the mean."""
    found = rate(
        bled(START), bled(after(minutes=1), ("A", "0")), bled(after(minutes=7), ("A", "-100")), restarts=restarts
    )
    assert found == [(0, 0), (0, 0), (pytest.approx(500), pytest.approx(500))]


@BOTH
def test_after_four_hours_each_window_is_whole(restarts: bool) -> None:
    """−10 a minute for 230 minutes, then −40: 15 minutes at 2,400 an hour, the hour at 1,050, four hours at 712.5."""
    profits, total = [], 0
    for minute in range(1, 252):
        total -= 40 if minute > 236 else 10
        profits.append((minute, total))
    observed = [bled(START, ("A", "0")), *(bled(after(minutes=at), ("A", str(made))) for at, made in profits)]
    found = rate(*observed, restarts=restarts)
    assert found[200] == UNKNOWN  # it is older than the observation, which is shorter than the longest window
    expected = (2400 + (15 * 40 + 45 * 10) + (15 * 40 + 225 * 10) / 4) / 3
    assert found[-1] == (pytest.approx(expected), pytest.approx(expected))


def test_partial_profit_taking_is_no_loss() -> None:
    """Half of a profit of 200 is realised: what is open falls by 100, and realised rises by 100."""
    taken = fill("f", after(minutes=6), "A", "sell", "1", "100", realized_pnl="100", fee="0", fee_currency="USDT")
    found = rate(
        bled(START),
        bled(after(minutes=1), ("A", "200")),
        bled(after(minutes=7), ("A", "100"), fills=[taken], wallet="10100"),
    )
    # +200 in all, over 6, 15 and 60 minutes
    assert found[-1] == (pytest.approx(-1000), pytest.approx(-1000))


def test_a_position_that_is_opened_again_loses_since_then() -> None:
    """It realised −300 before it was flat, which does not count for what was opened after it."""
    closed = fill("c", after(minutes=3), "A", "sell", "1", "100", realized_pnl="-300", fee="0", fee_currency="USDT")
    found = rate(
        bled(START),
        bled(after(minutes=1), ("A", "-300")),
        bled(after(minutes=4), fills=[closed], wallet="9700"),
        bled(after(minutes=5), ("A", "0"), wallet="9700"),
        bled(after(minutes=11), ("A", "-100"), wallet="9700"),
    )
    assert found[3:] == [(0, 0), (pytest.approx(500), pytest.approx(500))]


def test_the_fastest_of_several_counts_and_an_unknown_one_leaves_a_lower_bound() -> None:
    """B is older than the observation; A has lost 100 in six minutes; all gain: negative."""
    found = rate(
        bled(START, ("B", "0")), bled(after(minutes=1), ("A", "0"), ("B", "0")),
        bled(after(minutes=7), ("A", "-100"), ("B", "0")),
    )  # fmt: skip
    assert found == [UNKNOWN, (0, INF), (pytest.approx(500), INF)]


@pytest.mark.parametrize("now", [(("A", None),), ()], ids=["no-profit", "down"])
def test_the_rate_is_unknown_without_a_profit_now(now: Any) -> None:
    """Or if the account is down."""
    down = account(None, None, quality="down", reason="timeout")
    last = bled(after(minutes=7), *now) if now else (after(minutes=7), (down,))
    assert rate(bled(START), bled(after(minutes=1), ("A", "0")), last)[-1] == UNKNOWN


def test_a_gap_where_a_window_begins_is_unknown() -> None:
    """Nothing was observed within `max_gap` before the hour began; later windows are known."""
    minutes = [*range(0, 200), *range(230, 300)]
    observed = [bled(START), *(bled(after(minutes=each), ("A", str(1 - each))) for each in minutes[1:])]
    found = dict(zip(minutes, rate(*observed, max_gap=5 * MINUTE), strict=True))
    assert found[199] == (pytest.approx(60), pytest.approx(60))
    assert found[270] == UNKNOWN  # an hour before it is 210
    assert found[299] == (pytest.approx(60), pytest.approx(60))  # an hour before it is 239


def test_windows_begin_at_a_reset() -> None:
    """What was lost before it is forgotten: −100 in the six minutes since, whatever the position's age."""
    used = SignalRef("positions.worst_bleed")
    past, reader = history_of([used], 6 * HOUR), ColumnReader([used])
    for at, accounts in (bled(START, ("A", "-900")), bled(after(minutes=1), ("A", "-1000"))):
        past.observe(ScopeView(to_micros(at), True, accounts, {}, None))
    past.rebase(accept=False)
    at, accounts = bled(after(minutes=7), ("A", "-1100"))
    view = ScopeView(to_micros(at), True, accounts, {}, None)
    past.observe(view)
    assert reader.read(past, view).lo == reader.read(past, view).hi == [pytest.approx(500)]


def naive(made: Sequence[int], opened: int, now: int) -> float:
    """The formula of the rate by its words, of minutes: `made` is the P&L at each minute."""
    rates = []
    for window in (15, 60, 240):
        begun = max(now - window, opened)
        rates.append(-(made[now] - made[begun]) / (max(now - begun, window / 4) / 60))
    return sum(rates) / 3


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=300, max_size=300), st.integers(1, 280))
def test_the_rate_is_the_mean_over_three_windows(steps: list[int], opened: int) -> None:
    """Of a position that was opened at some minute, at every tenth minute after it."""
    made, total = [], 0
    for minute, step in enumerate(steps):
        total += step if minute > opened else 0
        made.append(total)
    observed = [
        bled(after(minutes=minute), *([("A", str(made[minute]))] if minute >= opened else [])) for minute in range(300)
    ]
    found = rate(*observed)
    for now in range(opened, 300, 10):
        assert found[now] == (pytest.approx(naive(made, opened, now), abs=1e-9),) * 2


def test_a_stage_gets_the_rate_of_each_position_and_a_restart_keeps_it() -> None:
    """For the conditions of a close: A loses, B gains, and both are known after a restart."""
    needed = SignalRef("position.bleed_rate")
    past = history_of([needed], 6 * HOUR)
    observed = (
        bled(START), bled(after(minutes=1), ("A", "0"), ("B", "0")), bled(after(minutes=7), ("A", "-100"), ("B", "50")),
    )  # fmt: skip
    for at, accounts in observed:
        view = ScopeView(to_micros(at), True, accounts, {}, None)
        past.observe(view)
    for history in (past, restarted(past, history_of([needed], 6 * HOUR))):
        if history is not past:
            history.observe(view)
        rates = {each.position.symbol: each.bleed_rate for each in candidates(view, None, bleed_rates(history))}
        assert rates == {"A": pytest.approx(500), "B": pytest.approx(-250)}
    assert bleed_rates(history_of([])) == {}
    assert BleedRates.reach(MINUTE) == 4 * HOUR + MINUTE


def test_of_no_account_nothing_is_known() -> None:
    """An account of the scope is not in the snapshot."""
    assert rate((START, ())) == [UNKNOWN]
